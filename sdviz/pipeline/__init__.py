"""The stages of a run, file to file; and outliers of any images as a folder of PNGs.

Each stage is a module with a `STAGE`: `make` does the work, `depends_on` gives the settings that decide the
result, and the module's docstring says which files it reads and writes. `stages` lists the stages in order,
`running` runs them, `shared` is what several of them use. `planning` checks and estimates a run before it
begins. `any_images` works with a bundle.

A run's folder holds a folder per stage, and beside it `<stage>.done.json` once the stage is complete. While a
stage trains, its folder also holds state.pt or *.state.pt.
"""

from ..data.roles import absolute_source
from .any_images.archive import FORMATS, pack_folder
from .any_images.generate_folder import Target, file_names, generate_folder
from .planning.estimate import estimate
from .planning.preflight import jpeg_warning
from .running import adopt_stages, run_stages
from .shared.labels import read_labels
from .shared.sets import some_images, without_absent_sets
from .stages import STAGES, config_hash, stage_names
from .workspace import PipelineError, Progress, Workspace, from_main, is_main_process

__all__ = [
    "FORMATS",
    "STAGES",
    "PipelineError",
    "Progress",
    "Target",
    "Workspace",
    "absolute_source",
    "adopt_stages",
    "config_hash",
    "estimate",
    "file_names",
    "from_main",
    "generate_folder",
    "is_main_process",
    "jpeg_warning",
    "pack_folder",
    "read_labels",
    "run_stages",
    "some_images",
    "stage_names",
    "without_absent_sets",
]
