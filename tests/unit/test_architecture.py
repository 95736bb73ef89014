"""The rules for the whole package: which way imports run, that importing does nothing, where tests stand."""

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
UNIT = ROOT / "tests" / "unit"

# A unit is a module or sub-package directly under sdviz, a deeper module with a rank of its own, or one of the
# scripts around it. It may import its own modules and units of a lower rank, nothing else of the house.
RANKS = {
    "sdviz": 0,  # the package itself: a version, and no import
    "sdviz.files": 0,
    "sdviz.registry": 0,
    "sdviz.table_files": 1,
    "sdviz.text": 0,
    "sdviz.config.nodes": 1,
    "sdviz.data": 2,
    "sdviz.nn": 2,
    "sdviz.diffusion": 3,
    "sdviz.detection": 3,
    "sdviz.scan": 4,
    "sdviz.baselines": 4,
    "sdviz.outliers": 4,
    "sdviz.config": 5,  # the whole tree, built from the registries of solvers and methods, and its reading
    "sdviz.evaluation": 6,
    "sdviz.projection": 6,
    "sdviz.bundle": 7,
    "sdviz.pipeline": 8,
    "sdviz.runs": 9,
    "sdviz.analysis": 10,
    "sdviz.cli": 11,
    "sdviz.ui": 11,
    "sdviz.__main__": 12,
    "app": 12,
    "pages": 12,
    "bench": 13,
    "tests": 13,
}
MAY_IMPORT_STREAMLIT = {"app", "pages", "sdviz.ui"}
MAY_IMPORT_PAGES = {"sdviz.ui.preload"}  # opens the first pages at the server's start

MAX_LINES, MAX_MODULES = 450, 20


def unit_of(module: str) -> str:
    """The unit that a dotted module name belongs to: outside the house its first part."""
    parts = module.split(".")
    if parts[0] != "sdviz":
        return parts[0]
    own = ".".join(parts[:3])
    return own if own in RANKS else ".".join(parts[:2])


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


# The parts of sdviz/ui that are a page each. What two pages need stands in a module of sdviz/ui itself.
PAGES = {"embeddings", "failures", "home", "lab", "pseudo_labels", "results", "sample_votes", "training"}


def page_of(module: str) -> str:
    """The page that a module of sdviz/ui belongs to, "" where it is none's."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["sdviz", "ui"] and len(parts) > 2 and parts[2] in PAGES else ""


def imports_of_other_pages(source: str, module: str, is_package: bool = False) -> list[str]:
    """What a module of one page, or one that all pages share, imports of another page; one line each."""
    if not module.startswith("sdviz.ui.") or module in MAY_IMPORT_PAGES:
        return []
    own = page_of(module)
    return [
        f"{module}:{line} imports {name}, of another page"
        for line, name in imported_modules(ast.parse(source), module, is_package)
        if page_of(name) not in ("", own)
    ]


def imports_at_once(tree: ast.AST) -> Iterator[ast.stmt]:
    """The import statements that run when the module is imported: none of a function, none for types only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports_at_once(ast.Module(node.orelse, []))
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports_at_once(node)


def import_graph(sources: dict[str, tuple[str, bool]]) -> dict[str, set[str]]:
    """Which module imports which, of those given as name -> (text, is a package).

    `from a import b` is an import of the module a.b where there is one, else of a.
    """
    graph: dict[str, set[str]] = {}
    for module, (source, is_package) in sources.items():
        body = ast.Module(list(imports_at_once(ast.parse(source))), [])
        names = {name for _, name in imported_modules(body, module, is_package)}
        graph[module] = {
            name if name in sources else name.rpartition(".")[0]
            for name in names
            if name in sources or name.rpartition(".")[0] in sources
        } - {module}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """A circle of imports, first module last again, from each module at which a walk meets one."""
    found, done = [], set[str]()

    def walk(module: str, way: list[str]) -> None:
        if module in way:
            found.append([*way[way.index(module) :], module])
        elif module not in done:
            for target in sorted(graph[module]):
                walk(target, [*way, module])
            done.add(module)

    for module in sorted(graph):
        walk(module, [])
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
        ("sdviz.nn.unet", "import sdviz.data.sources.shapes"),
        ("sdviz.nn.unet", "from .. import data"),
        ("sdviz.nn.unet", "from ..data.imageset import ImageSet"),
        ("sdviz.data.sources.shapes", "from sdviz import nn as networks"),
        ("sdviz.config.nodes", "from .. import data"),
        ("sdviz.config.nodes", "from ..data import load"),
        ("sdviz.config.nodes", "from .tree import RunConfig"),
        ("sdviz.config.nodes", "from . import reading"),
        ("sdviz.config.tree", "from ..evaluation import tables"),
        ("sdviz.baselines.interface", "from ..config.tree import RunConfig"),
        ("sdviz.baselines.interface", "from ..config import tree"),
        ("sdviz.baselines", "from .config.reading import load_config"),
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
            "import torch\nfrom ..config.nodes import UNetConfig\nfrom .device import x",
        ),
        ("sdviz.data", True, "from .imageset import ImageSet\nfrom . import shapes"),
        ("sdviz.data.sources.shapes", False, "from . import imageset\nfrom sdviz.config.nodes import Node"),
        ("sdviz.config.tree", False, "from ..baselines import BASELINES\nfrom .nodes import Node"),
        ("sdviz.evaluation.sets", False, "from ..config.tree import ScoreConfig\nfrom ..config import nodes"),
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


