"""The outlier lab: original and outlier side by side, live in S and w."""

from sdviz.ui.lab.page import show_lab
from sdviz.ui.page import OUTLIERS_LIVE, setup_bundle_page

show_lab(
    *setup_bundle_page(
        "Outlier lab",
        "Noise an image to step **S**, denoise it under the **wrong label** with guidance **w**: "
        "the background stays, the object turns odd.",
        OUTLIERS_LIVE,
        makes_outliers=True,
    )
)
