"""The tables of the paper, and which of their cells this machine's bundles have measured themselves.

Yoon et al., "Diffusion-based Semantic-Discrepant Outlier Generation for Out-of-Distribution Detection". A
figure of ours stands beside a cell only where a bundle trained on `cifar10` measured that very set by that very
name, made the way that the row says. What was measured on other sets keeps its own name and stands apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..evaluation.report import BaselineResult
from .records import BundleRecord

PAPER_DATASET = "cifar10"
# what the paper's columns are called, and the name that a report has for the very same images; the paper's LSUN
# mixes two variants, so none of them can stand for it
REPORT_NAMES = {"CIFAR-100": "cifar100", "SVHN": "svhn"}
WHOLE = {"cifar100": 10_000, "svhn": 26_032}
SD_TEST = "sd-outliers"
# methods whose row in Table 1 names no network
_ROW_OF_METHOD = {"rot": "Rot", "ssd": "SSD", "mscl": "MSCL"}
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


@dataclass(frozen=True)
class Ours:
    """A figure that was measured here.

    Attributes:
        mean: Over the bundles, in the unit of its table.
        sd: Standard deviation over the bundles (n - 1); None with one.
        interval: The one bundle's 95 % bootstrap interval over images; None with several, or without one.
        n_bundles: How many bundles.
        n_images: Images of the OOD set, 0 where the figure is of no such set.
        whole: How many that set has in all, 0 where unknown: fewer were measured on a part of it.
    """

    mean: float
    sd: float | None
    interval: tuple[float, float] | None
    n_bundles: int
    n_images: int = 0
    whole: int = 0


@dataclass(frozen=True, eq=False)
class PaperTable:
    """One table.

    Attributes:
        number: 1 to 4.
        title: What it shows, with its unit.
        rows: Names of the rows.
        columns: Names of the columns.
        paper: (row, column) -> the paper's figure; what it leaves empty is absent.
        ours: (row, column) -> what was measured here; absent where it was not.
    """

    number: int
    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    paper: dict[tuple[str, str], float]
    ours: dict[tuple[str, str], Ours] = field(default_factory=dict)


def paper_tables(records: Iterable[BundleRecord] = ()) -> tuple[PaperTable, ...]:
    """Tables 1 to 4 of the paper, AUROC in % (Table 3 has FID as well).

    Args:
        records: Bundles that belong together (`BundleRecord.family`): those of one cell are averaged. Any that
            were not trained on `cifar10`, or never measured, count nowhere.
    """
    fit = [one for one in records if _is_candidate(one)]
    return _table_1(fit), _table_2(fit), _table_3(fit), _table_4(fit)


def other_sets(records: Iterable[BundleRecord]) -> dict[str, Ours]:
    """What `cifar10` bundles measured on sets that the paper has not, under those sets' own names: AUROC, %."""
    fit = [one for one in records if _is_candidate(one)]
    names = dict.fromkeys(name for one in fit if one.report is not None for name in one.report.results)
    known = set(REPORT_NAMES.values())
    found = {name: _auroc(fit, name, "both") for name in names if name not in known}
    return {name: ours for name, ours in found.items() if ours is not None}


def _is_candidate(record: BundleRecord) -> bool:
    return record.manifest.dataset == PAPER_DATASET and record.report is not None


def _labels(record: BundleRecord) -> str:
    labels = (record.manifest.config or {}).get("labels")
    return str(labels.get("source", "")) if isinstance(labels, dict) else ""


def _made_with(records: Sequence[BundleRecord], s: int, w: float) -> list[BundleRecord]:
    return [one for one in records if one.recipe is not None and one.recipe == (s, w)]


def _table_1(records: Sequence[BundleRecord]) -> PaperTable:
    columns = ("CIFAR-100", "SVHN", "LSUN")
    paper = {
        (row, column): value
        for row, values in _TABLE_1
        for column, value in zip(columns, values, strict=True)
        if value is not None
    }
    # the paper's S and w of this table
    own = _made_with(records, 100, 2.0)
    ours: dict[tuple[str, str], Ours] = {}
    for row, source in ((OURS_ROW, "scan"), (TRUTH_ROW, "ground_truth")):
        of_row = [one for one in own if _labels(one) == source]
        for column, name in REPORT_NAMES.items():
            _put(ours, (row, column), _auroc(of_row, name, "both"))
    # other methods: in the paper's row where that names no network, else in one of our own below
    rows = [row for row, _ in _TABLE_1]
    for key, title in {key: b.title for one in own for key, b in _baselines(one).items()}.items():
        row = _ROW_OF_METHOD.get(key.partition("@")[0], f"{title}, network of ours")
        for column, name in REPORT_NAMES.items():
            _put(ours, (row, column), _auroc_of_baseline(own, key, name))
        if row not in rows:
            rows.append(row)
    title = "AUROC (%) by method; SD outliers with S = 100, w = 2"
    return PaperTable(1, title, tuple(rows), columns, paper, ours)


