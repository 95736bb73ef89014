"""The house rules that no module can keep alone: which way imports run, and that importing does nothing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.patience import patience

ROOT = Path(__file__).resolve().parents[2]

# A unit is a module or sub-package directly under sdviz, or one of the scripts around it. It may import its own
# modules and units of a lower rank, nothing else of the house.
RANKS = {
    "sdviz": 0,  # the package itself: a version, and no import
    "sdviz.behind": 0,
    "sdviz.config": 0,
    "sdviz.data": 1,
    "sdviz.nn": 1,
    "sdviz.scan": 2,
    "sdviz.diffusion": 2,
    "sdviz.detection": 2,
    "sdviz.baselines": 2,
    "sdviz.outliers": 3,
    "sdviz.evaluation": 3,
    "sdviz.projection": 3,
    "sdviz.bundle": 4,
    "sdviz.evidence": 5,
    "sdviz.pipeline": 5,
    "sdviz.runs": 6,
    "sdviz.cli": 7,
    "sdviz.ui": 7,
    "sdviz.__main__": 8,
    "app": 8,
    "pages": 8,
    "bench": 9,
    "tests": 9,
}
MAY_IMPORT_STREAMLIT = {"app", "pages", "sdviz.ui"}


def unit_of(module: str) -> str:
    """The unit that a dotted module name belongs to: outside the house its first part."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "sdviz" else parts[0]


