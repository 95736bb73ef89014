"""Results: how well scores tell OOD from ID, set by set, beside the paper's tables."""

from sdviz.ui.page import setup_bundle_page
from sdviz.ui.results.page import SHOWS, show_results

bundle, _ = setup_bundle_page(
    "Results", "How well scores tell OOD from ID, set by set, beside the paper's own tables.", SHOWS
)
show_results(bundle)
