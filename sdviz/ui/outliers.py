"""What pages that make outliers share: sliders of S and w, values of S to try, clusters of pictures."""

from typing import Any

import numpy as np
import streamlit as st

from sdviz.bundle import Bundle
from sdviz.ui.cache.background import DEVICE_LOCK
from sdviz.ui.cache.kept import kept

S_STEP = 5
W_MIN, W_MAX, W_STEP = -1.0, 8.0, 0.25


def s_slider(bundle: Bundle, key: str, **more: Any) -> int:  # noqa: ANN401
    """Draws the slider of S, up to the bundle's largest; `more` are arguments of `st.slider`."""
    return st.slider(
        "S, noising steps",
        0,
        bundle.manifest.max_train_timestep,
        bundle.manifest.defaults.start_timestep,
        S_STEP,
        key=key,
        help="How far the image is noised before it is denoised again. More steps leave less of it.",
        **more,
    )


def w_slider(bundle: Bundle, key: str, **more: Any) -> float:  # noqa: ANN401
    """Draws the slider of w; `more` are arguments of `st.slider`."""
    return st.slider(
        "w, guidance",
        W_MIN,
        W_MAX,
        float(bundle.manifest.defaults.guidance_scale),
        W_STEP,
        key=key,
        help="Eq. 3: (1+w) ε(x, wrong label) - w ε(x, no label).",
        **more,
    )


def s_values(max_s: int, count: int) -> list[int]:
    """Returns up to `count` values of S from 0 to max_s, multiples of 5 if max_s is large enough."""
    return sorted(
        {int(round(v / 5) * 5) if max_s >= 5 * count else int(v) for v in np.linspace(0, max_s, count)}
    )


@kept("cluster of an image")
def cluster_of(bundle: Bundle, image: np.ndarray) -> tuple[int, float]:
    """Returns the cluster of a picture by the bundle's clusterer, and its confidence, 0..1."""
    with DEVICE_LOCK:
        labels, confidence = bundle.pseudo_label(image[None])
    return int(labels[0]), float(confidence[0])


def clusters_of(bundle: Bundle, images: list[np.ndarray] | np.ndarray) -> np.ndarray:
    """Returns the cluster of each picture, uint8 (N,H,W,3), by the bundle's clusterer, int64 (N,)."""
    with DEVICE_LOCK:
        return bundle.pseudo_label(np.asarray(images))[0]
