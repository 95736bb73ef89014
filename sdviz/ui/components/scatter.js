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
  const surface = make('canvas'), over = make('canvas'), names = make('div', 'names'), hint = make('div', 'hint');
  const tile = make('canvas'), about = make('div');
  const bar = make('div', 'bar'), stage = make('div', 'stage', surface, over, names, hint);
  const keys = make('div', 'keys'), card = make('div', 'card', tile, about);
  const root = make('div', 'scatter', bar, stage, keys, card);
  tile.width = tile.height = 32;
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

  // ---- positions --------------------------------------------------------------------------------
  const panelWidth = () => s.width / s.panels.length;
  // px for one unit: a flat layout fills its panel, one in 3-D must fit from every side
  const unit = () => s.zoom * 0.46 * Math.min(panelWidth() / s.reach[0], s.height / s.reach[1]);
  const at = (frame, i) => {                       // rotated, in units of the layout
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
    // the shader's matrix is stored by columns
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
      // in three dimensions take the point in front
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
    ink.clearRect(0, 0, tile.width, tile.height);
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
    const [first, ...rest] = s.texts[i].split('\n');
    about.replaceChildren(make('b', '', first), rest.join('\n')
      + (drawn ? '' : lacking && !s.coming ? '\nits picture is not on this machine' : '\nits picture is still to come'));
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
        const step = product([1, 0, 0, 0, Math.cos(b), -Math.sin(b), 0, Math.sin(b), Math.cos(b)],
          [Math.cos(a), 0, Math.sin(a), 0, 1, 0, -Math.sin(a), 0, Math.cos(a)]);
        s.turn = product(step, s.turn);
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
      // a click opens a page: further clicks, until it is there, are ignored
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
    // in coordinates of the layout, which do not depend on the view
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
  const pause = () => { clearInterval(s.playing); s.playing = 0; play.textContent = '▶'; };
  const play = button('▶', 'Play through training', () => {
    if (s.playing) return pause();
    play.textContent = '⏸';
    const last = s.frameNames.length - 1;
    go(s.to >= last ? 0 : s.to + 1);
    s.playing = setInterval(() => { if (s.to >= last) pause(); else go(s.to + 1); }, 1300);
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
  const stop = () => { watch.disconnect(); pause(); };
  root.sdviz = { update, stop };
  return root.sdviz;
}

export default function ({ data, parentElement, setTriggerValue }) {
  const app = parentElement.querySelector('.scatter')?.sdviz ?? build(parentElement);
  app.update(data, setTriggerValue);
  return app.stop;
}
