"""Evidence for pages and reports, without Streamlit: a bundle's tables, and the pictures that they name."""

from .pictures import PictureLibrary, Pictures
from .tables import Evidence, MissingPart, OutlierTable, PseudoLabels, ScoredSet

__all__ = ["Evidence", "MissingPart", "OutlierTable", "PictureLibrary", "Pictures", "PseudoLabels", "ScoredSet"]
