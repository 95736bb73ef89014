"""Result tables of one run, or of several that differ in their seeds."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from .report import MeanMetrics, Measured, ModeMetrics, Report, ReportError
from .writing import Rows, markdown_table, spread_text

MODE_NAMES = {"distance": "distance only", "votes": "votes only", "both": "both", "g_bin": "g_bin alone"}
CONTROL_NAMES = {
    "no_training": "no detector training",
    "right_label": "right label",
    "noise": "noise alone",
    "right_label_as_id": "right label as ID",
    "lambda_zero": "λ = 0",
    "no_outliers": "no outliers",
}
METRIC_NAMES = {
    "auroc": "AUROC",
    "fpr95_id_recall": "FPR95 (OOD accepted at 95 % ID recall)",
    "fpr95_ood_recall": "FPR95 (ID flagged at 95 % OOD recall)",
    "aupr_in": "AUPR-in",
    "aupr_out": "AUPR-out",
}
FRECHET_NAMES = {
    "outliers_to_train": "outliers to train",
    "reconstructions_to_train": "right-label reconstructions to train",
    "test_to_train": "test to train",
    "outliers_to_test": "outliers to test",
    "outliers_to_source": "outlier to its source (mean L2)",
}


class SameSeedsError(ReportError):
    """Two reports have the same seeds; `pair` has their positions."""

    def __init__(self, pair: tuple[int, int]) -> None:
        super().__init__("two of the runs have the same seeds: the spread over them would say nothing")
        self.pair = pair


def results_table(reports: Sequence[Report], command: str) -> str:
    """Writes the tables as Markdown: mean ± standard deviation of several runs, bootstrap intervals of one.

    Args:
        reports: At least one.
        command: The command that makes this text; it stands on top.

    Raises:
        SameSeedsError: Two reports have the same seeds.
        ReportError: No reports, or reports that differ in sets, roles, modes, controls or settings.
    """
    labels = _check_together(reports)
    first = reports[0]
    banks = sorted({(r.bank.n_id, r.bank.n_outliers, r.bank.ratio) for r in reports})
    parts = [
        f"Made by `{command}`.",
        _about(reports, labels),
        f"ID: {first.id_set.name} ({first.id_set.split}), {first.id_set.n:,} held-out images. Banks: "
        + "; ".join(f"{n:,} ID images, {m:,} outliers (ratio {ratio:.2f})" for n, m, ratio in banks)
        + f". Eq. 6 with k = {first.score.k}, alpha = {first.score.alpha:g},"
        + f" features {'of unit length' if first.score.normalize else 'as they are'}.",
    ]
    parts += filter(None, [overlap_line(first), images_line(first)])
    if first.results:
        parts += ["## AUROC, %", markdown_table(*_auroc_rows(reports))]
        parts += ["## All measures, by both terms of Eq. 6, %", markdown_table(*_metric_rows(reports))]
    if first.results and first.controls:
        parts += [
            "## The method's AUROC minus a control's, points",
            "On the same images, with the paired 95 % bootstrap interval of each run; by both terms of Eq. 6.",
            markdown_table(*_difference_rows(reports, labels)),
        ]
    if first.results and first.interpolation:
        parts += [
            "## Between no training and the trained weights, AUROC, %",
            "By both terms of Eq. 6; the encoder has (1 - a) of its weights before training and a of the"
            " trained ones. Choose a on a validation set only.",
            markdown_table(*_interpolation_rows(reports)),
        ]
    if first.baselines:
        parts += ["## Other methods, AUROC, %", markdown_table(*_baseline_rows(reports))]
    if any(r.clusters or r.id_accuracy for r in reports):
        parts += ["## Clusters and ID accuracy, %", markdown_table(*_cluster_rows(reports))]
    if first.frechet:
        parts += ["## Frechet distances", markdown_table(*_frechet_rows(reports))]
    return "\n\n".join(parts) + "\n"


def overlap_line(report: Report) -> str:
    """Says which images are in two sets; "" if none are, or if they were not counted."""
    o = report.overlap
    if o is None or not o.sets:
        return ""
    equal = [f"{n:,} of {key} in {other}" for key, of in o.sets.items() for other, n in of.items()]
    what = "kept" if o.on_overlap == "keep" else "left out of the first"
    return f"Images that are in two sets, pixel by pixel, were {what}: {', '.join(equal)}."


def images_line(report: Report) -> str:
    """Says what of the training set was left out, and how many pictures repeat others; "" for nothing."""
    found = report.images
    if found is None:
        return ""
    parts = []
    if found.passed_over:
        parts.append(f"passed over {', '.join(f'{n:,} {name}' for name, n in found.passed_over.items())}")
    if found.unreadable:
        parts.append(f"{len(found.unreadable):,} unreadable, left out")
    copies = {"copies": found.exact_copies, "near copies of others": found.near_copies}
    parts += [f"{n:,} {what}" for what, n in copies.items() if n]
    return f"Of the training set: {'; '.join(parts)}." if parts else ""


def _check_together(reports: Sequence[Report]) -> list[str]:
    """Checks that reports can be compared, and names each run by its seeds."""
    if not reports:
        raise ReportError("no reports to make a table of")
    first = reports[0]
    for other in reports[1:]:
        for what, of in _MUST_AGREE.items():
            if of(other) != of(first):
                raise ReportError(f"the runs differ in their {what}: {of(first)} and {of(other)}")
    seeds = [tuple(sorted(r.seeds.items())) for r in reports]
    for i, one in enumerate(seeds):
        if one in seeds[:i]:
            raise SameSeedsError((seeds.index(one), i))
    varied = _varied_seeds(reports)
    of_run = [{r.seeds.get(stage) for stage in varied} for r in reports]
    if varied and all(len(values) == 1 for values in of_run):
        return [f"seed {values.pop()}" for values in of_run]
    return [f"run {i + 1}" for i in range(len(reports))]


def _layout(of: Measured) -> dict[str, tuple[str, str, int, list[str]]]:
    return {name: (r.role, r.split, r.n, list(r.modes)) for name, r in of.results.items()}


_MUST_AGREE: dict[str, Callable[[Report], object]] = {
    "ID sets": lambda r: (r.id_set.name, r.id_set.split, r.id_set.n),
    "score settings": lambda r: r.score.model_dump(),
    "OOD sets": _layout,
    "controls": lambda r: list(r.controls),
    # a tuned method chooses anew in each run
    "other methods": lambda r: {key: [] if one.trials else one.settings for key, one in r.baselines.items()},
    "trials": lambda r: r.tuning and r.tuning.model_dump(exclude={"seed"}),
    "controls' OOD sets": lambda r: {name: _layout(one) for name, one in r.controls.items()},
    "interpolation": lambda r: list(r.interpolation),
    "Frechet distances": lambda r: list(r.frechet),
}


def _varied_seeds(reports: Sequence[Report]) -> list[str]:
    stages = dict.fromkeys(stage for r in reports for stage in r.seeds)
    return [stage for stage in stages if len({r.seeds.get(stage) for r in reports}) > 1]


def _about(reports: Sequence[Report], labels: Sequence[str]) -> str:
    if len(reports) == 1:
        return "One run; brackets have 95 % bootstrap intervals over images. It does not show how runs differ."
    return (
        f"{len(reports)} runs ({', '.join(labels)}), which differ in the seed of"
        f" {', '.join(_varied_seeds(reports))}: mean ± standard deviation over the runs (n - 1)."
    )


def _auroc_rows(reports: Sequence[Report]) -> Rows:
    """Rows: each set and mode, and the means of each role. Columns: the method, then its controls."""
    controls = list(reports[0].controls)
    header = ["set", "role", "images", "score by", "SD outliers", *(CONTROL_NAMES.get(c, c) for c in controls)]
    systems: list[list[Measured]] = [list(reports)]
    systems += [[r.controls[c] for r in reports] for c in controls]
    rows = []
    for name, role, n in _lines(reports[0]):
        for mode in (mode for mode in MODE_NAMES if mode in _metrics(reports[0], name, role)):
            found = [[_metrics(m, name, role).get(mode) for m in system] for system in systems]
            rows.append([name, role, n, MODE_NAMES[mode], *(_cell(of, "auroc") for of in found)])
    return header, rows


def _baseline_rows(reports: Sequence[Report]) -> Rows:
    """Rows: the methods. Columns: the sets, and the mean of each role with several."""
    lines = [(name, role) for name, role, _ in _lines(reports[0])]
    rows = []
    for key, first in reports[0].baselines.items():
        of = [r.baselines[key] for r in reports]
        found = [
            [one.results[name] if name in one.results else one.means[role] for one in of]
            for name, role in lines
        ]
        rows.append([first.title, *(_cell(one, "auroc") for one in found)])
    return ["method", *(f"mean of {role}" if name == "**mean**" else name for name, role in lines)], rows


def _interpolation_rows(reports: Sequence[Report]) -> Rows:
    """Rows: each set and the means of each role. Columns: the shares of the trained weights."""
    shares = list(reports[0].interpolation)
    rows = []
    for name, role, n in _lines(reports[0]):
        cells = []
        for share in shares:
            of = [r.interpolation[share] for r in reports]
            found = [one.results[name] if name in one.results else one.means[role] for one in of]
            cells.append(_cell(found, "auroc"))
        rows.append([name, role, n, *cells])
    return ["set", "role", "images", *(f"a = {share}" for share in shares)], rows


def _metric_rows(reports: Sequence[Report]) -> Rows:
    """Rows: each set and the means of each role. Columns: the metrics."""
    rows = []
    for name, role, n in _lines(reports[0]):
        found = [_metrics(r, name, role).get("both") for r in reports]
        rows.append([name, role, n, *(_cell(found, key) for key in METRIC_NAMES)])
    return ["set", "role", "images", *METRIC_NAMES.values()], rows


def _difference_rows(reports: Sequence[Report], labels: Sequence[str]) -> Rows:
    """Rows: each set and control. Columns: the mean difference, then each run's with its interval."""
    rows = []
    for name, result in reports[0].results.items():
        for control in reports[0].controls:
            found = [r.controls[control].differences[name]["both"] for r in reports]
            mean = spread_text([100 * one.auroc for one in found], 2, "+")
            every = [
                f"{100 * one.auroc:+.2f}" + (_between(one.interval, "+") if one.interval else "")
                for one in found
            ]
            single = every if len(reports) == 1 else [mean, *every]
            rows.append([name, result.role, CONTROL_NAMES.get(control, control), *single])
    over = ["difference"] if len(reports) == 1 else ["mean", *labels]
    return ["set", "role", "control", *over], rows


