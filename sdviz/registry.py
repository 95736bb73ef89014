"""Finds the modules of a package, so that a new file needs no registration."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def modules_of(package: str) -> list[ModuleType]:
    """Imports every module of a package and of its sub-packages.

    Args:
        package: Its dotted name, as `__name__` in its `__init__.py`.

    Returns:
        The modules sorted by dotted name, without packages and names that begin with "_".
    """
    found = []
    for one in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        if one.name.rpartition(".")[2].startswith("_"):
            continue
        found += modules_of(one.name) if one.ispkg else [importlib.import_module(one.name)]
    return sorted(found, key=lambda module: module.__name__)
