"""Results: AUROC over k and alpha, and over the recipes S and w of finished runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from sdviz.bundle import Bundle
from sdviz.evidence import Evidence, MissingPart
from sdviz.evidence.curves import k_alpha_map
from sdviz.evidence.provenance import provenance
from sdviz.evidence.records import RecipeMap, recipe_map
from sdviz.ui.chart_parts import Heat
from sdviz.ui.charts import Chart, show_chart
from sdviz.ui.evidence import find_rescorer
from sdviz.ui.look import ROLE_NAMES, set_titles
from sdviz.ui.results_records import all_records, many_lines
from sdviz.ui.results_state import MODE_WORDS
from sdviz.ui.shared import score_settings, set_shared
from sdviz.ui.words import counted

KS = (1, 2, 5, 10, 20, 50)
ALPHAS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


@st.cache_data(max_entries=32, show_spinner="Measuring every k and α ...")
def _map(
    bundle_hash: str, normalize: bool, names: tuple[str, ...], ks: tuple[int, ...], _evidence: Evidence
) -> np.ndarray:
    return k_alpha_map(find_rescorer(_evidence, normalize), _evidence.id_set.name, names, ks, ALPHAS)


def shown_ks(evidence: Evidence, normalize: bool) -> tuple[int, ...]:
    """The values of k that this bundle's banks allow, its own among them."""
    most = find_rescorer(evidence, normalize).max_k
    own = evidence.bundle.manifest.score
    wanted = {*KS} | ({own.k} if own is not None else set())
    return tuple(sorted(k for k in wanted if k <= most))


def k_alpha_chart(evidence: Evidence, normalize: bool, names: Sequence[str]) -> Chart:
    """AUROC over k and alpha, the mean over those sets, in %.

    Raises:
        MissingPart: The bundle lacks what a search needs.
    """
    ks = shown_ks(evidence, normalize)
    z = 100 * _map(evidence.bundle.hash, normalize, tuple(names), ks, evidence)
    heat = Heat("AUROC (%)", [str(k) for k in ks], [f"{alpha:g}" for alpha in ALPHAS], z, ".2f")
    on = names[0] if len(names) == 1 else "mean of " + ", ".join(names)
    return Chart(
        f"AUROC over k and alpha, {on}", "k, neighbours that count", "α, weight of a vote", [heat], height=430
    )


def show_k_alpha(evidence: Evidence) -> None:
    """The map on the validation sets; on a test set only when asked for, with a warning."""
    settings = score_settings(evidence)
    if settings is None:
        raise MissingPart("this bundle has no detector: it scores nothing")
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
        key = "results_test_set"
        if st.session_state.get(key) not in tests:
            st.session_state.pop(key, None)
        names = [columns[1].selectbox("Test set", tests, key=key)]
        st.warning(
            f"**{names[0]} is a test set.** If you choose k or α by this map, its AUROC is no longer a "
            "fair measure: "
            "it would be too good. Choose on the validation set, then look here once.",
            icon=":material/warning:",
        )
    elif validation:
        names = validation
    else:
        with st.container(border=True):
            st.markdown("**This bundle has no validation set.**")
            st.markdown(
                "Here you would see how AUROC moves with k and α on OOD images that are kept for choosing "
                "settings. "
                "Name such a set under `evaluation.validation` in the configuration of a run: settings "
                "that are chosen "
                "on a test set make its figure too good."
            )
        return
    chart = k_alpha_chart(evidence, settings.normalize, names)
    heat = chart.parts[0]
    assert isinstance(heat, Heat)
    features = "of unit length" if settings.normalize else "as they are"
    show_chart(
        chart,
        provenance(evidence.bundle, features=features, measured_on=", ".join(names)),
        key="results_k_alpha",
        caption=f"AUROC of Eq. 6 on {', '.join(set_titles(evidence)[n] for n in names)} against held-out "
        "ID images, "
        f"features {features}. α = 0 is the distance alone. Differences of a few hundredths are noise.",
    )
    if on_test and tests:
        return
    i, j = np.unravel_index(int(np.nanargmax(heat.z)), heat.z.shape)
    k, alpha = int(heat.x[int(j)]), ALPHAS[int(i)]
    columns = st.columns([1.6, 3], vertical_alignment="center")
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


