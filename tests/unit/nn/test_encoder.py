from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from sdviz.config.nodes import EncoderConfig
from sdviz.nn.encoder import Encoder, build_encoder
from sdviz.nn.weights import EncoderError

pytestmark = pytest.mark.usefixtures("one_thread")

VIT = "timm:vit_tiny_patch16_224"


def pictures(n: int = 2, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# --- features ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "feature_dim", "n_blocks"),
    [
        ({"arch": "small", "width": 4}, 16, 4),
        ({"arch": "resnet18", "width": 4}, 32, 9),
        ({"arch": "timm:resnet18"}, 512, 6),
        ({"arch": VIT, "input_px": 32}, 192, 13),
        ({"arch": "timm:deit_tiny_patch16_224", "input_px": 32}, 192, 13),
        ({"arch": "timm:mobilevit_xxs", "input_px": 64}, 320, 6),
        # widened behind the pooling: what comes out is not what timm calls num_features
        ({"arch": "timm:mobilenetv3_small_050"}, 1024, 8),
    ],
    ids=lambda value: value.get("arch", "") if isinstance(value, dict) else str(value),
)
def test_one_pooled_vector_for_each_image(settings: dict[str, object], feature_dim: int, n_blocks: int) -> None:
    encoder = Encoder(**settings).eval()  # type: ignore[arg-type]
    x = pictures(3)
    with torch.no_grad():
        features = encoder(x)
        assert features.shape == (3, feature_dim)
        torch.testing.assert_close(features[1:2], encoder(x[1:2]), rtol=1e-4, atol=1e-4)
    assert encoder.feature_dim == feature_dim
    assert len(encoder.blocks) == n_blocks
    # its config builds the same network
    again = Encoder(**encoder.config).eval()
    again.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        assert torch.equal(again(x), features)


@pytest.mark.parametrize("arch", ["small", "resnet18"])
def test_convolutions_take_any_size(arch: str) -> None:
    encoder = Encoder(arch, 4).eval()
    for n, height, width in ((1, 8, 8), (2, 33, 33), (2, 16, 24)):
        assert encoder(pictures(n, height, width)).shape == (n, encoder.feature_dim)


def test_resnet18_is_the_usual_one_with_a_small_stem() -> None:
    convolutions = [m for m in Encoder("resnet18", 64).modules() if isinstance(m, nn.Conv2d)]
    n_parameters = sum(p.numel() for p in Encoder("resnet18", 64).parameters())
    # torchvision's has 11,176,512 without its head, and a 7x7 stem
    assert n_parameters == 11_176_512 - 64 * 3 * (7 * 7 - 3 * 3)
    assert [c.stride for c in convolutions if c.stride != (1, 1)] == [(2, 2)] * 6


@pytest.mark.parametrize("size", [(32, 32), (16, 12), (24, 16)])
def test_images_are_resized_to_input_px(size: tuple[int, int]) -> None:
    encoder = Encoder("small", 4, input_px=16).eval()
    plain = Encoder("small", 4).eval()
    plain.load_state_dict(encoder.state_dict())
    x = pictures(2, *size)
    resized = F.interpolate(x, size=(16, 16), mode="bicubic", antialias=True).clamp(-1, 1)
    with torch.no_grad():
        assert torch.equal(encoder(x), plain(resized))
        # what has the size already is left alone
        assert torch.equal(encoder(pictures(2, 16, 16)), plain(pictures(2, 16, 16)))


def test_a_network_of_one_size_resizes_to_its_own_when_none_is_given() -> None:
    encoder = Encoder(VIT).eval()
    assert encoder.input_px == 224
    assert encoder.config["input_px"] is None
    assert encoder(pictures(1)).shape == (1, 192)


def test_pixels_are_normalised_as_the_weights_expect() -> None:
    cfg = timm.get_pretrained_cfg("resnet18")
    encoder = Encoder("timm:resnet18").eval()
    grey_levels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (cfg.mean, cfg.std))
    with torch.no_grad():
        expected = encoder.body((grey_levels - mean) / std)
        torch.testing.assert_close(encoder(grey_levels * 2 - 1), expected, rtol=1e-3, atol=1e-3)
    assert not {"mean", "std"} & set(encoder.state_dict())


# --- building ---------------------------------------------------------------------------------------


def test_the_seed_alone_decides_the_first_weights() -> None:
    config = EncoderConfig(width=4)
    first = build_encoder(config)
    torch.rand(7)
    assert same(weights(first), weights(build_encoder(config)))
    other = build_encoder(config.model_copy(update={"seed": 1}))
    assert not same(weights(first), weights(other))


@pytest.mark.parametrize(
    ("arch", "input_px", "expected"),
    [
        ("timm:resnet81", None, "timm has no model 'resnet81'; the nearest is resnet18"),
        ("timm:vit_tiny_patch16_244", 32, "timm has no model .*; the nearest is vit_tiny_patch16_224"),
        ("timm:resnet18.no_such_weights", None, "timm cannot build resnet18.no_such_weights: Invalid"),
        ("timm:hf-hub:someone/something", None, "timm has no model"),
        ("resnet50", None, "'resnet50' is not small, resnet18 or timm:NAME"),
    ],
)
def test_an_unknown_network_is_named_in_one_line(arch: str, input_px: int | None, expected: str) -> None:
    with pytest.raises(EncoderError, match=expected) as error:
        Encoder(arch, input_px=input_px)
    assert "\n" not in str(error.value)


