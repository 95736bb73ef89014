"""Writes the paper's four tables as a page of Markdown, with the results of runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..evaluation.report import Measured, ModeMetrics, Report
from ..evaluation.sets import COLUMN_OF_MODE
from ..evaluation.tables import CONTROL_NAMES, FRECHET_NAMES, METRIC_NAMES, MODE_NAMES
from ..evaluation.writing import Rows, markdown_table, spread_text
from ..text import LineError
from .paper_tables import PAPER_DATASET, SD_TEST, WHOLE, PaperTable, paper_tables
from .records import NO_MATTER, RECIPE, BundleRecord, differing_keys

OURS = "**SD outliers**"
# S and w of the paper's Table 1
_USUAL = (100, 2.0)
# metrics by set
Metrics = dict[str, ModeMetrics]


class PaperPageError(LineError):
    """No page can be made of these runs; the message is one line."""


def paper_page(records: Sequence[BundleRecord], command: str) -> str:
    """Writes Tables 1 to 4 over runs that differ in networks, labels, S, w and seeds.

    A cell has the mean over seeds ± standard deviation (n - 1) and, in brackets, the 95 % bootstrap interval
    over images, averaged over the seeds. Cells without results are empty.

    Args:
        records: Of measured bundles, all trained on the same set.
        command: The command that makes this text; it stands on top.

    Raises:
        PaperPageError: No runs, runs without a report, of different sets, or the same run twice.
    """
    if not records:
        raise PaperPageError("no runs to make a page of")
    for one in records:
        if one.report is None:
            raise PaperPageError(f"{one.name} was never measured: it has no report.json")
        if one.manifest.dataset != records[0].manifest.dataset:
            raise PaperPageError(
                f"{one.name} was trained on {one.manifest.dataset}, {records[0].name} on"
                f" {records[0].manifest.dataset}"
            )
    if len({one.hash for one in records}) < len(records):
        raise PaperPageError("a bundle is given twice")
    systems = _systems(records)
    parts = [
        f"Made by `{command}`.",
        f"ID is {records[0].manifest.dataset}. AUROC in %, OOD positive. A cell is the mean over seeds of"
        " outliers and detector ± standard deviation (n - 1), and in brackets the 95 % bootstrap interval over"
        " images (averaged over the seeds). Cells without a measurement are empty. Sets have their own names;"
        " sets that the paper does not use are not shown as the paper's.",
        "## The runs",
        markdown_table(*_run_rows(systems)),
        "## Table 1: method by method",
        *_table_1(systems),
        "## Table 2: S and w",
        *_table_2(systems),
        "## Table 3: distance, votes, both; and how far the outliers are from the images",
        *_table_3(systems),
        "## Table 4: SD outliers of held-out images as the OOD set",
        *_table_4(systems),
        "## Controls",
        *_controls(systems),
    ]
    if records[0].manifest.dataset == PAPER_DATASET:
        parts += ["## The paper's own figures", *_compared_with_the_paper(systems)]
    parts += ["## Where it comes from", markdown_table(*_provenance(records))]
    return "\n\n".join(parts) + "\n"


# --- systems ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _System:
    """Runs with the same networks and labels, which differ in S, w and seeds."""

    name: str
    records: list[BundleRecord]

    def at(self, recipe: tuple[int, float]) -> list[Report]:
        """The reports of runs with these S and w."""
        return [one.report for one in self.records if one.recipe == recipe and one.report is not None]

    @property
    def recipes(self) -> list[tuple[int, float]]:
        """The distinct S and w of the runs, rising."""
        return sorted({one.recipe for one in self.records if one.recipe is not None})

    @property
    def main_recipe(self) -> tuple[int, float] | None:
        """S and w for Table 1: the paper's if measured, else those of most runs."""
        return _USUAL if self.at(_USUAL) else max(self.recipes, key=lambda one: len(self.at(one)), default=None)