def test_no_page_imports_another() -> None:
    files = house_files()
    pages = {page_of(module) for _, module, _ in files} - {""}
    assert pages == PAGES
    found = [
        v for path, module, pkg in files for v in imports_of_other_pages(path.read_text("utf-8"), module, pkg)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("sdviz.ui.lab.page", "from sdviz.ui.results.state import offer_table"),
        ("sdviz.ui.lab.page", "from sdviz.ui import home"),
        ("sdviz.ui.home", "from sdviz.ui.lab.page import first_view"),
        ("sdviz.ui.embeddings.state", "def late():\n    import sdviz.ui.sample_votes.state"),
        ("sdviz.ui.text", "from .training.state import attempt"),
        ("sdviz.ui.cache", "from sdviz.ui.lab.sources import SourceImage"),
    ],
)
def test_an_import_of_another_page_is_seen(module: str, source: str) -> None:
    assert len(imports_of_other_pages(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("sdviz.ui.lab.page", "from sdviz.ui.lab.sources import SourceImage\nfrom sdviz.ui.text import plain"),
        ("sdviz.ui.home", "from sdviz.ui.page import PageContext\nimport sdviz.data"),
        (
            "sdviz.ui.preload",
            "from sdviz.ui.home import x\nfrom sdviz.ui.lab.page import y",
        ),
        ("pages.1_Outlier_lab", "from sdviz.ui.lab.page import show_lab"),
    ],
)
def test_an_import_within_a_page_or_of_what_all_share_passes(module: str, source: str) -> None:
    assert imports_of_other_pages(source, module) == []


def test_no_circle_of_imports() -> None:
    sources = {module: (path.read_text("utf-8"), pkg) for path, module, pkg in house_files()}
    graph = import_graph(sources)
    assert "sdviz.ui.links" in graph["sdviz.ui.page"]
    assert not circles(graph), "\n".join(" > ".join(one) for one in circles(graph))


@pytest.mark.parametrize(
    "sources",
    [
        {"s": "from s import a", "s.a": "from s import b", "s.b": "import s.a"},
        {"s": "", "s.a": "from .b import x", "s.b": "from .c import x", "s.c": "from . import a"},
        {"s": "from .a import x", "s.a": "from s import y"},
        {
            "s": "",
            "s.a": "class A:\n    from .b import x",
            "s.b": "try:\n    from . import a\nexcept ImportError:\n    a = 0",
        },
    ],
)
def test_a_circle_is_seen(sources: dict[str, str]) -> None:
    assert circles(import_graph({name: (text, name == "s") for name, text in sources.items()}))


@pytest.mark.parametrize(
    "sources",
    [
        {"s": "from .a import x", "s.a": "from .b import x", "s.b": "from numpy import x"},
        {"s": "", "s.a": "from .b import x", "s.b": "def late():\n    from .a import x"},
        {"s": "", "s.a": "from .b import x", "s.b": "if TYPE_CHECKING:\n    from .a import x"},
        {"s": "", "s.a": "from .b import x\nfrom .c import x", "s.b": "from .c import x", "s.c": "import s"},
    ],
)
def test_what_is_no_circle_passes(sources: dict[str, str]) -> None:
    assert circles(import_graph({name: (text, name == "s") for name, text in sources.items()})) == []


