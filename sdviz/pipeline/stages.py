"""The registry of stages: which there are, their order, and which of them a run has."""

from __future__ import annotations

from ..config.tree import RunConfig
from ..files import FORMAT_VERSION
from ..text import tree_hash
from . import (
    backbone,
    baseline_scores,
    baselines,
    bundle,
    clusterer,
    controls,
    detector,
    diffusion,
    encoder,
    evaluation,
    features,
    generated,
    outliers,
    pseudo_labels,
    sd_test,
    tuning,
)

_IN_ORDER = (
    encoder,
    pseudo_labels,
    clusterer,
    diffusion,
    outliers,
    sd_test,
    backbone,
    detector,
    controls,
    features,
    baselines,
    tuning,
    baseline_scores,
    evaluation,
    generated,
    bundle,
)
# a stage is named after its module
STAGES = {module.__name__.rpartition(".")[2]: module.STAGE for module in _IN_ORDER}


def stage_names(config: RunConfig) -> tuple[str, ...]:
    """The stages of a run with this configuration, in order."""
    return tuple(name for name, stage in STAGES.items() if stage.is_wanted(config))


def config_hash(config: RunConfig, stage: str = "bundle") -> str:
    """SHA-256 of the settings that a stage depends on; the device is never one of them."""
    return tree_hash({"format_version": FORMAT_VERSION} | STAGES[stage].depends_on(config))
