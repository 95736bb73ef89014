"""Stage `tuning`: tries as many settings for ours as for every other method, and trains with the best.

Reads what stage `baselines` reads, outliers/ and the validation sets; writes tuning/<key>.json, the trials, and
tuning/<key>.safetensors, the network, where the best settings are not the method's own. Trials are compared on
ID images that they were not fitted on, and on the validation sets or left-out clusters: never on a test set.
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
from pydantic import TypeAdapter
from safetensors.torch import load_file

from ..baselines import BASELINES, Images
from ..baselines.finetuning import Trained
from ..baselines.interface import OnProgress
from ..config.nodes import DetectorConfig
from ..config.tree import BaselineConfig, RunConfig
from ..detection.metrics import auroc
from ..detection.score import SDScore
from ..detection.training import train_detector
from ..evaluation.report import Trial
from ..evaluation.tuning import Setting, Split, best_trial, draw_trials, left_out_splits, validation_split
from ..files import read_json, write_atomically
from ..nn.detector import Detector
from ..nn.encoder import Encoder
from ..nn.feature_cache import kept_features
from ..nn.loop import Execution, TrainingDiverged
from . import baselines
from .backbone import load_backbone
from .baselines import Inputs, Stopped, fitted, own_settings, report_or_stop, weights_file
from .detector import load_detector, scoring_encoder
from .outliers import kinds_needed, outlier_labels, read_outliers
from .shared import sets
from .shared.labels import source_labels
from .shared.sets import NamedSet
from .shared.shards import reencode
from .workspace import Metrics, PipelineError, Settings, Stage, Workspace, has_detector, write_network

OURS = "ours+tuned"
_TRIALS = TypeAdapter(list[Trial])
# the values to try for ours: of Eq. 6, and of the detector's training
SCORE_SEARCH: dict[str, tuple[Any, ...]] = {
    "k": (2, 5, 10, 20, 50),
    "alpha": (0.0, 0.003, 0.01, 0.03, 0.1, 0.3),
    "normalize": (True, False),
}
RATE_FACTORS = (0.1, 0.3, 1.0)
RECONSTRUCTED_ID = (0.0, 0.5)


def depends_on(config: RunConfig) -> Settings:
    """Methods, networks, outliers, the score, `evaluation.tuning`, and the validation sets."""
    e = config.evaluation
    own = e.model_dump(mode="json", include={"tuning", "score"})
    classes = {name: e.classes[name] for name in e.validation if name in e.classes}
    no_test = {"near": (), "far": (), "sd_test": None, "classes": classes}
    validation = config.model_copy(update={"evaluation": e.model_copy(update=no_test)})
    own |= {"kinds": kinds_needed(config)}
    if config.detector is not None:  # which its training does not depend on
        own["interpolation"] = config.detector.interpolation
    return baselines.depends_on(config) | sets.depends_on(validation) | own


def make(work: Workspace) -> Metrics | None:
    """Tunes ours, and every method that has something to choose; a stop keeps the trials that are done."""
    work.stage_folder("tuning")
    tuned = tuned_methods(work, Inputs(work))
    for i, one in enumerate(tuned):
        on_progress = report_or_stop(work, "tuning", i, len(tuned))
        try:
            on_progress(0.0)
            _make_trials(work, one, _part(on_progress, 0.0, 0.8))
            one.train(_part(on_progress, 0.8, 1.0))
        except Stopped:
            return None
    return {"tuned": len(tuned)}


def tuned_methods(work: Workspace, inputs: Inputs) -> list[Tuned]:
    """Ours, and each method that has something to choose, once for each network; none without trials."""
    if work.config.evaluation.tuning is None:
        return []
    found: dict[str, Tuned] = {OURS: _OursTuned(work, inputs)}
    for config in work.config.evaluation.baselines:
        if BASELINES[config.method].search:
            one = _MethodTuned(work, inputs, config)
            found.setdefault(one.key, one)
    return list(found.values())


def _make_trials(work: Workspace, one: Tuned, on_progress: OnProgress) -> None:
    """Makes the trials that are missing, and keeps each."""
    done, splits, n = one.made(), _splits(work), len(one.trials)
    validation = [named for named in one.inputs.sets if named.role == "validation"]
    for i in range(len(done), n):
        values = []
        try:
            for j, split in enumerate(splits):
                first = i * len(splits) + j
                part = _part(on_progress, first / (n * len(splits)), (first + 1) / (n * len(splits)))
                inside, *outside = one.trial_scores(one.trials[i], split, validation, part)
                values += [auroc(inside, other) for other in outside]
            value = float(np.mean(values))
        except TrainingDiverged:
            if i == 0:  # the method's own settings
                raise
            value = None
        done.append(Trial(settings=one.trials[i], value=value))
        write_atomically(one.trials_file, json.dumps([trial.model_dump() for trial in done], indent=1) + "\n")
        on_progress((i + 1) / n)


def _part(on_progress: OnProgress, begin: float, end: float) -> OnProgress:
    """Reports the shares of a part of the work, which goes from `begin` to `end`."""
    return lambda share: on_progress(begin + (end - begin) * share)


def _splits(work: Workspace) -> list[Split]:
    """The parts of `work.sources` that trials are fitted and measured on."""
    tuning, labels = work.config.evaluation.tuning, source_labels(work)
    assert tuning is not None
    if tuning.criterion == "left_out":
        return left_out_splits(labels, tuning.holdout, tuning.left_out_pairs, tuning.seed)
    return [validation_split(labels, tuning.holdout, tuning.seed)]


# --- what is tuned ----------------------------------------------------------------------------------------


class Tuned(ABC):
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

    @property
    def trials_file(self) -> Path:
        """The trials that are made."""
        return self.work.folder / "tuning" / f"{self.key}.json"

    @property
    def weights_file(self) -> Path:
        """The networks that were trained with the best settings."""
        return self.work.folder / "tuning" / f"{self.key}.safetensors"

    def made(self) -> list[Trial]:
        """The trials that are made, in order."""
        if not self.trials_file.is_file():
            return []
        try:
            return _TRIALS.validate_python(read_json(self.trials_file))
        except ValueError as error:
            raise PipelineError(f"{self.trials_file} is damaged") from error

    def best(self) -> Setting:
        """The settings of the best trial."""
        made = self.made()
        return made[best_trial(made)].settings

    def _frozen_blocks(self, network: Encoder) -> list[int]:
        """The numbers of frozen blocks to try for a network."""
        tuning, n_blocks = self.work.config.evaluation.tuning, len(network.blocks)
        assert tuning is not None
        return sorted({max(0, n_blocks + one) if one < 0 else one for one in tuning.frozen_blocks})

    @abstractmethod
    def _space_and_own(self) -> tuple[Mapping[str, Sequence[Any]], Mapping[str, Any]]:
        """The values to try of each setting, and the method's own."""

    @abstractmethod
    def trial_scores(
        self, setting: Setting, split: Split, sets: Sequence[NamedSet], on_progress: OnProgress
    ) -> list[np.ndarray]:
        """Fitted on a split: the scores of `inside`, then of `outside` or, without one, of each of the sets."""

    @abstractmethod
    def train(self, on_progress: OnProgress) -> None:
        """Trains on all of `work.sources` with the best settings, if there is something to train; keeps it."""

    @abstractmethod
    def scores(self, on_progress: OnProgress) -> dict[str, np.ndarray]:
        """Fitted on all of `work.sources` with the best settings: the scores of every set, float64 (N,)."""


