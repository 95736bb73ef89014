"""The command `clusters`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import Result

from sdviz.nn.encoder import Encoder
from tests.command_line import one_line_error
from tests.tiny_runs import write_tiny_detector_config


@pytest.fixture
def ask(cli: Callable[..., Result], tmp_path: Path) -> Callable[..., Result]:
    """`clusters` on pictures of three colours, by an encoder with the weights of a file."""
    config = write_tiny_detector_config(tmp_path, n_each=40)
    torch.manual_seed(0)
    save_file(Encoder("small", 8).body.state_dict(), tmp_path / "weights.safetensors")
    weights = f"encoder={{width: 8, simclr: null, weights: {tmp_path / 'weights.safetensors'}}}"
    return lambda *given: cli("clusters", config, "--set", weights, *given)


def test_the_number_of_colours_is_found(ask: Callable[..., Result], one_thread: None) -> None:
    numbers = [part for n in (2, 3, 6, 9) for part in ("--number", str(n))]
    result = ask(*numbers, "--json")
    assert result.exit_code == 0, result.output
    tree = json.loads(result.stdout)
    assert [one["n_clusters"] for one in tree["agreement"]] == [2, 3, 6, 9]
    assert tree["supported"] == 3
    assert next(one["mean"] for one in tree["agreement"] if one["n_clusters"] == 3) > 0.9
    text = ask(*numbers).stdout.splitlines()
    assert text[1].startswith("   3 clusters: agreement ")
    assert text[-1] == "The features support 3: set labels.n_clusters=3"


def test_a_number_above_the_images_is_refused(ask: Callable[..., Result], one_thread: None) -> None:
    assert "200] clusters of" in one_line_error(ask("--number", "200"))


def test_an_encoder_that_a_run_trains_is_refused(cli: Callable[..., Result], tmp_path: Path) -> None:
    message = one_line_error(cli("clusters", write_tiny_detector_config(tmp_path)))
    assert message == "clusters needs a fixed encoder: set encoder.weights and encoder.simclr=null"
