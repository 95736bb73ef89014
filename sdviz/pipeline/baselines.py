"""The stage that puts other methods beside ours: baselines."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays

from ..baselines import BASELINES, Baseline, Images, Reference
from ..baselines.interface import OnProgress
from ..config import BaselineConfig, RunConfig
from ..data import ImageSet
from ..diffusion.training import train_noise_predictor
from ..evaluation import BaselineScores
from ..nn.batches import encode
from ..nn.device import resolve_device
from ..nn.encoder import Encoder
from ..nn.inference import prepare_for_inference
from ..nn.unet import build_noise_predictor
from ..outliers import Recipe, generate_outliers
from . import clusterer, detector, encoder
from .backbone import load_backbone
from .clusterer import load_clusterer
from .diffusion import add_phase_means
from .encoder import load_encoder
from .labels import read_cluster_names, read_labels, source_labels
from .outliers import outlier_recipe
from .sets import NamedSet, evaluation_sets
from .shards import reencode
from .workspace import Metrics, Progress, Settings, Workspace, write_arrays

# Fake-it's generator is one that has hardly learned; `generator_steps` says otherwise
EARLY_STEPS = 300
_AT_ONCE = 512


class _Stopped(Exception):
    """Somebody asked the run to stop while a method was at work."""


def depends_on(config: RunConfig) -> Settings:
    """The detector's images and settings, both networks, the clusterer, and which methods there are."""
    networks = detector.depends_on(config) | encoder.depends_on(config) | clusterer.depends_on(config)
    return networks | config.evaluation.model_dump(mode="json", include={"baselines"})


def make(work: Workspace) -> Metrics | None:
    """Stage `baselines`: every method of `evaluation.baselines` on the run's own images and networks.

    Each is fitted on `work.sources` and scores every set; its scores lie in baselines/<key>.safetensors, one
    float64 column a set. A method that is there is not fitted again.
    """
    out = work.stage_folder("baselines")
    wanted = work.config.evaluation.baselines
    seen = _Seen(work)
    for i, one in enumerate(wanted):
        path = _path(work.folder, one)
        if path.is_file():
            continue
        if work.should_stop():
            return None

        def tell(share: float, done: int = i) -> None:
            share = (done + share) / len(wanted)
            step = round(1000 * share)
            work.on_progress(Progress("baselines", step, 1000, share, None, {}))

        def tell_or_stop(share: float) -> None:
            if work.should_stop():
                raise _Stopped
            tell(share)  # noqa: B023 - called within this round only

        try:
            scores = _fit_and_score(work, seen, one, out, tell_or_stop)
        except _Stopped:
            return None
        write_arrays(path, scores)
        tell(1.0)
    return {"baselines": len(wanted)}


def baseline_scores(work: Workspace) -> list[BaselineScores]:
    """What stage `baselines` found, in the configuration's order."""
    found = []
    for one in work.config.evaluation.baselines:
        method = method_of(one)
        where = "" if one.network == "backbone" else f", on the {one.network}"
        settings = one.model_dump(mode="json", exclude_none=True, exclude={"method"})
        found.append(
            BaselineScores(one.key, method.title + where, settings, load_arrays(_path(work.folder, one)))
        )
    return found


def method_of(config: BaselineConfig) -> Baseline:
    """The method that a line of the configuration stands for, not fitted yet."""
    given = config.model_dump(exclude_none=True, exclude={"method", "network", "generator_steps"})
    return BASELINES[config.method](**given)


def _path(folder: Path, one: BaselineConfig) -> Path:
    return folder / "baselines" / f"{one.key}.safetensors"


def _fit_and_score(
    work: Workspace, seen: _Seen, config: BaselineConfig, out: Path, tell: OnProgress
) -> dict[str, np.ndarray]:
    """Scores by set, float64 (N,)."""
    method = method_of(config)
    encoder = seen.networks[config.network] if {"features", "encoder"} & set(method.needs) else None
    makes_fakes = "outliers" in method.needs
    fakes = None
    if makes_fakes:
        fakes = _early_fakes(work, config.generator_steps or EARLY_STEPS, out, lambda x: tell(0.5 * x))
    reference = Reference(
        seen.images(work.sources, "sources", method, config),
        labels=source_labels(work),
        encoder=encoder,
        outliers=fakes,
        views=work.config.views,
        seed=work.config.detector.seed if work.config.detector is not None else 0,
        device=work.config.device,
    )
    method.fit(reference, lambda x: tell(0.5 + 0.45 * x if makes_fakes else 0.95 * x))
    return {
        one.key: np.asarray(method.score(seen.images(one.images, one.key, method, config)), np.float64)
        for one in seen.sets
    }


