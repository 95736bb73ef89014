"""Failures: what the detector gets wrong at the threshold in use, worst first."""

from sdviz.ui.failures.page import SHOWS, show_failures
from sdviz.ui.page import setup_bundle_page

show_failures(
    *setup_bundle_page(
        "Failures", "What the detector gets **wrong** at the threshold in use, worst first.", SHOWS
    )
)
