"""What stands behind a score: the tables of a bundle put together, and the pictures that they name."""

from .pictures import PictureLibrary, Pictures
from .tables import Evidence, MissingPart, OutlierTable, PseudoLabels, ScoredSet

__all__ = [
    "Evidence",
    "MissingPart",
    "OutlierTable",
    "PictureLibrary",
    "Pictures",
    "PseudoLabels",
    "ScoredSet",
]
