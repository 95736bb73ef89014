// Every component's script begins with these lines.

// An element with a class and what stands in it: elements, or text as text nodes, never as HTML
const make = (tag, name, ...inside) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  node.append(...inside);
  return node;
};

// Calls `fit` whenever the size of `node` changes; gives the function that ends it
const onResize = (node, fit) => {
  const watch = new ResizeObserver(fit);
  watch.observe(node);
  return () => watch.disconnect();
};

// The bytes of a base64 text
const bytes = text => Uint8Array.from(atob(text), ch => ch.charCodeAt(0));