def _systems(records: Iterable[BundleRecord]) -> list[_System]:
    """Groups runs that differ only in S, w and seeds; names state the other differences."""
    by_name: dict[str, dict[str, list[BundleRecord]]] = {}
    for one in records:
        by_name.setdefault(system_name(one), {}).setdefault(one.family, []).append(one)
    systems = []
    for name, families in by_name.items():
        firsts = [found[0] for found in families.values()]
        differing = {
            key: values
            for key, values in differing_keys(firsts).items()
            if not {*RECIPE, *NO_MATTER} & {*key.split(".")} and not key.startswith("detector.backbone.")
        }
        for i, found in enumerate(families.values()):
            own = [f"{key} = {values[i]}" for key, values in differing.items() if values[i] != values[0]]
            systems.append(_System("; ".join([name, ", ".join(own)]) if own else name, found))
    return systems


def system_name(record: BundleRecord) -> str:
    """Describes the network that a bundle's detector starts from, and its labels."""
    setting = record.manifest.setting
    e: dict[str, Any] = setting("detector", "backbone") or setting("encoder") or {}
    if e.get("simclr"):
        how = f"SimCLR on {record.manifest.dataset}"
    elif e.get("distillation"):
        how = f"features of {e['distillation']['teacher']['arch'].removeprefix('timm:')}"
    elif e.get("weights"):
        how = f"weights {e['weights']}"
    else:
        how = "untrained"
    if e.get("pretraining"):
        first = f"labels of {e['pretraining'].get('data')}"
        how = f"{first}, then {how}" if e.get("simclr") else first
    arch = str(e.get("arch", "?")).removeprefix("timm:")
    return f"{arch} ({how}), {record.manifest.labels_from} labels"


# --- tables -----------------------------------------------------------------------------------------------


def _run_rows(systems: Sequence[_System]) -> Rows:
    rows = []
    for system in systems:
        for one in system.records:
            report, recipe = one.report, one.recipe
            if report is None or recipe is None:
                continue
            c = report.clusters
            rows.append(
                [
                    one.name,
                    system.name,
                    f"{recipe[0]}, {recipe[1]:g}",
                    ", ".join(f"{k} {v}" for k, v in report.seeds.items() if k in ("outliers", "detector")),
                    f"{report.bank.n_id:,} / {report.bank.n_outliers:,}",
                    "" if c is None or c.accuracy is None else f"{100 * c.accuracy:.1f}",
                    f"{report.score.k}, {report.score.alpha:g}",
                ]
            )
    head = ["run", "detector starts from", "S, w", "seeds", "bank: ID / outliers", "cluster accuracy, %"]
    return [*head, "k, alpha"], rows


def _methods(reports: Sequence[Report], with_controls: bool) -> list[tuple[str, list[Metrics]]]:
    """Lists our score, the controls and the other methods: each title, with the metrics of each run."""
    found = [
        (f"{OURS}, distance + votes", [_of_mode(r, "both") for r in reports]),
        ("the same, distance alone", [_of_mode(r, "distance") for r in reports]),
    ]
    if with_controls:
        for key in dict.fromkeys(key for r in reports for key in r.controls):
            of_run = [_of_mode(r.controls[key], "both") for r in reports if key in r.controls]
            found.append((f"control: {CONTROL_NAMES.get(key, key)}", of_run))
    for key, title in {key: one.title for r in reports for key, one in r.baselines.items()}.items():
        found.append((title, [r.baselines[key].results for r in reports if key in r.baselines]))
    return [(title, [one for one in of_run if one]) for title, of_run in found]


def _table_1(systems: Sequence[_System]) -> list[str]:
    parts = []
    for system in systems:
        if system.main_recipe is None:
            continue
        s, w = system.main_recipe
        reports = system.at(system.main_recipe)
        names = _sets(reports, ("near", "far", "validation"))
        means = [role for role in ("near", "far") if sum(r == role for _, r in names) > 1]
        head = ["method", "seeds", *(f"{name} ({role}, {_n_images(reports, name)})" for name, role in names)]
        head += [f"mean of {role}" for role in means]
        rows = []
        for title, of_run in _methods(reports, with_controls=True):
            cells = [_cell(of_run, name) for name, _ in names]
            cells += [_mean_cell(of_run, [name for name, r in names if r == role]) for role in means]
            rows.append([title, str(len(of_run)), *cells])
        parts += [f"### {system.name}; S = {s}, w = {w:g}", markdown_table(head, rows)]
        both = [_of_mode(r, "both") for r in reports]
        measures = [
            [f"{name} ({role})", *(_cell(both, name, key) for key in METRIC_NAMES)] for name, role in names
        ]
        parts += [
            "All measures of our own score, %:",
            markdown_table(["set", *METRIC_NAMES.values()], measures),
        ]
    return parts or ["Not measured."]


