"""A trained system as one folder: the result of a run, and what the app opens.

from sdviz.bundle import Bundle

bundle = Bundle.load("checkpoints/shapes")
outliers = bundle.generate(images).outliers
"""

from .core import Bundle
from .manifest import MANIFEST, BundleError, Defaults, Manifest, make_manifest, read_manifest
from .parts import Banks

__all__ = [
    "MANIFEST",
    "Banks",
    "Bundle",
    "BundleError",
    "Defaults",
    "Manifest",
    "make_manifest",
    "read_manifest",
]
