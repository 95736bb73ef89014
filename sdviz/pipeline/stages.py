"""Which stages a run has, in which order, and what each depends on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config.tree import RunConfig
from ..data import DataError
from .baselines import make_baselines
from .bundle import make_bundle
from .clusters import make_backbone, make_clusterer, make_encoder, make_pseudo_labels
from .detecting import make_controls, make_detector, make_evaluation, make_features
from .generation import CONTROLS_OF_REBUILT, kinds_needed, make_noise_predictor, make_outliers, make_sd_test
from .preflight import check_run
from .workspace import (
    Metrics,
    PipelineError,
    Workspace,
    from_main,
    is_main_process,
    test_split,
    tree_hash,
    write_atomically,
)

STAGES: dict[str, Callable[[Workspace], Metrics | None]] = {
    "encoder": make_encoder,
    "pseudo_labels": make_pseudo_labels,
    "clusterer": make_clusterer,
    "diffusion": make_noise_predictor,
    "outliers": make_outliers,
    "sd_test": make_sd_test,
    "backbone": make_backbone,
    "detector": make_detector,
    "features": make_features,
    "controls": make_controls,
    "baselines": make_baselines,
    "evaluation": make_evaluation,
    "bundle": make_bundle,
}
# under `accelerate launch` all processes work at these; the main one alone does the rest
_SHARED_STAGES = {"diffusion", "outliers", "sd_test"}

_ENCODER = {"data", "seed", "views", "encoder"}
_LABELS = _ENCODER | {"labels"}
_OUTLIERS = _LABELS | {"diffusion", "defaults", "outliers"}
_DETECTOR = _OUTLIERS | {"detector"}
# the branches of the configuration that a stage's result depends on
_DEPENDS_ON = {
    "encoder": _ENCODER,
    "pseudo_labels": _LABELS,
    "clusterer": _LABELS | {"clusterer"},
    "diffusion": _LABELS | {"diffusion"},
    "outliers": _OUTLIERS,
    "sd_test": _OUTLIERS,
    "backbone": {"data", "seed", "views"},
    "detector": _DETECTOR,
    "features": _DETECTOR,
    "controls": _DETECTOR,
    "baselines": _DETECTOR,
    "evaluation": _DETECTOR | {"evaluation"},
    "bundle": _DETECTOR | {"profile", "clusterer", "evaluation", "bundle"},
}
_SETS = {"near", "far", "validation", "classes", "sd_test", "limit", "seed"}
# of evaluation, the first stages need to know only which pictures will be wanted
_OF_EVALUATION = {
    "outliers": {"controls"},
    "sd_test": {"sd_test", "seed"},
    "detector": _SETS,
    "features": _SETS,
    "controls": _SETS | {"controls"},
    "baselines": _SETS | {"baselines"},
}
# keys that were added later, and what they are where nobody sets them
_ADDED: dict[tuple[str, ...], object] = {
    ("encoder", "pretraining", "views"): None,
    ("outliers", "limit"): None,
    ("diffusion", "phase_means"): False,
    ("detector", "backbone"): None,
    ("evaluation", "classes"): {},
    ("evaluation", "sd_test"): None,
    ("evaluation", "baselines"): [],
    ("bundle", "weights"): "float32",
}


def stage_names(config: RunConfig) -> tuple[str, ...]:
    """The stages of a run with that configuration, in order."""
    left_out = set()
    if config.encoder is None:
        left_out.add("encoder")
    if config.detector is None or config.detector.backbone is None:
        left_out.add("backbone")
    if config.evaluation.sd_test is None:
        left_out.add("sd_test")
    if not config.evaluation.baselines:
        left_out.add("baselines")
    if config.labels.source == "scan":
        left_out.add("clusterer")
    if config.detector is None:
        left_out |= {"outliers", "sd_test", "detector", "features", "controls", "baselines", "evaluation"}
    elif not config.evaluation.controls:
        left_out.add("controls")
    return tuple(name for name in STAGES if name not in left_out)


def config_hash(config: RunConfig, stage: str = "bundle") -> str:
    """SHA-256 of the part of the configuration that a stage depends on; the device is in none.

    What was added later stands in it only where it is unusual, so that older runs keep their hashes.
    """
    tree = config.model_dump(mode="json", include=_DEPENDS_ON[stage])
    # a detector's test images are missing from its training set: without one, a set is trained on whole
    if config.detector is None and stage != "bundle" and _has_no_test_split(config):
        tree["data"]["holdout"] = None
    # labels that are given know no encoder
    if config.labels.source not in ("scan", "kmeans") and stage in ("pseudo_labels", "clusterer", "diffusion"):
        tree = {key: value for key, value in tree.items() if key not in ("views", "encoder")}
    if stage in _OF_EVALUATION:
        tree["evaluation"] = config.evaluation.model_dump(mode="json", include=_OF_EVALUATION[stage])
    if stage == "backbone" and config.detector is not None and config.detector.backbone is not None:
        tree["backbone"] = config.detector.backbone.model_dump(mode="json")
    if "diffusion" in tree and (stage == "diffusion" or config.diffusion.unet.unshuffle_factor == 1):
        # training knows nothing of it, and where nothing is unshuffled there is nothing to know
        tree["diffusion"].pop("phase_means")
    _drop_unset(tree)
    # pictures under the right label are made for a control or for the detector, and have features then
    rebuilt = "right" in kinds_needed(config)
    if stage == "outliers":
        for_controls = bool(CONTROLS_OF_REBUILT & set(config.evaluation.controls))
        # as it stood there when these were all the controls
        tree["evaluation"]["controls"] = ["no_training", "right_label", "noise"] if for_controls else []
        if rebuilt and not for_controls:
            tree["outliers"]["rebuilt"] = True
    if stage == "features" and not rebuilt:
        tree["outliers"]["rebuilt"] = False
    return tree_hash(tree)


def _drop_unset(tree: dict[str, Any]) -> None:
    """Takes the later keys out of a tree where they are as if they were not there."""
    for path, unset in _ADDED.items():
        node = tree
        for key in path[:-1]:
            node = node.get(key) or {}
        if node.get(path[-1], unset) == unset:
            node.pop(path[-1], None)


def _has_no_test_split(config: RunConfig) -> bool:
    try:
        return test_split(config.data) is None
    except DataError:  # its stages are complete, or will say so themselves
        return False


def run_stages(
    work: Workspace, on_stage: Callable[[str, bool], None] | None = None, until: str | None = None
) -> bool:
    """Runs every stage that is not complete yet.

    Under `accelerate launch` the processes share the diffusion training and the making of outliers; the
    main one does the rest, and what it finds and decides counts for all.

    Args:
        work: The run.
        on_stage: Told of each stage before it starts, and whether it is skipped as complete.
        until: The last stage to run; None runs all.

    Returns:
        Whether all are complete; False where `work.should_stop` or `until` ended it.

    Raises:
        PipelineError: A stage was completed under another configuration, or there is no stage `until`.
    """
    main, names, checked = is_main_process(), stage_names(work.config), False
    if until is not None and until not in names:
        raise PipelineError(f"no stage {until!r} in this run; it has {', '.join(names)}")
    for name in names:
        marker = work.folder / f"{name}.done.json"
        wanted = config_hash(work.config, name)
        if from_main(marker.is_file(), work.config.device):
            if json.loads(marker.read_text("utf-8"))["config_sha256"] != wanted:
                raise PipelineError(f"{work.folder}: stage {name} was made with another configuration")
            if on_stage is not None:
                on_stage(name, True)
            if name == until and name != names[-1]:
                return False
            continue
        if from_main(work.should_stop(), work.config.device):
            return False
        if on_stage is not None:
            on_stage(name, False)
        if main and not checked:
            check_run(work.config, names[names.index(name) :], len(work.images))
            checked = True
        metrics = STAGES[name](work) if main or name in _SHARED_STAGES else None
        if main and metrics is not None:
            text = json.dumps({"config_sha256": wanted, "metrics": metrics}, indent=1)
            write_atomically(marker, text + "\n")
            # the resume state is several times as large as what the stage made
            for state in (work.folder / name).rglob("*state.pt"):
                state.unlink()
        # behind the marker: no other process goes on, or ends, before it is there
        if not from_main(metrics is not None, work.config.device):
            return False
        if name == until and name != names[-1]:
            return False
    return True


def adopt_stages(folder: Path, other: Path, config: RunConfig) -> list[str]:
    """Takes over from another run's folder every complete stage that this configuration would make alike.

    Args:
        folder: Of the new run.
        other: Of the run to take from; nothing in it is changed.
        config: Of the new run.

    Returns:
        The stages taken, in order.
    """
    taken = []
    for name in stage_names(config):
        marker = other / f"{name}.done.json"
        if not marker.is_file() or (folder / marker.name).exists():
            continue
        if json.loads(marker.read_text("utf-8"))["config_sha256"] != config_hash(config, name):
            continue
        if (other / name).is_dir():
            shutil.copytree(other / name, folder / name, dirs_exist_ok=True)
        write_atomically(folder / marker.name, marker.read_text("utf-8"))
        taken.append(name)
    return taken
