"""Results: How well scores tell OOD from ID, set by set, beside the paper's own tables."""

from sdviz.ui.page import setup_page
from sdviz.ui.results.page import show_results

show_results(
    setup_page("Results", "How well scores tell OOD from ID, set by set, beside the paper's own tables.")
)
