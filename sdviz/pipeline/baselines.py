"""Stage `baselines`: trains those of the other methods that train, on the run's images and networks.

Reads the backbone, the encoder and pseudo_labels/; writes baselines/<key>.safetensors for each. It reads no set
that is scored: stage `baseline_scores` does.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file, save_file

from ..baselines import BASELINES, Baseline, Images, Reference
from ..baselines.finetuning import Trained
from ..baselines.interface import OnProgress
from ..config.tree import BaselineConfig, RunConfig
from ..data import ImageSet
from ..diffusion.training import train_noise_predictor
from ..files import replacing
from ..nn.batches import encode, slices
from ..nn.device import resolve_device
from ..nn.encoder import Encoder
from ..nn.feature_cache import kept_features
from ..nn.inference import prepare_for_inference
from ..nn.loop import Execution, LoopReport
from ..nn.unet import build_noise_predictor
from ..outliers import DiffusionModel, Recipe, generate_outliers
from . import clusterer, detector, encoder
from .backbone import load_backbone
from .clusterer import load_clusterer
from .diffusion import add_phase_means
from .encoder import load_encoder
from .outliers import outlier_recipe
from .shared.labels import read_cluster_names, read_labels, source_labels
from .shared.sets import NamedSet, evaluation_sets
from .shared.shards import reencode
from .workspace import Metrics, Progress, Settings, Stage, Workspace, has_detector, write_arrays

_AT_ONCE = 512


class Stopped(Exception):
    """The run was asked to stop while a method was at work."""


def depends_on(config: RunConfig) -> Settings:
    """The backbone, the encoder, the clusterer, and the list of methods."""
    networks = detector.depends_on(config) | encoder.depends_on(config) | clusterer.depends_on(config)
    return networks | config.evaluation.model_dump(mode="json", include={"baselines"})


def make(work: Workspace) -> Metrics | None:
    """Fits every method of `evaluation.baselines` that trains; one that has its file already is skipped."""
    work.stage_folder("baselines")
    wanted, inputs = trained_methods(work.config), Inputs(work)
    for i, one in enumerate(wanted):
        if weights_file(work, one).is_file():
            continue
        try:
            fitted(inputs, one, weights_file(work, one), report_or_stop(work, "baselines", i, len(wanted)))
        except Stopped:
            return None
    return {"baselines": len(wanted)}


def trained_methods(config: RunConfig) -> list[BaselineConfig]:
    """The methods that train a network."""
    return [one for one in config.evaluation.baselines if issubclass(BASELINES[one.method], Trained)]


def weights_file(work: Workspace, one: BaselineConfig) -> Path:
    """The file with the weights of a method that trains."""
    return work.folder / "baselines" / f"{one.key}.safetensors"


def own_settings(one: BaselineConfig) -> dict[str, object]:
    """The settings of a method that are not its defaults, and its network."""
    return {"network": one.network} | one.model_dump(mode="json", exclude_defaults=True, exclude={"method"})


def report_or_stop(work: Workspace, stage: str, i: int, n: int) -> OnProgress:
    """Reports how far part i of n is, 0..1; raises `Stopped` if the run was asked to stop."""

    def report(share: float) -> None:
        if work.should_stop():
            raise Stopped
        share = (i + share) / n
        work.on_progress(Progress(stage, round(1000 * share), 1000, share, None, {}))

    return report


def fitted(inputs: Inputs, one: BaselineConfig, file: Path, on_progress: OnProgress) -> Baseline:
    """A method fitted to all of `work.sources`; one that trains takes its weights from `file`, or makes it."""
    on_progress(0.0)
    method = one.build()
    begin = 0.5 if "outliers" in method.needs else 0.0
    reference = inputs.reference(one, lambda share: on_progress(begin * share))
    if not isinstance(method, Trained):
        return method.fit(reference)
    if file.is_file():
        return method.fit(reference, weights=load_file(file))
    method.fit(reference, lambda share: on_progress(begin + (1 - begin) * share))
    with replacing(file) as partial:
        save_file(method.weights, partial)
    return method


class Inputs:
    """The images for all methods; features and logits are computed once."""

    def __init__(self, work: Workspace) -> None:
        self.work = work
        self._outputs: dict[tuple[str, str], np.ndarray] = {}

    @cached_property
    def sets(self) -> list[NamedSet]:
        """The held-out ID images, then every OOD set."""
        return list(evaluation_sets(self.work))

    @cached_property
    def networks(self) -> dict[str, Encoder]:
        """The networks that methods use or train."""
        return {"backbone": load_backbone(self.work), "encoder": load_encoder(self.work)}

    def reference(self, one: BaselineConfig, on_progress: OnProgress) -> Reference:
        """What a method is fitted to, of `work.sources`; for outliers, a generator may be trained first."""
        work, method = self.work, one.build()
        assert work.config.detector is not None
        outliers = None
        if "outliers" in method.needs:
            outliers = _early_outliers(work, method.settings.generator_steps, on_progress)
        return Reference(
            self.images(work.sources, "sources", one),
            labels=source_labels(work),
            encoder=self.networks[one.network] if {"features", "encoder"} & set(method.needs) else None,
            outliers=outliers,
            views=work.config.views,
            detector_views=work.config.detector.views,
            seed=work.config.detector.seed,
            device=work.config.device,
        )

    def images(self, images: ImageSet, key: str, one: BaselineConfig) -> Images:
        """The images of the set `key`, with the features and logits that a method needs."""
        needs = BASELINES[one.method].needs
        features = self._output(images, key, one.network) if "features" in needs else None
        logits = self._output(images, key, "clusterer") if "logits" in needs else None
        return Images(features, images.images, logits, images.ids)

    def scores(self, method: Baseline, one: BaselineConfig) -> dict[str, np.ndarray]:
        """The scores of every set by a fitted method, float64 (N,)."""
        return {named.key: method.score(self.images(named.images, named.key, one)) for named in self.sets}

    def _output(self, images: ImageSet, key: str, network: str) -> np.ndarray:
        if (key, network) not in self._outputs:
            pixels, device = images.images, self.work.config.device
            if network == "clusterer":
                found = encode(load_clusterer(self.work), pixels, device)
            else:
                found = kept_features(self.networks[network], pixels, device)
            self._outputs[key, network] = found
        return self._outputs[key, network]


# --- images by a generator whose training was stopped early ------------------------------------------


def early_recipe(config: RunConfig) -> Recipe:
    """The recipe of the early generator: unguided, from the largest S that it was trained for.

    That is pure noise if the whole schedule is trained; else the image's large shapes remain.
    """
    own = outlier_recipe(config)
    return Recipe(config.max_train_timestep, 0.0, own.num_inference_steps, own.solver, own.eta, None, own.seed)


def _early_outliers(work: Workspace, steps: int, on_progress: OnProgress) -> np.ndarray:
    """Makes one image from each of `work.sources` under its right label: uint8 (N,H,W,3).

    The generator is our own U-Net, trained as in stage `diffusion` but for only `steps` steps. The images are
    kept in fakes-<steps>.safetensors.
    """
    out = work.stage_folder("baselines")
    kept = out / f"fakes-{steps}.safetensors"
    try:
        return load_arrays(kept)["images"]
    except (OSError, SafetensorError, KeyError):
        pass
    n_clusters = len(read_cluster_names(work))
    images, labels, device, stop = work.images.images, read_labels(work), work.config.device, work.should_stop
    shorter = {"total_steps": steps, "time_limit_sec": None, "cooldown": 0.0}
    config = work.config.diffusion.model_copy(update=shorter)
    torch.manual_seed(config.seed)
    unet = build_noise_predictor(config.unet, n_clusters, work.config.data.size_px)
    state_path = out / f"generator-{steps}.state.pt"

    def report(r: LoopReport) -> None:
        on_progress(0.7 * r.progress)

    network, complete = train_noise_predictor(
        unet, images, labels, work.schedule, config, Execution(device, state_path, report, stop)
    )
    if not complete:
        raise Stopped
    where = resolve_device(device)
    add_phase_means(work, network)
    prepared = prepare_for_inference(network.eval().requires_grad_(False), where)
    model = DiffusionModel(prepared, work.schedule, n_clusters, where)
    recipe, labels = early_recipe(work.config), source_labels(work)
    made = np.empty_like(work.sources.images)
    for rows in slices(len(made), _AT_ONCE, lambda share: on_progress(0.7 + 0.3 * share)):
        of = work.sources.images[rows], labels[rows], labels[rows], work.sources.ids[rows]
        made[rows] = generate_outliers(model, *of, recipe, work.config.outliers.batch_size).outliers
    made = reencode(made, work.config.outliers.jpeg)
    write_arrays(kept, {"images": made})
    return made


STAGE = Stage(
    make,
    depends_on,
    title="Baselines",
    is_wanted=lambda config: has_detector(config) and bool(trained_methods(config)),
)
