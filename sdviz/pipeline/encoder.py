"""Stage `encoder`: the network whose features the clusters are found with.

Writes encoder/encoder.safetensors and, from SimCLR, projection.safetensors.
"""

from __future__ import annotations

from safetensors.torch import load_file

from .. import data
from ..config.nodes import EncoderConfig
from ..config.tree import RunConfig
from ..data import DataError, ImageSet
from ..nn.classifier import Projection
from ..nn.encoder import Encoder, build_encoder
from ..nn.supervised import train_supervised
from ..nn.unet import n_parameters
from ..scan.simclr import train_simclr
from .labels import GIVEN, given_labels
from .workspace import Metrics, Settings, Workspace, branches, training_images, write_network


def depends_on(config: RunConfig) -> Settings:
    """The images, their views and the encoder's own branch."""
    return training_images(config) | branches(config, "views", "encoder")


def make(work: Workspace) -> Metrics | None:
    """Trains the encoder; a detector without a backbone of its own starts from it, too.

    Raises:
        EncoderError: An unknown network, or weights that cannot be loaded.
        DataError: Given labels that cannot be used: they are checked before hours of training.
    """
    if work.config.labels.source in GIVEN:
        given_labels(work)
    return train_encoder(work, "encoder", _encoder_config(work))


def train_encoder(work: Workspace, stage: str, config: EncoderConfig) -> Metrics | None:
    """Trains a network and writes it to <stage>/encoder.safetensors.

    It starts from pre-trained weights, trains on the labels of another set, then by SimCLR on the training
    images; each step only if the configuration names it.
    """
    out = work.stage_folder(stage)
    encoder = build_encoder(config)
    steps_before = config.pretraining.total_steps if config.pretraining else 0
    total = steps_before + (config.simclr.total_steps if config.simclr else 0)

    # 1. labels of another set
    done_before = out / "pretrained.safetensors"
    if config.pretraining is not None and done_before.is_file():
        encoder.load_state_dict(load_file(done_before))
    elif config.pretraining is not None:
        p = config.pretraining
        other = _labelled(data.load(p.data, p.split, size_px=work.config.data.size_px), p.labels)
        done = train_supervised(
            encoder,
            other.images,
            other.labels,
            p.views or work.config.views,
            p,
            work.execution(stage, out / "pretraining.state.pt", total),
            config.seed,
        )
        if not done:
            return None
        write_network(encoder, done_before)
    # 2. the images themselves
    if config.simclr is not None:
        projection = train_simclr(
            encoder,
            work.images.images,
            work.config.views,
            config.simclr,
            work.execution(stage, out / "simclr.state.pt", total, steps_before),
            config.seed,
        )
        if projection is None:
            return None
        write_network(projection, out / "projection.safetensors")
    write_network(encoder, out / "encoder.safetensors")
    return {f"{stage}_parameters": n_parameters(encoder), f"{stage}_images_seen": _images_seen(config)}


def load_encoder(work: Workspace) -> Encoder:
    """The network that stage `encoder` made, in eval mode on the CPU."""
    return load_trained(work, "encoder", _encoder_config(work))


def load_trained(work: Workspace, stage: str, c: EncoderConfig) -> Encoder:
    """The network that `train_encoder` wrote for a stage, in eval mode on the CPU."""
    encoder = Encoder(c.arch, c.width, c.input_px)
    encoder.load_state_dict(load_file(work.folder / stage / "encoder.safetensors"))
    return encoder.eval()


def load_projection(work: Workspace) -> Projection | None:
    """SimCLR's projection; None if the encoder was not trained by SimCLR."""
    file = work.folder / "encoder" / "projection.safetensors"
    if not file.is_file():
        return None
    state = load_file(file)
    hidden, dim = state["0.weight"].shape
    projection = Projection(dim, hidden, len(state["2.weight"]))
    projection.load_state_dict(state)
    return projection.eval()


def _encoder_config(work: Workspace) -> EncoderConfig:
    if work.config.encoder is None:
        raise DataError("this configuration has no encoder")
    return work.config.encoder


def _images_seen(config: EncoderConfig) -> int:
    return sum(p.total_steps * p.batch_size for p in (config.pretraining, config.simclr) if p is not None)


def _labelled(images: ImageSet, labels: tuple[int, int] | None) -> ImageSet:
    low, high = labels or (0, len(images.class_names) - 1)
    chosen = images.take((images.labels >= low) & (images.labels <= high))
    if not len(chosen):
        raise DataError(f"{images.name}: no image with a label in {low}..{high} to pre-train on")
    shifted = chosen.labels - low
    return ImageSet(
        chosen.name, chosen.split, chosen.images, shifted, chosen.ids, chosen.class_names[low : high + 1]
    )
