"""Training: start a run, watch it, compare two, open what it made."""

from sdviz.ui.page import setup_page
from sdviz.ui.training.page import show_training

setup_page(
    "Training",
    "A **run** turns images into a bundle for the other pages. It is a process of its own: "
    "close the browser, and it goes on.",
)
show_training()
