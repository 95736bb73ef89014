"""The paper's tables, with the figures that bundles on this machine measured for the same cells.

Yoon et al., "Diffusion-based Semantic-Discrepant Outlier Generation for Out-of-Distribution Detection". Our
figure enters a row of the paper only if the bundle was trained on `cifar10` with the row's recipe and network,
and measured on the column's set. Other networks get rows of their own; other sets are listed by `other_sets`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..baselines import BASELINES
from ..evaluation.report import ModeMetrics, Report
from .records import BundleRecord

PAPER_DATASET = "cifar10"
# the paper's columns, and the names of the same images in a report; the paper's LSUN is a mix of two sets
REPORT_NAMES = {"CIFAR-100": "cifar100", "SVHN": "svhn"}
WHOLE = {"cifar100": 10_000, "svhn": 26_032}
SD_TEST = "sd-outliers"
# the paper's names of pre-trained networks, and the beginnings of ours
_PAPER_NETWORKS = {
    "ViT-B/16": "timm:vit_base_patch16_224",
    "ResNet-18": "timm:resnet18",
    "ResNet-152": "timm:resnet152",
}
# the network of the paper's own method
_PAPER_OWN = "ViT-B/16"
# methods that read images alone
NO_NETWORK = tuple(key for key, one in BASELINES.items() if one.needs == ("images",))
OURS_ROW = "SD outliers (the paper), ViT-B/16"
TRUTH_ROW = "SD outliers, ground-truth labels"

_S = (50, 80, 100, 150, 200)
_TABLE_1: tuple[tuple[str, tuple[float | None, float | None, float | None]], ...] = (
    ("PixelCNN++ likelihood", (52.6, 8.3, None)),
    ("Likelihood ratio", (None, 91.2, None)),
    ("Input complexity, Glow", (73.6, 95.0, None)),
    ("Rot", (79.0, 97.6, 89.2)),
    ("GOAD", (77.2, 96.3, 89.3)),
    ("CSI", (89.2, 99.8, 97.5)),
    ("SSD", (89.6, None, None)),
    ("DN2, ResNet-18", (83.3, 88.9, 91.0)),
    ("DN2, ResNet-152", (86.5, 96.2, 88.7)),
    ("MSCL", (90.0, 98.6, 90.6)),
    ("Multi-class AD, ResNet-18", (90.8, 98.6, 98.6)),
    ("Multi-class AD, ResNet-152", (93.3, 99.8, 95.4)),
    ("Multi-class AD, ViT-B/16", (96.7, 99.9, 99.3)),
    ("Fake-it, ViT-B/16", (95.7, 99.9, 99.4)),
    (OURS_ROW, (98.0, 99.9, 99.9)),
    (TRUTH_ROW, (98.2, None, None)),
)
_TABLE_2 = {
    2.0: (97.6, 97.8, 98.0, 97.8, 97.4),
    3.0: (97.5, 97.8, 97.9, 98.0, 97.6),
    4.0: (97.7, 97.7, 98.0, 97.8, 97.6),
}
_DISTANCE_ONLY = (97.2, 97.5, 97.7, 97.6, 97.3)
_FID = (4.45, 5.95, 6.88, 7.85, 7.59)
# S and w of the outliers in Table 4: for training and for the test set
_TRAINED_4, _TESTED_4 = (100, 1.8), (150, 4.0)
_TABLE_4 = {"Multi-class AD": 74.3, "Fake-it": 81.4, "SD outliers (the paper)": 98.2}

# row, column and our figure
_Cell = tuple[str, str, "Ours | None"]


@dataclass(frozen=True)
class Ours:
    """A figure measured by bundles on this machine."""

    mean: float  # over the bundles, in the unit of its table
    sd: float | None  # standard deviation over the bundles (n - 1); None with one
    interval: tuple[float, float] | None  # 95 % bootstrap interval over images, with one bundle only
    n_bundles: int
    n_images: int = 0  # images of the OOD set that were measured, 0 for a figure without such a set
    whole: int = 0  # images in the whole set, 0 for unknown


@dataclass(frozen=True, eq=False)
class PaperTable:
    """One table."""

    number: int  # 1 to 4
    title: str  # with the unit
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    paper: dict[tuple[str, str], float]  # (row, column) -> the paper's figure
    ours: dict[tuple[str, str], Ours]  # (row, column) -> our figure
    notes: tuple[str, ...] = ()  # sentences on empty cells of ours


def paper_tables(records: Iterable[BundleRecord] = ()) -> tuple[PaperTable, ...]:
    """Tables 1 to 4 (AUROC in %, FID) with figures of the `cifar10` bundles among records of one family."""
    fit = _candidates(records)
    return _table_1(fit), _table_2(fit), _table_3(fit), _table_4(fit)


def other_sets(records: Iterable[BundleRecord]) -> dict[str, dict[tuple[int, float], Ours]]:
    """AUROC (%) of `cifar10` bundles on sets that are in no table of the paper.

    Returns:
        By the set's name, then by S and w of the outliers in training, rising. Names of validation sets end in
        "(validation)". SD outliers of held-out images are one set for each S and w they were made with.
    """
    found: dict[str, dict[tuple[int, float], Ours]] = {}
    fit = _candidates(records)
    roles = {name: one.role for record in fit for name, one in _report(record).results.items()}
    for name, role in roles.items():
        if name in REPORT_NAMES.values():
            continue
        by_title = {f"{name} (validation)" if role == "validation" else name: fit}
        if name == SD_TEST:
            by_title = _by_sd_test([one for one in fit if not _is_of_table_4(one)])
        for title, of_set in by_title.items():
            for recipe in _recipes(of_set):
                ours = _auroc(_made_with(of_set, *recipe), name)
                if ours is not None:
                    found.setdefault(title, {})[recipe] = ours
    return found


# --- which bundles belong in which row ------------------------------------------------------------


def _candidates(records: Iterable[BundleRecord]) -> list[BundleRecord]:
    return [one for one in records if one.manifest.dataset == PAPER_DATASET and one.report is not None]


def _report(record: BundleRecord) -> Report:
    assert record.report is not None
    return record.report


def _made_with(records: Sequence[BundleRecord], s: int, w: float) -> list[BundleRecord]:
    return [one for one in records if one.recipe == (s, w)]


def _recipes(records: Sequence[BundleRecord]) -> list[tuple[int, float]]:
    return sorted({one.recipe for one in records if one.recipe is not None})


def _with_labels(records: Sequence[BundleRecord], source: str) -> list[BundleRecord]:
    return [one for one in records if _labels(one) == source]


def _labels(record: BundleRecord) -> str:
    return str(record.manifest.setting("labels", "source") or "")


def _by_sd_test(records: Sequence[BundleRecord]) -> dict[str, list[BundleRecord]]:
    """Groups bundles by the SD outliers they were measured on; the names give S and w if these differ."""
    by: dict[tuple[int, float] | None, list[BundleRecord]] = {}
    for one in records:
        by.setdefault(_sd_test(one), []).append(one)
    if len(by) < 2:
        return {SD_TEST: list(records)}
    return {
        SD_TEST if made is None else f"{SD_TEST}, S = {made[0]}, w = {made[1]:g}": of for made, of in by.items()
    }


def _sd_test(record: BundleRecord) -> tuple[int, float] | None:
    """S and w of the SD outliers that a bundle was measured on."""
    found = record.manifest.setting("evaluation", "sd_test")
    return (found["start_timestep"], found["guidance_scale"]) if found else None


def _is_of_table_4(record: BundleRecord) -> bool:
    """Whether a bundle was measured on SD outliers like the paper's: SCAN clusters, the same S and w."""
    return _labels(record) == "scan" and _sd_test(record) == _TESTED_4


