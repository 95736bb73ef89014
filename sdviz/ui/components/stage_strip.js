export default function ({ data, parentElement }) {
  let strip = parentElement.querySelector('.strip');
  if (!strip) {
    strip = make('div', 'strip');
    strip.setAttribute('role', 'list');
    parentElement.append(strip);
  }
  while (strip.children.length > data.stages.length) strip.lastChild.remove();
  data.stages.forEach((stage, i) => {
    let box = strip.children[i];
    if (!box) {
      box = make('div', '', make('div', 'name'), make('div', 'note'), make('div', 'bar', make('div', 'fill')));
      box.setAttribute('role', 'listitem');
      strip.append(box);
    }
    box.className = 'stage ' + stage.state;
    box.title = stage.title;
    box.querySelector('.name').textContent = stage.name;
    box.querySelector('.note').textContent = stage.note;
    box.querySelector('.fill').style.width = (100 * stage.share) + '%';
  });
  // as many rows as the width needs, all of the same length
  const arrange = () => {
    const n = data.stages.length, fits = Math.max(1, Math.floor((strip.clientWidth + 8) / 116));
    strip.style.gridTemplateColumns = `repeat(${Math.ceil(n / Math.ceil(n / fits))}, minmax(0, 1fr))`;
  };
  arrange();
  return onResize(strip, arrange);
}
