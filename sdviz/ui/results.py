"""The page Results."""

from __future__ import annotations

from sdviz.ui.page import PageContext, show_missing_bundle


def show_results(context: PageContext) -> None:
    """The page below its title."""
    if context.bundle is None:
        show_missing_bundle(context)
