"""Results: maps of AUROC over k and alpha, and over S and w of finished runs."""

from collections.abc import Sequence

import numpy as np
import streamlit as st
import yaml

from sdviz.analysis import Evidence, MissingPart
from sdviz.analysis.curves import k_alpha_map
from sdviz.analysis.provenance import provenance
from sdviz.analysis.records import BundleRecord, RecipeMap, once_each, recipe_map
from sdviz.analysis.tables import or_none
from sdviz.bundle import Bundle
from sdviz.ui.cache.evidence import find_rescorer
from sdviz.ui.cache.kept import kept
from sdviz.ui.charts import Chart, show_chart
from sdviz.ui.charts.parts import Heat
from sdviz.ui.page import ROOT
from sdviz.ui.results.html_tables import Row, show_table, table_html
from sdviz.ui.results.records import all_records, many_lines
from sdviz.ui.results.state import MODE_TITLES, NO_DETECTOR
from sdviz.ui.session import ScoreChoice, score_settings, set_shared
from sdviz.ui.text import counted, plain
from sdviz.ui.theme import ROLE_NAMES, set_name, set_titles
from sdviz.ui.widgets import IN_LINK, empty_state, select_one

KS = (1, 2, 5, 10, 20, 50)
ALPHAS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


@kept("k-alpha map")
def _map(
    evidence: Evidence, normalize: bool, names: tuple[str, ...], ks: tuple[int, ...], alphas: tuple[float, ...]
) -> np.ndarray:
    return k_alpha_map(find_rescorer(evidence, normalize), evidence.id_set.name, names, ks, alphas)


def shown_ks(evidence: Evidence, settings: ScoreChoice) -> tuple[int, ...]:
    """The values of k on the map: `KS`, the bundle's own and the one in use, up to the size of the banks."""
    most = find_rescorer(evidence, settings.normalize).max_k
    own = evidence.bundle.manifest.score
    wanted = {*KS, settings.k} | ({own.k} if own is not None else set())
    return tuple(sorted(k for k in wanted if k <= most))


def shown_alphas(settings: ScoreChoice) -> tuple[float, ...]:
    """The values of alpha on the map: `ALPHAS` and the one in use."""
    by_name = {f"{alpha:g}": alpha for alpha in (*ALPHAS, settings.alpha)}
    return tuple(sorted(by_name.values()))


def k_alpha_chart(evidence: Evidence, settings: ScoreChoice, names: Sequence[str]) -> Chart:
    """Mean AUROC of these sets over k and alpha, in %; those in use are framed. Raises MissingPart."""
    ks, alphas = shown_ks(evidence, settings), shown_alphas(settings)
    z = 100 * _map(evidence, settings.normalize, tuple(names), ks, alphas)
    cell = (alphas.index(settings.alpha), ks.index(settings.k)) if settings.k in ks else None
    rows = [f"{alpha:g}" for alpha in alphas]
    heat = Heat("AUROC (%)", [str(k) for k in ks], rows, z, ".2f", framed=cell)
    on = names[0] if len(names) == 1 else "mean of " + ", ".join(names)
    return Chart(
        f"AUROC over k and alpha, {on}", "k, neighbours that count", "α, weight of a vote", [heat], height=430
    )


def auroc_intervals(evidence: Evidence, names: Sequence[str]) -> str:
    """The AUROC intervals of these sets in report.json, as a sentence; "" without any."""
    report = or_none(lambda: evidence.report)
    if report is None:
        return ""
    parts = []
    for name in names:
        measured = report.results.get(name)
        if measured is not None and measured.modes["both"].auroc_interval is not None:
            low, high = (100 * end for end in measured.modes["both"].auroc_interval)
            parts.append(f"{low:.2f} to {high:.2f} % on {set_name(name)}, {high - low:.1f} points")
    if not parts:
        return ""
    return (
        f"By the bundle's own k = {report.score.k}, α = {report.score.alpha:g} the 95 % interval of AUROC over "
        f"images is {'; '.join(parts)}: a cell that is ahead by much less than that need not be the better one."
    )


