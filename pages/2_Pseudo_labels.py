"""Pseudo-labels: the clusters that serve as labels: their size, confidence and images."""

from sdviz.ui.page import setup_bundle_page
from sdviz.ui.pseudo_labels.page import SHOWS, show_pseudo_labels

show_pseudo_labels(
    *setup_bundle_page(
        "Pseudo-labels", "The clusters that stand in for labels: how big, how sure, what is in them.", SHOWS
    )
)