def _table_2(systems: Sequence[_System]) -> list[str]:
    parts = []
    for system in systems:
        if len(system.recipes) < 2:
            continue
        all_s = sorted({s for s, _ in system.recipes})
        all_w = sorted({w for _, w in system.recipes})
        both = {(s, w): [_of_mode(r, "both") for r in system.at((s, w))] for s in all_s for w in all_w}
        rows = [
            [f"w = {w:g}", f"{name} ({role})", *(_cell(both[s, w], name) for s in all_s)]
            for name, role in _sets(_all_reports(system, system.recipes), ("near", "validation"))
            for w in all_w
        ]
        parts += [f"### {system.name}", markdown_table(["w", "set", *(f"S = {s}" for s in all_s)], rows)]
    return parts or ["Not measured: this needs runs that differ in S or w."]


def _table_3(systems: Sequence[_System]) -> list[str]:
    parts = []
    for system in systems:
        recipes = [(s, w) for s, w in system.recipes if w == _USUAL[1]] or system.recipes
        if not recipes:
            continue
        head = ["", "", *(f"S = {s}, w = {w:g}" for s, w in recipes)]
        some = _all_reports(system, recipes)
        rows = []
        for name, role in _sets(some, ("near",)):
            for mode, by in ((mode, MODE_NAMES[mode]) for mode in COLUMN_OF_MODE):
                cells = [_cell([_of_mode(r, mode) for r in system.at(one)], name) for one in recipes]
                rows.append([f"AUROC, {name} ({role})", by, *cells])
        for distance in dict.fromkeys(d for r in some for d in r.frechet):
            for key, between in FRECHET_NAMES.items():
                cells = []
                for one in recipes:
                    found = [getattr(r.frechet[distance], key) for r in system.at(one) if distance in r.frechet]
                    cells.append(spread_text([value for value in found if value is not None], 4))
                if any(cells):
                    rows.append([distance, between, *cells])
        parts += [f"### {system.name}", markdown_table(head, rows)]
    if parts:
        parts.append(
            "The Frechet distance of outliers to their source images is small by construction (0 at S = 0):"
            " compare it with the rows below it. FD uses the features of the named encoder; it is not FID."
        )
    return parts or ["Not measured."]


def _table_4(systems: Sequence[_System]) -> list[str]:
    rows = []
    for system in systems:
        for s, w in system.recipes:
            reports = [r for r in system.at((s, w)) if SD_TEST in r.results]
            if not reports:
                continue
            where = [system.name, f"S = {s}, w = {w:g}", _n_images(reports, SD_TEST)]
            for title, of_run in _methods(reports, with_controls=False):
                rows.append([title, *where, _cell(of_run, SD_TEST)])
    if not rows:
        return ["Not measured: name `evaluation.sd_test` in a run's configuration."]
    return [
        "The SD outliers are made of held-out images by the recipe of `evaluation.sd_test` (the paper: S = 150,"
        " w = 4).",
        markdown_table(["method", "networks", "trained with", "images", "AUROC"], rows),
    ]


def _controls(systems: Sequence[_System]) -> list[str]:
    rows = []
    for system in systems:
        for report in system.at(system.main_recipe) if system.main_recipe else []:
            for name, role in _sets([report], ("near", "far", "validation", "sd")):
                for control, one in report.controls.items():
                    d = one.differences[name]["both"]
                    interval = ""
                    if d.interval is not None:
                        interval = f" ({100 * d.interval[0]:+.1f} to {100 * d.interval[1]:+.1f})"
                    title = CONTROL_NAMES.get(control, control)
                    seed = f"seed {report.seeds.get('outliers', 0)}"
                    rows.append(
                        [system.name, seed, f"{name} ({role})", title, f"{100 * d.auroc:+.1f}{interval}"]
                    )
    if not rows:
        return ["Not measured."]
    return [
        "Our AUROC minus the control's on the same images, points, with the paired 95 % bootstrap interval:"
        " if it contains 0, the two do not differ on these images.",
        markdown_table(["networks", "run", "set", "control", "difference"], rows),
    ]


