"""The stages of a run as boxes with bars, drawn in the browser so that they never flicker."""

from sdviz.runs.reading import StageView
from sdviz.runs.status import duration
from sdviz.ui.assets import component

_MARKS = {"done": "✓", "running": "▶", "failed": "✕", "cancelled": "■", "killed": "✕", "waiting": ""}


def stage_strip(stages: list[StageView], eta_sec: float | None, *, key: str) -> None:
    """Shows the stages. `eta_sec`: seconds to the end of the running one, None if unknown."""
    data = []
    for stage in stages:
        name, note = stage_title(stage.name), _note(stage, eta_sec)
        texts = {"name": name, "note": note, "title": f"{name}: {stage.state}"}
        data.append(texts | {"state": stage.state, "share": stage.share})
    component(__name__)(key=key, data={"stages": data})


def stage_title(stage: str) -> str:
    """The name of a run's stage on pages."""
    from sdviz.pipeline import STAGES  # slow to import, and wanted only where there is a run

    return STAGES[stage].title if stage in STAGES else stage


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
