"""The stages of a run as a row of boxes, each with its bar: drawn in the browser, so that it never flickers."""

from sdviz.runs.reading import StageView
from sdviz.runs.status import duration
from sdviz.ui.assets import component

_MARKS = {"done": "✓", "running": "▶", "failed": "✕", "cancelled": "■", "killed": "✕", "waiting": ""}


def stage_strip(stages: list[StageView], eta_sec: float | None, *, key: str) -> None:
    """Shows the stages. `eta_sec`: seconds to the end of the one at work, None where unknown."""
    data = []
    for stage in stages:
        name = stage_title(stage.name)
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
