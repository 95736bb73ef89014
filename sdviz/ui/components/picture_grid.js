export default function ({ data, parentElement, setTriggerValue }) {
  let wrap = parentElement.querySelector('.wrap');
  if (!wrap) {
    wrap = make('div', 'wrap');
    parentElement.append(wrap);
  }
  const GAP = 10, headed = data.row_names.length > 0;
  const label = (name, { text = '', small = '' } = {}) =>
    make('div', name, text, ...(small ? [make('small', '', small)] : []));
  const picture = (cell, px) => {
    const img = make(cell.src ? 'img' : 'div');
    img.style.width = img.style.height = px + 'px';
    if (cell.src) { img.src = cell.src; img.alt = cell.alt; }
    else { img.className = 'hole'; img.textContent = cell.alt; }
    const node = make(cell.id ? 'button' : 'div', 'cell' + (cell.chosen ? ' chosen' : ''), img);
    node.style.setProperty('--edge', cell.colour || '#8A94A0');
    node.style.setProperty('--wide', px + 4 + 'px');
    if (!cell.src && !cell.alt) node.style.visibility = 'hidden';
    if (cell.text || cell.small) node.append(label('note', cell));
    node.title = cell.alt;
    if (cell.id) {
      node.dataset.id = cell.id;
      node.onclick = () => setTriggerValue('clicked', cell.id);
    }
    return node;
  };
  // makes the columns from..to of every row
  const band = (from, to, px) => {
    const grid = make('div', 'grid');
    grid.style.gridTemplateColumns = (headed ? data.head_px + 'px ' : '') + `repeat(${to - from}, ${px + 4}px)`;
    if (data.column_names.length) {
      if (headed) grid.append(label('head'));
      grid.append(...data.column_names.slice(from, to).map(name => label('top', name)));
    }
    for (let row = 0; row * data.columns < data.cells.length; row++) {
      const first = row * data.columns, cells = data.cells.slice(first + from, first + to);
      if (!headed && cells.every(cell => !cell.src && !cell.alt)) continue;
      if (headed) grid.append(label('head', data.row_names[row]));
      grid.append(...cells.map(cell => picture(cell, px)));
    }
    return grid;
  };
  let drawn = '';
  const draw = () => {
    if (wrap.clientWidth === 0) return;
    let px = data.size_px;
    // without names the pictures wrap like a text
    if (!headed && !data.column_names.length) {
      if (!drawn) wrap.replaceChildren(make('div', 'flow', ...data.cells.map(cell => picture(cell, px))));
      drawn = 'flow';
      return;
    }
    const room = wrap.clientWidth - 8 - (headed ? data.head_px + GAP : 0);
    const fits = px => Math.max(1, Math.floor((room + GAP) / (px + 4 + GAP)));
    while (data.shrink && px > Math.max(64, data.side) && fits(px) < data.columns) px -= data.side;
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
  return onResize(wrap, draw);
}
