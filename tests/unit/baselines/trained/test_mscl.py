from __future__ import annotations

import numpy as np
import pytest
import torch

from sdviz.baselines.trained.mscl import MSCL, mean_shifted_loss
from sdviz.nn.batches import encode
from sdviz.nn.views import random_views
from tests.baselines import ROWS, VIEWS, as_tensor, loss_of, noise_reference, training_of, unit

pytestmark = pytest.mark.usefixtures("one_thread")


def test_mean_shifted_loss_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    features, centre, tau = rng.normal(size=(6, 5)), rng.normal(size=5) * 0.1, 0.25
    z = unit(unit(features) - centre)
    similarity = z @ z.T / tau
    losses = []
    for i in range(6):
        others = [j for j in range(6) if j != i]
        losses.append(-similarity[i, (i + 3) % 6] + np.log(np.exp(similarity[i, others]).sum()))
    got = mean_shifted_loss(torch.tensor(features), torch.tensor(centre), tau)
    assert float(got) == pytest.approx(np.mean(losses))


def test_mscl_contrasts_about_the_centre_at_its_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = noise_reference()
    known = reference.known.images
    assert known is not None
    images = known[ROWS.numpy()]
    training = training_of(monkeypatch, MSCL(), reference)
    # the method draws both views by the generator of the step, from images that are not views yet
    generator = torch.Generator().manual_seed(4)
    x = as_tensor(images)
    views = torch.cat([random_views(x, VIEWS, generator), random_views(x, VIEWS, generator)])
    with torch.no_grad():
        features = training.encoder(views).double().numpy()
    centre = unit(encode(training.encoder, known, "cpu").astype(np.float64)).mean(0)
    theta = unit(unit(features) - centre)
    exps = np.exp(theta @ theta.T / 0.25)
    pair = np.arange(12)[::-1].reshape(2, 6)[:, ::-1].ravel()  # 6..11, then 0..5
    want = np.mean([-np.log(exps[i, pair[i]] / (exps[i].sum() - exps[i, i])) for i in range(12)])
    assert not training.augment
    assert loss_of(training, images, seed=4) == pytest.approx(want, rel=1e-4)
