"""All methods: their sources and their defaults."""

from __future__ import annotations

import pytest

from sdviz.baselines import BASELINES


@pytest.mark.parametrize("key", BASELINES)
def test_docstrings_name_the_source(key: str) -> None:
    method = BASELINES[key]
    assert method.key == key and method.title and method.needs
    text = method.__doc__ or ""
    assert key == "png_size" or any(str(year) in text for year in [*range(2015, 2026), 1948])


TRAINED = {"epochs": 5, "frozen_blocks": 0, "views": "run"}
DEFAULTS: dict[str, dict[str, object]] = {
    "dn2": {"k": 2, "normalize": False},
    "knn": {"k": 50, "normalize": True},
    "ssd": {"normalize": True},
    "multiclass_ad": TRAINED | {"k": 2, "normalize": False, "batch_size": 128},
    "mscl": TRAINED | {"k": 2, "normalize": True, "temperature": 0.25, "batch_size": 64, "frozen_blocks": 1},
    "fake_it": TRAINED
    | {"k": 2, "normalize": False, "batch_size": 64, "views": "flip", "generator_steps": 300},
    "rot": TRAINED | {"batch_size": 32},
}
OPTIMIZERS = {
    "multiclass_ad": ("adamw", 1e-3, 1e-4, 20),
    "mscl": ("sgd", 1e-4, 5e-5, 0),
    "fake_it": ("sgd", 1e-2, 5e-5, 0),
    "rot": ("adamw", 1e-3, 1e-4, 20),
}


@pytest.mark.parametrize("key", BASELINES)
def test_defaults_are_those_of_the_docstrings(key: str) -> None:
    method = BASELINES[key]()
    optimizer = getattr(method, "optimizer", None)
    assert method.settings.model_dump(exclude={"learning_rate"}) == DEFAULTS.get(key, {})
    if optimizer is not None:
        chosen = (optimizer.name, optimizer.learning_rate, optimizer.weight_decay, optimizer.warmup_steps)
        assert chosen == OPTIMIZERS[key] and optimizer.momentum == 0.9
    # where the source fixes it, the docstring says so
    text = method.__doc__ or ""
    if "k" in DEFAULTS.get(key, {}):
        assert f"k = {DEFAULTS[key]['k']}" in text
    if key == "mscl":
        assert "temperature 0.25" in text