def map_caption(evidence: Evidence, settings: ScoreChoice, names: Sequence[str]) -> str:
    """The caption of the map over k and alpha."""
    titles = set_titles(evidence)
    return (
        f"AUROC of Eq. 6 on {', '.join(titles[n] for n in names)} against held-out ID images, features "
        f"{settings.features}. α = 0 is the distance alone. The frame "
        f"is what is in force. {auroc_intervals(evidence, names)}"
    )


def show_k_alpha(evidence: Evidence) -> None:
    """Shows the map on the validation sets, or, with a warning, on a test set."""
    settings = score_settings(evidence)
    if settings is None:
        raise MissingPart(NO_DETECTOR)
    sets = evidence.ood_sets
    validation = [name for name, one in sets.items() if one.role == "validation"]
    tests = [name for name in sets if name not in validation]
    columns = st.columns([1.2, 1, 2], vertical_alignment="bottom")
    on_test = columns[0].toggle(
        "Look at a test set",
        key="results_on_test",
        disabled=not tests,
        help="To see how it would have been. What is chosen there measures nothing any more.",
    )
    if on_test and tests:
        with columns[1]:
            names = [select_one("Test set", tests, "results_test_set", format_func=set_name)]
        st.warning(
            f"**{plain(set_name(names[0]))} is a test set.** If you choose k or α by this map, its AUROC is "
            "no longer a fair measure: it would be too good. Choose on the validation set, then look here.",
            icon=":material/warning:",
        )
    elif validation:
        names = validation
    else:
        empty_state(
            "This bundle has no validation set.",
            "Here you would see how AUROC moves with k and α on OOD images that are kept for choosing "
            "settings. Name such a set under `evaluation.validation` in the configuration of a run: settings "
            "that are chosen on a test set make its figure too good.",
        )
        return
    chart = k_alpha_chart(evidence, settings, names)
    heat = chart.parts[0]
    assert isinstance(heat, Heat)
    show_chart(
        chart,
        provenance(evidence.bundle, features=settings.features, measured_on=", ".join(names)),
        key="results_k_alpha",
        caption=map_caption(evidence, settings, names),
    )
    if on_test and tests:
        return
    i, j = np.unravel_index(int(np.nanargmax(heat.z)), heat.z.shape)
    k, alpha = int(heat.x[int(j)]), shown_alphas(settings)[int(i)]
    columns = st.columns([2.2, 2.4], vertical_alignment="center")
    columns[0].button(
        f"Use k = {k}, α = {alpha:g} on every page",
        key="results_take_best",
        on_click=_take,
        args=(k, alpha),
        disabled=(settings.k, settings.alpha) == (k, alpha),
        icon=":material/check:",
        width="stretch",
    )
    columns[1].caption(
        f"The highest here: {heat.z[i, j]:.2f} %. In force: k = {settings.k}, α = {settings.alpha:g}"
        + (", the bundle's own." if settings.is_own else ".")
    )


def _take(k: int, alpha: float) -> None:
    set_shared("k", k)
    set_shared("alpha", f"{alpha:g}")
    # another score has another scale
    set_shared("t", None)


def recipe_chart(found: RecipeMap, role: str) -> Chart:
    """Mean AUROC over S and w, in %."""
    heat = Heat("AUROC (%)", [str(s) for s in found.s], [f"{w:g}" for w in found.w], 100 * found.mean, ".2f")
    return Chart(
        f"AUROC over S and w, {ROLE_NAMES[role]}, {MODE_TITLES['both']}",
        "S, noising steps",
        "w, guidance scale",
        [heat],
        height=max(240, 130 + 60 * len(found.w)),
    )


def profile_of(bundle: Bundle) -> str:
    """The file in configs/ with the bundle's data set and profile; "CONFIG" where there is none."""
    config = bundle.manifest.config or {}
    wanted = (config.get("profile"), (config.get("data") or {}).get("id"))
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        tree = yaml.safe_load(path.read_text("utf-8"))
        if (tree.get("profile"), (tree.get("data") or {}).get("id")) == wanted:
            return f"configs/{path.name}"
    return "CONFIG"


