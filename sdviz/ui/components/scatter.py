"""A component that Streamlit has not: points on a page, with their pictures, followed over epochs.

WebGL draws the points (a 2-D canvas where the browser has none), in two dimensions or three, in one panel or
several that share the view. The picture under the mouse comes out of sheets that `send_pictures` brought, so
hovering asks the server for nothing. A click reports an id, a lasso or a box the region that was drawn: which
points lie in it the server finds by itself.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

TILES_A_ROW = 40
TILES_A_SHEET = 2_000
_JPEG_QUALITY = 90

_CSS = """
.scatter { font-family: var(--st-font); color: var(--st-text-color); font-size: 13px; position: relative; }
.bar { display: flex; flex-wrap: wrap; gap: 6px 8px; align-items: center; min-height: 34px; }
.bar button { font: inherit; color: inherit; background: var(--st-secondary-background-color); cursor: pointer;
  border: 1px solid var(--st-border-color, #8A94A0); border-radius: 6px; padding: 3px 10px; min-width: 32px; }
.bar button[aria-pressed=true] { background: var(--st-primary-color); color: #fff; border-color: transparent; }
.bar button:focus-visible, .key:focus-visible { outline: 3px solid var(--st-primary-color);
  outline-offset: 1px; }
.bar .gap { width: 10px; }
.time { display: flex; align-items: center; gap: 8px; margin-left: auto; }
.time input { width: 190px; accent-color: var(--st-primary-color); }
.time output { min-width: 118px; font-weight: 600; }
.stage { position: relative; overflow: hidden; border: 1px solid var(--st-border-color, #8A94A055);
  border-radius: 6px; margin-top: 6px; touch-action: none; cursor: grab; }
.stage.draw { cursor: crosshair; }
.stage.hit { cursor: pointer; }
.stage canvas { position: absolute; inset: 0; width: 100%; height: 100%; display: block; }
.names { position: absolute; inset: 0; display: flex; pointer-events: none; }
.names div { flex: 1 1 0; min-width: 0; padding: 6px 10px; line-height: 1.3; }
.names div + div { border-left: 1px solid var(--st-border-color, #8A94A055); }
.names b { display: block; font-weight: 600; }
.names small { opacity: .75; font-size: 11.5px; }
.hint { position: absolute; right: 10px; bottom: 8px; font-size: 11.5px; opacity: .7; pointer-events: none; }
.card { position: absolute; z-index: 5; pointer-events: none; display: none; gap: 10px; padding: 8px;
  background: var(--st-background-color); border: 1px solid var(--st-border-color, #8A94A0); border-radius: 6px;
  box-shadow: 0 3px 12px #0005; line-height: 1.4; width: 330px; box-sizing: border-box; }
.card.on { display: flex; }
.card canvas { width: 128px; height: 128px; flex: none; image-rendering: pixelated; border-radius: 3px;
  border: 2px solid #8A94A0; background: #7f7f7f33; box-sizing: content-box; }
.card div { min-width: 0; overflow-wrap: anywhere; white-space: pre-line; }
.card b { display: block; }
.keys { display: flex; flex-wrap: wrap; gap: 2px 12px; padding-top: 6px; align-items: center;
  min-height: 26px; }
.key { display: flex; align-items: center; gap: 5px; border: 0; background: none; color: inherit; font: inherit;
  font-size: 12.5px; padding: 2px 0; cursor: pointer; }
.key i { width: 11px; height: 11px; border-radius: 50%; flex: none; }
.key.off { opacity: .4; text-decoration: line-through; }
.key small { opacity: .7; }
.ramp { display: flex; align-items: center; gap: 7px; font-size: 12.5px; }
.ramp i { width: 170px; height: 11px; border-radius: 3px; }
"""

_JS = """
const VERTEX = `
attribute vec3 a; attribute vec3 b; attribute vec4 c;
uniform float t, size, deep; uniform mat3 turn; uniform vec3 pivot; uniform vec2 middle, scale;
varying vec4 v;
void main() {
  vec3 p = turn * (mix(a, b, t) - pivot);
  gl_Position = c.a == 0.0 ? vec4(2.0, 2.0, 2.0, 1.0)
    : vec4((p.xy - middle) * scale, clamp(-p.z * deep, -0.99, 0.99), 1.0);
  gl_PointSize = size * (1.0 + 0.45 * clamp(p.z * deep, -1.0, 1.0));
  v = c;
}`;
const FRAGMENT = `
precision mediump float;
varying vec4 v; uniform float soft;
void main() {
  float r = length(gl_PointCoord - 0.5) * 2.0;
  float cover = 1.0 - smoothstep(1.0 - soft, 1.0, r);
  if (cover <= 0.01) discard;
  gl_FragColor = vec4(v.rgb, 1.0) * v.a * cover;
}`;
const bytes = text => Uint8Array.from(atob(text), ch => ch.charCodeAt(0));
const make = (tag, name, ...inside) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  node.append(...inside);
  return node;
};
const inPolygon = (x, y, polygon) => {
  let inside = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [xi, yi] = polygon[i], [xj, yj] = polygon[j];
    if ((yi > y) !== (yj > y) && x < xi + (y - yi) / (yj - yi) * (xj - xi)) inside = !inside;
  }
  return inside;
};
const product = (p, q) => p.map((_, i) => {
  const r = Math.floor(i / 3) * 3, s = i % 3;
  return p[r] * q[s] + p[r + 1] * q[s + 3] + p[r + 2] * q[s + 6];
});
const SAME = [1, 0, 0, 0, 1, 0, 0, 0, 1];
const TURNED = product([1, 0, 0, 0, .9, -.436, 0, .436, .9], [.82, 0, .572, 0, 1, 0, -.572, 0, .82]);

function build(parent) {
  const root = make('div', 'scatter'), bar = make('div', 'bar'), stage = make('div', 'stage');
  const names = make('div', 'names'), card = make('div', 'card'), keys = make('div', 'keys');
  const hint = make('div', 'hint');
  const surface = make('canvas'), over = make('canvas');
  const tile = make('canvas'), words = make('div');
  tile.width = tile.height = 32;
  card.append(tile, words);
  stage.append(surface, over, names, hint);
  root.append(bar, stage, keys, card);
  parent.append(root);
  const gl = surface.getContext('webgl', { antialias: true, preserveDrawingBuffer: true });
  const flat = gl ? null : surface.getContext('2d');
  const pen = over.getContext('2d');
  root.dataset.by = gl ? 'webgl' : 'canvas';

  const s = { n: 0, tool: 'move', turn: SAME, reach: [1, 1], x: 0, y: 0, zoom: 1, hover: -1,
    hidden: new Set(), path: null, panels: [0], from: 0, to: 0, t: 1, ratio: 1, width: 0, height: 0,
    report: () => {}, key: null,
    clickedAt: -1e9 };
  let program, place, buffers = [], colours;
  if (gl) {
    const compile = (kind, text) => {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      return shader;
    };
    program = gl.createProgram();
    gl.attachShader(program, compile(gl.VERTEX_SHADER, VERTEX));
    gl.attachShader(program, compile(gl.FRAGMENT_SHADER, FRAGMENT));
    gl.linkProgram(program);
    gl.useProgram(program);
    place = { a: 0, b: 0, c: 0 };
    for (const name in place) {
      place[name] = gl.getAttribLocation(program, name);
      gl.enableVertexAttribArray(place[name]);
    }
    for (const name of ['t', 'size', 'deep', 'turn', 'pivot', 'middle', 'scale', 'soft']) {
      place[name] = gl.getUniformLocation(program, name);
    }
    colours = gl.createBuffer();
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  // ---- where things are -------------------------------------------------------------------------
  const panelWidth = () => s.width / s.panels.length;
  // px for one unit: a flat layout fills its panel, one that turns has to fit it from every side
  const unit = () => s.zoom * 0.46 * Math.min(panelWidth() / s.reach[0], s.height / s.reach[1]);
  const at = (frame, i) => {                       // turned, in the layout's own units
    const f = s.frames[frame], o = i * 3;
    let [x, y, z] = [f[o] - s.pivot[0], f[o + 1] - s.pivot[1], f[o + 2] - s.pivot[2]];
    const m = s.turn;
    return [m[0] * x + m[1] * y + m[2] * z, m[3] * x + m[4] * y + m[5] * z, m[6] * x + m[7] * y + m[8] * z];
  };
  const frameOf = panel => s.panels.length > 1 ? s.panels[panel] : s.to;
  const toScreen = (panel, p) => [
    (panel + 0.5) * panelWidth() + (p[0] - s.x) * unit(), s.height / 2 - (p[1] - s.y) * unit()];
  const toLayout = (panel, px, py) => [
    (px - (panel + 0.5) * panelWidth()) / unit() + s.x, (s.height / 2 - py) / unit() + s.y];
  const panelAt = px => Math.max(0, Math.min(s.panels.length - 1, Math.floor(px / panelWidth())));
  const shown = i => !s.hidden.has(s.group[i]);
  const size = () => Math.max(3.2, Math.min(8, 150 / Math.sqrt(s.n))) * Math.min(2.2, Math.sqrt(s.zoom));

  // ---- drawing ----------------------------------------------------------------------------------
  const paint = () => {
    const c = new Uint8Array(4 * s.n);
    for (let i = 0; i < s.n; i++) {
      c.set(s.rgb.subarray(3 * i, 3 * i + 3), 4 * i);
      c[4 * i + 3] = !shown(i) ? 0 : s.chosen && !s.chosen[i] ? 36 : s.dims === 3 ? 255 : 215;
    }
    s.rgba = c;
    if (gl) {
      gl.bindBuffer(gl.ARRAY_BUFFER, colours);
      gl.bufferData(gl.ARRAY_BUFFER, c, gl.STATIC_DRAW);
    }
    ask();
  };
  let asked = 0;
  const ask = () => { if (!asked) asked = requestAnimationFrame(draw); };
  const draw = now => {
    asked = 0;
    if (!s.n || !s.width) return;
    if (s.t < 1) {
      s.t = Math.min(1, s.t + Math.min(0.1, (now - (s.clock ?? now)) / 700));
      s.clock = now;
      if (s.t < 1) ask(); else s.clock = undefined;
    }
    const ease = s.t * s.t * (3 - 2 * s.t);
    if (gl) drawGl(ease); else drawFlat(ease);
    drawOver();
    root.dataset.frame = s.t < 1 ? 'moving' : s.panels.length > 1 ? s.panels.join(' ') : s.to;
    const own = v => [...v].map(Number);
    root.dataset.view = JSON.stringify({ x: s.x, y: s.y, unit: unit(), width: s.width, height: s.height,
      pivot: own(s.pivot), turn: own(s.turn), panels: s.panels.length });
  };
  const drawGl = ease => {
    const r = s.ratio, w = panelWidth();
    gl.viewport(0, 0, surface.width, surface.height);
    gl.disable(gl.SCISSOR_TEST);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.SCISSOR_TEST);
    if (s.dims === 3) gl.enable(gl.DEPTH_TEST); else gl.disable(gl.DEPTH_TEST);
    gl.bindBuffer(gl.ARRAY_BUFFER, colours);
    gl.vertexAttribPointer(place.c, 4, gl.UNSIGNED_BYTE, true, 0, 0);
    // the shader's matrix goes by columns
    const m = s.turn;
    gl.uniformMatrix3fv(place.turn, false, [m[0], m[3], m[6], m[1], m[4], m[7], m[2], m[5], m[8]]);
    gl.uniform3f(place.pivot, ...s.pivot);
    gl.uniform2f(place.middle, s.x, s.y);
    gl.uniform2f(place.scale, 2 * unit() / w, 2 * unit() / s.height);
    gl.uniform1f(place.deep, s.dims === 3 ? 0.7 / s.reach[0] : 0);
    gl.uniform1f(place.size, size() * r);
    gl.uniform1f(place.soft, Math.min(0.9, 2.5 / (size() * r)));
    s.panels.forEach((frame, panel) => {
      const one = s.panels.length === 1;
      const left = Math.round(panel * w * r), right = Math.round((panel + 1) * w * r);
      gl.viewport(left, 0, right - left, surface.height);
      gl.scissor(left, 0, right - left, surface.height);
      gl.uniform1f(place.t, one ? ease : 1);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffers[one ? s.from : frame]);
      gl.vertexAttribPointer(place.a, 3, gl.FLOAT, false, 0, 0);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffers[one ? s.to : frame]);
      gl.vertexAttribPointer(place.b, 3, gl.FLOAT, false, 0, 0);
      gl.drawArrays(gl.POINTS, 0, s.n);
    });
  };
  const drawFlat = ease => {
    const r = s.ratio, d = size();
    flat.setTransform(r, 0, 0, r, 0, 0);
    flat.clearRect(0, 0, s.width, s.height);
    s.panels.forEach((_, panel) => {
      const w = panelWidth(), frame = frameOf(panel);
      flat.save();
      flat.beginPath();
      flat.rect(panel * w, 0, w, s.height);
      flat.clip();
      const spots = [];
      for (let i = 0; i < s.n; i++) {
        if (!s.rgba[4 * i + 3]) continue;
        let p = at(frame, i);
        if (s.t < 1 && s.panels.length === 1) {
          const q = at(s.from, i);
          p = p.map((v, k) => q[k] + (v - q[k]) * ease);
        }
        spots.push([i, p]);
      }
      if (s.dims === 3) spots.sort((p, q) => p[1][2] - q[1][2]);
      spots.forEach(([i, p]) => {
        const [x, y] = toScreen(panel, p), c = s.rgba.subarray(4 * i, 4 * i + 4);
        flat.fillStyle = `rgba(${c[0]},${c[1]},${c[2]},${c[3] / 255})`;
        flat.beginPath();
        flat.arc(x, y, d / 2, 0, 7);
        flat.fill();
      });
      flat.restore();
    });
  };
  const ring = (i, radius, strong) => s.panels.forEach((_, panel) => {
    const [x, y] = toScreen(panel, at(frameOf(panel), i));
    if (x < panel * panelWidth() || x > (panel + 1) * panelWidth()) return;
    pen.beginPath();
    pen.arc(x, y, radius, 0, 7);
    pen.lineWidth = strong ? 3 : 2;
    pen.stroke();
  });
  const drawOver = () => {
    pen.setTransform(s.ratio, 0, 0, s.ratio, 0, 0);
    pen.clearRect(0, 0, s.width, s.height);
    pen.strokeStyle = pen.fillStyle = getComputedStyle(root).color;
    if (s.marked >= 0 && s.t === 1 && shown(s.marked)) {
      ring(s.marked, size() / 2 + 7, true);
      ring(s.marked, size() / 2 + 2, false);
    }
    if (s.hover >= 0 && s.t === 1) ring(s.hover, size() / 2 + 4, false);
    if (s.path && s.path.length > 1) {
      pen.beginPath();
      s.path.forEach(([x, y], i) => i ? pen.lineTo(x, y) : pen.moveTo(x, y));
      pen.closePath();
      pen.globalAlpha = 0.12;
      pen.fill();
      pen.globalAlpha = 1;
      pen.lineWidth = 1.5;
      pen.setLineDash([5, 4]);
      pen.stroke();
      pen.setLineDash([]);
    }
  };

  // ---- the card under the mouse -----------------------------------------------------------------
  const nearest = (px, py) => {
    const panel = panelAt(px), frame = frameOf(panel);
    let best = -1, most = Math.max(9, size()) ** 2, depth = -Infinity;
    for (let i = 0; i < s.n; i++) {
      if (!shown(i)) continue;
      const p = at(frame, i), [x, y] = toScreen(panel, p), d = (x - px) ** 2 + (y - py) ** 2;
      // in three dimensions the one in front of those under the mouse
      const under = s.dims === 3 && d < (size() / 2 + 1) ** 2;
      if (under ? p[2] > depth : d < most && depth === -Infinity) {
        best = i;
        if (under) depth = p[2]; else most = d;
      }
    }
    return best;
  };
  const showCard = (i, px, py) => {
    s.hover = i;
    stage.classList.toggle('hit', i >= 0);
    card.classList.toggle('on', i >= 0);
    root.dataset.hover = i >= 0 ? s.ids[i] : '';
    ask();
    if (i < 0) return;
    const ink = tile.getContext('2d');
    ink.clearRect(0, 0, 32, 32);
    const sheet = window.sdvizSheets?.get(s.sheets.name + '/' + Math.floor(i / s.sheets.each));
    const k = i % s.sheets.each, lacking = s.lacking.has(i);
    const drawn = sheet && !lacking;
    if (drawn) {
      const side = sheet.side;
      tile.width = tile.height = side;
      ink.imageSmoothingEnabled = false;
      ink.drawImage(sheet.picture, k % s.sheets.columns * side, Math.floor(k / s.sheets.columns) * side,
        side, side, 0, 0, side, side);
    }
    card.dataset.picture = drawn ? 'there' : 'none';
    tile.style.borderColor = `rgb(${s.edge.subarray(3 * i, 3 * i + 3).join(',')})`;
    const [first, ...rest] = s.texts[i].split('\\n');
    words.replaceChildren(make('b', '', first), rest.join('\\n')
      + (drawn ? '' : lacking && !s.coming ? '\\nits picture is not kept' : '\\nits picture is still to come'));
    const high = 168, wide = 330;
    const left = px + 18 + wide > s.width ? Math.max(0, px - wide - 18) : px + 18;
    const top = stage.offsetTop + Math.max(0, Math.min(py + 14, s.height - high));
    card.style.left = left + 'px';
    card.style.top = top + 'px';
  };

  // ---- the mouse --------------------------------------------------------------------------------
  const spot = e => {
    const box = stage.getBoundingClientRect();
    return [e.clientX - box.left - stage.clientLeft, e.clientY - box.top - stage.clientTop];
  };
  let down = null;
  stage.onpointerdown = e => {
    if (e.button !== 0) return;
    const [x, y] = spot(e);
    down = { x, y, lastX: x, lastY: y, panel: panelAt(x), moved: false };
    stage.setPointerCapture(e.pointerId);
  };
  stage.onpointermove = e => {
    const [x, y] = spot(e);
    if (!s.n) return;
    if (!down) { if (s.t === 1) showCard(nearest(x, y), x, y); return; }
    if (!down.moved && Math.hypot(x - down.x, y - down.y) < 4) return;
    down.moved = true;
    showCard(-1);
    if (s.tool === 'move') {
      const [dx, dy] = [x - down.lastX, y - down.lastY];
      if (s.dims === 3 && !e.shiftKey) {
        const [a, b] = [dx / 160, dy / 160];
        const about = product([1, 0, 0, 0, Math.cos(b), -Math.sin(b), 0, Math.sin(b), Math.cos(b)],
          [Math.cos(a), 0, Math.sin(a), 0, 1, 0, -Math.sin(a), 0, Math.cos(a)]);
        s.turn = product(about, s.turn);
      } else {
        s.x -= dx / unit();
        s.y += dy / unit();
      }
      [down.lastX, down.lastY] = [x, y];
    } else {
      s.t = 1;
      const w = panelWidth(), cx = Math.max(down.panel * w, Math.min((down.panel + 1) * w, x));
      if (s.tool === 'box') s.path = [[down.x, down.y], [cx, down.y], [cx, y], [down.x, y]];
      else (s.path ??= [[down.x, down.y]]).push([cx, y]);
    }
    ask();
  };
  stage.onpointerup = e => {
    if (!down) return;
    const was = down, [x, y] = spot(e);
    down = null;
    if (!was.moved) {
      const i = nearest(x, y);
      // one click opens one page: those that follow while it comes would be of a page that is left
      if (i < 0 || s.t !== 1 || performance.now() - s.clickedAt < 3000) return;
      s.clickedAt = performance.now();
      stage.style.cursor = 'progress';
      setTimeout(() => { stage.style.cursor = ''; }, 3000);
      s.report('clicked', s.ids[i]);
      return;
    }
    if (!s.path) return;
    const polygon = s.path.map(([px, py]) => toLayout(was.panel, px, py));
    s.path = null;
    const frame = frameOf(was.panel), chosen = new Uint8Array(s.n);
    let count = 0;
    for (let i = 0; i < s.n; i++) {
      const p = at(frame, i);
      if (shown(i) && inPolygon(p[0], p[1], polygon)) { chosen[i] = 1; count++; }
    }
    s.chosen = count ? chosen : null;
    paint();
    // in the layout's own coordinates: where the page has turned and moved it does not concern the server
    const m = s.turn, [a, b] = [[m[0], m[1], m[2]], [m[3], m[4], m[5]]];
    const shift = v => v[0] * s.pivot[0] + v[1] * s.pivot[1] + v[2] * s.pivot[2];
    s.report('selected', { polygon: polygon.map(p => [p[0] + shift(a), p[1] + shift(b)]), frame,
      onto: [a.slice(0, s.dims), b.slice(0, s.dims)], hidden: [...s.hidden], layout: s.key });
  };
  stage.onpointercancel = () => { down = null; s.path = null; ask(); };
  stage.onpointerleave = () => { if (!down) showCard(-1); };
  const zoomAt = (factor, px, py) => {
    const panel = panelAt(px), before = toLayout(panel, px, py);
    s.zoom = Math.max(0.3, Math.min(200, s.zoom * factor));
    const after = toLayout(panel, px, py);
    s.x += before[0] - after[0];
    s.y += before[1] - after[1];
    showCard(-1);
  };
  stage.addEventListener('wheel', e => {
    if (!e.ctrlKey && !e.metaKey) return;      // else the page scrolls
    e.preventDefault();
    zoomAt(Math.exp(-e.deltaY / 240), ...spot(e));
  }, { passive: false });

  // ---- the bar ----------------------------------------------------------------------------------
  const button = (text, title, act) => {
    const node = make('button', '', text);
    node.type = 'button';
    node.title = title;
    node.setAttribute('aria-label', title);
    node.onclick = act;
    return node;
  };
  const tools = {
    move: button('Move', 'Move', () => setTool('move')),
    lasso: button('Lasso', 'Lasso: draw around points to select them', () => setTool('lasso')),
    box: button('Box', 'Box: drag over points to select them', () => setTool('box')),
  };
  const setTool = name => {
    s.tool = name;
    for (const one in tools) tools[one].setAttribute('aria-pressed', one === name);
    stage.classList.toggle('draw', name !== 'move');
    hint.textContent = name !== 'move' ? 'drag to select; click a point to open it'
      : (s.dims === 3 ? 'drag turns, Shift+drag moves' : 'drag moves') + ', Ctrl+wheel zooms, click opens';
  };
  const clear = button('Clear', 'Clear the selection', () => {
    if (!s.chosen) return;
    s.chosen = null;
    paint();
    s.report('selected', null);
  });
  const home = () => { s.x = s.y = 0; s.zoom = 1; s.turn = s.dims === 3 ? TURNED : SAME; };
  const time = make('label', 'time'), slide = make('input'), said = make('output');
  const play = button('▶', 'Play through training', () => {
    if (s.playing) { clearInterval(s.playing); s.playing = 0; play.textContent = '▶'; return; }
    play.textContent = '⏸';
    const last = s.frameNames.length - 1;
    go(s.to >= last ? 0 : s.to + 1);
    s.playing = setInterval(() => {
      if (s.to >= last) { clearInterval(s.playing); s.playing = 0; play.textContent = '▶'; return; }
      go(s.to + 1);
    }, 1300);
  });
  slide.type = 'range';
  slide.min = 0;
  slide.step = 1;
  slide.setAttribute('aria-label', 'Epoch of detector training');
  slide.oninput = () => go(+slide.value);
  time.append(play, slide, said);
  const gap = make('span', 'gap');
  bar.append(tools.move, tools.lasso, tools.box, clear, gap,
    button('+', 'Zoom in', () => zoomAt(1.4, s.width / 2, s.height / 2)),
    button('−', 'Zoom out', () => zoomAt(1 / 1.4, s.width / 2, s.height / 2)),
    button('Reset', 'Show all', () => { home(); ask(); }), time);
  const label = () => {
    names.replaceChildren(...s.panels.map((_, panel) => {
      const { name, note } = s.frameNames[frameOf(panel)];
      return make('div', '', make('b', '', name), make('small', '', note));
    }));
    said.textContent = s.frameNames[s.to]?.name ?? '';
    slide.value = s.to;
    slide.setAttribute('aria-valuetext', said.textContent);
  };
  const go = frame => {
    if (frame === s.to) return;
    s.from = s.to;
    s.to = frame;
    s.t = 0;
    showCard(-1);
    label();
    ask();
  };

  const legend = groups => {
    const nodes = [];
    if (s.ramp) {
      const strip = make('i');
      strip.style.background = `linear-gradient(90deg, ${s.ramp.colours.join(', ')})`;
      nodes.push(make('span', 'ramp', make('span', '', s.ramp.title), make('span', '', s.ramp.low), strip,
        make('span', '', s.ramp.high)));
    }
    groups.forEach((g, i) => {
      const dot = make('i'), node = make('button', 'key', dot, g.name, make('small', '', String(g.count)));
      node.type = 'button';
      node.title = 'Hide or show';
      node.setAttribute('aria-pressed', !s.hidden.has(i));
      node.classList.toggle('off', s.hidden.has(i));
      dot.style.background = g.colour;
      node.onclick = () => {
        if (s.hidden.has(i)) s.hidden.delete(i); else s.hidden.add(i);
        legend(groups);
        paint();
      };
      nodes.push(node);
    });
    keys.replaceChildren(...nodes);
  };

  const fit = () => {
    const w = stage.clientWidth, h = stage.clientHeight, r = window.devicePixelRatio || 1;
    if (!w || !h) return;
    if (w === s.width && h === s.height && r === s.ratio) return;
    [s.width, s.height, s.ratio] = [w, h, r];
    for (const one of [surface, over]) { one.width = Math.round(w * r); one.height = Math.round(h * r); }
    ask();
  };
  const watch = new ResizeObserver(fit);

  const update = (data, report) => {
    s.report = report;
    const fresh = data.layout !== s.key;
    if (fresh) {
      const raw = new Float32Array(bytes(data.points).buffer), d = data.dims;
      s.n = data.ids.length;
      s.frames = data.frames.map((_, f) => {
        const out = new Float32Array(3 * s.n);
        for (let i = 0; i < s.n; i++) for (let k = 0; k < d; k++) out[3 * i + k] = raw[(f * s.n + i) * d + k];
        return out;
      });
      const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
      s.frames.forEach(f => f.forEach((v, i) => {
        low[i % 3] = Math.min(low[i % 3], v);
        high[i % 3] = Math.max(high[i % 3], v);
      }));
      s.pivot = low.map((v, i) => (v + high[i]) / 2);
      const reach = low.map((v, i) => Math.max(1e-9, (high[i] - v) / 2));
      s.reach = d === 3 ? Array(2).fill(1.15 * Math.max(...reach)) : reach.slice(0, 2).map(v => 1.03 * v);
      s.dims = d;
      const same = s.key !== null && s.frameNames?.length === data.frames.length;
      const kept = same ? s.to : data.frames.length - 1;
      s.from = s.to = kept;
      s.t = 1;
      if (gl) {
        buffers.forEach(b => gl.deleteBuffer(b));
        buffers = s.frames.map(f => {
          const b = gl.createBuffer();
          gl.bindBuffer(gl.ARRAY_BUFFER, b);
          gl.bufferData(gl.ARRAY_BUFFER, f, gl.STATIC_DRAW);
          return b;
        });
      }
      home();
      s.key = data.layout;
      s.hidden.clear();
      showCard(-1);
    }
    if (s.colouring !== data.colouring) { s.hidden.clear(); s.colouring = data.colouring; }
    Object.assign(s, { ids: data.ids, texts: data.texts, rgb: bytes(data.rgb), edge: bytes(data.edge),
      group: new Uint16Array(bytes(data.group).buffer), ramp: data.ramp, frameNames: data.frames,
      sheets: data.sheets, lacking: new Set(data.lacking), coming: data.coming, marked: data.marked });
    s.panels = data.panels.length > 1 ? data.panels : [0];
    s.chosen = null;
    if (data.chosen.length) { s.chosen = new Uint8Array(s.n); data.chosen.forEach(i => { s.chosen[i] = 1; }); }
    stage.style.height = data.height + 'px';
    time.style.display = data.frames.length > 1 && s.panels.length === 1 ? '' : 'none';
    slide.max = data.frames.length - 1;
    legend(data.groups);
    label();
    setTool(s.tool);
    watch.observe(stage);
    fit();
    paint();
    root.dataset.layout = data.layout;
    root.dataset.chosen = data.chosen.length;
  };
  const stop = () => { watch.disconnect(); clearInterval(s.playing); s.playing = 0; play.textContent = '▶'; };
  root.sdviz = { update, stop };
  return root.sdviz;
}

export default function ({ data, parentElement, setTriggerValue }) {
  const app = parentElement.querySelector('.scatter')?.sdviz ?? build(parentElement);
  app.update(data, setTriggerValue);
  return app.stop;
}
"""

_SHEETS_JS = """
export default function ({ data }) {
  const all = (window.sdvizSheets ??= new Map());
  if (all.get(data.name)?.src !== data.src) {
    const picture = new Image();
    picture.src = data.src;
    all.delete(data.name);
    all.set(data.name, { picture, side: data.side, src: data.src });
    while (all.size > 24) all.delete(all.keys().next().value);
  }
}
"""


@dataclass(frozen=True)
class Group:
    """One entry of the legend; a click hides and shows its points."""

    name: str
    colour: str
    count: int


@dataclass(frozen=True)
class Ramp:
    """A legend of numbers.

    Attributes:
        title: What they are.
        low: The smallest, as text.
        high: The largest, as text.
        colours: From low to high, "#rrggbb".
    """

    title: str
    low: str
    high: str
    colours: tuple[str, ...]


@dataclass(frozen=True)
class FrameName:
    """What a panel says in its corner."""

    name: str
    note: str


@dataclass(frozen=True, eq=False)
class Colouring:
    """The colours of all points, and what they mean.

    Attributes:
        name: Of the way of colouring.
        rgb: uint8 (N,3).
        group: int (N,), rows of `groups`.
        groups: The legend.
        ramp: For numbers.
    """

    name: str
    rgb: np.ndarray
    group: np.ndarray
    groups: tuple[Group, ...]
    ramp: Ramp | None = None


def scatter(
    points: np.ndarray,
    *,
    key: str,
    layout: str,
    frames: Sequence[FrameName],
    panels: Sequence[int],
    ids: np.ndarray,
    texts: Sequence[str],
    colouring: Colouring,
    edge: np.ndarray,
    sheets: str,
    lacking: Sequence[int] = (),
    are_coming: bool = False,
    marked: int = -1,
    chosen: Sequence[int] = (),
    height: int = 540,
    on_select: Callable[[], None] | None = None,
) -> tuple[str | None, Mapping[str, Any] | None]:
    """Shows the points.

    Args:
        points: float32 (F,N,2) or (F,N,3).
        key: The widget's key.
        layout: Names these points: the view stays as the person has it while the name is the same.
        frames: F names.
        panels: Frames side by side; one or none shows one frame with a slider.
        ids: str (N,).
        texts: N texts of the hover card, lines parted by newlines.
        colouring: The colours.
        edge: uint8 (N,3), of the border of a hover card's picture.
        sheets: Name under which `send_pictures` brings the pictures.
        lacking: Rows without a picture.
        are_coming: Whether those pictures are being made.
        marked: A row that is ringed, -1 for none.
        chosen: Rows that are selected; others fade.
        height: Of the panels, px.
        on_select: Called before the rerun of a selection, which stands in `st.session_state[key].selected`.

    Returns:
        The id clicked just now, else None; and the region just drawn, else None: `polygon`, `onto` (the page's
        two axes), `frame`, `hidden` groups, `layout`.
    """
    plot = st.components.v2.component("sdviz_scatter", css=_CSS, js=_JS)
    data = {
        "points": _packed(points.astype("<f4")),
        "dims": int(points.shape[-1]),
        "layout": layout,
        "frames": [asdict(one) for one in frames],
        "panels": list(panels),
        "ids": ids.tolist(),
        "texts": list(texts),
        "rgb": _packed(colouring.rgb.astype(np.uint8)),
        "edge": _packed(edge.astype(np.uint8)),
        "group": _packed(colouring.group.astype("<u2")),
        "groups": [asdict(one) for one in colouring.groups],
        "ramp": asdict(colouring.ramp) if colouring.ramp else None,
        "colouring": colouring.name,
        "sheets": {"name": sheets, "each": TILES_A_SHEET, "columns": TILES_A_ROW},
        "lacking": list(lacking),
        "coming": are_coming,
        "marked": marked,
        "chosen": list(chosen),
        "height": height,
    }
    found = plot(
        key=key, data=data, on_clicked_change=lambda: None, on_selected_change=on_select or (lambda: None)
    )
    return found.clicked, found.selected


def picture_sheet(images: np.ndarray) -> bytes:
    """Pictures side by side in rows of `TILES_A_ROW`, a JPEG: for a look while the mouse passes.

    Args:
        images: uint8 (N,H,W,3), at most `TILES_A_SHEET`.
    """
    n, high, wide = images.shape[:3]
    rows = -(-n // TILES_A_ROW)
    sheet = np.zeros((rows * TILES_A_ROW, high, wide, 3), np.uint8)
    sheet[:n] = images
    sheet = sheet.reshape(rows, TILES_A_ROW, high, wide, 3).transpose(0, 2, 1, 3, 4)
    stream = io.BytesIO()
    Image.fromarray(sheet.reshape(rows * high, TILES_A_ROW * wide, 3)).save(
        stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0
    )
    return stream.getvalue()


def send_pictures(name: str, number: int, sheet: bytes, side: int, *, key: str) -> None:
    """Brings a sheet of pictures to the browser, for the hover card; nothing shows.

    Args:
        name: As `scatter` asks for it.
        number: Which sheet: points from `number * TILES_A_SHEET` on.
        sheet: See `picture_sheet`.
        side: Height and width of a picture.
        key: The widget's key.
    """
    bring = st.components.v2.component("sdviz_picture_sheet", js=_SHEETS_JS)
    src = "data:image/jpeg;base64," + base64.b64encode(sheet).decode("ascii")
    bring(key=key, data={"name": f"{name}/{number}", "src": src, "side": side})


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
