"""The page Pseudo-labels."""

from __future__ import annotations

from sdviz.ui.page import PageContext, show_missing_bundle


def show_pseudo_labels(context: PageContext) -> None:
    """The page below its title."""
    if context.bundle is None:
        show_missing_bundle(context)
