from __future__ import annotations

import numpy as np
from scipy.stats import multivariate_normal

from sdviz import data
from sdviz.baselines import Images, Reference
from sdviz.baselines.complexity.input_complexity import InputComplexity, complexity_bits, shrunk
from sdviz.baselines.complexity.png_size import png_bits


def test_input_complexity_is_a_gaussian_less_the_best_compressor() -> None:
    images = data.load("shapes", "test", limit=900).images[:, :8, :8]
    method = InputComplexity().fit(Reference(Images(images=images)))
    x = images.reshape(len(images), -1).astype(np.float64)
    covariance = np.cov(x, rowvar=False, bias=True) + np.eye(192) * (1 / 12 + 1e-3)
    log_p = multivariate_normal(x.mean(0), covariance).logpdf(x[:5]) / np.log(2) / 192
    assert np.allclose(method.log2_likelihood(images[:5]), log_p)
    assert np.allclose(method.score(Images(images=images[:5])), -log_p - complexity_bits(images[:5]))
    assert (complexity_bits(images[:5]) <= png_bits(images[:5])).all()


def test_likelihood_and_bits_are_of_the_same_picture() -> None:
    images = data.load("shapes", "test", limit=900).images
    method = InputComplexity().fit(Reference(Images(images=images)))
    x = images[:5].reshape(5, 16, 2, 16, 2, 3).astype(float).mean((2, 4))
    small = shrunk(images[:5])
    assert small.shape == (5, 16, 16, 3) and np.abs(small - x).max() <= 0.5
    want = -method.log2_likelihood(small) - complexity_bits(small)
    assert np.allclose(method.score(Images(images=images[:5])), want)