def _network(record: BundleRecord, network: str = "backbone") -> str:
    """The network that detector or encoder started from, by the paper's name, else by our own."""
    setting = record.manifest.setting
    backbone = setting("detector", "backbone") if network == "backbone" else None
    made: dict[str, Any] = backbone or setting("encoder") or {}
    arch = str(made.get("arch", "?"))
    for name, begins in _PAPER_NETWORKS.items():
        if made.get("weights") and arch.partition(".")[0] == begins:
            return name
    return arch.removeprefix("timm:")


def _own_row(title: str, network: str) -> str:
    return f"{title}, network of ours: {network}"


def _by_row(records: Sequence[BundleRecord], row: str, title: str = "") -> dict[str, list[BundleRecord]]:
    """Groups bundles by row: the paper's for its network, else rows of our own, named by `title` or `row`."""
    found: dict[str, list[BundleRecord]] = {}
    for one in records:
        network = _network(one)
        own = row if network == _PAPER_OWN else _own_row(title or row, network)
        found.setdefault(own, []).append(one)
    return found


def _row_of_method(record: BundleRecord, key: str, title: str, rows: Sequence[str]) -> str:
    """The paper's row of a method on its network, else a row of our own."""
    method, _, where = key.partition("@")
    if method in NO_NETWORK:
        return f"{title}, ours, no network"
    network = _network(record, where or "backbone")
    row = f"{title}, {network}"
    return row if row in rows else _own_row(title, network)


