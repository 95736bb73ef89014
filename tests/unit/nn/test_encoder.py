from __future__ import annotations

import pickle
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from sdviz.config.nodes import EncoderConfig
from sdviz.nn.encoder import Encoder, EncoderError, build_encoder, load_weights

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


def test_more_blocks_than_there_are_cannot_freeze() -> None:
    encoder = Encoder("small", 4)
    encoder.freeze(4)
    assert not any(p.requires_grad for p in encoder.parameters())
    with pytest.raises(EncoderError, match="frozen_blocks 5: small has 4 blocks"):
        encoder.freeze(5)


# --- weights ----------------------------------------------------------------------------------------


@pytest.fixture
def trained() -> Encoder:
    torch.manual_seed(7)
    return Encoder("small", 4)


def save_safetensors(state: dict[str, torch.Tensor], path: Path) -> None:
    save_file({key: value.contiguous() for key, value in state.items()}, path)


def save_pth(state: dict[str, torch.Tensor], path: Path) -> None:
    torch.save(state, path)


def save_nested(state: dict[str, torch.Tensor], path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": state}, path)


@pytest.mark.parametrize(
    ("name", "save"), [("w.safetensors", save_safetensors), ("w.pth", save_pth), ("w.bin", save_nested)]
)
@pytest.mark.parametrize("change", ["as it is", "a head beside it", "float16", "no counters"])
def test_weights_of_a_file(
    trained: Encoder,
    tmp_path: Path,
    name: str,
    save: Callable[[dict[str, torch.Tensor], Path], None],
    change: str,
) -> None:
    state = weights(trained.body)
    if change == "a head beside it":
        state |= {
            "head.weight": torch.zeros(3, 16),
            "fc.bias": torch.zeros(3),
            "classifier.weight": torch.ones(2),
        }
    elif change == "float16":
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    elif change == "no counters":
        state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    save(state, tmp_path / name)
    encoder = build_encoder(EncoderConfig(width=4, weights=str(tmp_path / name)))
    for key, value in trained.body.state_dict().items():
        expected = value.half().float() if change == "float16" and value.is_floating_point() else value
        assert torch.equal(encoder.body.state_dict()[key], expected), key
    x = pictures()
    if change != "float16":
        assert torch.equal(encoder.eval()(x), trained.eval()(x))


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_weights_as_a_run_keeps_its_encoder(trained: Encoder, tmp_path: Path, name: str) -> None:
    (save_safetensors if name.endswith("safetensors") else save_pth)(weights(trained), tmp_path / name)
    encoder = build_encoder(EncoderConfig(width=4, weights=str(tmp_path / name)))
    assert same(weights(encoder), weights(trained))
    said = refusal(EncoderConfig(width=8, weights=str(tmp_path / name)))
    assert said == f"{tmp_path / name}: not this network's weights: it has another shape of 0.0.weight"


def test_a_home_folder_is_written_as_usual(
    trained: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save_pth(weights(trained.body), tmp_path / "w.pth")
    assert same(weights(build_encoder(EncoderConfig(width=4, weights="~/w.pth"))), weights(trained))


def refusal(config: EncoderConfig) -> str:
    with pytest.raises(EncoderError) as error:
        build_encoder(config)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_weights_of_another_network_are_refused_by_the_first_key(trained: Encoder, tmp_path: Path) -> None:
    whole = weights(trained.body)
    key = "0.0.weight"
    for change, expected in (
        ({k: v for k, v in whole.items() if k != key}, f"it lacks {key}"),
        (whole | {key: torch.zeros(5, 3, 3, 3)}, f"it has another shape of {key}"),
        (whole | {"9.weight": torch.zeros(1)}, "it has an unknown 9.weight"),
        (weights(Encoder("small", 8).body), f"it has another shape of {key}"),
    ):
        for name, save in (("w.safetensors", save_safetensors), ("w.pth", save_pth)):
            path = tmp_path / name
            save(change, path)
            said = refusal(EncoderConfig(width=4, weights=str(path)))
            assert said == f"{path}: not this network's weights: {expected}"


def test_weights_that_are_refused_change_nothing(trained: Encoder, tmp_path: Path) -> None:
    encoder = Encoder("small", 4)
    before = weights(encoder)
    whole = weights(trained.body)
    last = list(whole)[-2]
    save_pth(whole | {last: torch.zeros(2, 2)}, tmp_path / "w.pth")
    with pytest.raises(EncoderError):
        load_weights(encoder.body, tmp_path / "w.pth")
    assert same(before, weights(encoder))


def test_a_missing_file_is_named_with_what_to_put_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        said = refusal(EncoderConfig(width=4, weights=str(path)))
        assert said == f"no weights at {path}: put a .safetensors or .pth file of this network there"


def test_a_damaged_file_is_refused(trained: Encoder, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, save in (("w.safetensors", save_safetensors), ("w.pth", save_pth)):
        path = tmp_path / name
        save(weights(trained.body), path)
        whole = path.read_bytes()
        spoilt = [b"", b"text\n", whole[: len(whole) // 2], whole[:-1], *(rng.bytes(300) for _ in range(40))]
        # pickles cut anywhere, behind a plain start
        plain = pickle.dumps({"a": [1, 2.0, "three"], "b": {"c": (4, b"5")}}, protocol=2)
        spoilt += [plain[:i] for i in range(1, len(plain), 3)] + [
            b"\x80\x02" + rng.bytes(60) for _ in range(60)
        ]
        for raw in spoilt:
            path.write_bytes(raw)
            said = refusal(EncoderConfig(width=4, weights=str(path)))
            assert said == f"{path}: damaged, or holds more than weights"


@pytest.mark.parametrize("content", [{"a": 3}, [torch.zeros(3)], torch.zeros(3), {"model": {"a": "text"}}])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    assert refusal(EncoderConfig(width=4, weights=str(tmp_path / "w.pth"))).endswith(
        "holds no table of weights"
    )


def test_a_pickle_with_code_is_not_run(trained: Encoder, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "was run"),))

    for name, raw in (("plain.pth", pickle.dumps(Evil())), ("zip.pth", None), ("nested.pt", None)):
        path = tmp_path / name
        if raw is not None:
            path.write_bytes(raw)
        else:
            torch.save({"state_dict": weights(trained.body), "extra": Evil()}, path)
        assert (
            refusal(EncoderConfig(width=4, weights=str(path))) == f"{path}: damaged, or holds more than weights"
        )
    assert not (tmp_path / "was run").exists()


def test_there_are_no_pretrained_weights_of_our_own_networks() -> None:
    for arch in ("small", "resnet18"):
        said = refusal(EncoderConfig(arch=arch, width=4, weights="pretrained"))
        assert said == f"encoder.weights pretrained: there are none for {arch}; use timm:NAME or a file"


def test_pretrained_without_a_network_says_where_to_put_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what HF_HUB_OFFLINE=1 does, and an empty cache
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    said = refusal(EncoderConfig(arch="timm:resnet18", weights="pretrained"))
    assert said == (
        "timm cannot get the weights of resnet18 here: download its model.safetensors elsewhere and set"
        " encoder.weights to that file"
    )


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's, and a hub that refuses every connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:  # its port is free again afterwards
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put_in_cache(hub: Path, repo: str, state: dict[str, torch.Tensor]) -> None:
    folder = hub / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("c0ffee")
    (folder / "snapshots" / "c0ffee").mkdir(parents=True)
    save_safetensors(state, folder / "snapshots" / "c0ffee" / "model.safetensors")


def test_a_hub_that_cannot_be_reached_is_not_asked_again_and_again(no_hub: Path) -> None:
    started = time.monotonic()
    said = refusal(EncoderConfig(arch="timm:mobilenetv3_small_050", weights="pretrained"))
    assert said.startswith("timm cannot get the weights of mobilenetv3_small_050 here: download its model")
    assert time.monotonic() - started < 15  # the hub's own tries take 47 s


def test_weights_in_the_hub_s_cache_need_no_hub(no_hub: Path) -> None:
    name = "mobilenetv3_small_050"
    torch.manual_seed(3)
    published = timm.create_model(name, pretrained=False)
    repo = timm.get_pretrained_cfg(name).hf_hub_id
    put_in_cache(no_hub, repo, published.state_dict())
    encoder = build_encoder(EncoderConfig(arch=f"timm:{name}", weights="pretrained"))
    assert torch.equal(encoder.body.conv_stem.weight, published.conv_stem.weight)


def test_pretrained_weights_come_from_timm(no_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_cache(no_hub, timm.get_pretrained_cfg(VIT.removeprefix("timm:")).hf_hub_id, {})
    real = timm.create_model
    asked: list[tuple[str, bool, object]] = []

    def downloaded(name: str, pretrained: bool, **settings: object) -> nn.Module:
        asked.append((name, pretrained, settings.get("img_size")))
        network = real(name, pretrained=False, **settings)
        return network.apply(lambda m: nn.init.constant_(m.bias, 0.25) if isinstance(m, nn.LayerNorm) else None)

    monkeypatch.setattr(timm, "create_model", downloaded)
    encoder = build_encoder(EncoderConfig(arch=VIT, input_px=32, weights="pretrained"))
    assert asked == [("vit_tiny_patch16_224", False, 32), ("vit_tiny_patch16_224", True, 32)]
    assert encoder.body.norm.bias.unique().tolist() == [0.25]


@pytest.mark.slow
def test_a_file_with_the_names_and_shapes_of_vit_base_loads(tmp_path: Path) -> None:
    published = timm.create_model("vit_base_patch16_224", pretrained=False, num_classes=1000)
    state = published.state_dict()
    # as timm publishes it
    assert len(state) == 152
    assert state["pos_embed"].shape == (1, 197, 768)
    assert state["blocks.11.attn.qkv.weight"].shape == (2304, 768)
    assert state["head.weight"].shape == (1000, 768)
    path = tmp_path / "vit_base_patch16_224.safetensors"
    save_safetensors(state, path)
    encoder = build_encoder(EncoderConfig(arch="timm:vit_base_patch16_224", input_px=224, weights=str(path)))
    assert encoder.feature_dim == 768
    for key, value in encoder.body.state_dict().items():
        assert torch.equal(value, state[key])
    with torch.no_grad():
        assert encoder.eval()(pictures(1)).shape == (1, 768)
    assert "another shape of pos_embed" in refusal(
        EncoderConfig(arch="timm:vit_base_patch16_224", input_px=32, weights=str(path))
    )
