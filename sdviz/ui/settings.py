"""The settings in which runs or bundles differ."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from sdviz.runs.reading import differing_settings


def show_differences(configs: Mapping[str, Mapping[str, Any]], key: str) -> None:
    """Shows a table of the differing settings, with a column for each configuration by its name."""
    found = differing_settings(list(configs.values()))
    if not found:
        st.caption("Nothing: the same configuration.")
        return
    table = {"key": list(found)}
    for i, name in enumerate(configs):
        table[name] = ["not set" if values[i] is None else str(values[i]) for values in found.values()]
    st.dataframe(table, hide_index=True, key=key)
