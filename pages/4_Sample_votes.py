"""Sample votes: One image: its neighbours, the votes of outliers among them, and the score that they make."""

from sdviz.ui.page import setup_page
from sdviz.ui.sample_votes.page import show_sample_votes

show_sample_votes(
    setup_page(
        "Sample votes",
        "One image: its **neighbours**, the **votes** of outliers among them, and the score that they make.",
    )
)
