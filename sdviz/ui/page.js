// Streamlit adds an entry to the browser's history for each change of the address by the server.
// Here a page has one entry: while it is open, its address is replaced
if (!window.sdvizOneEntryAPage) {
  window.sdvizOneEntryAPage = true;
  const push = window.history.pushState.bind(window.history);
  window.history.pushState = (state, title, url) => {
    const same = new URL(url ?? '', document.baseURI).pathname === window.location.pathname;
    if (same) window.history.replaceState(state, title, url);
    else push(state, title, url);
  };
}
