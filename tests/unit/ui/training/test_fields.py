from __future__ import annotations

import pytest
from pydantic import ValidationError

from sdviz.config.tree import RunConfig
from sdviz.ui.training.fields import GROUPS, limits, settings_of, value_of

KEYS = [setting.key for settings in GROUPS.values() for setting in settings]


def config_with(key: str, value: object) -> RunConfig:
    """A tree that holds the value at that key, and else what the tree itself gives."""
    tree: dict[str, object] = {"data": {"id": "shapes"}, "encoder": {}, "detector": {}}
    branch = tree
    *parents, last = key.split(".")
    for part in parents:
        branch = branch.setdefault(part, {})  # type: ignore[assignment]
    branch[last] = value
    return RunConfig.model_validate(tree)


@pytest.mark.parametrize("key", KEYS)
def test_a_border_is_taken_and_the_next_value_beyond_is_not(key: str) -> None:
    rule = limits(key)
    step = 1 if rule.kind == "int" else 1e-6
    number = int if rule.kind == "int" else float
    for border, direction in ((rule.low, -1), (rule.high, 1)):
        if border is None:
            continue
        with pytest.raises(ValidationError):
            config_with(key, number(border + direction * step))
        try:
            assert value_of(config_with(key, number(border)), key) == border
        except ValidationError as error:  # two keys that do not go together are no matter of the range
            assert {one["type"] for one in error.errors()} == {"value_error"}
    for choice in rule.choices:
        try:
            config_with(key, choice)
        except ValidationError as error:
            assert {one["type"] for one in error.errors()} == {"value_error"}


def test_limits_come_from_the_tree() -> None:
    assert limits("data.limit").kind == "int"
    assert (limits("data.limit").optional, limits("data.limit").low) == (True, 1)
    assert (limits("defaults.guidance_scale").low, limits("defaults.guidance_scale").high) == (-1, 20)
    assert limits("diffusion.learning_rate").low == pytest.approx(0, abs=1e-8)
    assert limits("diffusion.unet.arch").choices == ("small", "ddpm")
    assert limits("diffusion.random_flip").kind == "bool"
    for key in ("diffusion", "diffusion.nix", "nix", "encoder.simclr", "views.area"):
        with pytest.raises(KeyError):
            limits(key)


def test_only_what_means_something_is_shown() -> None:
    plain = RunConfig.model_validate({"data": {"id": "shapes"}})
    assert set(settings_of(plain)) == {"Images and their clusters", "Noise predictor"}
    shown = [one.key for settings in settings_of(plain).values() for one in settings]
    assert "outliers.per_image" not in shown and "encoder.simclr.total_steps" not in shown
    whole = config_with("labels", {"source": "scan", "n_clusters": 3})
    assert [one.key for settings in settings_of(whole).values() for one in settings] == KEYS