def _compared_with_the_paper(systems: Sequence[_System]) -> list[str]:
    parts = [
        "The paper's networks are far larger, and its CIFAR-100 has 10,000 images; a cell says if ours has"
        " fewer. Each of our rows is one kind of network."
    ]
    for system in systems:
        for table in paper_tables(system.records):
            parts += [
                f"### Table {table.number}, {system.name}",
                table.title + ".",
                markdown_table(*_paper_rows(table)),
                *table.notes,
            ]
    return parts


def _paper_rows(table: PaperTable) -> Rows:
    head = [""]
    for column in table.columns:
        head += [f"{column}: paper", "ours"]
    rows = []
    for row in table.rows:
        cells = [row]
        for column in table.columns:
            value, ours = table.paper.get((row, column)), table.ours.get((row, column))
            cells.append("" if value is None else f"{value:g}")
            if ours is None:
                cells.append("")
                continue
            text = f"{ours.mean:.1f}" + (f" ± {ours.sd:.1f}" if ours.sd is not None else "")
            if ours.interval is not None:
                text += f" ({ours.interval[0]:.1f} to {ours.interval[1]:.1f})"
            cells.append(
                text + (f", {ours.n_images:,} of {ours.whole:,}" if ours.n_images < ours.whole else "")
            )
        rows.append(cells)
    return head, rows


def _provenance(records: Sequence[BundleRecord]) -> Rows:
    rows = []
    for one in records:
        report = one.report
        versions = "" if report is None else ", ".join(f"{k} {v}" for k, v in report.versions.items())
        digest = "" if report is None else report.config_sha256[:12]
        rows.append([one.name, one.hash[:12], digest, versions])
    return ["run", "bundle.json, SHA-256", "configuration, SHA-256", "versions"], rows


# --- cells ------------------------------------------------------------------------------------------------


def _of_mode(measured: Measured, mode: str) -> Metrics:
    return {name: one.modes[mode] for name, one in measured.results.items() if mode in one.modes}


def _all_reports(system: _System, recipes: Sequence[tuple[int, float]]) -> list[Report]:
    return [report for one in recipes for report in system.at(one)]


def _sets(reports: Sequence[Report], roles: Sequence[str]) -> list[tuple[str, str]]:
    """The sets of these roles in the reports, as (name, role), in the order of the roles."""
    found = {name: one.role for r in reports for name, one in r.results.items()}
    return [(name, role) for role in roles for name, own in found.items() if own == role]


def _n_images(reports: Sequence[Report], name: str) -> str:
    counts = sorted({r.results[name].n for r in reports if name in r.results})
    whole = WHOLE.get(name, 0)
    text = " / ".join(f"{n:,}" for n in counts)
    return f"{text} of {whole:,} images" if counts and counts[0] < whole else f"{text} images"


def _cell(of_run: Sequence[Metrics], name: str, key: str = "auroc") -> str:
    """One metric on one set, in %, over the runs that have it."""
    found = [metrics[name] for metrics in of_run if name in metrics]
    text = spread_text([100 * getattr(one, key) for one in found], 1)
    intervals = [one.auroc_interval for one in found if one.auroc_interval is not None]
    if found and key == "auroc" and len(intervals) == len(found):
        low, high = 100 * np.mean(intervals, axis=0)
        text += f" ({low:.1f} to {high:.1f})"
    return text


def _mean_cell(of_run: Sequence[Metrics], names: Sequence[str]) -> str:
    whole = [[m[name].auroc for name in names] for m in of_run if all(name in m for name in names)]
    return spread_text([100 * float(np.mean(one)) for one in whole], 1)
