"""The landing page: what sdviz is, which bundle, data and device are in use, where to go."""

from sdviz.ui.home import show_home
from sdviz.ui.page import setup_page

show_home(
    setup_page(
        "Outliers that keep the scene and lose the object",
        "A real image is noised to step **S** and denoised under the **wrong label**: "
        "the background stays, the object turns into something odd.",
        makes_outliers=True,
    )
)
