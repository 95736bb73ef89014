"""Stage `tuning`: tries as many settings for ours as for every other method, and scores all sets with the best.

Reads what stage `baselines` reads, outliers/ and features/; writes tuning/<key>.json (the trials) and
tuning/<key>.safetensors (the scores). Trials are compared on ID images that they were not fitted on, and on the
validation sets or on left-out clusters: no image of a test set is read.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.numpy import load_file as load_arrays

from ..baselines import BASELINES, Images, Reference
from ..config.nodes import DetectorConfig
from ..config.tree import BaselineConfig, RunConfig
from ..detection.metrics import auroc
from ..detection.score import SDScore
from ..detection.training import train_detector
from ..evaluation import BaselineScores
from ..evaluation.report import Trial
from ..evaluation.tuning import Setting, Split, best_trial, draw_trials, left_out_splits, validation_split
from ..files import write_atomically
from ..nn.batches import encode
from ..nn.detector import Detector
from ..nn.loop import Execution, TrainingDiverged
from . import baselines
from .backbone import load_backbone
from .baselines import Inputs, Stopped, own_settings
from .outliers import kinds_needed, outlier_labels, read_outliers
from .shared.labels import source_labels
from .shared.sets import NamedSet
from .workspace import Metrics, Progress, Settings, Stage, Workspace, has_detector, write_arrays

OURS = "ours+tuned"
# the values to try for ours: of Eq. 6, and of the detector's training
SCORE_SEARCH: dict[str, tuple[Any, ...]] = {
    "k": (2, 5, 10, 20, 50),
    "alpha": (0.0, 0.003, 0.01, 0.03, 0.1, 0.3),
    "normalize": (True, False),
}
FROZEN_BLOCKS = (0, -2, -1)
RATE_FACTORS = (0.1, 0.3, 1.0)
RECONSTRUCTED_ID = (0.0, 0.5)

OnShare = Callable[[float], None]


def depends_on(config: RunConfig) -> Settings:
    """Methods, networks and sets, the outliers, the score, and `evaluation.tuning`."""
    own = config.evaluation.model_dump(mode="json", include={"tuning", "score"})
    return baselines.depends_on(config) | own | {"kinds": kinds_needed(config)}


def make(work: Workspace) -> Metrics | None:
    """Tunes ours, and every method that has something to choose; a stop keeps the trials that are done."""
    out = work.stage_folder("tuning")
    tuned = _tuned(work)
    for i, one in enumerate(tuned):

        def report_or_stop(share: float, done: int = i) -> None:
            if work.should_stop():
                raise Stopped
            share = (done + share) / len(tuned)
            work.on_progress(Progress("tuning", round(1000 * share), 1000, share, None, {}))

        scores = out / f"{one.key}.safetensors"
        if scores.is_file():
            continue
        try:
            report_or_stop(0.0)
            trials = _make_trials(work, one, lambda share: report_or_stop(0.8 * share))
            best = trials[best_trial(trials)].settings
            write_arrays(scores, one.final_scores(best, lambda share: report_or_stop(0.8 + 0.2 * share)))
        except Stopped:
            return None
    return {"tuned": len(tuned)}


def tuned_scores(work: Workspace) -> dict[str, BaselineScores]:
    """The tuned methods, by the key of the method as its authors have it; ours by `OURS`."""
    found = {}
    for one in _tuned(work) if work.config.evaluation.tuning is not None else ():
        trials = _read_trials(work, one)
        settings = dict(one.own) | trials[best_trial(trials)].settings
        scores = load_arrays(work.folder / "tuning" / f"{one.key}.safetensors")
        found[one.of] = BaselineScores(one.key, one.title, settings, scores, tuple(trials))
    return found


def _make_trials(work: Workspace, one: _Tuned, on_share: OnShare) -> list[Trial]:
    """Makes the trials that are missing, and keeps each."""
    done, splits, n = _read_trials(work, one), _splits(work), len(one.trials)
    # only these sets: all choices are made before a test set is scored
    sets = [named for named in one.inputs.sets if named.role == "validation"]
    for i in range(len(done), n):
        values = []
        try:
            for j, split in enumerate(splits):

                def part(share: float, before: float = i + j / len(splits)) -> None:
                    on_share((before + share / len(splits)) / n)

                inside, *outside = one.trial_scores(one.trials[i], split, sets, part)
                values += [auroc(inside, other) for other in outside]
            value = float(np.mean(values))
        except TrainingDiverged:
            value = None
        done.append(Trial(settings=one.trials[i], value=value))
        write_atomically(_path(work, one), json.dumps([trial.model_dump() for trial in done], indent=1) + "\n")
        on_share((i + 1) / n)
    return done


def _read_trials(work: Workspace, one: _Tuned) -> list[Trial]:
    path = _path(work, one)
    return [Trial(**kept) for kept in json.loads(path.read_text("utf-8"))] if path.is_file() else []


def _path(work: Workspace, one: _Tuned) -> Path:
    return work.folder / "tuning" / f"{one.key}.json"


def _splits(work: Workspace) -> list[Split]:
    """The parts of `work.sources` that trials are fitted and measured on."""
    tuning, labels = work.config.evaluation.tuning, source_labels(work)
    assert tuning is not None
    if tuning.criterion == "left_out":
        return left_out_splits(labels, tuning.holdout, tuning.left_out_pairs, tuning.seed)
    return [validation_split(labels, tuning.holdout, tuning.seed)]


# --- what is tuned ----------------------------------------------------------------------------------------


class _Tuned(ABC):
    """One method to tune.

    Attributes:
        of: The key of the method as its authors have it.
        key, title: With the best settings.
        own: The settings that the report names besides those that are tried.
    """

    of: str
    key: str
    title: str
    own: Mapping[str, Any]

    def __init__(self, work: Workspace, inputs: Inputs) -> None:
        self.work, self.inputs = work, inputs

    @cached_property
    def trials(self) -> list[Setting]:
        """The settings to try, the method's own first."""
        tuning = self.work.config.evaluation.tuning
        assert tuning is not None
        n_fit = min(len(split.fit) for split in _splits(self.work))
        space, own = self._space_and_own()
        space = {name: [one for one in values if name != "k" or one < n_fit] for name, values in space.items()}
        return draw_trials(space, own, tuning.trials, tuning.seed)

    @abstractmethod
    def _space_and_own(self) -> tuple[Mapping[str, Sequence[Any]], Mapping[str, Any]]:
        """The values to try of each setting, and the method's own."""

    @abstractmethod
    def trial_scores(
        self, setting: Setting, split: Split, sets: Sequence[NamedSet], on_share: OnShare
    ) -> list[np.ndarray]:
        """Fitted on a split: the scores of `inside`, then of `outside` or, without one, of each of the sets."""

    @abstractmethod
    def final_scores(self, setting: Setting, on_share: OnShare) -> dict[str, np.ndarray]:
        """Fitted on all of `work.sources`: the scores of every set, float64 (N,)."""


