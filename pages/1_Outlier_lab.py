"""The outlier lab: original and outlier side by side, live in S and w."""

from sdviz.ui.lab.page import show_lab
from sdviz.ui.page import setup_page

show_lab(
    setup_page(
        "Outlier lab",
        "Noise an image to step **S**, denoise it under the **wrong label** with guidance **w**: "
        "the background stays, the object turns odd.",
        makes_outliers=True,
    )
)
