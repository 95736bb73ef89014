from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from sdviz.config.nodes import UNetConfig
from sdviz.nn.unet import NoisePredictor, build_noise_predictor, n_parameters

pytestmark = pytest.mark.usefixtures("one_thread")


def build_without_weights(config: UNetConfig, n_classes: int = 10, size: int = 32) -> NoisePredictor:
    with torch.device("meta"):
        return build_noise_predictor(config, n_classes, size)


def test_ddpm_is_the_unet_of_ho_et_al() -> None:
    network = build_without_weights(UNetConfig(arch="ddpm"))
    class_rows = 11 * 512
    # theirs has 35.75 M, the class embedding comes on top
    assert (n_parameters(network) - class_rows) / 1e6 == pytest.approx(35.75, abs=0.005)
    config = network.unet.config
    assert config["block_out_channels"] == (128, 256, 256, 256)
    assert config["down_block_types"] == ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D")
    assert config["up_block_types"] == ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    assert (config["layers_per_block"], config["dropout"]) == (2, 0.1)
    assert (config["downsample_padding"], config["flip_sin_to_cos"], config["freq_shift"]) == (0, False, 1)
    assert (config["norm_eps"], config["norm_num_groups"]) == (1e-6, 32)
    assert (config["in_channels"], config["sample_size"]) == (3, 32)


def test_small_is_the_unet_for_cpus() -> None:
    network = build_without_weights(UNetConfig())
    assert n_parameters(network) / 1e6 == pytest.approx(4.45, abs=0.01)
    config = network.unet.config
    assert config["block_out_channels"] == (64, 128, 128)
    assert (config["in_channels"], config["out_channels"], config["sample_size"]) == (12, 12, 16)
    assert (config["dropout"], config["norm_num_groups"], network.pixel_unshuffle) == (0, 32, 2)


@pytest.mark.parametrize("size_px", [64, 128])
def test_small_takes_larger_pictures_with_the_same_weights(size_px: int) -> None:
    small, large = build_without_weights(UNetConfig()), build_without_weights(UNetConfig(), size=size_px)
    shapes = [{name: w.shape for name, w in one.state_dict().items()} for one in (small, large)]
    assert shapes[0] == shapes[1]
    assert large.unet.config["sample_size"] == size_px // 2
    x = torch.empty(2, 3, size_px, size_px, device="meta")
    t = torch.zeros(2, dtype=torch.int64, device="meta")
    assert large(x, t, t).shape == x.shape


@pytest.mark.parametrize("size_px", [64, 128])
def test_larger_pictures_are_predicted_and_heed_the_class(
    tiny_network: Callable[..., NoisePredictor], size_px: int
) -> None:
    network = tiny_network(UNetConfig(channels=(8, 8, 8)), size=size_px)
    x = torch.randn(1, 3, size_px, size_px)
    with torch.no_grad():
        first, other = (network(x, torch.tensor([500]), torch.tensor([c])) for c in (0, 1))
    assert first.shape == x.shape and first.isfinite().all()
    assert (first - other).abs().max() > 1e-3


@pytest.mark.parametrize("arch", ["small", "ddpm"])
@pytest.mark.parametrize("n_classes", [1, 3, 10])
def test_the_class_embedding_has_a_row_more_for_the_null_token(arch: str, n_classes: int) -> None:
    network = build_without_weights(UNetConfig(arch=arch), n_classes)
    assert network.unet.class_embedding.num_embeddings == n_classes + 1
    assert network.null_label == n_classes


def test_fields_replace_the_values_of_the_size() -> None:
    config = UNetConfig(channels=(16, 24), layers_per_block=1, dropout=0.3, pixel_unshuffle=4)
    network = build_noise_predictor(config, 3, 16)
    assert network.unet.config["block_out_channels"] == (16, 24)
    assert (network.unet.config["layers_per_block"], network.unet.config["dropout"]) == (1, 0.3)
    assert (network.pixel_unshuffle, network.unet.config["in_channels"]) == (4, 48)
    x = torch.randn(2, 3, 16, 16)
    assert network(x, torch.tensor([0, 999]), torch.tensor([0, 3])).shape == x.shape