class _Seen:
    """What the methods look at; features and logits are computed once for all of them."""

    def __init__(self, work: Workspace) -> None:
        self._work = work
        self._outputs: dict[tuple[str, str], np.ndarray] = {}

    @cached_property
    def sets(self) -> list[NamedSet]:
        """The sets to score."""
        return list(evaluation_sets(self._work))

    @cached_property
    def networks(self) -> dict[str, Encoder]:
        """The networks that a method may take its features from."""
        return {"backbone": load_backbone(self._work), "encoder": load_encoder(self._work)}

    def images(self, images: ImageSet, key: str, method: Baseline, config: BaselineConfig) -> Images:
        """A set as a method may see it."""
        features = self._output(images, key, config.network) if "features" in method.needs else None
        logits = self._output(images, key, "clusterer") if "logits" in method.needs else None
        return Images(features, images.images, logits, images.ids)

    def _output(self, images: ImageSet, key: str, network: str) -> np.ndarray:
        if (key, network) not in self._outputs:
            net = load_clusterer(self._work) if network == "clusterer" else self.networks[network]
            self._outputs[key, network] = encode(net, images.images, self._work.config.device)
        return self._outputs[key, network]


# --- Fake-it's images ---------------------------------------------------------------------------------


def early_recipe(config: RunConfig) -> Recipe:
    """How a generator stopped early makes images: from as much noise as it knows, under the right label.

    With the whole schedule trained that is pure noise; with a part of it, the image's large forms are left.
    """
    own = outlier_recipe(config)
    return Recipe(config.max_train_timestep, 0.0, own.num_inference_steps, own.solver, own.eta, None, own.seed)


def _early_fakes(work: Workspace, steps: int, out: Path, tell: OnProgress) -> np.ndarray:
    """One image of an early generator for each of `work.sources`, uint8 (N,H,W,3); kept in fakes.safetensors.

    The generator is our own U-Net, trained as stage `diffusion` begins to, and stopped after `steps`.
    """
    kept = out / "fakes.safetensors"
    try:
        return load_arrays(kept)["images"]
    except (OSError, SafetensorError, KeyError):
        pass
    images, n_clusters = work.images, len(read_cluster_names(work))
    config = work.config.diffusion.model_copy(
        update={"total_steps": steps, "time_limit_sec": None, "cooldown": 0.0}
    )
    torch.manual_seed(config.seed)
    network, complete = train_noise_predictor(
        build_noise_predictor(config.unet, n_clusters, work.config.data.size_px),
        images.images,
        read_labels(work),
        work.schedule,
        config,
        out / "generator.state.pt",
        work.config.device,
        lambda r: tell(0.7 * r.progress),
        work.should_stop,
    )
    if not complete:
        raise _Stopped
    where = resolve_device(work.config.device)
    add_phase_means(work, network)
    model = prepare_for_inference(network.eval().requires_grad_(False), where)
    recipe, labels = early_recipe(work.config), source_labels(work)
    made = np.empty_like(work.sources.images)
    for first in range(0, len(made), _AT_ONCE):
        rows = slice(first, first + _AT_ONCE)
        batch = generate_outliers(
            model,
            work.schedule,
            work.sources.images[rows],
            labels[rows],
            labels[rows],
            work.sources.ids[rows],
            recipe,
            n_clusters,
            where,
            work.config.outliers.batch_size,
        )
        made[rows] = batch.outliers
        tell(0.7 + 0.3 * min(1.0, (first + _AT_ONCE) / len(made)))
    if work.config.outliers.jpeg is not None:
        made = reencode(made, work.config.outliers.jpeg)
    write_arrays(kept, {"images": made})
    return made
