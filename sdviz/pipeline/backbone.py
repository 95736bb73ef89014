"""Stage `backbone`: trains the network that the detector starts from, if that is not the encoder.

Writes backbone/encoder.safetensors.
"""

from __future__ import annotations

from ..config.nodes import EncoderConfig
from ..config.tree import RunConfig
from ..nn.encoder import Encoder
from . import encoder
from .encoder import load_encoder, load_trained, train_encoder
from .workspace import Metrics, Settings, Stage, Workspace, branches, training_images


def depends_on(config: RunConfig) -> Settings:
    """Images, views and `detector.backbone`; without one, what the encoder depends on."""
    if config.detector is None or config.detector.backbone is None:
        return encoder.depends_on(config)
    own = config.detector.backbone.model_dump(mode="json")
    return training_images(config) | branches(config, "views") | {"backbone": own}


def make(work: Workspace) -> Metrics | None:
    """Trains the backbone in the way that stage `encoder` trains the encoder."""
    return train_encoder(work, "backbone", backbone_config(work.config))


def backbone_config(config: RunConfig) -> EncoderConfig:
    """The configuration of the network that the detector starts from."""
    own = config.detector.backbone if config.detector is not None else None
    found = own or config.encoder
    assert found is not None
    return found


def load_backbone(work: Workspace) -> Encoder:
    """The network that the detector starts from, in eval mode on the CPU."""
    if work.config.detector is None or work.config.detector.backbone is None:
        return load_encoder(work)
    return load_trained(work, "backbone", work.config.detector.backbone)


STAGE = Stage(
    make,
    depends_on,
    title="Backbone",
    is_wanted=lambda config: config.detector is not None and config.detector.backbone is not None,
)
