"""Scripts and styles: each is a file beside the module that sends it, with the module's own name."""

from importlib import resources

import streamlit as st
from streamlit.components.v2.types import ComponentRenderer

from sdviz.ui.cache.kept import kept


@kept("assets")
def read_asset(module: str, ending: str) -> str:
    """The text of the file beside a module with the module's name and that ending, "" where there is none.

    It is read at the first call, so that an import opens no file.
    """
    package, _, name = module.rpartition(".")
    file = resources.files(package) / (name + ending)
    return file.read_text("utf-8") if file.is_file() else ""


def style(module: str) -> str:
    """The `.css` file of a module as a `<style>` element."""
    return f"<style>{read_asset(module, '.css')}</style>"


def component(module: str) -> ComponentRenderer:
    """The Streamlit component of a module, made of its `.js` and `.css` file.

    The script begins with `components/dom.js`, which all components share.
    """
    script = read_asset("sdviz.ui.components.dom", ".js") + read_asset(module, ".js")
    name = "sdviz_" + module.rpartition(".")[2]
    return st.components.v2.component(name, css=read_asset(module, ".css") or None, js=script)