def _how_many_count(n_all: int, n_fit: int, n_recipes: int) -> str:
    begins = f"Of {counted(n_all, 'bundle')} on this machine "
    if not n_fit:
        return begins + "none counts here: this one was never measured."
    begins += f"{n_fit} count{'s' * (n_fit == 1)} here, with {counted(n_recipes, 'recipe')}: "
    if n_fit == 1:
        return begins + "this one. Others count that were made like it but for S, w and seeds."
    return begins + "those that were made like this one but for S, w and seeds."


def show_recipe_map(bundle: Bundle) -> None:
    """Shows AUROC of finished runs that differ only in S, w and seeds from the bundle in use."""
    records, problems = all_records()
    own = next((one for one in records if one.hash == bundle.hash), None)
    same_data = [one for one in records if one.manifest.dataset == bundle.manifest.dataset and one.report]
    family = [one for one in same_data if own is not None and one.family == own.family]
    # copies of a bundle, and a run made twice, count once
    fit = once_each(family)
    roles = [
        role for role in ("near", "far", "validation") if any(r.report and role in r.report.means for r in fit)
    ]
    recipes = {one.recipe for one in fit if one.recipe is not None}
    if len(recipes) < 2 or not roles:
        said = _how_many_count(len({one.hash for one in records}), len(fit), len(recipes))
        box = st.container(border=True)
        box.markdown(f"**It takes runs with different S or w.** {said}")
        box.markdown(
            "Here you would see how AUROC moves with the recipe of the outliers, as in the paper's Table 2. A "
            "run that takes over everything but outliers and detector from another one costs a part of its "
            "time:"
        )
        box.code(
            f"python -m sdviz run {profile_of(bundle)} --from RUN "
            "--set outliers.start_timestep=200 --set outliers.guidance_scale=3",
            language="bash",
            wrap_lines=True,
        )
    else:
        _recipes(bundle, fit, roles)
    others = len(same_data) - len(family)
    if others:
        st.caption(
            f"{counted(others, 'other bundle')} on {bundle.manifest.dataset} left out: they differ from this "
            "one in more than S, w and seeds. *Compare* shows in what."
        )
    for line in problems:
        st.caption(f"Not read: {line}")


def _recipes(bundle: Bundle, fit: list[BundleRecord], roles: list[str]) -> None:
    titles = [ROLE_NAMES[role] for role in roles]
    chosen = st.segmented_control(
        "Measured on", titles, default=titles[0], key="results_recipe_role", **IN_LINK
    )
    role = next((role for role in roles if ROLE_NAMES[role] == chosen), roles[0])
    found = recipe_map(fit, role)
    if role != "validation":
        st.warning(
            "**These are test sets.** To choose S and w, look at the validation sets: what is chosen on a test "
            "set makes its figure too good.",
            icon=":material/warning:",
        )
    most = int(found.n.max())
    spread = f"up to {most} seeds in a cell" if most > 1 else "one run in each cell, so spread is unknown"
    show_chart(
        recipe_chart(found, role),
        many_lines(fit),
        key="results_recipes",
        caption=f"Mean AUROC over the {ROLE_NAMES[role]} sets of {counted(len(fit), 'bundle')} on "
        f"{bundle.manifest.dataset} that differ in S, w and seeds only; {spread}. Empty: no such run.",
    )
    if (found.n > 1).any():
        header = ["S", "w", "AUROC (%)", "± over seeds", "runs"]
        show_table(table_html(header, cell_rows(found), text=0))


def cell_rows(found: RecipeMap) -> list[Row]:
    """A row for each cell with runs: S, w, AUROC in %, ± over seeds where there are several, and runs."""
    rows = []
    for i, w in enumerate(found.w):
        for j, s in enumerate(found.s):
            sd, n = found.sd[i, j], int(found.n[i, j])
            if n:
                spread = "" if np.isnan(sd) else f"{100 * sd:.2f}"
                rows.append(Row([str(s), f"{w:g}", f"{100 * found.mean[i, j]:.2f}", spread, str(n)]))
    return rows
