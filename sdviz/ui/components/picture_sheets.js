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