@pytest.mark.parametrize("pixel_unshuffle", [1, 2, 4])
def test_takes_and_gives_whole_pictures(
    tiny_network: Callable[..., NoisePredictor], pixel_unshuffle: int
) -> None:
    config = UNetConfig(channels=(8, 8), layers_per_block=1, pixel_unshuffle=pixel_unshuffle)
    network = tiny_network(config, size=16)
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        eps = network(x, torch.tensor([5, 50]), torch.tensor([0, 1]))
    assert eps.shape == x.shape
    assert eps.std() > 0.01


class Identity(torch.nn.Module):
    """Called as a U-Net; returns its input, and keeps it."""

    config = {"num_class_embeds": 4}
    seen: torch.Tensor

    def forward(
        self, x: torch.Tensor, timesteps: torch.Tensor, class_labels: torch.Tensor, return_dict: bool
    ) -> tuple[torch.Tensor]:
        self.seen = x
        return (x,)


@pytest.mark.parametrize("pixel_unshuffle", [1, 2, 4])
def test_pixel_unshuffle_and_back_keeps_every_pixel_in_its_place(pixel_unshuffle: int) -> None:
    unet = Identity()
    network = NoisePredictor(unet, pixel_unshuffle)  # type: ignore[arg-type]
    x = torch.arange(2 * 3 * 8 * 8).reshape(2, 3, 8, 8).float()
    assert torch.equal(network(x, torch.tensor([0, 0]), torch.tensor([0, 0])), x)
    f = pixel_unshuffle
    assert unet.seen.shape == (2, 3 * f * f, 8 // f, 8 // f)
    assert torch.equal(unet.seen, F.pixel_unshuffle(x, f))
    # the first channel is the first pixel of each f x f square of the red channel
    assert torch.equal(unet.seen[:, 0], x[:, 0, ::f, ::f])


@pytest.mark.parametrize("channels", [(8, 8), (4, 4), (16,), (12, 8), (8, 12), (32, 64, 64), (2, 2)])
def test_the_prediction_heeds_class_and_time_at_any_width(
    tiny_network: Callable[..., NoisePredictor], channels: tuple[int, ...]
) -> None:
    network = tiny_network(UNetConfig(channels=channels, layers_per_block=1, pixel_unshuffle=1))
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        first, other_class, null, other_time = (
            network(x, torch.tensor([t]), torch.tensor([c])) for t, c in ((500, 0), (500, 1), (500, 3), (10, 0))
        )
    # group norm over a single channel takes away all that the embeddings add to it: 1e-7 is left
    for other in (other_class, null, other_time):
        assert (first - other).abs().max() > 1e-3


def test_rows_of_a_batch_do_not_touch_each_other(tiny_network: Callable[..., NoisePredictor]) -> None:
    network = tiny_network(UNetConfig(channels=(8, 8), layers_per_block=1))
    x, t, c = torch.randn(4, 3, 8, 8), torch.tensor([1, 50, 300, 999]), torch.tensor([0, 1, 2, 3])
    with torch.no_grad():
        whole = network(x, t, c)
        for row in range(4):
            one = network(x[row : row + 1], t[row : row + 1], c[row : row + 1])
            torch.testing.assert_close(one, whole[row : row + 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "size", "multiple"),
    [
        (UNetConfig(), 30, 8),
        (UNetConfig(), 28, 8),
        (UNetConfig(arch="ddpm"), 28, 8),
        (UNetConfig(channels=(8, 8, 8), pixel_unshuffle=4), 24, 16),
    ],
)
def test_refuses_an_image_size_that_its_halvings_do_not_divide(
    config: UNetConfig, size: int, multiple: int
) -> None:
    with pytest.raises(ValueError, match=rf"image size {size} px is not a multiple of {multiple}"):
        build_noise_predictor(config, 3, size)


def test_counts_parameters() -> None:
    assert n_parameters(torch.nn.Linear(3, 4)) == 16