# What keeps a value between calls, or starts a thread: ui's cache does both for all pages
CACHING = {"cache_data", "cache_resource", "lru_cache", "cache", "cached"}
THREADS = {"Thread", "Timer", "ThreadPoolExecutor", "ProcessPoolExecutor", "to_thread", "run_in_executor"}


# Modules outside ui that keep values of a process, or start a thread
KEEPING = {
    "sdviz.analysis.same_images",
    "sdviz.data.sources.digits",
    "sdviz.data.sources.shapes",
    "sdviz.nn.device",
    "sdviz.runs.control",
}


def caching_outside_the_cache(source: str, module: str) -> list[str]:
    """Where a module, but for ui.cache and `KEEPING`, keeps values or starts threads; one line each."""
    if module.startswith("sdviz.ui.cache") or module in KEEPING:
        return []
    found = []
    for node in ast.walk(ast.parse(source)):
        names: set[str] = set()
        if isinstance(node, ast.Attribute):
            names = {node.attr}
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("sdviz"):
            names = {alias.name for alias in node.names}
        for name in sorted(names & (CACHING | THREADS)):
            found.append(f"{module}:{node.lineno} has {name}: that is for sdviz/ui/cache")
    return found


def test_only_the_cache_keeps_values_and_starts_threads() -> None:
    found = [
        v
        for path, module, _ in house_files()
        for v in caching_outside_the_cache(path.read_text("utf-8"), module)
    ]
    assert not found, "\n".join(found)
    assert {module for _, module, _ in house_files()} >= KEEPING


@pytest.mark.parametrize(
    "source",
    [
        "import streamlit as st\n@st.cache_data(max_entries=2)\ndef f():\n    pass",
        "import streamlit as st\n@st.cache_resource\ndef f():\n    pass",
        "from streamlit import cache_data",
        "from functools import lru_cache",
        "import functools\n@functools.cache\ndef f():\n    pass",
        "import threading\ndef f():\n    threading.Thread(target=print).start()",
        "def f():\n    from threading import Timer",
        "from concurrent.futures import ThreadPoolExecutor as Pool",
        "import asyncio\nasync def f():\n    asyncio.get_running_loop().run_in_executor(None, print)",
    ],
)
def test_caching_and_threads_of_a_page_are_seen(source: str) -> None:
    (message,) = caching_outside_the_cache(source, "sdviz.ui.lab.page")
    assert "that is for sdviz/ui/cache" in message
    assert caching_outside_the_cache(source, "sdviz.ui.cache.kept") == []
    assert len(caching_outside_the_cache(source, "sdviz.data.parquet")) == 1
    assert caching_outside_the_cache(source, "sdviz.runs.control") == []


def test_what_a_page_may_have_passes() -> None:
    source = "from functools import cached_property\nfrom sdviz.ui import cache\nfrom threading import Lock"
    assert caching_outside_the_cache(source, "sdviz.ui.lab.page") == []


def test_no_module_is_too_long() -> None:
    long = {
        str(path.relative_to(ROOT))
        for path in ROOT.glob("sdviz/**/*.py")
        if len(path.read_text("utf-8").splitlines()) > MAX_LINES
    }
    assert not long


def test_no_folder_holds_too_many_modules() -> None:
    folders = {path.parent for path in ROOT.glob("sdviz/**/*.py")}
    full = {str(one.relative_to(ROOT)) for one in folders if len(list(one.glob("*.py"))) > MAX_MODULES}
    assert not full


# Tests of several packages at once, or of the documents
WHOLE_HOUSE = {"test_architecture.py", "test_docs.py", "test_fuzz.py", "test_new_files.py"}


def without_module(test: str) -> bool:
    """Whether the package lacks the module `a/X.py` or package `a/X` of a test file `a/test_X.py`."""
    module = ROOT / "sdviz" / Path(test).with_name(Path(test).name.removeprefix("test_"))
    return not (module.is_file() or (module.with_suffix("") / "__init__.py").is_file())


def without_test(module: str, source: str) -> bool:
    """Whether a module `a/X.py` or package `a/X/__init__.py` has functions and no test file `a/test_X.py`."""
    path = Path(module)
    one = path.parent if path.name == "__init__.py" else path.with_suffix("")
    has_functions = any(isinstance(node, ast.FunctionDef) for node in ast.walk(ast.parse(source)))
    return has_functions and not (UNIT / one.parent / f"test_{one.name}.py").is_file()


