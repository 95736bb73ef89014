"""Opens the first bundle at the start of the server, so that the first visitor does not wait for it."""

import io
from contextlib import suppress

from sdviz.analysis import MissingPart
from sdviz.bundle import Bundle
from sdviz.ui.cache.bundles import open_bundle
from sdviz.ui.cache.evidence import open_evidence
from sdviz.ui.cache.outliers import make_outliers
from sdviz.ui.home import first_examples
from sdviz.ui.lab.page import first_view
from sdviz.ui.page import find_bundles, page_icon
from sdviz.ui.sample_votes.state import map_of, search_over_banks

TABLES = ("banks", "sets", "reference", "pseudo_labels", "outliers")


def open_first_bundle() -> None:
    """Opens the first bundle, reads its tables and images, and makes the first pictures of Home and the lab."""
    page_icon().save(io.BytesIO(), "PNG")  # loads Pillow's formats
    found = list(find_bundles().values())
    if not found:
        return
    bundle = open_bundle(found[0]).load_networks()
    _read_tables(bundle)
    make_outliers(bundle, first_examples(bundle) + first_view(bundle))


def _read_tables(bundle: Bundle) -> None:
    evidence, library = open_evidence(bundle)
    for name in TABLES:
        with suppress(MissingPart):
            getattr(evidence, name)
    with suppress(MissingPart):
        for one in evidence.sets.values():
            library.show(one.ids[:1])
    own = bundle.manifest.score
    if own is not None and "features.safetensors" in bundle.parts:
        map_of(evidence, own.normalize)
        search_over_banks(evidence, own.normalize)
        bundle.scorer.search(evidence.banks.id_features[:1])
