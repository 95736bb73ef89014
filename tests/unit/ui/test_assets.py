"""Scripts and styles: each in a file of its own, which a JavaScript engine can read."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdviz.ui.assets import read_asset, style

UI = Path(__file__).resolve().parents[3] / "sdviz" / "ui"
SCRIPT = re.compile(
    r"=>|\bfunction\b\s*\w*\(|\b(?:const|let|var) \w+ =|\b(?:document|window)\.\w|<script[^>]*>\s*[^\s@]"
)
# a rule, two declarations in a row, or one of an attribute that no value goes into (a value is an @ here)
STYLE = re.compile(
    r"[\w.#*>\])-]\s*\{[^{}]*[a-z-]+\s*:[^{}]+\}|style=(['\"])[^'\"@]+\1"
    r"|\b(?:align|background|border|color|display|flex|font|gap|grid|height|margin|padding|position|width)"
    r"[a-z-]*:\s*[^;:\"'<>@]+;\s*[a-z-]+:"
)


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every string but docstrings, with @ for each value of an f-string."""
    tree = ast.parse(source)
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            parts = [part.value if isinstance(part, ast.Constant) else "@" for part in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.lineno, node.value


def scripts_and_styles(source: str) -> list[int]:
    """Lines of the strings that hold JavaScript or CSS."""
    return [line for line, text in texts(source) if SCRIPT.search(text) or STYLE.search(text)]


def test_no_script_and_no_style_stands_in_a_python_string() -> None:
    files = sorted(UI.rglob("*.py"))
    assert len(files) > 50
    found = [
        f"{path.relative_to(UI)}:{line}"
        for path in files
        for line in scripts_and_styles(path.read_text("utf-8"))
    ]
    assert not found, found


@pytest.mark.parametrize(
    "text",
    [
        "export default function ({ data }) { return data; }",
        "items.map(one => one.name)",
        "const n = 3;",
        "window.open(url)",
        "<script>alert(1)</script>",
        ".cell { color: red }",
        "<style>b { margin: 0; }</style>",
        "display:flex;gap:.1rem",
        "<b style='color: red'>no</b>",
    ],
)
def test_a_script_or_a_style_in_a_string_is_seen(text: str) -> None:
    assert scripts_and_styles(f"x = {text!r}") == [1]
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert scripts_and_styles(f"x = f{doubled!r}") == [1]


@pytest.mark.parametrize(
    "source",
    [
        """x = f'<b style="color:{colour}">{name}</b>'""",
        """x = f"<style>{rules}</style>" """,
        """x = "random: a wrong class each; right: the own class, the control; or a class." """,
        """x = {"color": "red", "width": 2}""",
        """def f():\n    'Draws a rule, .cell { color: red }.'""",
    ],
)
def test_plain_text_and_values_are_let_pass(source: str) -> None:
    assert scripts_and_styles(source) == []


def test_every_script_can_be_read(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node on the PATH to check scripts with")
    scripts = sorted(UI.rglob("*.js"))
    assert len(scripts) >= 7
    for script in scripts:
        # the ending says that it is a module, to any version of node
        copy = tmp_path / f"{script.stem}.mjs"
        copy.write_text(script.read_text("utf-8"), encoding="utf-8")
        done = subprocess.run([node, "--check", str(copy)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{script.name}: {done.stderr}"


def test_every_asset_is_next_to_its_module() -> None:
    alone = [
        path.name
        for ending in ("js", "css", "html")
        for path in UI.rglob(f"*.{ending}")
        if not path.with_suffix(".py").is_file()
    ]
    assert alone == ["dom.js"]


def test_an_asset_is_found_by_the_name_of_its_module() -> None:
    assert read_asset("sdviz.ui.page", ".js").startswith("//")
    assert style("sdviz.ui.results.html_tables").count("<style>") == 1
    assert read_asset("sdviz.ui.text", ".css") == ""
