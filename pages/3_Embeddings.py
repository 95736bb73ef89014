"""Embeddings: where images, OOD sets and outliers lie in feature space, before training and after."""

from sdviz.ui.embeddings.page import SHOWS, show_embeddings
from sdviz.ui.page import setup_bundle_page

bundle, _ = setup_bundle_page(
    "Embeddings",
    "Where images, OOD sets and outliers lie in the detector's feature space, as it trains and after.",
    SHOWS,
)
show_embeddings(bundle)
