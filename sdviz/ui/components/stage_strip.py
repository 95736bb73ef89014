"""The stages of a run as a row of boxes, each with its bar: drawn in the browser, so that it never flickers."""

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
    """Shows the stages. `eta_sec`: seconds to the end of the one at work, None where unknown."""
    data = []
    for stage in stages:
        name = STAGE_NAMES.get(stage.name, stage.name)
        data.append(
            {
                "name": name,
                "state": stage.state,
                "note": _note(stage, eta_sec),
                "share": stage.share,
                "title": f"{name}: {stage.state}",
            }
        )
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