class _MethodTuned(Tuned):
    """A method of `evaluation.baselines`."""

    def __init__(self, work: Workspace, inputs: Inputs, config: BaselineConfig) -> None:
        super().__init__(work, inputs)
        self.config, self.own = config, own_settings(config)
        self.of, self.key, self.title = config.key, config.key_with("tuned"), config.title_with("tuned")

    def _space_and_own(self) -> tuple[Mapping[str, Sequence[Any]], Mapping[str, Any]]:
        space: dict[str, Any] = dict(BASELINES[self.config.method].search)
        if issubclass(BASELINES[self.config.method], Trained):
            space["frozen_blocks"] = self._frozen_blocks(self.inputs.networks[self.config.network])
        return space, self.config.model_dump()

    def trial_scores(
        self, setting: Setting, split: Split, sets: Sequence[NamedSet], on_progress: OnProgress
    ) -> list[np.ndarray]:
        # outliers of an early generator were made and kept by stage `baselines`
        whole = self.inputs.reference(self.config, lambda share: on_progress(0.0))
        outliers = None if whole.outliers is None else whole.outliers[split.fit]
        known = _rows(whole.known, split.fit)
        reference = replace(whole, known=known, labels=split.labels, outliers=outliers)
        method = self._with(setting).build().fit(reference, on_progress)
        asked = [_rows(whole.known, split.inside)]
        if split.outside is not None:
            asked.append(_rows(whole.known, split.outside))
        else:
            asked += [self.inputs.images(one.images, one.key, self.config) for one in sets]
        return [method.score(one) for one in asked]

    def train(self, on_progress: OnProgress) -> None:
        if issubclass(BASELINES[self.config.method], Trained) and self.best() != self.trials[0]:
            fitted(self.inputs, self._with(self.best()), self.weights_file, on_progress)

    def scores(self, on_progress: OnProgress) -> dict[str, np.ndarray]:
        best = self.best()
        file = weights_file(self.work, self.config) if best == self.trials[0] else self.weights_file
        return self.inputs.scores(fitted(self.inputs, self._with(best), file, on_progress), self.config)

    def _with(self, setting: Setting) -> BaselineConfig:
        return self.config.model_copy(update=setting)