def _tuned(work: Workspace) -> list[_Tuned]:
    """Ours, and each method that has something to choose, once for each network."""
    inputs = Inputs(work)
    found: dict[str, _Tuned] = {OURS: _OursTuned(work, inputs)}
    for config in work.config.evaluation.baselines:
        if BASELINES[config.method].search:
            one = _MethodTuned(work, inputs, config)
            found.setdefault(one.key, one)
    return list(found.values())


class _MethodTuned(_Tuned):
    """A method of `evaluation.baselines`."""

    def __init__(self, work: Workspace, inputs: Inputs, config: BaselineConfig) -> None:
        super().__init__(work, inputs)
        self.config, self.own = config, own_settings(config)
        self.of, self.key, self.title = config.key, config.key_with("tuned"), config.title_with("tuned")

    def _space_and_own(self) -> tuple[Mapping[str, Sequence[Any]], Mapping[str, Any]]:
        space: dict[str, Any] = dict(BASELINES[self.config.method].search)
        if "frozen_blocks" in space:
            n_blocks = len(self.inputs.networks[self.config.network].blocks)
            space["frozen_blocks"] = _from_the_end(space["frozen_blocks"], n_blocks)
        return space, self.config.model_dump()

    def trial_scores(
        self, setting: Setting, split: Split, sets: Sequence[NamedSet], on_share: OnShare
    ) -> list[np.ndarray]:
        whole = self._reference(on_share)
        outliers = None if whole.outliers is None else whole.outliers[split.fit]
        known = _rows(whole.known, split.fit)
        reference = replace(whole, known=known, labels=split.labels, outliers=outliers)
        method = self._with(setting).build().fit(reference, on_share)
        asked = [_rows(whole.known, split.inside)]
        if split.outside is not None:
            asked.append(_rows(whole.known, split.outside))
        else:
            asked += [self.inputs.images(one.images, one.key, self.config) for one in sets]
        return [method.score(one) for one in asked]

    def final_scores(self, setting: Setting, on_share: OnShare) -> dict[str, np.ndarray]:
        if setting == self.trials[0]:
            return load_arrays(self.work.folder / "baselines" / f"{self.of}.safetensors")
        method = self._with(setting).build().fit(self._reference(on_share), on_share)
        return self.inputs.scores(method, self.config)

    def _with(self, setting: Setting) -> BaselineConfig:
        return self.config.model_copy(update=setting)

    def _reference(self, on_share: OnShare) -> Reference:
        # outliers of an early generator were made and kept by stage `baselines`
        return self.inputs.reference(self.config, lambda share: on_share(0.0))


