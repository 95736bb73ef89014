"""Two runs side by side: the differences of their configurations, and what each measured."""

import streamlit as st

from sdviz.config.nodes import ConfigError
from sdviz.config.tree import RunConfig
from sdviz.runs import Run
from sdviz.runs.reading import curve, metrics, trainings
from sdviz.ui.charts.parts import Line
from sdviz.ui.settings import show_differences
from sdviz.ui.text import plain
from sdviz.ui.training.losses import show_curves, training_title
from sdviz.ui.training.state import state_of
from sdviz.ui.widgets import IN_LINK, empty_state, select_one

# name, colour (of no set of images), whether it is dashed
STYLES = (("A", "#56B4E9", False), ("B", "#CC79A7", True))


def show_compare(found: list[Run]) -> None:
    """Shows how two chosen runs differ: settings, measures, losses. `found`: all runs, newest first."""
    if len(found) < 2:
        empty_state(
            "It takes two runs to compare.",
            "Here you would see which settings two runs differ in, what each of them measured, and their "
            "losses in one picture. Start another one under *New run* with one setting changed.",
        )
        return
    names = [run.name for run in found]
    chosen: list[Run] = []
    for column, key, index in zip(st.columns(2), ("a", "b"), (1, 0), strict=True):
        with column:
            name = select_one(f"Run {key.upper()}", names, key, index=index, **IN_LINK)
            run = found[names.index(name)]
            st.caption(state_of(run))
            chosen.append(run)
    configs: list[RunConfig] = []
    for run in chosen:
        try:
            configs.append(run.config())
        except ConfigError as error:
            st.error(plain(f"{run.name}: {error}"))
            return
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**What differs in the configuration**")
        trees = [config.model_dump(mode="json") for config in configs]
        show_differences(dict(zip("AB", trees, strict=True)), key="differences")
    with right:
        st.markdown("**What they measured**")
        _measures(chosen, configs)
    _losses(chosen)


def _measures(chosen: list[Run], configs: list[RunConfig]) -> None:
    a, b = (metrics(run, config) for run, config in zip(chosen, configs, strict=True))
    keys = list(dict.fromkeys([*a, *b]))
    if not keys:
        st.caption("Nothing yet: measures come with complete stages.")
        return
    st.dataframe(
        {
            "measure": keys,
            "A": [f"{a[key]:.6g}" if key in a else "" for key in keys],
            "B": [f"{b[key]:.6g}" if key in b else "" for key in keys],
            "B - A": [f"{b[key] - a[key]:+.4g}" if key in a and key in b else "" for key in keys],
        },
        hide_index=True,
        key="measures",
    )


def _losses(chosen: list[Run]) -> None:
    stats = [run.stats() for run in chosen]
    charts = {}
    for stage, training in trainings([line for lines in stats for line in lines]):
        curves = [curve(lines, stage, "loss", training) for lines in stats]
        if any(len(steps) > 1 for steps, _ in curves):
            drawn = [
                Line(name, steps, values, colour, dashed)
                for (steps, values), (name, colour, dashed) in zip(curves, STYLES, strict=True)
            ]
            charts[f"compare {stage} {training}"] = (training_title(stage, training), drawn)
    if charts:
        st.markdown("**Losses** (A solid, B dashed)")
        show_curves(charts, height=220)
