"""All that the app keeps, and all that it does in the background.

`kept.KEPT` lists what is kept, `background.LANES` what runs in the background.
"""

from sdviz.ui.cache.background import DEVICE_LOCK
from sdviz.ui.cache.bundles import load_images, open_bundle
from sdviz.ui.cache.outliers import is_making_next, make_next, make_outliers

__all__ = ["DEVICE_LOCK", "is_making_next", "load_images", "make_next", "make_outliers", "open_bundle"]
