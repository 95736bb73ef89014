"""A trained system as one folder: what the app opens and what a run ends in.

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
