"""The tables of the paper, and which of their cells this machine's bundles have measured themselves.

Yoon et al., "Diffusion-based Semantic-Discrepant Outlier Generation for Out-of-Distribution Detection". A
figure of ours stands in a row of the paper's only where a bundle trained on `cifar10` was made the way that the
row says, its network too, and measured that very set by that very name. Of another network it has a row of its
own. What was measured on other sets keeps its own name and stands apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..baselines import BASELINES
from ..evaluation.report import BaselineResult
from .records import BundleRecord

PAPER_DATASET = "cifar10"
# what the paper's columns are called, and the name that a report has for the very same images; the paper's LSUN
# mixes two variants, so none of them can stand for it
REPORT_NAMES = {"CIFAR-100": "cifar100", "SVHN": "svhn"}
WHOLE = {"cifar100": 10_000, "svhn": 26_032}
SD_TEST = "sd-outliers"
# what the paper calls a pre-trained network, and how the name of ours begins where it is that one
_PAPER_NETWORKS = {
    "ViT-B/16": "timm:vit_base_patch16_224",
    "ResNet-18": "timm:resnet18",
    "ResNet-152": "timm:resnet152",
}
# the network of the paper's own method
_PAPER_OWN = "ViT-B/16"
# methods that look at images alone
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
# S and w of Table 4: of the outliers that the detector is trained with, and of those of the test set
_TRAINED_4, _TESTED_4 = (100, 1.8), (150, 4.0)
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
        notes: Sentences on cells of ours that stay empty.
    """

    number: int
    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    paper: dict[tuple[str, str], float]
    ours: dict[tuple[str, str], Ours] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def paper_tables(records: Iterable[BundleRecord] = ()) -> tuple[PaperTable, ...]:
    """Tables 1 to 4 of the paper, AUROC in % (Table 3 has FID as well).

    Args:
        records: Bundles that belong together (`BundleRecord.family`): those of one cell are averaged. Any that
            were not trained on `cifar10`, or never measured, count nowhere.
    """
    fit = [one for one in records if _is_candidate(one)]
    return _table_1(fit), _table_2(fit), _table_3(fit), _table_4(fit)


def other_sets(records: Iterable[BundleRecord]) -> dict[str, dict[tuple[int, float], Ours]]:
    """What `cifar10` bundles measured on sets that no table of the paper's has: AUROC, %.

    Args:
        records: As in `paper_tables`.

    Returns:
        By the sets' own names, then by the S and w that a detector was trained with, rising: runs of another
        recipe are no other seed. Behind the name of a validation set stands "(validation)"; SD outliers of
        held-out images are a set for each S and w that they were made with.
    """
    found: dict[str, dict[tuple[int, float], Ours]] = {}
    fit = [one for one in records if _is_candidate(one)]
    roles = {name: one.role for r in fit if r.report is not None for name, one in r.report.results.items()}
    for name, role in roles.items():
        if name in REPORT_NAMES.values():
            continue
        title = f"{name} (validation)" if role == "validation" else name
        apart = {title: fit}
        if name == SD_TEST:
            apart = _by_sd_test([one for one in fit if not _is_of_table_4(one)])
        for one, of_set in apart.items():
            for recipe in sorted({r.recipe for r in of_set if r.recipe is not None}):
                ours = _auroc(_made_with(of_set, *recipe), name, "both")
                if ours is not None:
                    found.setdefault(one, {})[recipe] = ours
    return found


def _by_sd_test(records: Sequence[BundleRecord]) -> dict[str, list[BundleRecord]]:
    """Those measured on the same SD outliers of held-out images, by a name with S and w where these differ."""
    by: dict[tuple[int, float] | None, list[BundleRecord]] = {}
    for one in records:
        by.setdefault(_sd_test(one), []).append(one)
    if len(by) < 2:
        return {SD_TEST: list(records)}
    return {
        SD_TEST if made is None else f"{SD_TEST}, S = {made[0]}, w = {made[1]:g}": of for made, of in by.items()
    }


def _is_candidate(record: BundleRecord) -> bool:
    return record.manifest.dataset == PAPER_DATASET and record.report is not None


def _labels(record: BundleRecord) -> str:
    labels = (record.manifest.config or {}).get("labels")
    return str(labels.get("source", "")) if isinstance(labels, dict) else ""


def _network(record: BundleRecord, network: str = "backbone") -> str:
    """What the detector, or the encoder, was before training: the paper's name for it, else our own."""
    config: dict[str, Any] = record.manifest.config or {}
    backbone = (config.get("detector") or {}).get("backbone")
    made: dict[str, Any] = (backbone if network == "backbone" else None) or config.get("encoder") or {}
    arch = str(made.get("arch", "?"))
    for name, begins in _PAPER_NETWORKS.items():
        if made.get("weights") and arch.partition(".")[0] == begins:
            return name
    return arch.removeprefix("timm:")


def _own_row(title: str, network: str) -> str:
    return f"{title}, network of ours: {network}"


def _by_row(records: Sequence[BundleRecord], row: str, title: str) -> dict[str, list[BundleRecord]]:
    """Those of the paper's network in the paper's row, the others in rows of our own."""
    found: dict[str, list[BundleRecord]] = {}
    for one in records:
        network = _network(one)
        found.setdefault(row if network == _PAPER_OWN else _own_row(title, network), []).append(one)
    return found


