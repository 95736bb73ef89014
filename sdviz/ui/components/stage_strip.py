"""The stages of a run as a row of boxes, each with its bar: drawn in the browser, so that it never flickers."""

from __future__ import annotations

import streamlit as st

from sdviz.runs.reading import StageView
from sdviz.ui.text import duration

STAGE_WORDS = {
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

_CSS = """
.strip { display: grid; gap: 8px;
  font-family: var(--st-font); color: var(--st-text-color); padding: 2px; }
.stage { border: 1px solid var(--st-border-color, #8A94A055); border-radius: 6px; padding: 7px 9px 8px;
  background: var(--st-secondary-background-color); }
.stage.waiting { background: none; }
.stage.waiting .name { opacity: .68; }
.stage.running { border-color: var(--st-primary-color); box-shadow: 0 0 0 1px var(--st-primary-color); }
.stage.failed, .stage.killed { border-color: var(--st-red-color); box-shadow: 0 0 0 1px var(--st-red-color); }
.name { font-size: 13px; font-weight: 600; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.note { font-size: 12px; opacity: .75; height: 17px; line-height: 17px; white-space: nowrap; }
.bar { height: 4px; border-radius: 2px; background: #8A94A044; margin-top: 5px; overflow: hidden; }
.fill { height: 100%; background: var(--st-primary-color); transition: width .6s linear; }
.failed .fill, .killed .fill { background: var(--st-red-color); }
.cancelled .fill { background: #8A94A0; }
.running .fill { animation: breathe 1.6s ease-in-out infinite; }
@keyframes breathe { 50% { opacity: .55; } }
@media (prefers-reduced-motion: reduce) { .running .fill { animation: none; } .fill { transition: none; } }
"""

_JS = """
export default function ({ data, parentElement }) {
  let strip = parentElement.querySelector('.strip');
  if (!strip) {
    strip = document.createElement('div');
    strip.className = 'strip';
    strip.setAttribute('role', 'list');
    parentElement.appendChild(strip);
  }
  while (strip.children.length > data.stages.length) strip.lastChild.remove();
  data.stages.forEach((stage, i) => {
    let box = strip.children[i];
    if (!box) {
      box = document.createElement('div');
      box.setAttribute('role', 'listitem');
      for (const name of ['name', 'note', 'bar']) {
        const part = document.createElement('div');
        part.className = name;
        box.append(part);
      }
      const fill = document.createElement('div');
      fill.className = 'fill';
      box.querySelector('.bar').append(fill);
      strip.append(box);
    }
    box.className = 'stage ' + stage.state;
    box.title = stage.title;
    box.querySelector('.name').textContent = stage.name;
    box.querySelector('.note').textContent = stage.note;
    box.querySelector('.fill').style.width = (100 * stage.share) + '%';
  });
  // as many rows as the width asks for, all of the same length
  const arrange = () => {
    const n = data.stages.length, fits = Math.max(1, Math.floor((strip.clientWidth + 8) / 116));
    strip.style.gridTemplateColumns = `repeat(${Math.ceil(n / Math.ceil(n / fits))}, minmax(0, 1fr))`;
  };
  arrange();
  const watch = new ResizeObserver(arrange);
  watch.observe(strip);
  return () => watch.disconnect();
}
"""


def stage_strip(stages: list[StageView], eta_sec: float | None, *, key: str) -> None:
    """Shows the stages.

    Args:
        stages: In order.
        eta_sec: Seconds to the end of the one at work, None where unknown.
        key: The component's key.
    """
    strip = st.components.v2.component("sdviz_stage_strip", css=_CSS, js=_JS)
    data = []
    for stage in stages:
        name, note = STAGE_WORDS.get(stage.name, stage.name), _note(stage, eta_sec)
        data.append(
            {
                "name": name,
                "state": stage.state,
                "note": note,
                "share": stage.share,
                "title": f"{name}: {stage.state}",
            }
        )
    strip(key=key, data={"stages": data})


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
