from __future__ import annotations

import numpy as np
import pytest
import torch

from sdviz.nn.losses import nt_xent


def slow_nt_xent(a: np.ndarray, b: np.ndarray, tau: float) -> float:
    """Eq. 1 of Chen et al. 2020 as it is printed: views 2k-1 and 2k (from 1) are of one image."""
    z = np.stack([a, b], 1).reshape(2 * len(a), -1)

    def sim(i: int, j: int) -> float:
        return float(z[i] @ z[j] / (np.linalg.norm(z[i]) * np.linalg.norm(z[j])))

    def pair(i: int, j: int) -> float:
        others = sum(np.exp(sim(i, k) / tau) for k in range(len(z)) if k != i)
        return float(-np.log(np.exp(sim(i, j) / tau) / others))

    n = len(a)
    return sum(pair(2 * k, 2 * k + 1) + pair(2 * k + 1, 2 * k) for k in range(n)) / (2 * n)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_nt_xent_is_eq_1(n: int, temperature: float) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(2, n, 5)) * 3
    loss = nt_xent(torch.tensor(a), torch.tensor(b), temperature)
    assert float(loss) == pytest.approx(slow_nt_xent(a, b, temperature), rel=1e-4, abs=1e-5)
    # order and length of the views do not matter
    order = rng.permutation(n)
    again = nt_xent(torch.tensor(b[order]) * 7, torch.tensor(a[order]), temperature)
    assert float(again) == pytest.approx(float(loss), rel=1e-4, abs=1e-5)


def test_nt_xent_in_closed_form() -> None:
    # views agree, images are at right angles: -log(e^(1/tau) / (e^(1/tau) + 2(n-1)))
    z = torch.eye(4)
    assert float(nt_xent(z, z, 0.5)) == pytest.approx(np.log(1 + 6 * np.exp(-2)), rel=1e-5)
    # all alike: a guess among the 2n - 1 others
    one = torch.ones(4, 3)
    assert float(nt_xent(one, one, 0.1)) == pytest.approx(np.log(7), rel=1e-5)
    z.requires_grad_()
    nt_xent(z, z.detach().roll(1, 0), 0.5).backward()
    assert z.grad is not None and torch.isfinite(z.grad).all() and z.grad.abs().sum() > 0
