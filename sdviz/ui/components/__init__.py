"""Two components that Streamlit has not: a clickable grid of crisp pictures, and a strip to scrub.

Both get plain data and put text into the page as text nodes, never as HTML. A picture arrives at its
own size and the browser enlarges it pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import streamlit as st

_GRID_CSS = """
.wrap { overflow-x: auto; padding: 2px 4px 4px; font-family: var(--st-font); color: var(--st-text-color); }
.grid { display: grid; gap: 6px 10px; width: max-content; align-items: start; }
.flow { display: flex; flex-wrap: wrap; gap: 6px; }
.grid + .grid { margin-top: 18px; }
.head { font-size: 13px; align-self: center; text-align: right; padding-right: 4px; line-height: 1.25; }
.head small { display: block; opacity: .68; font-size: 11.5px; }
.top { font-size: 12.5px; text-align: center; line-height: 1.25; align-self: end; }
.top small { display: block; opacity: .68; font-size: 11.5px; }
.cell { display: flex; flex-direction: column; border: 0; padding: 0; margin: 0; background: none;
  font: inherit; color: inherit; text-align: center; }
button.cell { cursor: pointer; }
/* a longer text makes no wider place */
.flow .cell { width: var(--wide); }
.cell img, .cell .hole { image-rendering: pixelated; display: block; box-sizing: content-box;
  border: 2px solid var(--edge, #8A94A0); border-radius: 3px; background: #7f7f7f22; }
/* the grey that stands in for a picture which is not there, see Pictures.images */
.cell .hole { background: #7f7f7f; }
button.cell:hover img { outline: 2px solid var(--st-primary-color); outline-offset: 1px; }
button.cell:focus-visible { outline: 3px solid var(--st-primary-color); outline-offset: 2px; }
.cell.chosen img { outline: 3px solid var(--st-text-color); outline-offset: 1px; }
.note { font-size: 12px; line-height: 1.3; padding-top: 3px; overflow-wrap: anywhere; }
.note small { display: block; opacity: .68; font-size: 11.5px; }
"""

_GRID_JS = """
export default function ({ data, parentElement, setTriggerValue }) {
  let wrap = parentElement.querySelector('.wrap');
  if (!wrap) {
    wrap = document.createElement('div');
    wrap.className = 'wrap';
    parentElement.appendChild(wrap);
  }
  const GAP = 10, headed = data.row_names.length > 0;
  const text = (tag, name, words, small) => {
    const node = document.createElement(tag);
    node.className = name;
    node.append(words || '');
    if (small) { const s = document.createElement('small'); s.append(small); node.append(s); }
    return node;
  };
  const picture = (cell, px) => {
    const node = document.createElement(cell.id ? 'button' : 'div');
    node.className = 'cell' + (cell.chosen ? ' chosen' : '');
    node.style.setProperty('--edge', cell.colour || '#8A94A0');
    node.style.setProperty('--wide', px + 4 + 'px');
    const img = document.createElement(cell.src ? 'img' : 'div');
    img.style.width = img.style.height = px + 'px';
    if (cell.src) { img.src = cell.src; img.alt = cell.alt; } else img.className = 'hole';
    if (!cell.src && !cell.alt) node.style.visibility = 'hidden';
    node.append(img);
    if (cell.text || cell.small) node.append(text('div', 'note', cell.text, cell.small));
    node.title = cell.alt;
    if (cell.id) {
      node.dataset.id = cell.id;
      node.onclick = () => setTriggerValue('clicked', cell.id);
    }
    return node;
  };
  // the columns from..to of every row
  const band = (from, to, px) => {
    const grid = document.createElement('div');
    grid.className = 'grid';
    grid.style.gridTemplateColumns = (headed ? data.head_px + 'px ' : '') + `repeat(${to - from}, ${px + 4}px)`;
    if (data.column_names.length) {
      if (headed) grid.append(text('div', 'head', ''));
      data.column_names.slice(from, to).forEach(c => grid.append(text('div', 'top', c.text, c.small)));
    }
    for (let row = 0; row * data.columns < data.cells.length; row++) {
      const first = row * data.columns, cells = data.cells.slice(first + from, first + to);
      if (!headed && cells.every(cell => !cell.src && !cell.alt)) continue;
      if (headed) grid.append(text('div', 'head', data.row_names[row].text, data.row_names[row].small));
      cells.forEach(cell => grid.append(picture(cell, px)));
    }
    return grid;
  };
  let drawn = '';
  const draw = () => {
    const room = wrap.clientWidth - 8 - (headed ? data.head_px + GAP : 0);
    if (wrap.clientWidth === 0) return;
    const fits = px => Math.max(1, Math.floor((room + GAP) / (px + 4 + GAP)));
    let px = data.size_px;
    // without names a picture's place means nothing: they flow like words
    if (!headed && !data.column_names.length) {
      const flow = document.createElement('div');
      flow.className = 'flow';
      flow.append(...data.cells.map(cell => picture(cell, px)));
      if (drawn === '') wrap.replaceChildren(flow);
      drawn = 'flow';
      return;
    }
    while (data.shrink && px > 64 && fits(px) < data.columns) px -= 32;
    const bands = Math.ceil(data.columns / fits(px)), width = Math.ceil(data.columns / bands);
    if (drawn === px + ' ' + width) return;
    drawn = px + ' ' + width;
    const at = [...wrap.querySelectorAll('.cell')].indexOf(wrap.getRootNode().activeElement);
    const grids = [];
    for (let from = 0; from < data.columns; from += width) {
      grids.push(band(from, Math.min(from + width, data.columns), px));
    }
    wrap.replaceChildren(...grids);
    if (at >= 0) wrap.querySelectorAll('.cell')[at]?.focus();
  };
  draw();
  const watch = new ResizeObserver(draw);
  watch.observe(wrap);
  return () => watch.disconnect();
}
"""

_SCRUB_CSS = """
.scrub { font-family: var(--st-font); color: var(--st-text-color); }
.stage { display: flex; flex-wrap: wrap; gap: 14px; align-items: flex-start; }
.stage figure { margin: 0; text-align: center; font-size: 12.5px; }
.stage img { image-rendering: pixelated; display: block; border: 2px solid var(--edge); border-radius: 3px; }
.says { font-size: 14px; padding-left: 6px; line-height: 1.5; min-width: 250px; }
.says b { font-size: 26px; font-weight: 600; display: block; line-height: 1.2; }
.strip { position: relative; display: flex; margin-top: 10px; cursor: ew-resize; touch-action: none;
  border-radius: 3px; overflow: hidden; outline-offset: 2px; }
.strip img { image-rendering: pixelated; flex: 1 1 0; min-width: 0; aspect-ratio: 1; display: block; }
.strip:focus-visible { outline: 3px solid var(--st-primary-color); }
.pin { position: absolute; top: 0; bottom: 0; width: 3px; background: var(--st-text-color);
  box-shadow: 0 0 0 1px var(--st-background-color); pointer-events: none; }
.ticks { display: flex; font-size: 11px; opacity: .75; }
.ticks span { flex: 1 1 0; text-align: center; }
"""

_SCRUB_JS = """
export default function ({ data, parentElement, setTriggerValue }) {
  const make = (tag, name) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    return node;
  };
  parentElement.querySelector('.scrub')?.remove();
  const root = make('div', 'scrub'), stage = make('div', 'stage'), strip = make('div', 'strip');
  const pictures = data.panels.map(panel => {
    const figure = make('figure'), img = make('img');
    img.style.setProperty('--edge', panel.colour);
    const caption = make('figcaption');
    caption.append(panel.name);
    figure.append(img, caption);
    stage.append(figure);
    return img;
  });
  const says = make('div', 'says'), big = make('b'), rest = make('span');
  says.setAttribute('aria-live', 'polite');
  says.append(big, rest);
  stage.append(says);
  const pin = make('div', 'pin'), n = data.frames.length;
  data.frames.forEach(f => { const img = make('img'); img.src = f.pictures[data.strip_panel]; img.alt = '';
    img.draggable = false; strip.append(img); });
  strip.append(pin);
  strip.tabIndex = 0;
  strip.setAttribute('role', 'slider');
  strip.setAttribute('aria-label', 'S');
  const ticks = make('div', 'ticks');
  data.frames.forEach(f => { const s = make('span'); s.append(f.tick); ticks.append(s); });
  let at = data.at;
  const show = i => {
    at = Math.max(0, Math.min(n - 1, i));
    const frame = data.frames[at];
    pictures.forEach((img, j) => { img.src = frame.pictures[j]; img.alt = data.panels[j].name; });
    big.textContent = frame.title;
    rest.textContent = frame.text;
    pin.style.left = `calc(${(at + 0.5) / n * 100}% - 1.5px)`;
    strip.setAttribute('aria-valuetext', frame.title);
    root.dataset.at = at;
  };
  const where = e => {
    const box = strip.getBoundingClientRect();
    return Math.floor((e.clientX - box.left) / box.width * n);
  };
  strip.onpointermove = e => show(where(e));
  strip.onclick = e => { show(where(e)); setTriggerValue('chosen', data.frames[at].id); };
  strip.onkeydown = e => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
    if (move) { e.preventDefault(); show(at + move); }
    if (e.key === 'Enter') setTriggerValue('chosen', data.frames[at].id);
  };
  root.append(stage, strip, ticks);
  parentElement.append(root);
  // all panels beside each other, at a whole multiple of their own 32 px
  const fit = () => {
    let px = data.size_px;
    while (px > 64 && pictures.length * (px + 4 + 14) - 14 > root.clientWidth) px -= 32;
    pictures.forEach(img => { img.style.width = img.style.height = px + 'px'; });
  };
  fit();
  show(at);
  const watch = new ResizeObserver(fit);
  watch.observe(root);
  return () => watch.disconnect();
}
"""


@dataclass(frozen=True)
class Words:
    """A text with a smaller second line."""

    text: str
    small: str = ""


@dataclass(frozen=True)
class Cell:
    """One picture of a grid.

    Attributes:
        src: `data:` address of the picture, or "" for a place kept free, unseen where `alt` is "", too.
        alt: What it shows, for screen readers and as a tooltip.
        colour: Of its border.
        text: Under the picture.
        small: Under the text, smaller.
        id: Reported when clicked; "" is not clickable.
        chosen: Drawn with a second, strong border.
    """

    src: str
    alt: str
    colour: str
    text: str = ""
    small: str = ""
    id: str = ""
    chosen: bool = False


def picture_grid(
    cells: list[Cell],
    columns: int,
    *,
    key: str,
    size_px: int = 128,
    row_names: list[Words] | None = None,
    column_names: list[Words] | None = None,
    head_px: int = 96,
    shrink: bool = False,
    on_click: Callable[[], None] | None = None,
) -> str | None:
    """Shows pictures in rows and columns, in as many bands of columns as the window's width asks for.

    Args:
        cells: Row by row.
        columns: How many there are in a row.
        key: The widget's key.
        size_px: Edge of a picture on the screen; a multiple of its own pixels keeps it crisp.
        row_names: At the left of each row.
        column_names: Above each column.
        head_px: Width of the row names.
        shrink: In a narrow window make the pictures smaller, by their own 32 px a time, before columns go
            into a second band below the first.
        on_click: Called before the rerun that a click makes; the id is in `st.session_state[key].clicked`.

    Returns:
        The id of the cell clicked just now, else None.
    """
    grid = st.components.v2.component("sdviz_picture_grid", css=_GRID_CSS, js=_GRID_JS)
    data: dict[str, Any] = {
        "cells": [asdict(c) for c in cells],
        "columns": columns,
        "size_px": size_px,
        "row_names": [asdict(w) for w in row_names or []],
        "column_names": [asdict(w) for w in column_names or []],
        "head_px": head_px,
        "shrink": shrink,
    }
    return grid(key=key, data=data, on_clicked_change=on_click or (lambda: None)).clicked


@dataclass(frozen=True)
class Frame:
    """One position of a scrub strip: a picture for each panel, in order."""

    id: str
    tick: str
    title: str
    text: str
    pictures: list[str] = field(default_factory=list)


def scrub_strip(
    frames: list[Frame],
    panels: list[tuple[str, str]],
    *,
    key: str,
    at: int = 0,
    strip_panel: int = 0,
    size_px: int = 192,
    on_choose: Callable[[], None] | None = None,
) -> str | None:
    """A strip of frames; moving the mouse over it (or the arrow keys) shows each, without the server.

    Args:
        frames: From left to right.
        panels: (name, colour) of each large picture.
        key: The widget's key.
        at: The frame shown first.
        strip_panel: Whose pictures stand in the strip.
        size_px: Edge of a large picture.
        on_choose: Called before the rerun that a click makes; the id is in `st.session_state[key].chosen`.

    Returns:
        The id of the frame clicked just now, else None.
    """
    scrub = st.components.v2.component("sdviz_scrub_strip", css=_SCRUB_CSS, js=_SCRUB_JS)
    data = {
        "frames": [asdict(f) for f in frames],
        "panels": [{"name": name, "colour": colour} for name, colour in panels],
        "at": at,
        "strip_panel": strip_panel,
        "size_px": size_px,
    }
    return scrub(key=key, data=data, on_chosen_change=on_choose or (lambda: None)).chosen
