"""The stages of a run, file to file; and outliers of any images as a folder of PNGs.

Each stage is a module: its docstring says what it reads and writes, `depends_on` what of the configuration its
result depends on, and `make` does the work. `planning.order` says which stages a run has, `stages`
runs them. `any_images` works with a bundle, not with a run.

A run's folder holds a folder for each stage, with its name, and beside it `<stage>.done.json` once the stage
is complete. state.pt and *.state.pt are there while a stage is in training.
"""

from .any_images.archive import FORMATS, pack_folder
from .any_images.generate_folder import GeneratedFolder, Target, file_names, generate_folder, source_labels
from .labels import read_labels
from .planning.estimate import StageEstimate, estimate
from .planning.order import stage_names
from .sets import without_absent_sets
from .stages import STAGES, adopt_stages, config_hash, run_stages
from .workspace import Metrics, PipelineError, Progress, Workspace, absolute_source, from_main, is_main_process

__all__ = [
    "FORMATS",
    "STAGES",
    "GeneratedFolder",
    "Metrics",
    "PipelineError",
    "Progress",
    "StageEstimate",
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
    "pack_folder",
    "read_labels",
    "run_stages",
    "source_labels",
    "stage_names",
    "without_absent_sets",
]