class _OursTuned(_Tuned):
    """Our own method: the detector's training, and Eq. 6."""

    of = key = OURS
    title = "SD outliers, tuned"
    own: Mapping[str, Any] = {}

    @property
    def _detector(self) -> DetectorConfig:
        assert self.work.config.detector is not None
        return self.work.config.detector

    def _space_and_own(self) -> tuple[Mapping[str, Sequence[Any]], Mapping[str, Any]]:
        rate = self._detector.optimizer.learning_rate
        space: dict[str, Any] = {
            **SCORE_SEARCH,
            "frozen_blocks": _from_the_end(FROZEN_BLOCKS, len(load_backbone(self.work).blocks)),
            "learning_rate": [factor * rate for factor in RATE_FACTORS],
        }
        if "right" in kinds_needed(self.work.config):  # there are pictures to rebuild ID images by
            space["reconstructed_id"] = RECONSTRUCTED_ID
        own = self.work.config.evaluation.score.model_dump() | self._detector.model_dump()
        return space, own | {"learning_rate": rate}

    def trial_scores(
        self, setting: Setting, split: Split, sets: Sequence[NamedSet], on_share: OnShare
    ) -> list[np.ndarray]:
        images = self.work.sources.images
        asked = [images[split.inside]]
        if split.outside is not None:
            asked.append(images[split.outside])
        else:
            asked += [one.images.images for one in sets]
        # outliers of the images that are fitted on, without those that were to look like a left-out cluster
        y, targets = source_labels(self.work), _target_labels(self.work)
        label_of = np.full(len(images), -1)
        label_of[split.fit] = split.labels
        outlier_labels = label_of[np.arange(len(targets)) % len(images)]
        outliers = np.flatnonzero((outlier_labels >= 0) & np.isin(targets, y[split.fit]))
        score = self._trained(setting, split.fit, split.labels, outliers, outlier_labels[outliers], on_share)
        return [score(one, None) for one in asked]

    def final_scores(self, setting: Setting, on_share: OnShare) -> dict[str, np.ndarray]:
        work, sets = self.work, self.inputs.sets
        if self._detector_with(setting) == self._detector_with(self.trials[0]):
            # the detector is the run's own; only Eq. 6 may differ
            banks = load_arrays(work.folder / "features" / "features.safetensors")
            found = load_arrays(work.folder / "features" / "ood_features.safetensors")
            known, outliers = (banks[f"{bank}_features"].astype(np.float32) for bank in ("id", "outlier"))
            eq_6 = self._eq_6(setting).fit(known, outliers, work.sources.ids, device=work.config.device)
            return {
                one.key: eq_6.score(found[one.key].astype(np.float32), one.images.ids).total for one in sets
            }
        y, y_out = source_labels(work), outlier_labels(work)
        score = self._trained(setting, np.arange(len(y)), y, np.arange(len(y_out)), y_out, on_share)
        return {one.key: score(one.images.images, one.images.ids) for one in sets}

    def _detector_with(self, setting: Setting) -> DetectorConfig:
        c = self._detector
        update = {key: value for key, value in setting.items() if key in DetectorConfig.model_fields}
        optimizer = c.optimizer.model_copy(update={"learning_rate": setting["learning_rate"]})
        return c.model_copy(update=update | {"optimizer": optimizer})

    def _eq_6(self, setting: Setting) -> SDScore:
        return SDScore(**{key: setting[key] for key in SCORE_SEARCH})

    def _trained(
        self,
        setting: Setting,
        rows: np.ndarray,
        labels: np.ndarray,
        outlier_rows: np.ndarray,
        outlier_labels: np.ndarray,
        on_share: OnShare,
    ) -> Callable[[np.ndarray, np.ndarray | None], np.ndarray]:
        """Trains a detector on some ID images and some outliers; returns its score of (images, ids)."""
        work, config = self.work, self._detector_with(setting)
        device, known = work.config.device, work.sources.take(rows)
        outliers = read_outliers(work, "wrong")[outlier_rows]
        rebuilt = read_outliers(work, "right")[rows] if config.reconstructed_id else None
        torch.manual_seed(config.seed)
        detector = Detector(load_backbone(work), int(labels.max()) + 1, config.zero_heads)
        execution = Execution(device, None, lambda r: on_share(r.progress), work.should_stop)
        pictures = known.images, labels, outliers, outlier_labels
        if not train_detector(detector, *pictures, config, execution, rebuilt):
            raise Stopped
        encoder = detector.encoder
        banks = encode(encoder, known.images, device), encode(encoder, outliers, device)
        eq_6 = self._eq_6(setting).fit(*banks, known.ids, device=device)
        return lambda images, ids: eq_6.score(encode(encoder, images, device), ids).total


# --- rows and values --------------------------------------------------------------------------------------


def _rows(images: Images, rows: np.ndarray) -> Images:
    """Some rows of every column."""
    columns = {field.name: getattr(images, field.name) for field in fields(Images)}
    return Images(**{name: None if column is None else column[rows] for name, column in columns.items()})


def _target_labels(work: Workspace) -> np.ndarray:
    """The wrong label of each outlier, int64 (M,)."""
    table = pq.read_table(work.folder / "outliers" / "outliers.parquet", columns=["target_label"])
    return table["target_label"].to_numpy()


def _from_the_end(values: Sequence[int], n_blocks: int) -> list[int]:
    """Numbers of blocks; one below 0 counts from the last block."""
    return sorted({max(0, n_blocks + one) if one < 0 else one for one in values})


STAGE = Stage(
    make,
    depends_on,
    title="Tuning",
    is_wanted=lambda config: has_detector(config) and config.evaluation.tuning is not None,
    reads_sets=True,
    memory_settings=("detector.batch_size",),
)
