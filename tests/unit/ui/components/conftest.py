from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sdviz.ui.components import picture_grid, scatter, scrub_strip, stage_strip, threshold


class Sent(dict[str, Any]):
    """What a component was mounted with; itself the component, which answers with nothing."""

    def __call__(self, **given: Any) -> SimpleNamespace:  # noqa: ANN401
        self.update(given)
        return SimpleNamespace(clicked=None, selected=None, chosen=None)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    found = Sent()
    for module in (picture_grid, scatter, scrub_strip, stage_strip, threshold):
        monkeypatch.setattr(module, "component", lambda name: found)
    return found