class _OursTuned(Tuned):
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
            "frozen_blocks": self._frozen_blocks(load_backbone(self.work)),
            "learning_rate": [factor * rate for factor in RATE_FACTORS],
        }
        if "right" in kinds_needed(self.work.config):  # there are pictures to rebuild ID images by
            space["reconstructed_id"] = RECONSTRUCTED_ID
        own = self.work.config.evaluation.score.model_dump() | self._detector.model_dump()
        return space, own | {"learning_rate": rate}

    def trial_scores(
        self, setting: Setting, split: Split, sets: Sequence[NamedSet], on_progress: OnProgress
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
        kept = outlier_labels[outliers]
        encoder = self._trained(setting, split.fit, split.labels, outliers, kept, on_progress)
        score = self._score(setting, encoder, split.fit, outliers)
        return [score(one) for one in asked]

    def train(self, on_progress: OnProgress) -> None:
        best = self.best()
        if self._detector_with(best) != self._detector and not self.weights_file.is_file():
            y, y_out = source_labels(self.work), outlier_labels(self.work)
            encoder = self._trained(best, np.arange(len(y)), y, np.arange(len(y_out)), y_out, on_progress)
            write_network(encoder, self.weights_file)

    def scores(self, on_progress: OnProgress) -> dict[str, np.ndarray]:
        on_progress(0.0)
        work, best = self.work, self.best()
        if self._detector_with(best) == self._detector:
            encoder = load_detector(work).encoder
        else:
            encoder = load_backbone(work)
            encoder.load_state_dict(load_file(self.weights_file))
            encoder.freeze(self._detector_with(best).frozen_blocks)
        rows, outliers = np.arange(len(work.sources)), np.arange(len(outlier_labels(work)))
        score = self._score(best, encoder, rows, outliers)
        return {one.key: score(one.images.images, one.images.ids) for one in self.inputs.sets}

    def _detector_with(self, setting: Setting) -> DetectorConfig:
        c = self._detector
        update = {key: value for key, value in setting.items() if key in DetectorConfig.model_fields}
        optimizer = c.optimizer.model_copy(update={"learning_rate": setting["learning_rate"]})
        return c.model_copy(update=update | {"optimizer": optimizer})

    def _trained(
        self,
        setting: Setting,
        rows: np.ndarray,
        labels: np.ndarray,
        outlier_rows: np.ndarray,
        outlier_labels: np.ndarray,
        on_progress: OnProgress,
    ) -> Encoder:
        """Trains a detector on some of `work.sources` and some of their outliers; returns its f."""
        work, config = self.work, self._detector_with(setting)
        rebuilt = read_outliers(work, "right")[rows] if config.reconstructed_id else None
        torch.manual_seed(config.seed)
        n_clusters = int(labels.max()) + 1
        detector = Detector(load_backbone(work), n_clusters, config.zero_heads, config.unit_features)
        execution = Execution(work.config.device, None, lambda r: on_progress(r.progress), work.should_stop)
        outliers = read_outliers(work, "wrong")[outlier_rows]
        images = work.sources.images[rows]
        if config.jpeg_both_sides:
            images = reencode(images, work.config.outliers.jpeg)
        pictures = images, labels, outliers, outlier_labels
        if not train_detector(detector, *pictures, config, execution, rebuilt):
            raise Stopped
        return scoring_encoder(work, detector.encoder, config)

    def _score(
        self, setting: Setting, encoder: Encoder, rows: np.ndarray, outlier_rows: np.ndarray
    ) -> Callable[..., np.ndarray]:
        """Eq. 6 over some of `work.sources` and of their outliers, as a function of images and their ids."""
        device, known = self.work.config.device, self.work.sources.take(rows)

        def features(images: np.ndarray) -> np.ndarray:
            # rounded as stage `features` keeps them, so that equal settings have equal scores
            return kept_features(encoder, images, device).astype(np.float16).astype(np.float32)

        eq_6 = SDScore(**{key: setting[key] for key in SCORE_SEARCH})
        outliers = read_outliers(self.work, "wrong")[outlier_rows]
        eq_6.fit(features(known.images), features(outliers), known.ids, device=device)

        def score(images: np.ndarray, ids: np.ndarray | None = None) -> np.ndarray:
            return eq_6.score(features(images), ids).total

        return score


# --- rows and values --------------------------------------------------------------------------------------


def _rows(images: Images, rows: np.ndarray) -> Images:
    """Some rows of every column."""
    columns = {field.name: getattr(images, field.name) for field in fields(Images)}
    return Images(**{name: None if column is None else column[rows] for name, column in columns.items()})


def _target_labels(work: Workspace) -> np.ndarray:
    """The wrong label of each outlier, int64 (M,)."""
    table = pq.read_table(work.folder / "outliers" / "outliers.parquet", columns=["target_label"])
    return table["target_label"].to_numpy()


STAGE = Stage(
    make,
    depends_on,
    title="Tuning",
    is_wanted=lambda config: has_detector(config) and config.evaluation.tuning is not None,
    reads_sets=True,
    memory_settings=("detector.batch_size",),
)