def _fid_row(record: BundleRecord) -> str:
    """The row for FID, which depends only on the U-Net."""
    row = "FID of the outliers"
    unet = record.manifest.setting("diffusion", "unet") or {}
    arch = unet.get("arch", "?")
    return row if arch == "ddpm" and not unet.get("channels") else f"{row}, U-Net of ours: {arch}"


# --- the tables -----------------------------------------------------------------------------------


def _table(
    number: int,
    title: str,
    columns: Sequence[str],
    paper: Mapping[str, Sequence[float | None]],
    cells: Iterable[_Cell],
    notes: tuple[str, ...] = (),
) -> PaperTable:
    of_paper = {
        (row, column): value
        for row, values in paper.items()
        for column, value in zip(columns, values, strict=True)
        if value is not None
    }
    ours = {(row, column): found for row, column, found in cells if found is not None}
    rows = tuple(dict.fromkeys([*paper, *(row for row, _ in ours)]))
    return PaperTable(number, title, rows, tuple(columns), of_paper, ours, notes)


def _table_1(records: Sequence[BundleRecord]) -> PaperTable:
    own = _made_with(records, 100, 2.0)  # the paper's S and w of this table
    papers = [row for row, _ in _TABLE_1]

    def cells() -> Iterator[_Cell]:
        for row, title, source in ((OURS_ROW, "SD outliers", "scan"), (TRUTH_ROW, TRUTH_ROW, "ground_truth")):
            for own_row, of_row in _by_row(_with_labels(own, source), row, title).items():
                for column, name in REPORT_NAMES.items():
                    yield own_row, column, _auroc(of_row, name)
        for key, title in {key: b.title for one in own for key, b in _report(one).baselines.items()}.items():
            row_of = [_row_of_method(one, key, title, papers) for one in own]
            for row in dict.fromkeys(row_of):
                of_row = [one for one, its in zip(own, row_of, strict=True) if its == row]
                for column, name in REPORT_NAMES.items():
                    yield row, column, _auroc_of_baseline(of_row, key, name)

    title = "AUROC (%) by method; SD outliers with S = 100, w = 2"
    return _table(1, title, ("CIFAR-100", "SVHN", "LSUN"), dict(_TABLE_1), cells())


def _table_2(records: Sequence[BundleRecord]) -> PaperTable:
    scan = _with_labels(records, "scan")
    cells = (
        (row, f"S = {s}", _auroc(fit, "cifar100"))
        for w in _TABLE_2
        for s in _S
        for row, fit in _by_row(_made_with(scan, s, w), f"w = {w:g}").items()
    )
    paper = {f"w = {w:g}": values for w, values in _TABLE_2.items()}
    return _table(2, "AUROC (%) on CIFAR-100 over S and w", [f"S = {s}" for s in _S], paper, cells)