def imported_modules(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import at any depth; `from a import b` gives a.b."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            for alias in node.names:
                yield node.lineno, ".".join([*base, alias.name])


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What `source`, the text of `module`, imports against the rules; one line each."""
    unit = unit_of(module)
    if unit not in RANKS:
        return [f"{module}: {unit} has no rank yet; give it one in RANKS in tests/unit/test_architecture.py"]
    found = []
    for line, name in imported_modules(ast.parse(source), module, is_package):
        target = unit_of(name)
        if target == "streamlit":
            if unit not in MAY_IMPORT_STREAMLIT:
                found.append(f"{module}:{line} imports streamlit, which only app.py, pages/ and sdviz/ui may")
        elif name in ("sdviz", "sdviz.__version__") or target == unit:
            continue
        elif target in RANKS:
            if RANKS[target] >= RANKS[unit]:
                found.append(f"{module}:{line} ({unit}, {RANKS[unit]}) imports {target} ({RANKS[target]})")
        elif name.split(".")[0] == "sdviz":
            found.append(f"{module}:{line} imports {target}, which has no rank; give it one in RANKS")
    return found


def house_files() -> list[tuple[Path, str, bool]]:
    """(path, module name, is a package) of every file under the rules."""
    paths = [*ROOT.glob("sdviz/**/*.py"), *ROOT.glob("pages/*.py"), *ROOT.glob("app.py")]
    files = []
    for path in sorted(paths):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        files.append((path, ".".join(parts[:-1] if is_package else parts), is_package))
    return files


def test_imports_run_one_way() -> None:
    files = house_files()
    assert {"sdviz", "sdviz.config", "sdviz.diffusion.samplers"} <= {module for _, module, _ in files}
    found = [v for path, module, pkg in files for v in violations(path.read_text("utf-8"), module, pkg)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("sdviz.nn.unet", "from sdviz.bundle import Bundle"),
        ("sdviz.nn.unet", "import sdviz.data.shapes"),
        ("sdviz.nn.unet", "from .. import data"),
        ("sdviz.nn.unet", "from ..data.imageset import ImageSet"),
        ("sdviz.data.shapes", "from sdviz import nn as networks"),
        ("sdviz.config", "from . import data"),
        ("sdviz.config", "from .data import load"),
        ("sdviz.diffusion.training", "from ..detection import metrics"),
        ("sdviz.outliers", "def late():\n    from .evaluation import table"),
        ("sdviz.outliers", "if TYPE_CHECKING:\n    from .bundle import Bundle"),
        ("sdviz.bundle", "try:\n    import sdviz.ui.cache as cache\nexcept ImportError:\n    cache = None"),
        ("sdviz.cli", "from .ui import page"),
        ("sdviz.ui.page", "from ..cli import main"),
        ("sdviz.ui.page", "import app"),
        ("sdviz.runs", "from bench import sampling"),
        ("sdviz.runs", "from tests.helpers import tiny_bundle"),
        ("sdviz.bundle", "from .brand_new import thing"),
        ("sdviz.bundle", "import streamlit as st"),
        ("sdviz.cli", "import streamlit.testing.v1"),
        ("sdviz.diffusion.samplers", "def f():\n    from streamlit import cache_data"),
    ],
)
def test_the_checker_sees_a_forbidden_import(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "is_package", "source"),
    [
        (
            "sdviz.nn.unet",
            False,
            "import torch\nfrom ..config import UNetConfig\nfrom .device import x",
        ),
        ("sdviz.data", True, "from .imageset import ImageSet\nfrom . import shapes"),
        ("sdviz.data.shapes", False, "from . import imageset\nfrom sdviz.config import Node"),
        ("sdviz.bundle", False, "from . import __version__, data, outliers\nimport sdviz"),
        (
            "sdviz.ui.page",
            False,
            "import streamlit as st\nfrom ..runs import launch\nfrom .. import __version__",
        ),
        ("sdviz.__main__", False, "from .cli import main"),
        ("pages.1_Outlier_lab", False, "import streamlit as st\nfrom sdviz.ui import page"),
        ("app", False, "from sdviz.ui.page import setup_page"),
    ],
)
def test_the_checker_lets_a_good_import_pass(module: str, is_package: bool, source: str) -> None:
    assert violations(source, module, is_package) == []


def test_a_new_module_is_asked_for_its_rank() -> None:
    (message,) = violations("import numpy", "sdviz.brand_new")
    assert "sdviz.brand_new has no rank yet; give it one in RANKS" in message


# Runs in a fresh interpreter. An audit hook sees every open(); whose doing it was is decided by the innermost
# frame that is ours, or a module body of another package, or the import system itself.
IMPORT_EVERYTHING = """
import importlib, json, os, sys
import torch
root, modules = sys.argv[1], sys.argv[2:]
package = os.path.join(root, "sdviz") + os.sep
sys.argv = ["import-test", "--no-such-option"]
threads = torch.get_num_threads()
faults = []

def on_event(event, args):
    # streamlit's cache decorators read the source text of what they wrap, which is no file of ours
    if event != "open" or str(args[0]).endswith(".py"):
        return
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(package):
            faults.append(f"{file}:{frame.f_lineno} opens {args[0]}")
            return
        if file.startswith("<frozen importlib") or frame.f_code.co_name == "<module>":
            return
        frame = frame.f_back

sys.addaudithook(on_event)
for name in modules:
    module = importlib.import_module(name)
    for key, value in vars(module).items():
        if isinstance(value, (torch.Tensor, torch.nn.Module, torch.device, torch.Generator)):
            faults.append(f"{name}.{key} is a global {type(value).__name__}")
    if torch.cuda.is_initialized():
        faults.append(f"{name} has initialised CUDA")
    if torch.get_num_threads() != threads:
        faults.append(f"{name} has changed the number of threads")
print(json.dumps(faults))
"""


def import_in_fresh_interpreter(root: Path, modules: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", "-c", IMPORT_EVERYTHING, str(root), *modules],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=patience(240),
        # or pydantic reads every installed package's entry points where the first model is defined
        env=os.environ | {"PYDANTIC_DISABLE_PLUGINS": "__all__"},
    )


def test_importing_does_nothing() -> None:
    modules = [module for _, module, _ in house_files() if unit_of(module) not in ("app", "pages")]
    result = import_in_fresh_interpreter(ROOT, modules)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os\nopen(os.devnull).close()", "opens"),
        ("import pathlib\npathlib.Path(__file__).with_suffix('.log').write_text('x')", "opens"),
        ("import torch\nDEVICE = torch.device('cpu')", "global device"),
        ("import torch\nNET = torch.nn.Linear(1, 1)", "global Linear"),
        ("import argparse\nargparse.ArgumentParser().parse_args()", "--no-such-option"),
    ],
)
def test_an_import_that_does_something_is_seen(tmp_path: Path, source: str, expected: str) -> None:
    (tmp_path / "sdviz").mkdir()
    (tmp_path / "sdviz" / "__init__.py").touch()
    (tmp_path / "sdviz" / "busy.py").write_text(source, encoding="utf-8")
    result = import_in_fresh_interpreter(tmp_path, ["sdviz", "sdviz.busy"])
    assert expected in result.stdout + result.stderr