# --------------------------------------------------------------------------------------------------
# S x w
# --------------------------------------------------------------------------------------------------


def recipe_chart(found: RecipeMap, role: str, mode: str) -> Chart:
    """Mean AUROC over S and w, in %."""
    heat = Heat("AUROC (%)", [str(s) for s in found.s], [f"{w:g}" for w in found.w], 100 * found.mean, ".2f")
    return Chart(
        f"AUROC over S and w, {ROLE_NAMES[role]}, {MODE_WORDS[mode]}",
        "S, noising steps",
        "w, guidance scale",
        [heat],
        height=max(240, 130 + 60 * len(found.w)),
    )


def show_recipe_map(bundle: Bundle) -> None:
    """AUROC of finished runs that differ from the bundle in use in S, w and seeds alone."""
    records, problems = all_records()
    own = next((one for one in records if one.hash == bundle.hash), None)
    same_data = [one for one in records if one.manifest.dataset == bundle.manifest.dataset and one.report]
    fit = [one for one in same_data if own is not None and one.family == own.family]
    # a copy of a run's bundle is no second run
    fit = list({one.hash: one for one in fit}.values())
    roles = [
        role for role in ("near", "far", "validation") if any(r.report and role in r.report.means for r in fit)
    ]
    recipes = {one.recipe for one in fit if one.recipe is not None}
    if len(recipes) < 2 or not roles:
        with st.container(border=True):
            st.markdown(
                f"**It takes runs with different S or w: {counted(len(fit), 'bundle')} here, "
                f"{counted(len(recipes), 'recipe')}.**"
            )
            st.markdown(
                "Here you would see how AUROC moves with the recipe of the outliers, as in the paper's "
                "Table 2. A run "
                "that takes over everything but outliers and detector from another one costs a part of its "
                "time:"
            )
            st.code(
                "python -m sdviz run configs/shapes-quick.yaml --from RUN "
                "--set outliers.start_timestep=200 --set outliers.guidance_scale=3",
                language="bash",
                wrap_lines=True,
            )
    else:
        words = [ROLE_NAMES[role] for role in roles]
        chosen = st.segmented_control(
            "Measured on",
            words,
            default=words[0],
            key="results_recipe_role",
            bind="query-params",
            persist_state="session",
        )
        role = next((r for r in roles if ROLE_NAMES[r] == chosen), roles[0])
        found = recipe_map(fit, role)
        if role != "validation":
            st.warning(
                "**These are test sets.** To choose S and w, look at the validation sets: what is chosen "
                "on a test "
                "set makes its figure too good.",
                icon=":material/warning:",
            )
        most = int(found.n.max())
        show_chart(
            recipe_chart(found, role, "both"),
            many_lines(fit),
            key="results_recipes",
            caption=f"Mean AUROC over the {ROLE_NAMES[role]} sets of {counted(len(fit), 'bundle')} on "
            f"{bundle.manifest.dataset} that differ in S, w and seeds only"
            + (
                f"; up to {most} seeds in a cell"
                if most > 1
                else "; one run in each cell, so spread is unknown"
            )
            + ". Empty: no such run.",
        )
        _cells(found)
    others = len(same_data) - len([one for one in same_data if own is not None and one.family == own.family])
    if others:
        st.caption(
            f"{counted(others, 'other bundle')} on {bundle.manifest.dataset} left out: they differ from "
            "this one in "
            "more than S, w and seeds. *Compare* shows in what."
        )
    for line in problems:
        st.caption(f"Not read: {line}")


def _cells(found: RecipeMap) -> None:
    rows = [
        (found.s[j], found.w[i], 100 * found.mean[i, j], 100 * found.sd[i, j], int(found.n[i, j]))
        for i in range(len(found.w))
        for j in range(len(found.s))
        if found.n[i, j]
    ]
    if any(n > 1 for *_, n in rows):
        names = ("S", "w", "AUROC (%)", "± over seeds", "runs")
        st.dataframe(
            {name: [row[i] for row in rows] for i, name in enumerate(names)},
            hide_index=True,
            key="results_recipe_cells",
            column_config={
                n: st.column_config.NumberColumn(format="%.2f") for n in ("AUROC (%)", "± over seeds")
            },
        )
