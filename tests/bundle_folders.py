"""Changes to the files of a saved bundle, and the message with which it is then refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from sdviz.bundle import MANIFEST, Bundle, BundleError
from tests.stages import everything_in

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def edit_json(file: Path, **changes: Any) -> None:  # noqa: ANN401
    """Changes keys of a JSON file; a value of None takes the key away."""
    tree = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in tree.items() if v is not None}))


def edit_manifest(folder: Path, **changes: Any) -> None:  # noqa: ANN401
    edit_json(folder / MANIFEST, **changes)


def sign(folder: Path) -> None:
    """Writes the hashes of the files as they are now into bundle.json, so that these are not refused."""
    hashes = {name: hashlib.sha256(raw).hexdigest() for name, raw in everything_in(folder).items()}
    edit_manifest(folder, files={name: digest for name, digest in hashes.items() if name != MANIFEST})


def refusal(folder: Path) -> str:
    """What `Bundle.load` says when it refuses: always one line."""
    with pytest.raises(BundleError) as refused:
        Bundle.load(folder, "cpu")
    assert "\n" not in str(refused.value)
    return str(refused.value)


def hash_of(folder: Path) -> str:
    """What `Bundle.hash` must be: SHA-256 of bundle.json without its metrics, keys sorted."""
    tree = json.loads((folder / MANIFEST).read_text("utf-8"))
    tree.pop("metrics", None)
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
