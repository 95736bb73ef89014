"""Stage `encoder`: trains the network whose features are clustered.

Writes encoder/encoder.safetensors and, with SimCLR, encoder/projection.safetensors.
"""

from __future__ import annotations

import numpy as np
from safetensors.torch import load_file

from .. import data
from ..config.nodes import DistillationConfig, EncoderConfig
from ..config.tree import RunConfig
from ..data import DataError, ImageSet
from ..nn.classifier import Projection
from ..nn.distillation import train_distilled
from ..nn.encoder import Encoder, build_encoder
from ..nn.feature_cache import kept_features
from ..nn.supervised import train_supervised
from ..nn.unet import n_parameters
from ..scan.simclr import train_simclr
from .shared.labels import GIVEN, given_labels
from .workspace import Metrics, Settings, Stage, Workspace, branches, training_images, write_network


def depends_on(config: RunConfig) -> Settings:
    """Images, views and `encoder`."""
    return training_images(config) | branches(config, "views", "encoder")


def make(work: Workspace) -> Metrics | None:
    """Trains the encoder. A detector without its own backbone starts from it, too.

    Raises:
        EncoderError: An unknown network, or weights that cannot be loaded.
        DataError: Given labels that cannot be used.
    """
    if work.config.labels.source in GIVEN:
        given_labels(work)  # fails before hours of training
    assert work.config.encoder is not None
    return train_encoder(work, "encoder", work.config.encoder)


def train_encoder(work: Workspace, stage: str, config: EncoderConfig) -> Metrics | None:
    """Trains a network and writes it to <stage>/encoder.safetensors.

    Loads pre-trained weights, trains on the labels of another set, then on a teacher's features, then by SimCLR
    on the run's images; each only if the configuration asks for it.
    """
    out, views, encoder = work.stage_folder(stage), work.config.views, build_encoder(config)
    total, before = sum(one.total_steps for one in config.trainings), 0

    # 1. the labels of another set
    pretrained = out / "pretrained.safetensors"
    if config.pretraining is not None and pretrained.is_file():
        encoder.load_state_dict(load_file(pretrained))
    elif config.pretraining is not None:
        p = config.pretraining
        other = _labelled(data.load(p.data, p.split, **work.config.data.reading), p.labels)
        execution = work.execution(stage, out / "pretraining.state.pt", total, training="pretraining")
        own_views = p.views or views
        if not train_supervised(encoder, other.images, other.labels, own_views, p, execution, config.seed):
            return None
        write_network(encoder, pretrained)
        before += p.total_steps
    # 2. a teacher's features
    distilled = out / "distilled.safetensors"
    if config.distillation is not None and distilled.is_file():
        encoder.load_state_dict(load_file(distilled))
    elif config.distillation is not None:
        d = config.distillation
        images, features = _taught(work, d)
        execution = work.execution(stage, out / "distillation.state.pt", total, before, "distillation")
        if not train_distilled(encoder, images, features, d, execution, config.seed):
            return None
        write_network(encoder, distilled)
    # 3. SimCLR
    if config.simclr is not None:
        before = total - config.simclr.total_steps
        execution = work.execution(stage, out / "simclr.state.pt", total, before, "SimCLR")
        projection = train_simclr(encoder, work.images.images, views, config.simclr, execution, config.seed)
        if projection is None:
            return None
        write_network(projection, out / "projection.safetensors")
    write_network(encoder, out / "encoder.safetensors")
    images_seen = sum(one.total_steps * one.batch_size for one in config.trainings)
    return {f"{stage}_parameters": n_parameters(encoder), f"{stage}_images_seen": images_seen}


def _taught(work: Workspace, config: DistillationConfig) -> tuple[np.ndarray, np.ndarray]:
    """The images to learn a teacher's features from, uint8 (N,H,W,3), and its features (N,D)."""
    how, teacher = work.config.data.reading, build_encoder(config.teacher).eval()
    sets = [data.load(*data.parse_source(one), limit=config.limit, **how) for one in config.data]
    parts = [work.images.images, *(one.images for one in sets)]
    features = [kept_features(teacher, one, work.config.device) for one in parts]
    return np.concatenate(parts), np.concatenate(features)


def load_encoder(work: Workspace) -> Encoder:
    """The network of stage `encoder`, in eval mode on the CPU."""
    assert work.config.encoder is not None
    return load_trained(work, "encoder", work.config.encoder)


def load_trained(work: Workspace, stage: str, c: EncoderConfig) -> Encoder:
    """The network that `train_encoder` wrote, in eval mode on the CPU."""
    encoder = Encoder(c.arch, c.width, c.input_px)
    encoder.load_state_dict(load_file(work.folder / stage / "encoder.safetensors"))
    return encoder.eval()


def load_projection(work: Workspace) -> Projection | None:
    """SimCLR's projection, in eval mode on the CPU; None without SimCLR."""
    file = work.folder / "encoder" / "projection.safetensors"
    if not file.is_file():
        return None
    state = load_file(file)
    hidden, dim = state["0.weight"].shape
    projection = Projection(dim, hidden, len(state["2.weight"]))
    projection.load_state_dict(state)
    return projection.eval()


def _labelled(images: ImageSet, labels: tuple[int, int] | None) -> ImageSet:
    low, high = labels or (0, len(images.class_names) - 1)
    chosen = images.take((images.labels >= low) & (images.labels <= high))
    if not len(chosen):
        raise DataError(f"{images.name}: no image with a label in {low}..{high} to pre-train on")
    names = chosen.class_names[low : high + 1]
    return ImageSet(chosen.name, chosen.split, chosen.images, chosen.labels - low, chosen.ids, names)


STAGE = Stage(
    make,
    depends_on,
    title="Encoder",
    is_wanted=lambda config: config.encoder is not None,
    memory_settings=(
        "encoder.pretraining.batch_size",
        "encoder.distillation.batch_size",
        "encoder.simclr.batch_size",
    ),
)
