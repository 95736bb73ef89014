"""Sample votes: one image, its neighbours, the votes of outliers among them, and its score."""

from sdviz.ui.page import setup_bundle_page
from sdviz.ui.sample_votes.page import SHOWS, show_sample_votes

bundle, _ = setup_bundle_page(
    "Sample votes",
    "One image: its **neighbours**, the **votes** of outliers among them, and the score that they make.",
    SHOWS,
)
show_sample_votes(bundle)
