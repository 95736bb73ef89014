// The script of every component begins with these lines.

// Makes an element with a class and children: elements, or text as text nodes, never as HTML
const make = (tag, name, ...inside) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  node.append(...inside);
  return node;
};

// Calls `fit` when the size of `node` changes; returns the function that ends this
const onResize = (node, fit) => {
  const watch = new ResizeObserver(fit);
  watch.observe(node);
  return () => watch.disconnect();
};

// Decodes a base64 text to bytes
const bytes = text => Uint8Array.from(atob(text), ch => ch.charCodeAt(0));