def _table_3(records: Sequence[BundleRecord]) -> PaperTable:
    scan = _with_labels(records, "scan")
    rows = {"AUROC (%), distance only": "distance", "AUROC (%), distance + vote": "both"}

    def cells() -> Iterator[_Cell]:
        for s in _S:
            fit = _made_with(scan, s, 2.0)
            for row, mode in rows.items():
                for own_row, of_row in _by_row(fit, row).items():
                    yield own_row, f"S = {s}", _auroc(of_row, "cifar100", mode)
            for own_row in dict.fromkeys(map(_fid_row, fit)):
                reports = [_report(one) for one in fit if _fid_row(one) == own_row]
                distances = [r.frechet["FID"].outliers_to_train for r in reports if "FID" in r.frechet]
                yield own_row, f"S = {s}", _mean(distances)

    paper = dict(zip([*rows, "FID of the outliers"], (_DISTANCE_ONLY, _TABLE_2[2.0], _FID), strict=True))
    title = (
        "Score and picture quality over S, w = 2, on CIFAR-100; FID of plain sampling is 2.97, of Fake-it 45"
    )
    return _table(3, title, [f"S = {s}" for s in _S], paper, cells())


def _table_4(records: Sequence[BundleRecord]) -> PaperTable:
    """Uses bundles with the paper's S and w of test outliers; our own row needs those of training too."""
    column = "SD outliers of CIFAR-10 test images"
    fit = [one for one in records if _is_of_table_4(one)]
    own = _made_with(fit, *_TRAINED_4)
    shown = own or max((_made_with(fit, *recipe) for recipe in _recipes(fit)), key=len, default=[])

    def cells() -> Iterator[_Cell]:
        for row, of_row in _by_row(own, "SD outliers (the paper)", "SD outliers").items():
            yield row, column, _auroc(of_row, SD_TEST)
        keys = {one.title: key for key, one in BASELINES.items()}
        for title, key in ((title, keys[title]) for title in _TABLE_4 if title in keys):
            for row, of_row in _by_row(shown, title).items():
                yield row, column, _auroc_of_baseline(of_row, key, SD_TEST)

    notes = []
    found = _auroc(shown, SD_TEST)
    if not own and found is not None and shown[0].recipe is not None:
        spread = f" ± {found.sd:.2f}" if found.sd is not None else ""
        if found.interval is not None:
            spread = f" ({found.interval[0]:.1f} to {found.interval[1]:.1f})"
        s, w = shown[0].recipe
        notes.append(
            f"Our own method has no figure here, because our detector was trained with S = {s}, w = {w:g}, the "
            f"paper's with S = 100, w = 1.8. Ours reaches {found.mean:.2f}{spread} on this set."
        )
    title = "AUROC (%) with SD outliers as the test set (S = 150, w = 4; trained with S = 100, w = 1.8)"
    paper = {row: (value,) for row, value in _TABLE_4.items()}
    return _table(4, title, [column], paper, cells(), tuple(notes))


# --- a figure of ours -----------------------------------------------------------------------------


def _auroc(records: Sequence[BundleRecord], name: str, mode: str = "both") -> Ours | None:
    results = [_report(one).results[name] for one in records if name in _report(one).results]
    return _figure([(one.n, one.modes[mode]) for one in results if mode in one.modes], name)


def _auroc_of_baseline(records: Sequence[BundleRecord], key: str, name: str) -> Ours | None:
    found = [
        (_report(one).results[name].n, _report(one).baselines[key].results[name])
        for one in records
        if key in _report(one).baselines and name in _report(one).baselines[key].results
    ]
    return _figure(found, name)


def _figure(found: Sequence[tuple[int, ModeMetrics]], name: str) -> Ours | None:
    """The mean AUROC (%) of several bundles on one set; `found` holds images and metrics of each."""
    interval = found[0][1].auroc_interval if len(found) == 1 else None
    percent = (100 * interval[0], 100 * interval[1]) if interval is not None else None
    n_images = min((n for n, _ in found), default=0)
    return _mean([100 * metrics.auroc for _, metrics in found], percent, n_images, WHOLE.get(name, 0))


def _mean(
    values: Sequence[float], interval: tuple[float, float] | None = None, n_images: int = 0, whole: int = 0
) -> Ours | None:
    if not values:
        return None
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Ours(float(np.mean(values)), sd, interval, len(values), n_images, whole)