def _row_of_method(record: BundleRecord, key: str, title: str, rows: Sequence[str]) -> str:
    """The paper's row of that method on that network, else one of our own."""
    method, _, where = key.partition("@")
    if method in NO_NETWORK:
        return f"{title}, ours, no network"
    network = _network(record, where or "backbone")
    row = f"{title}, {network}"
    return row if row in rows else _own_row(title, network)


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
    for row, title, source in (
        (OURS_ROW, "SD outliers", "scan"),
        (TRUTH_ROW, TRUTH_ROW, "ground_truth"),
    ):
        for own_row, of_row in _by_row([one for one in own if _labels(one) == source], row, title).items():
            for column, name in REPORT_NAMES.items():
                _put(ours, (own_row, column), _auroc(of_row, name, "both"))
    papers = tuple(row for row, _ in _TABLE_1)
    for key, title in {key: b.title for one in own for key, b in _baselines(one).items()}.items():
        for row in dict.fromkeys(_row_of_method(one, key, title, papers) for one in own):
            of_row = [one for one in own if _row_of_method(one, key, title, papers) == row]
            for column, name in REPORT_NAMES.items():
                _put(ours, (row, column), _auroc_of_baseline(of_row, key, name))
    title = "AUROC (%) by method; SD outliers with S = 100, w = 2"
    return PaperTable(1, title, _with_own(papers, ours), columns, paper, ours)


def _table_2(records: Sequence[BundleRecord]) -> PaperTable:
    columns = tuple(f"S = {s}" for s in _S)
    paper = {
        (f"w = {w:g}", c): v for w, values in _TABLE_2.items() for c, v in zip(columns, values, strict=True)
    }
    ours: dict[tuple[str, str], Ours] = {}
    scan = [one for one in records if _labels(one) == "scan"]
    for w in _TABLE_2:
        for s, column in zip(_S, columns, strict=True):
            for row, fit in _by_row(_made_with(scan, s, w), f"w = {w:g}", f"w = {w:g}").items():
                _put(ours, (row, column), _auroc(fit, "cifar100", "both"))
    rows = _with_own([f"w = {w:g}" for w in _TABLE_2], ours)
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
            for own_row, of_row in _by_row(fit, row, row).items():
                _put(ours, (own_row, column), _auroc(of_row, "cifar100", mode))
        paper[fid, column] = _FID[i]
        for own_row in dict.fromkeys(_fid_row(one, fid) for one in fit):
            distances = [
                one.report.frechet["FID"].outliers_to_train
                for one in fit
                if _fid_row(one, fid) == own_row and one.report and "FID" in one.report.frechet
            ]
            _put(ours, (own_row, column), _spread(distances))
    title = (
        "Score and picture quality over S, w = 2, on CIFAR-100; FID of plain sampling is 2.97, of Fake-it 45"
    )
    return PaperTable(3, title, _with_own([*by, fid], ours), columns, paper, ours)


def _fid_row(record: BundleRecord, row: str) -> str:
    """Of the outliers' pictures: what counts is the U-Net."""
    unet = ((record.manifest.config or {}).get("diffusion") or {}).get("unet") or {}
    arch = unet.get("arch", "?")
    return row if arch == "ddpm" and not unet.get("channels") else f"{row}, U-Net of ours: {arch}"


def _with_own(rows: Sequence[str], ours: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The paper's rows, then those of our own that hold a figure."""
    return tuple(dict.fromkeys([*rows, *(row for row, _ in ours)]))


def _table_4(records: Sequence[BundleRecord]) -> PaperTable:
    """Where the SD outliers of the test set have the paper's S and w.

    Our own cell asks for the paper's S and w in training as well; other methods are not trained with them.
    """
    column = "SD outliers of CIFAR-10 test images"
    values = {"Multi-class AD": 74.3, "Fake-it": 81.4, "SD outliers (the paper)": 98.2}
    title = "AUROC (%) with SD outliers as the test set (S = 150, w = 4; trained with S = 100, w = 1.8)"
    fit = [one for one in records if _is_of_table_4(one)]
    own = _made_with(fit, *_TRAINED_4)
    recipes = {one.recipe for one in fit if one.recipe is not None}
    shown = own or max((_made_with(fit, *recipe) for recipe in sorted(recipes)), key=len, default=[])
    ours: dict[tuple[str, str], Ours] = {}
    for row, of_row in _by_row(own, "SD outliers (the paper)", "SD outliers").items():
        _put(ours, (row, column), _auroc(of_row, SD_TEST, "both"))
    keys = {one.title: key for key, one in BASELINES.items()}
    for method in (title for title in values if title in keys):
        for row, of_row in _by_row(shown, method, method).items():
            _put(ours, (row, column), _auroc_of_baseline(of_row, keys[method], SD_TEST))
    notes = []
    found = _auroc(shown, SD_TEST, "both")
    if not own and found is not None and shown[0].recipe is not None:
        spread = f" ± {found.sd:.2f}" if found.sd is not None else ""
        if found.interval is not None:
            spread = f" ({found.interval[0]:.1f} to {found.interval[1]:.1f})"
        s, w = shown[0].recipe
        notes.append(
            f"No figure of our own method stands in it: our detector was trained with S = {s}, w = {w:g}, the "
            f"paper's with S = 100, w = 1.8. As it is, ours reaches {found.mean:.2f}{spread} on this set."
        )
    paper = {(row, column): v for row, v in values.items()}
    return PaperTable(4, title, _with_own(list(values), ours), (column,), paper, ours, tuple(notes))


def _is_of_table_4(record: BundleRecord) -> bool:
    """Whether it was measured on SD outliers as the paper's: of clusters by SCAN, by its S and w."""
    return _labels(record) == "scan" and _sd_test(record) == _TESTED_4


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
