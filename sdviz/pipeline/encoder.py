"""Stage `encoder`: trains the network whose features are clustered.

Writes encoder/encoder.safetensors and, with SimCLR, encoder/projection.safetensors.
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

    Loads pre-trained weights, trains on the labels of another set, then trains by SimCLR on the run's images;
    each only if the configuration asks for it.
    """
    out, views, encoder = work.stage_folder(stage), work.config.views, build_encoder(config)
    trainings = [one for one in (config.pretraining, config.simclr) if one is not None]
    total = sum(one.total_steps for one in trainings)

    # 1. the labels of another set
    pretrained = out / "pretrained.safetensors"
    if config.pretraining is not None and pretrained.is_file():
        encoder.load_state_dict(load_file(pretrained))
    elif config.pretraining is not None:
        p = config.pretraining
        other = _labelled(data.load(p.data, p.split, size_px=work.config.data.size_px), p.labels)
        execution = work.execution(stage, out / "pretraining.state.pt", total, training="pretraining")
        own_views = p.views or views
        if not train_supervised(encoder, other.images, other.labels, own_views, p, execution, config.seed):
            return None
        write_network(encoder, pretrained)
    # 2. SimCLR
    if config.simclr is not None:
        before = total - config.simclr.total_steps
        execution = work.execution(stage, out / "simclr.state.pt", total, before, "SimCLR")
        projection = train_simclr(encoder, work.images.images, views, config.simclr, execution, config.seed)
        if projection is None:
            return None
        write_network(projection, out / "projection.safetensors")
    write_network(encoder, out / "encoder.safetensors")
    images_seen = sum(one.total_steps * one.batch_size for one in trainings)
    return {f"{stage}_parameters": n_parameters(encoder), f"{stage}_images_seen": images_seen}


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
    memory_settings=("encoder.pretraining.batch_size", "encoder.simclr.batch_size"),
)
