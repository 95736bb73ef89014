"""Scripts and styles: files beside the module that sends them, named as the module."""

from importlib import resources

import streamlit as st
from streamlit.components.v2.types import ComponentRenderer

from sdviz.ui.cache.kept import kept


@kept("assets")
def read_asset(module: str, ending: str) -> str:
    """Reads the file beside a module with the module's name and that ending; "" without such a file."""
    package, _, name = module.rpartition(".")
    file = resources.files(package) / (name + ending)
    return file.read_text("utf-8") if file.is_file() else ""


def style(module: str) -> str:
    """Returns the `.css` file of a module as a `<style>` element."""
    return f"<style>{read_asset(module, '.css')}</style>"


def component(module: str) -> ComponentRenderer:
    """Makes the Streamlit component of a module from `components/dom.js` and its own `.js` and `.css` file."""
    script = read_asset("sdviz.ui.components.dom", ".js") + read_asset(module, ".js")
    name = "sdviz_" + module.rpartition(".")[2]
    return st.components.v2.component(name, css=read_asset(module, ".css") or None, js=script)
