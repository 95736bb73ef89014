from __future__ import annotations

import pytest

from sdviz.analysis.pictures import without_wordnet_id


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("n09428293 seashore, coast", "seashore, coast"),
        ("n09428293", "n09428293"),
        ("cat", "cat"),
        ("n12 cat", "n12 cat"),
    ],
)
def test_a_class_name_is_readable_text(name: str, texts: str) -> None:
    assert without_wordnet_id(name) == texts