def _cluster_rows(reports: Sequence[Report]) -> Rows:
    clusters = [r.clusters for r in reports if r.clusters is not None]
    accuracy = [r.id_accuracy for r in reports if r.id_accuracy is not None]
    columns: dict[str, list[float | None]] = {
        "cluster accuracy": [c.accuracy for c in clusters],
        "NMI": [c.nmi for c in clusters],
        "ARI": [c.ari for c in clusters],
        "g_in names the cluster": [a.clusters for a in accuracy],
        "g_in names the class": [a.ground_truth for a in accuracy],
    }
    sources = ", ".join(dict.fromkeys(c.source for c in clusters)) or "-"
    cells = [spread_text([100 * x for x in column if x is not None], 2) or "-" for column in columns.values()]
    return ["labels from", *columns], [[sources, *cells]]


def _frechet_rows(reports: Sequence[Report]) -> Rows:
    """Rows: each kind of distance. Columns: numbers of images, then the distances."""
    rows = []
    for name, first in reports[0].frechet.items():
        counts = ", ".join(f"{what} {n:,}" for what, n in first.n.items())
        cells = []
        for key in FRECHET_NAMES:
            values = [getattr(r.frechet[name], key) for r in reports]
            cells.append("-" if None in values else spread_text(values, 4))
        rows.append([name, counts, *cells])
    return ["distance", "images", *FRECHET_NAMES.values()], rows


def _lines(report: Report) -> Iterator[tuple[str, str, str]]:
    """Yields (name, role, images) of each set; after several sets of a role, those of their mean."""
    for role in report.means:
        of_role = {name: r for name, r in report.results.items() if r.role == role}
        for name, result in of_role.items():
            yield name, role, f"{result.n:,}"
        if len(of_role) > 1:
            yield "**mean**", role, ""


def _metrics(of: Measured, name: str, role: str) -> Mapping[str, ModeMetrics | MeanMetrics]:
    return of.results[name].modes if name in of.results else of.means[role]


def _cell(found: Sequence[ModeMetrics | MeanMetrics | None], key: str) -> str:
    """A metric in %: mean and standard deviation of several runs, or one run with its interval."""
    known = [one for one in found if one is not None]
    if not known:
        return "-"
    text = spread_text([100 * getattr(one, key) for one in known], 2)
    if len(known) == 1 and key == "auroc" and isinstance(known[0], ModeMetrics) and known[0].auroc_interval:
        text += _between(known[0].auroc_interval)
    return text


def _between(interval: tuple[float, float], sign: str = "") -> str:
    low, high = (f"{100 * bound:{sign}.2f}" for bound in interval)
    return f" ({low} to {high})"
