"""The state of a run, read from its files every few seconds: stages, curves, outliers, log."""

import time
from collections.abc import Mapping
from typing import Any

import streamlit as st

from sdviz.config.nodes import ConfigError
from sdviz.config.reading import to_yaml
from sdviz.config.tree import RunConfig
from sdviz.runs import Run, Status
from sdviz.runs.reading import curve, latest, metrics, outlier_sample, stages, tail, trainings
from sdviz.runs.status import duration
from sdviz.ui.charts.parts import Line
from sdviz.ui.components.picture_grid import Cell, picture_grid
from sdviz.ui.components.stage_strip import stage_strip, stage_title
from sdviz.ui.pictures import ID_COLOUR, NEUTRAL_COLOUR, OUTLIER_COLOUR, data_uri
from sdviz.ui.text import plain
from sdviz.ui.training.losses import A_ROW, show_curves, training_title
from sdviz.ui.training.state import status_of

N_SAMPLES = 10
# a process that writes nothing for this time is in a long step, or hangs
QUIET_SEC = 60.0
# (key in stats.jsonl, its name, its unit)
MEASURES = (
    ("cluster_accuracy", "Cluster accuracy", "share of images, ground truth only measures it"),
    ("validation_auroc", "Validation AUROC", "1 is perfect, 0.5 is chance"),
)
# what shows on the way whether the features collapse: (title, its lines by their keys in stats.jsonl)
FEATURE_QUALITY = (
    ("effective rank", {"effective_rank": ""}),
    ("20-NN accuracy", {"knn_accuracy": "of clusters", "knn_class_accuracy": "of classes"}),
)
QUALITY_CAPTION = (
    "The effective rank counts the directions that the features of up to 2,000 ID images use. The 20-NN "
    "accuracy is the share of them with the most frequent label among their 20 nearest: of clusters (grey) "
    "and, where they are known, of classes (blue). If both fall, the features collapse."
)
LINE_COLOURS = (NEUTRAL_COLOUR, ID_COLOUR)


def show_live(run: Run) -> None:
    """Shows everything about a run; for a damaged file one line instead."""
    status = status_of(run)
    if isinstance(status, str):
        return
    try:
        config = run.config()
    except ConfigError as error:
        st.error(f"Its configuration cannot be read: {plain(str(error))}")
        _log(run, status)
        return
    _stages(run, config, status)
    # pictures come first, but in an active run last, so that nothing moves down when they appear
    parts = [lambda: _curves(run.stats(), run.name), lambda: _samples(run)]
    for show in parts if status.is_active else parts[::-1]:
        show()
    figures = metrics(run, config)
    if figures:
        with st.expander("What it measured", expanded=status.state == "done"):
            st.dataframe(
                {"measure": list(figures), "value": [f"{value:.6g}" for value in figures.values()]},
                hide_index=True,
                height=min(420, 38 + 35 * len(figures)),
                key=f"metrics {run.name}",
            )
    _log(run, status)
    with st.expander("Its configuration, every value written out"):
        st.code(to_yaml(config), language="yaml", height=320)


def _stages(run: Run, config: RunConfig, status: Status) -> None:
    views = stages(run, config, status)
    stage_strip(views, status.eta_sec, key=f"stages {run.name}")
    done = sum(view.state == "done" for view in views)
    spent = sum(status.stage_sec.values())
    parts = [f"{done} of {len(views)} stages done"]
    if status.state == "running" and status.stage:
        steps = f", step {status.step} of {status.total}" if status.total else ""
        eta = f", {duration(status.eta_sec)} left in this stage" if status.eta_sec is not None else ""
        parts.append(f"now {stage_title(status.stage).lower()}{steps}{eta}")
    if spent:
        parts.append(f"{duration(spent)} at work")
    if status.devices:
        parts.append(f"on {plain(', '.join(status.devices))}")
    quiet = time.time() - status.updated
    if status.state == "running" and quiet > QUIET_SEC:
        parts.append(f"no sign of life for {duration(quiet)}")
    share = sum(view.share for view in views) / max(1, len(views))
    st.progress(min(1.0, share), " · ".join(parts))


def _curves(stats: list[dict[str, Any]], name: str) -> None:
    """Shows the loss of each training as a curve, and other measures as a curve and a number."""
    charts: dict[str, tuple[str, list[Line]]] = {}
    rows: list[dict[str, tuple[str, list[Line]]]] = []

    def drawn(title: str, stage: str, keys: Mapping[str, str], training: str = "") -> dict[str, Any]:
        """The chart of some measurements with two values at least, by its widget key; {} if there is none."""
        lines, last = [], []
        for (key, line_name), colour in zip(keys.items(), LINE_COLOURS, strict=False):
            steps, values = curve(stats, stage, key, training)
            if len(steps) > 1:
                lines.append(Line(line_name, steps, values, colour))
                last.append(f"{values[-1]:.4f}")
        return {f"curve {name} {title}": (f"{title} {' / '.join(last)}", lines)} if lines else {}

    for stage, training in trainings(stats):
        title = training_title(stage, training)
        loss = drawn(f"{title}: loss", stage, {"loss": ""}, training)
        beside: dict[str, Any] = {}
        if not training:
            for what, keys in FEATURE_QUALITY:
                beside |= drawn(f"{title}: {what}", stage, keys)
        if beside:
            rows.append(loss | beside)
        else:
            charts |= loss
    numbers: list[tuple[str, str, float]] = []
    for key, title, meaning in MEASURES:
        for stage in dict.fromkeys(line["stage"] for line in stats if key in line):
            charts |= drawn(title, stage, {key: ""})
        value = latest(stats, key)
        if value is not None:
            numbers.append((title, meaning, value))
    if not charts and not rows and not numbers:
        st.caption("The losses show up here with the first training.")
    for one in (charts, *rows):
        show_curves(one, height=190)
    if rows:
        st.caption(QUALITY_CAPTION)
    if not numbers:
        return
    for column, (title, meaning, value) in zip(st.columns(A_ROW), numbers, strict=False):
        column.metric(title, f"{value:.3f}", help=meaning)


def _samples(run: Run) -> None:
    sample = outlier_sample(run, N_SAMPLES)
    if sample is None or not len(sample.images):
        return
    cells = []
    for image, label, target in zip(sample.images, sample.labels, sample.target_labels, strict=True):
        alt = f"outlier: {label or 'an image'}, told {target or '?'}"
        cells.append(Cell(data_uri(image), alt, OUTLIER_COLOUR, label, f"told {target}" if target else ""))
    st.markdown("**Outliers as they are made**")
    picture_grid(cells, len(cells), key=f"samples {run.name}", size_px=128)
    st.caption(f"The first of the shard made last; {sample.shards} so far.")


def _log(run: Run, status: Status) -> None:
    log = tail(run.path / "log.txt")
    # without a log, or when the run ended badly, the printed output may say more
    printed = tail(run.path / "output.txt", 12) if not log or status.state in ("killed", "failed") else ""
    st.markdown("**Log** (times in UTC)")
    st.code(log or "nothing yet", language=None, height=220 if log.count("\n") > 8 else "content")
    if printed:
        with st.expander("What the process printed", expanded=not log):
            st.code(printed, language=None)
    st.caption(f"All of it is in {plain(str(run.path))}")