def test_each_unit_test_has_its_module() -> None:
    tests = {str(path.relative_to(UNIT)) for path in UNIT.rglob("test_*.py")} - WHOLE_HOUSE
    assert not sorted(filter(without_module, tests))
    folders = {path.parent.relative_to(UNIT) for path in UNIT.rglob("*.py")}
    assert not [one for one in folders if not (ROOT / "sdviz" / one / "__init__.py").is_file()]


def test_each_module_with_functions_has_its_unit_test() -> None:
    """Outside ui, whose pages are tested in tests/app and tests/browser."""
    modules = [path.relative_to(ROOT / "sdviz") for path in (ROOT / "sdviz").rglob("*.py")]
    ours = [one for one in modules if one.parts[0] != "ui"]
    assert len(ours) > 100
    assert not sorted(
        str(one) for one in ours if without_test(str(one), (ROOT / "sdviz" / one).read_text("utf-8"))
    )


@pytest.mark.parametrize("test", ["test_unet.py", "nn/test_unets.py", "networks/test_unet.py", "nn/test_nn.py"])
def test_a_unit_test_without_its_module_is_seen(test: str) -> None:
    assert without_module(test)
    assert not any(map(without_module, ("nn/test_unet.py", "test_files.py", "diffusion/test_samplers.py")))


@pytest.mark.parametrize("module", ["unet.py", "nn/unets.py", "networks/unet.py", "nn/__init__.py"])
def test_a_module_without_its_unit_test_is_seen(module: str) -> None:
    source = "class A:\n    def f(self):\n        pass"
    assert without_test(module, source) and not without_test(module, "class A:\n    x: int = 3")
    assert not any(without_test(one, source) for one in ("nn/unet.py", "files.py", "data/__init__.py"))


# Runs in a fresh interpreter. An audit hook sees every open(); whose doing it was is decided by the innermost
# frame that is ours, or a module body of another package, or the import system itself.
IMPORT_EVERYTHING = """
import importlib, json, os, sys
import torch
root, modules = sys.argv[1], sys.argv[2:]
package = os.path.join(root, "sdviz") + os.sep
sys.argv = ["import-test", "--no-such-option"]
threads = 3
torch.set_num_threads(threads)
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
try:
    for name in modules:
        module = importlib.import_module(name)
        for key, value in vars(module).items():
            if isinstance(value, (torch.Tensor, torch.nn.Module, torch.device, torch.Generator)):
                faults.append(f"{name}.{key} is a global {type(value).__name__}")
        if torch.cuda.is_initialized():
            faults.append(f"{name} has initialised CUDA")
        if torch.get_num_threads() != threads:
            faults.append(f"{name} has changed the number of threads")
finally:
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


# The last one ends the interpreter.
BUSY = {
    "opens": "import os\nopen(os.devnull).close()",
    "writes": "import pathlib\npathlib.Path(__file__).with_suffix('.log').write_text('x')",
    "device": "import torch\nDEVICE = torch.device('cpu')",
    "network": "import torch\nNET = torch.nn.Linear(1, 1)",
    "arguments": "import argparse\nargparse.ArgumentParser().parse_args()",
}


@pytest.fixture(scope="module")
def seen_of_busy_modules(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What importing them says, in one interpreter, which takes seconds to import torch."""
    root = tmp_path_factory.mktemp("busy")
    (root / "sdviz").mkdir()
    (root / "sdviz" / "__init__.py").touch()
    for name, source in BUSY.items():
        (root / "sdviz" / f"{name}.py").write_text(source, encoding="utf-8")
    result = import_in_fresh_interpreter(root, ["sdviz", *(f"sdviz.{name}" for name in BUSY)])
    return result.stdout + result.stderr


@pytest.mark.parametrize(
    "expected",
    [
        f"opens.py:2 opens {os.devnull}",
        "writes.py:2 opens ",
        "sdviz.device.DEVICE is a global device",
        "sdviz.network.NET is a global Linear",
        "--no-such-option",
    ],
)
def test_an_import_that_does_something_is_seen(seen_of_busy_modules: str, expected: str) -> None:
    assert expected in seen_of_busy_modules
