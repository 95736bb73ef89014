"""The stages of a run as boxes with bars, drawn in the browser so that they never flicker."""

from sdviz.runs.reading import StageView
from sdviz.runs.status import duration
from sdviz.ui.assets import component

STAGE_NAMES = {
    "encoder": "Encoder",
    "pseudo_labels": "Pseudo-labels",
    "clusterer": "Clusterer",
    "diffusion": "Noise predictor",
    "outliers": "Outliers",
    "detector": "Detector",
    "features": "Features",
    "controls": "Controls",
    "evaluation": "Evaluation",
    "bundle": "Bundle",
}
_MARKS = {"done": "✓", "running": "▶", "failed": "✕", "cancelled": "■", "killed": "✕", "waiting": ""}


def stage_strip(stages: list[StageView], eta_sec: float | None, *, key: str) -> None:
    """Shows the stages. `eta_sec`: seconds to the end of the running one, None if unknown."""
    data = []
    for stage in stages:
        name, note = STAGE_NAMES.get(stage.name, stage.name), _note(stage, eta_sec)
        texts = {"name": name, "note": note, "title": f"{name}: {stage.state}"}
        data.append(texts | {"state": stage.state, "share": stage.share})
    component(__name__)(key=key, data={"stages": data})


def _note(stage: StageView, eta_sec: float | None) -> str:
    mark = _MARKS[stage.state]
    if stage.state == "waiting":
        return "waits"
    if stage.state == "running":
        left = f", {duration(eta_sec)} left" if eta_sec is not None else ""
        return f"{mark} {100 * stage.share:.0f} %{left}"
    if stage.state == "done":
        return f"{mark} {duration(stage.sec)}" if stage.sec is not None else f"{mark} done"
    return f"{mark} {stage.state} at {100 * stage.share:.0f} %"