def test_a_known_network_that_cannot_be_built_is_not_called_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> nn.Module:
        raise TypeError("unexpected keyword argument 'img_size'\nand more")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(EncoderError) as error:
        Encoder(VIT, input_px=32)
    assert str(error.value) == (
        "timm cannot build vit_tiny_patch16_224 for 32 px: unexpected keyword argument 'img_size'"
    )


# --- frozen blocks ----------------------------------------------------------------------------------


def one_step(encoder: Encoder, x: torch.Tensor) -> None:
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], 0.1)
    encoder(x).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("train_after", [False, True])
@pytest.mark.parametrize("arch", ["small", "resnet18", "timm:resnet18", "timm:mobilenetv3_small_050"])
def test_frozen_blocks_keep_weights_and_batch_statistics(arch: str, train_after: bool) -> None:
    torch.manual_seed(0)
    encoder = Encoder(arch, 4).train()
    encoder.freeze(2)
    if train_after:
        encoder.train()
    before = [weights(block) for block in encoder.blocks]
    one_step(encoder, pictures(4))
    kept = [same(old, weights(block)) for old, block in zip(before, encoder.blocks, strict=True)]
    assert kept[:2] == [True, True]
    assert not any(kept[2:])
    # what lies before the last frozen block is frozen with it: the first weight of all
    assert not next(encoder.body.parameters()).requires_grad
    assert not any(m.training for block in encoder.blocks[:2] for m in block.modules())
    assert all(block.training for block in encoder.blocks[2:])


@pytest.mark.parametrize(
    "arch", ["small", "timm:resnet18", VIT, "timm:tf_efficientnet_lite0", "timm:mobilevit_xxs"]
)
def test_with_all_blocks_frozen_nothing_is_left_to_train(arch: str) -> None:
    encoder = Encoder(arch, 4, input_px=64 if "mobilevit" in arch else 32)
    encoder.freeze(len(encoder.blocks))
    assert not [name for name, p in encoder.named_parameters() if p.requires_grad]
    assert not any(m.training for m in encoder.train().modules() if isinstance(m, nn.BatchNorm2d))


def test_a_transformers_position_and_class_token_freeze_with_its_first_block() -> None:
    encoder = Encoder(VIT, input_px=32)
    body = encoder.body
    assert body.pos_embed.requires_grad and body.cls_token.requires_grad
    encoder.freeze(0)
    assert body.pos_embed.requires_grad and body.cls_token.requires_grad
    encoder.freeze(1)
    assert not body.pos_embed.requires_grad and not body.cls_token.requires_grad
    assert not any(p.requires_grad for p in body.patch_embed.parameters())
    assert all(p.requires_grad for p in body.blocks[0].parameters())
    encoder.freeze(3)
    assert [next(block.parameters()).requires_grad for block in body.blocks[:4]] == [False, False, True, True]
    assert body.norm.weight.requires_grad


@pytest.mark.parametrize(
    ("arch", "frozen"),
    [("small", 1), ("small", 3), ("resnet18", 8), ("timm:resnet18", 5), ("timm:tf_efficientnet_lite0", 8)],
)
def test_features_from_the_activations_before_the_first_trained_block(arch: str, frozen: int) -> None:
    encoder = Encoder(arch, 4, 64 if arch.startswith("timm:") else None)
    encoder.freeze(frozen)
    encoder.train()  # frozen blocks stay in eval mode, so that activations are the same in each step
    x = pictures(4)
    with torch.no_grad():
        kept = encoder.eval().activations(x)
        assert kept.shape[0] == 4 and kept.ndim == 4
        torch.testing.assert_close(encoder.features_of(kept), encoder(x), rtol=1e-5, atol=1e-6)
    # the same gradients
    encoder.train()
    found = []
    for features in (encoder(x), encoder.features_of(kept)):
        encoder.zero_grad()
        features.square().sum().backward()
        found.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 0
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    # and whole again afterwards
    assert encoder.eval()(x).shape == (4, encoder.feature_dim)


def test_activations_are_the_features_where_all_blocks_are_frozen() -> None:
    encoder = Encoder("small", 4).eval()
    encoder.freeze(4)
    kept = encoder.activations(pictures())
    assert torch.equal(kept, encoder(pictures())) and encoder.features_of(kept) is kept


def test_a_transformer_cannot_start_from_activations() -> None:
    transformer = Encoder(VIT, input_px=32)
    transformer.freeze(5)
    before = transformer(pictures())
    with pytest.raises(EncoderError, match="cannot start at block 5"):
        transformer.features_of(transformer.activations(pictures()))
    torch.testing.assert_close(transformer(pictures()), before)


def test_more_blocks_than_there_are_cannot_freeze() -> None:
    encoder = Encoder("small", 4)
    encoder.freeze(4)
    assert not any(p.requires_grad for p in encoder.parameters())
    with pytest.raises(EncoderError, match="frozen_blocks 5: small has 4 blocks"):
        encoder.freeze(5)
