"""Values in the address of a page: of widgets, refused ones, and those of no widget.

Widgets with `bind="query-params"` silently drop a value that they cannot take. `asked_by_link`, called before
them, and `refused`, called after them, find such values.
"""

from collections.abc import Iterable, Mapping, Sequence

import streamlit as st

_MAX_SHOWN = 40


def asked_by_link(keys: Iterable[str]) -> dict[str, list[str]]:
    """Returns the values in the address of those widgets that this session has not drawn yet, by key."""
    asked = {key: st.query_params.get_all(key) for key in keys if key not in st.session_state}
    return {key: values for key, values in asked.items() if values}


def refused(
    asked: Mapping[str, list[str]],
    allowed: Mapping[str, str],
    shown_as: Mapping[str, Mapping[str, str]] | None = None,
) -> str:
    """Returns one line on values of a link that widgets refused, "" for none.

    Args:
        asked: From `asked_by_link`. A widget that is not drawn yet is left for a later run.
        allowed: What each widget takes, in words.
        shown_as: By key, the address's text for each value of a widget, if it is not the value itself.
    """
    misses = {}
    for key, values in asked.items():
        if key not in st.session_state:
            continue
        taken = st.session_state[key]
        if not _is_what_was_asked(values, (shown_as or {}).get(key, {}).get(taken, taken)):
            misses[key] = (", ".join(values), allowed[key])
    return not_taken(misses)


def not_taken(misses: Mapping[str, tuple[str, str]]) -> str:
    """Returns one line on refused values, "" for none. `misses`: the link's value and what is taken, by key."""
    lines = []
    for key, (said, takes) in misses.items():
        # a code span: nothing in a link is read as Markdown
        text = said.replace("`", "'").replace("\n", " ")
        text = text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"
        lines.append(f"{key} = `{text or ' '}` (here: {takes})")
    if not lines:
        return ""
    return f"Not taken from the link: {'; '.join(lines)}. The usual values stand instead."


def _is_what_was_asked(values: list[str], taken: object) -> bool:
    if isinstance(taken, str):
        return values[-1] == taken
    wanted = taken if isinstance(taken, tuple) else (taken,)
    try:
        given = [float(v) for v in (values if isinstance(taken, tuple) else values[-1:])]
    except ValueError:
        return False
    return given == [float(v) for v in wanted]


def set_link_value(key: str, value: str, name: str = "") -> None:
    """Sets a value of the session, and of the address under `name` or its key; "" takes it out."""
    name = name or key
    # an unchanged value is not sent again
    if value and st.query_params.get_all(name) != [value]:
        st.query_params[name] = value
    elif not value:
        st.query_params.pop(name, None)
    st.session_state[key] = value


def restore_link_values(keys: Iterable[str]) -> None:
    """Puts the session's values back into the address, which the menu empties when pages change."""
    kept = {key: str(st.session_state.get(key, "")) for key in keys if key not in st.query_params}
    if found := {key: value for key, value in kept.items() if value}:
        st.query_params.update(found)


def keep_link_values(keys: Iterable[str]) -> None:
    """Takes these values from the address, which the browser's back button may have changed."""
    for key in keys:
        st.session_state[key] = st.query_params.get(key, "")


def take_from_link(key: str, options: Sequence[str], many: bool = False) -> None:
    """Sets a widget from the ids in the address, before it is drawn.

    For a widget that shows names: Streamlit would put these into the address, not the ids.
    """
    asked = st.query_params.get_all(key)
    found = [one for one in options if one in asked]
    if key not in st.session_state and (found or (many and asked == [""])):
        st.session_state[key] = found if many else found[0]


def put_in_link(key: str, values: Sequence[str], usual: Sequence[str]) -> None:
    """Writes the ids chosen in a widget into the address, after it is drawn; writes none for the usual choice.

    For widgets that `take_from_link` sets.
    """
    wanted = [] if list(values) == list(usual) else list(values) or [""]
    if st.query_params.get_all(key) == wanted:
        return
    if wanted:
        st.query_params[key] = wanted
    else:
        del st.query_params[key]