def _table_2(records: Sequence[BundleRecord]) -> PaperTable:
    columns = tuple(f"S = {s}" for s in _S)
    paper = {
        (f"w = {w:g}", c): v for w, values in _TABLE_2.items() for c, v in zip(columns, values, strict=True)
    }
    ours: dict[tuple[str, str], Ours] = {}
    scan = [one for one in records if _labels(one) == "scan"]
    for w in _TABLE_2:
        for s, column in zip(_S, columns, strict=True):
            _put(ours, (f"w = {w:g}", column), _auroc(_made_with(scan, s, w), "cifar100", "both"))
    rows = tuple(f"w = {w:g}" for w in _TABLE_2)
    return PaperTable(2, "AUROC (%) on CIFAR-100 over S and w", rows, columns, paper, ours)


def _table_3(records: Sequence[BundleRecord]) -> PaperTable:
    columns = tuple(f"S = {s}" for s in _S)
    by = {
        "AUROC (%), distance only": ("distance", _DISTANCE_ONLY),
        "AUROC (%), distance + vote": ("both", _TABLE_2[2.0]),
    }
    paper: dict[tuple[str, str], float] = {}
    ours: dict[tuple[str, str], Ours] = {}
    scan = [one for one in records if _labels(one) == "scan"]
    fid = "FID of the outliers"
    for i, (s, column) in enumerate(zip(_S, columns, strict=True)):
        fit = _made_with(scan, s, 2.0)
        for row, (mode, values) in by.items():
            paper[row, column] = values[i]
            _put(ours, (row, column), _auroc(fit, "cifar100", mode))
        paper[fid, column] = _FID[i]
        distances = [
            one.report.frechet["FID"].outliers_to_train
            for one in fit
            if one.report and "FID" in one.report.frechet
        ]
        _put(ours, (fid, column), _spread(distances))
    title = (
        "Score and picture quality over S, w = 2, on CIFAR-100; FID of plain sampling is 2.97, of Fake-it 45"
    )
    return PaperTable(3, title, (*by, fid), columns, paper, ours)


def _table_4(records: Sequence[BundleRecord]) -> PaperTable:
    """Where the run trained and tested with the paper's S and w; elsewhere there is nothing to put in."""
    column = "SD outliers of CIFAR-10 test images"
    values = {"Multi-class AD": 74.3, "Fake-it": 81.4, "SD outliers (the paper)": 98.2}
    title = "AUROC (%) with SD outliers as the test set (S = 150, w = 4; trained with S = 100, w = 1.8)"
    fit = [
        one for one in _made_with(records, 100, 1.8) if _labels(one) == "scan" and _sd_test(one) == (150, 4.0)
    ]
    ours: dict[tuple[str, str], Ours] = {}
    _put(ours, ("SD outliers (the paper)", column), _auroc(fit, SD_TEST, "both"))
    for row, key in (("Multi-class AD", "multiclass_ad"), ("Fake-it", "fake_it")):
        _put(ours, (row, column), _auroc_of_baseline(fit, key, SD_TEST))
    paper = {(row, column): v for row, v in values.items()}
    return PaperTable(4, title, tuple(values), (column,), paper, ours)


def _sd_test(record: BundleRecord) -> tuple[int, float] | None:
    """S and w of the SD outliers of held-out images that a bundle was measured on."""
    found = ((record.manifest.config or {}).get("evaluation") or {}).get("sd_test")
    return (found["start_timestep"], found["guidance_scale"]) if found else None


def _baselines(record: BundleRecord) -> dict[str, BaselineResult]:
    return record.report.baselines if record.report is not None else {}


def _auroc_of_baseline(records: Sequence[BundleRecord], key: str, name: str) -> Ours | None:
    """One method on one set, over the bundles that were measured beside it."""
    found = [
        (one.report.results[name].n, _baselines(one)[key].results[name])
        for one in records
        if one.report is not None and key in _baselines(one) and name in _baselines(one)[key].results
    ]
    interval = found[0][1].auroc_interval if len(found) == 1 else None
    percent = (100 * interval[0], 100 * interval[1]) if interval is not None else None
    n = min((n for n, _ in found), default=0)
    return _spread([100 * metrics.auroc for _, metrics in found], percent, n, WHOLE.get(name, 0))


def _put(ours: dict[tuple[str, str], Ours], cell: tuple[str, str], found: Ours | None) -> None:
    if found is not None:
        ours[cell] = found


def _auroc(records: Sequence[BundleRecord], name: str, mode: str) -> Ours | None:
    found = [
        (one.report.results[name], one.report.results[name].modes[mode])
        for one in records
        if one.report is not None and name in one.report.results and mode in one.report.results[name].modes
    ]
    interval = found[0][1].auroc_interval if len(found) == 1 else None
    percent = (100 * interval[0], 100 * interval[1]) if interval is not None else None
    n = min((result.n for result, _ in found), default=0)
    return _spread([100 * metrics.auroc for _, metrics in found], percent, n, WHOLE.get(name, 0))


def _spread(
    values: Sequence[float], interval: tuple[float, float] | None = None, n_images: int = 0, whole: int = 0
) -> Ours | None:
    if not values:
        return None
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Ours(float(np.mean(values)), sd, interval, len(values), n_images, whole)
