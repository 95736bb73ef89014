"""The stages of a run, file to file; and outliers of any images as a folder of PNGs.

A run's folder holds one folder for each stage and, once it is complete, `<stage>.done.json` beside it:

    encoder         encoder.safetensors, projection.safetensors      the network before detector training
    pseudo_labels   pseudo_labels.parquet (id, label, confidence)     and, from SCAN, clusterer.safetensors
    clusterer       clusterer.safetensors                             where labels did not come from SCAN
    diffusion       unet/                                             a `diffusers.UNet2DModel`
    outliers        wrong/, right/ (shards of pictures), outliers.parquet
    detector        detector.safetensors, snapshots.*                 f, g_bin, g_in, g_out
    features        features.safetensors, ood_features.safetensors    and no_training/, the same of the encoder
    controls        right_label/, noise/, ...                         features of detectors trained otherwise
    evaluation      scores.parquet, report.json
    bundle          a `sdviz.bundle.Bundle`

state.pt, *.state.pt and *.partial are there while a stage is in training.
"""

from .archive import FORMATS, pack_folder
from .estimate import StageEstimate, estimate
from .generate_folder import GeneratedFolder, Target, file_names, generate_folder, source_labels
from .sets import without_absent_sets
from .stages import STAGES, adopt_stages, config_hash, run_stages, stage_names
from .workspace import (
    Metrics,
    PipelineError,
    Progress,
    Workspace,
    absolute_source,
    from_main,
    is_main_process,
    read_labels,
    write_atomically,
)

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
    "write_atomically",
]
