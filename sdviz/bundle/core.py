"""`Bundle`: a trained system, loaded from one folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import nn

from ..diffusion.sampling import Callback
from ..diffusion.schedule import NoiseSchedule
from ..files import replacing_folder
from ..nn.batches import encode, predict
from ..nn.classifier import Classifier
from ..nn.detector import Detector, detector_outputs
from ..nn.device import resolve_device
from ..nn.encoder import Encoder
from ..nn.randomness import content_ids
from ..outliers import (
    DiffusionModel,
    Outlier,
    OutlierBatch,
    OutlierRequest,
    Recipe,
    check_images,
    check_labels,
    draw_target_labels,
    generate_outliers,
    generate_together,
)
from .manifest import PARTS, Manifest, check_files, check_replaceable, read_manifest
from .parts import (
    Banks,
    load_clusterer,
    load_detector,
    load_encoder,
    load_noise_predictor,
    load_schedule,
    read_banks,
)
from .saving import write_folder

# diffusers takes seconds to import, and is imported at the first use of the U-Net
if TYPE_CHECKING:
    from ..detection.score import SDScore
    from ..nn.inference import InferenceModel
    from ..nn.unet import NoisePredictor

Loader: TypeAlias = Callable[[], Any]  # loads a network


class Bundle:
    """A trained system.

    Attributes:
        parts: Paths of tables and features by their names in `manifest.PARTS`; any may be absent.
        path: The folder that it was loaded from; None if it was made in memory.
        hash: SHA-256 of bundle.json but its `metrics` and `threshold`, and so of all other files; "" in memory.
        device: Where the networks compute.
    """

    def __init__(
        self,
        manifest: Manifest,
        noise_predictor: NoisePredictor | Loader,
        schedule: NoiseSchedule,
        clusterer: Classifier | Loader | None = None,
        encoder: Encoder | Loader | None = None,
        detector: Detector | Loader | None = None,
        parts: Mapping[str, Path] | None = None,
        path: Path | None = None,
        hash: str = "",
        device: torch.device | None = None,
    ) -> None:
        """Takes networks, or functions that load them at the first use; only `save` checks them."""
        self.manifest, self.schedule = manifest, schedule
        self.parts: Mapping[str, Path] = {} if parts is None else parts
        self.path, self.hash = path, hash
        self.device = torch.device("cpu") if device is None else device
        self._networks: dict[str, nn.Module | Loader | None] = {
            "noise_predictor": noise_predictor,
            "clusterer": clusterer,
            "encoder": encoder,
            "detector": detector,
        }
        self._loading = threading.Lock()
        self._ready: InferenceModel | None = None
        self._score: SDScore | None = None

    @classmethod
    def load(cls, path: str | Path, device: str = "auto", lazy: bool = False) -> Bundle:
        """Opens a bundle, and first checks every file against its SHA-256.

        Args:
            device: "auto" takes CUDA, then MPS, then the CPU.
            lazy: Load each network at its first use; one that does not fit is refused only then.

        Raises:
            BundleError: A missing, changed, foreign or pickled file, named in the message.
            ValueError: A device that this machine does not have.
        """
        path = Path(path)
        where = resolve_device(device)
        manifest, digest = read_manifest(path)
        check_files(path, manifest)

        schedule = load_schedule(path, manifest)
        loaders = (load_noise_predictor, load_clusterer, load_encoder, load_detector)
        unet, clusterer, encoder, detector = (partial(load, path, manifest) for load in loaders)
        parts = {name: path / name for name in PARTS if name in manifest.files}
        bundle = cls(
            manifest,
            unet,
            schedule,
            clusterer if manifest.clusterer is not None else None,
            encoder if "encoder.safetensors" in manifest.files else None,
            detector if "detector.safetensors" in manifest.files else None,
            parts,
            path,
            digest,
            where,
        )
        if not lazy:
            bundle.load_networks()
        return bundle

    def load_networks(self) -> Bundle:
        """Loads the networks that are not loaded yet; returns the bundle."""
        for name in self._networks:
            self._network(name)
        return self

    def _network(self, name: str) -> Any:  # noqa: ANN401 - the properties say which
        with self._loading:
            found = self._networks[name]
            if found is not None and not isinstance(found, nn.Module):
                found = self._networks[name] = found()
            return found

    def save(self, path: str | Path) -> Bundle:
        """Writes the bundle's folder, whole or not at all, and returns the saved bundle.

        The U-Net is saved in float16, so the saved bundle makes slightly other pictures than one in memory.

        Raises:
            BundleError: The path exists and is not a bundle, or this bundle's parts do not fit each other. What
                was there stays.
        """
        path = Path(path).resolve()
        check_replaceable(path)
        with replacing_folder(path) as partial:
            write_folder(self, partial)
            saved = Bundle.load(partial, device=str(self.device))
        saved.path = path
        saved.parts = {name: path / name for name in saved.parts}
        return saved

    @property
    def n_clusters(self) -> int:
        """Number of clusters, C."""
        return self.manifest.n_clusters

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each cluster."""
        return self.manifest.class_names

    @property
    def noise_predictor(self) -> NoisePredictor:
        """The U-Net, float32 on the CPU. Every network raises BundleError if its file does not fit."""
        return self._network("noise_predictor")

    @property
    def clusterer(self) -> Classifier | None:
        """The network that gives any image a cluster; None in a bundle without one."""
        return self._network("clusterer")

    @property
    def encoder(self) -> Encoder | None:
        """The network before detector training; None in a bundle without one."""
        return self._network("encoder")

    @property
    def detector(self) -> Detector | None:
        """f, g_bin, g_in and g_out; None in a bundle without them."""
        return self._network("detector")

    @property
    def has_clusterer(self) -> bool:
        """Whether it has a clusterer; loads no network."""
        return self._networks["clusterer"] is not None

    @property
    def has_detector(self) -> bool:
        """Whether it has a detector; loads no network."""
        return self._networks["detector"] is not None

    @property
    def inference(self) -> InferenceModel:
        """The noise predictor in its fastest form on the device; made at the first use."""
        from ..nn.inference import prepare_for_inference

        if self._ready is None:
            self._ready = prepare_for_inference(self.noise_predictor, self.device)
        return self._ready

    def recipe(
        self,
        start_timestep: int | None = None,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        solver: str | None = None,
        eta: float = 0.0,
        guidance_interval: tuple[float, float] | None = None,
        seed: int = 0,
    ) -> Recipe:
        """Makes and checks a recipe; None takes the bundle's default. ValueError for a value out of range."""
        d = self.manifest.defaults
        recipe = Recipe(
            d.start_timestep if start_timestep is None else start_timestep,
            d.guidance_scale if guidance_scale is None else guidance_scale,
            d.num_inference_steps if num_inference_steps is None else num_inference_steps,
            d.solver if solver is None else solver,
            eta,
            guidance_interval,
            seed,
        )
        recipe.check(self.manifest.max_train_timestep)
        return recipe

    def pseudo_label(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cluster 0..C-1 of each image, int64 (N,), and its probability, float32 (N,).

        Raises:
            ValueError: The bundle has no clusterer, or images have another shape.
        """
        images = check_images(images, self.manifest.image_size)
        if self.clusterer is None:
            raise ValueError("this bundle has no clusterer: give the labels")
        return predict(self.clusterer, images, self.device)

    def features(self, images: np.ndarray) -> np.ndarray:
        """Features by the detector, else by the encoder: float32 (N,D).

        Raises:
            ValueError: The bundle has neither, or images have another shape.
        """
        images = check_images(images, self.manifest.image_size)
        if self.detector is not None:
            return detector_outputs(self.detector, images, self.device).features
        if self.encoder is not None:
            return encode(self.encoder, images, self.device)
        raise ValueError("this bundle has neither a detector nor an encoder: it makes outliers only")

    def banks(self) -> Banks:
        """The reference features of the score; ValueError if there are none."""
        return read_banks(self.parts)

    @property
    def scorer(self) -> SDScore:
        """Eq. 6 with the bundle's banks and settings, fitted at the first use. ValueError without detector."""
        if self._score is None:
            if not self.has_detector or self.manifest.score is None:
                raise ValueError("this bundle has no detector: it makes outliers only, and scores nothing")
            from ..detection.score import SDScore

            score = SDScore(**self.manifest.score.model_dump())
            self._score = self.banks().fit(score, self.device)
        return self._score

    def generate(
        self,
        images: np.ndarray,
        labels: np.ndarray | Sequence[int] | None = None,
        start_timestep: int | None = None,
        guidance_scale: float | None = None,
        target_labels: np.ndarray | Sequence[int] | None = None,
        num_inference_steps: int | None = None,
        solver: str | None = None,
        eta: float = 0.0,
        guidance_interval: tuple[float, float] | None = None,
        seed: int = 0,
        ids: np.ndarray | Sequence[str] | None = None,
        callback: Callback | None = None,
        batch_size: int = 64,
    ) -> OutlierBatch:
        """Makes one outlier of each image.

        Args:
            images: uint8 (N,H,W,3).
            labels: int (N,), y~; None or -1 takes `pseudo_label`.
            start_timestep: S. None, as in the next settings, takes the bundle's default.
            guidance_scale: w of Eq. 3.
            target_labels: int (N,), the condition c_r, used as given; None draws by Eq. 2.
            solver: A name in `SAMPLERS`.
            eta: Share of fresh noise in DDIM, 0..1.
            guidance_interval: (sigma_lo, sigma_hi), the only range with guidance.
            seed: Decides, with an image's id, its noise and wrong label.
            ids: str (N,); None takes the SHA-256 of each image's bytes.
            callback: Called with (step, x_t, x_0 prediction) at each step of each batch.

        Raises:
            ValueError: Images, labels, ids or settings out of range; unknown labels in a bundle without a
                clusterer.
        """
        images = check_images(images, self.manifest.image_size)
        recipe = self.recipe(
            start_timestep, guidance_scale, num_inference_steps, solver, eta, guidance_interval, seed
        )
        n = len(images)
        names = content_ids(images) if ids is None else np.asarray(ids, str)
        y = np.full(n, -1, np.int64) if labels is None else _int_column("labels", labels, n)
        _check_length("ids", names, n)
        if (y < -1).any() or (y >= self.n_clusters).any():
            check_labels("labels", y[y != -1], self.n_clusters)
        if (y == -1).any():
            unknown = y == -1
            y[unknown] = self.pseudo_label(images[unknown])[0]
        if target_labels is None:
            targets = draw_target_labels(y, names, self.n_clusters, recipe.seed)
        else:
            targets = _int_column("target_labels", target_labels, n)
            check_labels("target_labels", targets, self.n_clusters)
        return generate_outliers(self._model, images, y, targets, names, recipe, batch_size, callback)

    @property
    def _model(self) -> DiffusionModel:
        return DiffusionModel(self.inference, self.schedule, self.n_clusters, self.device)

    def generate_together(
        self,
        requests: Sequence[OutlierRequest],
        on_progress: Callable[[float], None] | None = None,
        trajectory: bool = False,
    ) -> list[Outlier]:
        """Makes pictures by several recipes in one batch, which is faster than one recipe after another.

        Args:
            requests: Images of the bundle's size, known labels, and recipes from `recipe`.
            on_progress: Called with the share done, 0..1, after each step; an error from it ends the sampling.
            trajectory: Keep the x_0 prediction of each step.
        """
        return generate_together(self._model, requests, on_progress, trajectory)


def _check_length(name: str, column: np.ndarray, n: int) -> None:
    if column.shape != (n,):
        raise ValueError(f"{name}: shape {column.shape}, but there are {n} images")


def _int_column(name: str, values: np.ndarray | Sequence[int], n: int) -> np.ndarray:
    column = np.array(values)
    _check_length(name, column, n)
    if not np.issubdtype(column.dtype, np.integer):
        raise ValueError(f"{name} must be whole numbers, not {column.dtype}")
    return column.astype(np.int64)
