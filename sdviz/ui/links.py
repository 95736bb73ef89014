"""Values in the address of a page: those of widgets, refused ones, and those that belong to no widget.

Widgets bind themselves to the address with `bind="query-params"` and silently drop a value that they cannot
take; `asked_by_link` before and `refused` after them find such values.
"""

from collections.abc import Iterable, Mapping, Sequence

import streamlit as st

_MAX_SHOWN = 40


def asked_by_link(keys: Iterable[str]) -> dict[str, list[str]]:
    """The values in the address of each widget that this browser session has not drawn yet."""
    asked = {key: st.query_params.get_all(key) for key in keys if key not in st.session_state}
    return {key: values for key, values in asked.items() if values}


def refused(
    asked: Mapping[str, list[str]],
    allowed: Mapping[str, str],
    shown_as: Mapping[str, Mapping[str, str]] | None = None,
) -> str:
    """One line on the values of a link that widgets refused, "" for none.

    Args:
        asked: As `asked_by_link`; a widget that is still not drawn is left for the run that draws it.
        allowed: What each widget takes, in words.
        shown_as: How a widget's value stands in the address, where it differs from the value itself.
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
    """One line on refused values, by key what the link said and what is taken, in words; "" for none."""
    lines = []
    for key, (said, takes) in misses.items():
        # in a code span, so that nothing in a link is taken for Markdown
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
    """Puts a session's value into the address under `name`, or its key; "" takes it out."""
    name = name or key
    # an unchanged value is not sent again
    if value and st.query_params.get_all(name) != [value]:
        st.query_params[name] = value
    elif not value:
        st.query_params.pop(name, None)
    st.session_state[key] = value


def restore_link_values(keys: Iterable[str]) -> None:
    """Puts the kept values back into the address, which the menu empties when pages change."""
    kept = {key: str(st.session_state.get(key, "")) for key in keys if key not in st.query_params}
    if found := {key: value for key, value in kept.items() if value}:
        st.query_params.update(found)


def keep_link_values(keys: Iterable[str]) -> None:
    """Keeps these values as the address has them now; the browser's back button changes it too."""
    for key in keys:
        st.session_state[key] = st.query_params.get(key, "")


def take_from_link(key: str, options: Sequence[str], many: bool = False) -> None:
    """Sets a widget that shows names to the ids of the address, before it is drawn: it cannot be bound."""
    asked = st.query_params.get_all(key)
    found = [one for one in options if one in asked]
    if key not in st.session_state and (found or (many and asked == [""])):
        st.session_state[key] = found if many else found[0]


def put_in_link(key: str, values: Sequence[str], usual: Sequence[str]) -> None:
    """After the widget is drawn: puts its ids into the address, none where they are the usual ones."""
    wanted = [] if list(values) == list(usual) else list(values) or [""]
    if st.query_params.get_all(key) == wanted:
        return
    if wanted:
        st.query_params[key] = wanted
    else:
        del st.query_params[key]
