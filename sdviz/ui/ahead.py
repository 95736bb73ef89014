"""What the first visitor of a page would wait for, done at the server's start with the first bundle."""

from __future__ import annotations

from sdviz.bundle import Bundle
from sdviz.evidence import MissingPart
from sdviz.ui.cache import make_edits, open_bundle
from sdviz.ui.evidence import open_evidence
from sdviz.ui.home import first_examples
from sdviz.ui.page import find_bundles
from sdviz.ui.sample_votes_state import map_of, search_over_banks
from sdviz.ui.sources import first_pool


def open_ahead() -> None:
    """Opens the first bundle and its tables, reads its own images and makes the landing page's outliers.

    Raises:
        BundleError, DataError, OSError: What the page that needs it will say.
    """
    for path in list(find_bundles().values())[:1]:
        bundle = open_bundle(path).load_networks()
        _read_tables(bundle)
        first_pool(bundle)
        make_edits(bundle, first_examples(bundle))


def _read_tables(bundle: Bundle) -> None:
    evidence, _ = open_evidence(bundle)
    own = bundle.manifest.score
    for name in ("banks", "sets", "reference", "pseudo_labels", "outliers"):
        try:
            getattr(evidence, name)
        except MissingPart:
            continue
    if own is not None and "features.safetensors" in bundle.parts:
        map_of(evidence, own.normalize)
        search_over_banks(evidence, own.normalize)
