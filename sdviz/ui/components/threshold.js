export default function ({ data, parentElement, setTriggerValue }) {
  const NS = 'http://www.w3.org/2000/svg', H = 300, L = 52, R = 14, TOP = 30, BOTTOM = 44;
  // the answer to a move may come during the next one: the same chart and its line stay
  const shape = JSON.stringify({ ...data, t: 0 }), stands = parentElement.sdvizThreshold;
  if (stands && stands.shape === shape && parentElement.contains(stands.root)) {
    stands.report = setTriggerValue;
    stands.take(data.t);
    return stands.watch();
  }
  const chart = parentElement.sdvizThreshold = { shape, report: setTriggerValue };
  const old = parentElement.querySelector('.box');
  const had = old && old.contains(old.getRootNode().activeElement)
    && old.getRootNode().activeElement.classList.contains('handle');
  old?.remove();
  const draw = (tag, attributes, ...inside) => {
    const node = document.createElementNS(NS, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...inside);
    return node;
  };
  const sets = data.sets.map(one => ({ ...one, values: new Float64Array(bytes(one.scores).buffer) }));
  // counts scores above t
  const above = (values, t) => {
    let low = 0, high = values.length;
    while (low < high) { const mid = (low + high) >> 1; if (values[mid] > t) high = mid; else low = mid + 1; }
    return values.length - low;
  };
  const short = x => String(Number(x.toPrecision(4)));
  const percent = x => (100 * x).toFixed(2) + ' %';
  const input = make('input');
  input.type = 'number'; input.step = 'any';
  input.setAttribute('aria-label', 'Threshold');
  const back = make('button', '', 'Back to ' + data.own_name);
  const says = make('span', 'says');
  says.setAttribute('aria-live', 'polite');
  const svg = draw('svg', { height: H, role: 'group' });
  const tbody = make('tbody');
  const cells = sets.map(one => {
    const swatch = make('i');
    swatch.style.background = one.colour;
    const found = ['flagged', 'passed', 'share'].map(kind => {
      const cell = make('td');
      cell.dataset.kind = kind;
      return cell;
    });
    const row = make('tr', '', make('td', '', swatch, one.title),
      make('td', '', one.values.length.toLocaleString('en-US')), ...found,
      make('td', '', one.is_id ? 'FPR, false alarms' : 'TPR, OOD found'));
    row.dataset.set = one.name;
    tbody.append(row);
    return found;
  });
  const heads = ['set', 'images', 'called OOD', 'called ID', 'share called OOD', 'that is'];
  const thead = make('thead', '', make('tr', '', ...heads.map(head => make('th', '', head))));
  const root = make('div', 'box', make('div', 'bar', make('label', '', 'Threshold ', input), back, says), svg,
    make('table', '', thead, tbody));
  parentElement.append(root);

  const edges = data.edges, n = edges.length - 1;
  const at = x => data.is_log ? Math.log10(x) : x;
  const x0 = at(edges[0]), x1 = at(edges[n]);
  let width = 0, t = data.t, sent = data.t;
  const inside = x => Math.max(x0, Math.min(x1, data.is_log && x <= 0 ? x0 : at(x)));
  const px = x => L + (inside(x) - x0) / (x1 - x0) * (width - L - R);
  const value = p => {
    const v = x0 + (p - L) / (width - L - R) * (x1 - x0);
    return data.is_log ? 10 ** v : v;
  };
  const rounded = v => Number(Math.max(edges[0], Math.min(edges[n], v)).toPrecision(5));
  const high = one => one.counts.map(c => data.height === 'share' ? c / Math.max(1, one.values.length)
    : data.height === 'log' ? Math.log10(1 + c) : c);
  // a set in one or two bars would flatten the others: its bars are cut, with a note
  const drawn = sets.filter(one => one.drawn);
  const peaks = [...drawn.map(one => Math.max(0, ...high(one))).sort((a, b) => b - a), 0];
  const cut = data.height !== 'log' && peaks[1] > 0 && peaks[0] > 3 * peaks[1];
  const tall = Math.max(1e-9, cut ? 2.2 * peaks[1] : peaks[0]) * 1.04;
  const py = v => H - BOTTOM - v / tall * (H - BOTTOM - TOP);
  // the smallest round number from `least` on: 1, 2 or 5 times a power of ten
  const roundStep = least => {
    const power = 10 ** Math.floor(Math.log10(least));
    return [1, 2, 5, 10].map(m => m * power).find(step => step >= least);
  };
  let handle, line, knob, tag, over;
  const ticks = () => {
    const found = [];
    if (data.is_log) {
      for (let e = Math.floor(x0); e <= Math.ceil(x1); e++) for (const m of [1, 2, 5]) found.push(m * 10 ** e);
    } else {
      const step = roundStep((x1 - x0) / 8);
      for (let v = Math.ceil(x0 / step) * step; v <= x1 + 1e-12; v += step) found.push(v);
    }
    return found.filter(v => at(v) >= x0 - 1e-9 && at(v) <= x1 + 1e-9);
  };
  // [height, number] of each horizontal line
  const levels = () => {
    if (data.height === 'log') return [0, 1, 10, 100, 1000, 10000, 100000].map(c => [Math.log10(1 + c), c]);
    const step = roundStep(tall / 4);
    return Array.from({ length: Math.floor(tall / step) + 1 }, (_, i) => [i * step, i * step]);
  };
  const paint = () => {
    svg.replaceChildren();
    svg.setAttribute('viewBox', `0 0 ${width} ${H}`);
    over = draw('rect', { class: 'over', y: TOP, height: H - BOTTOM - TOP });
    svg.append(over);
    levels().filter(([v]) => v <= tall).forEach(([v, c]) => {
      svg.append(draw('line', { class: 'rule', x1: L, x2: width - R, y1: py(v), y2: py(v) }));
      const number = data.height === 'share' ? short(100 * c) + ' %' : short(c);
      svg.append(draw('text', { class: 'faint', x: L - 6, y: py(v) + 4, 'text-anchor': 'end' }, number));
    });
    drawn.forEach(one => {
      const v = high(one);
      let d = `M${px(edges[0])} ${py(0)}`;
      v.forEach((h, i) => { d += `V${py(Math.min(h, tall))}H${px(edges[i + 1])}`; });
      const most = Math.max(0, ...v), where = v.indexOf(most);
      if (most > tall) {
        const middle = px((edges[where] + edges[where + 1]) / 2), end = middle > width - 90;
        const note = '↑ up to ' + (data.height === 'share' ? (100 * most).toFixed(0) + ' %' : most);
        svg.append(draw('text', { x: end ? px(edges[where]) - 6 : px(edges[where + 1]) + 6, y: TOP + 12,
          'text-anchor': end ? 'end' : 'start' }, note));
      }
      svg.append(draw('path', { d: d + `V${py(0)}Z`, fill: one.colour, 'fill-opacity': .3, stroke: one.colour,
        'stroke-width': 1.6 }));
    });
    svg.append(draw('line', { class: 'axis', x1: L, x2: width - R, y1: py(0), y2: py(0) }));
    let last = -99;
    ticks().forEach(v => {
      svg.append(draw('line', { class: 'axis', x1: px(v), x2: px(v), y1: py(0), y2: py(0) + 4 }));
      if (px(v) - last < 40) return;
      last = px(v);
      svg.append(draw('text', { class: 'faint', x: px(v), y: py(0) + 18, 'text-anchor': 'middle' }, short(v)));
    });
    const middle = { x: (L + width - R) / 2, y: H - 6, 'text-anchor': 'middle', class: 'faint' };
    svg.append(draw('text', middle, data.x_title));
    handle = draw('g', { class: 'handle', tabindex: 0, role: 'slider', 'aria-label': 'Threshold',
      'aria-valuemin': edges[0], 'aria-valuemax': edges[n] });
    line = draw('line', { class: 'line', y1: TOP - 8, y2: py(0) });
    knob = draw('circle', { class: 'knob', r: 7, cy: TOP - 8 });
    tag = draw('text', { y: TOP - 12 });
    handle.append(line, knob, tag);
    svg.append(handle);
    handle.onkeydown = key;
    handle.onkeyup = e => { if (e.key.startsWith('Arrow') || e.key.startsWith('Page')) send(); };
    follow();
  };
  const follow = () => {
    const x = px(t);
    line.setAttribute('x1', x); line.setAttribute('x2', x);
    knob.setAttribute('cx', x);
    over.setAttribute('x', x); over.setAttribute('width', Math.max(0, width - R - x));
    const left = x > width - 190;
    tag.setAttribute('x', x + (left ? -12 : 12));
    tag.setAttribute('text-anchor', left ? 'end' : 'start');
    tag.textContent = left ? 'called OOD →' : 'called OOD → above ' + short(t);
    handle.setAttribute('aria-valuenow', t);
    root.dataset.t = t;
    if (input.getRootNode().activeElement !== input) input.value = Number(t.toPrecision(6));
    const own = t === data.own;
    back.disabled = own;
    sets.forEach((one, i) => {
      const found = above(one.values, t), size = one.values.length, share = size ? found / size : 0;
      cells[i][0].textContent = found.toLocaleString('en-US');
      cells[i][1].textContent = (size - found).toLocaleString('en-US');
      cells[i][2].replaceChildren(make('b', '', percent(share)));
      if (!one.is_id) return;
      says.textContent = (own ? 'At ' + data.own_name + ': ' : '') + percent(1 - share) + ' of ID images pass, '
        + percent(share) + ' are false alarms.';
    });
  };
  const move = v => { t = rounded(v); follow(); };
  let unanswered = [];
  const send = () => {
    if (t === sent) return;
    sent = t;
    unanswered.push(t);
    if (t === data.own) chart.report('own', true); else chart.report('t', t);
  };
  const key = e => {
    const unit = (x1 - x0) / 200;
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[e.key];
    if (by) {
      e.preventDefault();
      const v = Math.max(x0, Math.min(x1, at(Math.max(t, data.is_log ? edges[0] : t)) + by * unit));
      move(data.is_log ? 10 ** v : v);
    }
    if (e.key === 'Home') { e.preventDefault(); t = data.own; follow(); send(); }
  };
  let dragging = false;
  const where = e => value(e.clientX - svg.getBoundingClientRect().left);
  svg.onpointerdown = e => {
    dragging = true;
    svg.setPointerCapture(e.pointerId);
    e.preventDefault();
    move(where(e));
    handle.focus();
  };
  svg.onpointermove = e => { if (dragging) move(where(e)); };
  svg.onpointerup = () => { if (dragging) { dragging = false; send(); } };
  svg.onpointercancel = svg.onpointerup;
  back.onclick = () => { t = data.own; follow(); send(); };
  input.onchange = () => { const v = Number(input.value);
    if (input.value !== '' && Number.isFinite(v)) { t = v; follow(); send(); } };
  const fit = () => { if (svg.clientWidth && svg.clientWidth !== width) { width = svg.clientWidth; paint(); } };
  fit();
  if (had) handle?.focus();
  chart.root = root;
  chart.take = answer => {
    unanswered = unanswered.slice(unanswered.indexOf(answer) + 1);
    if (dragging || t !== sent || unanswered.length) return;
    t = sent = answer;
    follow();
  };
  chart.watch = () => onResize(root, fit);
  return chart.watch();
}
