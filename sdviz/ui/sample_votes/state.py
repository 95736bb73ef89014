"""The image on show on Sample votes: its picture, features, neighbours and score."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sdviz.analysis import Evidence, MissingPart, PictureLibrary
from sdviz.analysis.pictures import Way
from sdviz.analysis.rescoring import index_over_banks
from sdviz.analysis.tables import OUTLIERS, TRAIN
from sdviz.analysis.votes import (
    FeatureMap,
    Parts,
    Sample,
    banks_of,
    feature_map,
    score_parts,
    search_both,
)
from sdviz.bundle import Banks, Bundle
from sdviz.detection.score import Neighbourhood, SDScore
from sdviz.evaluation.sets import HEADS
from sdviz.nn.detector import detector_outputs
from sdviz.ui.cache.background import DEVICE_LOCK
from sdviz.ui.cache.evidence import needs_search
from sdviz.ui.cache.kept import kept
from sdviz.ui.library import BundleView
from sdviz.ui.pictures import NEUTRAL_COLOUR, TRAIN_COLOUR
from sdviz.ui.session import ScoreChoice, set_shared
from sdviz.ui.theme import set_colours, set_titles

PAGE = "votes"


@dataclass(frozen=True, eq=False)
class SampleView(BundleView):
    """Everything that the page shows of an image."""

    settings: ScoreChoice  # k, alpha and normalisation
    sample: Sample
    picture: np.ndarray  # uint8 (H,W,3), grey where there is none
    has_picture: bool
    class_name: str  # its own class, "" where unknown
    missing: tuple[str, ...]  # why it has no picture
    ways: tuple[Way, ...]  # how to get its set
    features: np.ndarray | None  # float32 (D,); None where they are not stored and cannot be computed
    heads: Mapping[str, np.ndarray]  # logits by head, empty where unknown
    near: Neighbourhood | None  # its neighbours; None without banks or features
    parts: Parts | None  # its score; None where unknown
    problem: str  # why it has no score, "" where it has one

    @property
    def banks(self) -> Banks | None:
        """The reference features."""
        return banks_of(self.evidence)


def sample_view(
    evidence: Evidence,
    library: PictureLibrary,
    settings: ScoreChoice,
    sample: Sample,
    uploads: Mapping[str, np.ndarray],
) -> SampleView:
    """Collects everything about an image; computes features and heads that the bundle lacks.

    `uploads` are uploaded pictures by id.
    """
    bundle = evidence.bundle
    if sample.id in uploads:
        picture, has_picture, class_name = uploads[sample.id], True, ""
        missing, ways = tuple[str, ...](), tuple[Way, ...]()
    else:
        shown = BundleView(evidence, library).show_pictures([sample.id])
        picture, has_picture = shown.images[0], bool(shown.found[0])
        class_name, missing, ways = str(shown.class_names[0]), shown.missing, shown.ways
    features, heads = sample.features, sample.heads
    if has_picture and bundle.detector is not None and (features is None or len(heads) < len(HEADS)):
        made, made_heads = detector_says(bundle, picture[None])
        features = made[0] if features is None else features
        heads = {name: logits[0] for name, logits in made_heads.items()}
    near, parts, problem = None, None, ""
    try:
        if features is not None and banks_of(evidence) is not None:
            near = neighbours(evidence, settings, features[None], sample.id)
        as_measured = not needs_search(evidence, settings)
        parts = score_parts(sample, near, settings.k, settings.alpha, as_measured)
        if parts is None:
            problem = "Neither its features nor its picture are there, so it has no score."
    except (ValueError, MissingPart) as error:
        problem = f"It has no score under these settings: {error}."
    return SampleView(
        evidence, library, settings, sample, picture, has_picture, class_name, missing, ways,
        features, heads, near, parts, problem,
    )  # fmt: skip


@kept("neighbour index")
def search_over_banks(evidence: Evidence, normalize: bool) -> SDScore:
    """The kNN index over this bundle's banks, for any k of the pages. Raises MissingPart: no banks."""
    return index_over_banks(evidence, normalize)


@kept("neighbours")
def neighbours(
    evidence: Evidence, settings: ScoreChoice, features: np.ndarray, id_id: str, outlier_id: str = ""
) -> Neighbourhood:
    """The neighbours of pictures made of one image, for any k. Raises ValueError: no other ID image."""
    with DEVICE_LOCK:
        search = search_over_banks(evidence, settings.normalize)
        ids = evidence.banks.id_ids
        # an image of the bank is not its own neighbour
        k = min(search.k, len(ids) - int((ids == id_id).sum()))
        return search_both(search, np.ascontiguousarray(features), id_id, outlier_id, k)


@kept("detector outputs")
def detector_says(bundle: Bundle, images: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Features float32 (N,D) and logits by head of pictures uint8 (N,H,W,3), from a bundle with a detector."""
    assert bundle.detector is not None
    with DEVICE_LOCK:
        said = detector_outputs(bundle.detector, images, bundle.device)
    return said.features, {name: getattr(said, name) for name in HEADS}


@kept("feature map")
def map_of(evidence: Evidence, normalize: bool) -> FeatureMap:
    """The plane of the features' first two principal components. Raises MissingPart: no banks."""
    return feature_map(evidence, normalize)


def group_titles(evidence: Evidence) -> dict[str, str]:
    """The title of each group of images."""
    return set_titles(evidence) | {TRAIN: "train (ID bank)", OUTLIERS: "SD outliers (bank)", "": "your own"}


def is_own(one: str) -> bool:
    """Whether an id is that of an upload."""
    return one.startswith("upload/")


def source_of(one: str) -> str:
    """The set and split in an id, as "cifar100/test"."""
    return "/".join(one.split("/")[:2])


def group_colour(evidence: Evidence, group: str) -> str:
    """The colour of a group, the same on every page."""
    if group == TRAIN:
        return TRAIN_COLOUR
    return set_colours(evidence).get(group, NEUTRAL_COLOUR)


def open_sample(one: str, group: str | None = None) -> None:
    """Makes an image, and its scored set where given, the ones in use on every page."""
    set_shared("sample", one)
    if group is not None:
        set_shared("set", group or None)
