export default function ({ data, parentElement, setTriggerValue }) {
  parentElement.querySelector('.scrub')?.remove();
  const n = data.frames.length;
  const pictures = data.panels.map(panel => {
    const img = make('img');
    img.style.setProperty('--edge', panel.colour);
    return img;
  });
  const title = make('b'), text = make('span'), says = make('div', 'says', title, text);
  says.setAttribute('aria-live', 'polite');
  const figures = pictures.map((img, i) => make('figure', '', img, make('figcaption', '', data.panels[i].name)));
  const stage = make('div', 'stage', ...figures, says);
  const pin = make('div', 'pin');
  const strip = make('div', 'strip', ...data.frames.map(frame => {
    const img = make('img');
    img.src = frame.pictures[2];
    img.alt = '';
    img.draggable = false;
    return img;
  }), pin);
  strip.tabIndex = 0;
  strip.setAttribute('role', 'slider');
  strip.setAttribute('aria-label', 'S');
  const ticks = make('div', 'ticks', ...data.frames.map(frame => make('span', '', frame.id)));
  const root = make('div', 'scrub', stage, strip, ticks);
  let at = data.at;
  const show = i => {
    at = Math.max(0, Math.min(n - 1, i));
    const frame = data.frames[at];
    pictures.forEach((img, j) => { img.src = frame.pictures[j]; img.alt = data.panels[j].name; });
    title.textContent = frame.title;
    text.textContent = frame.text;
    pin.style.left = `calc(${(at + 0.5) / n * 100}% - 1.5px)`;
    strip.setAttribute('aria-valuetext', frame.title);
    root.dataset.at = at;
  };
  const frameUnder = e => {
    const box = strip.getBoundingClientRect();
    return Math.floor((e.clientX - box.left) / box.width * n);
  };
  const choose = () => setTriggerValue('chosen', data.frames[at].id);
  strip.onpointermove = e => show(frameUnder(e));
  strip.onclick = e => { show(frameUnder(e)); choose(); };
  strip.onkeydown = e => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
    if (move) { e.preventDefault(); show(at + move); }
    if (e.key === 'Enter') choose();
  };
  parentElement.append(root);
  // all panels side by side, at a multiple of the pictures' own side
  const fit = () => {
    let px = Math.ceil(192 / data.side) * data.side;
    while (px > Math.max(64, data.side) && pictures.length * (px + 4 + 14) - 14 > root.clientWidth) px -= data.side;
    pictures.forEach(img => { img.style.width = img.style.height = px + 'px'; });
  };
  fit();
  show(at);
  return onResize(root, fit);
}
