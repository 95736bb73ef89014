"""Which stages a run has, and in which order."""

from __future__ import annotations

from ...config.tree import RunConfig


def stage_names(config: RunConfig) -> tuple[str, ...]:
    """The stages of a run with that configuration, in order."""
    detector, evaluation = config.detector, config.evaluation
    has_detector = detector is not None
    wanted = {
        "encoder": config.encoder is not None,
        "pseudo_labels": True,
        "clusterer": config.labels.source != "scan",
        "diffusion": True,
        "outliers": has_detector,
        "sd_test": has_detector and evaluation.sd_test is not None,
        "backbone": detector is not None and detector.backbone is not None,
        "detector": has_detector,
        "features": has_detector,
        "controls": has_detector and bool(evaluation.controls),
        "baselines": has_detector and bool(evaluation.baselines),
        "evaluation": has_detector,
        "bundle": True,
    }
    return tuple(name for name, is_wanted in wanted.items() if is_wanted)
