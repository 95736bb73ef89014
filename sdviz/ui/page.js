// Streamlit adds to the browser's history whenever the server changes the address, as for each value that a page
// takes over from the one before. Here an entry is a page: within one, the address changes in place
if (!window.sdvizOneEntryAPage) {
  window.sdvizOneEntryAPage = true;
  const push = window.history.pushState.bind(window.history);
  window.history.pushState = (state, title, url) => {
    const same = new URL(url ?? '', document.baseURI).pathname === window.location.pathname;
    if (same) window.history.replaceState(state, title, url);
    else push(state, title, url);
  };
}
