from __future__ import annotations

from pathlib import Path

from sdviz.analysis import Evidence
from sdviz.analysis.provenance import footer, provenance
from sdviz.bundle import Bundle


def test_provenance_names_bundle_configuration_and_settings(evidence: Evidence) -> None:
    lines = provenance(evidence.bundle, k=10, alpha=None)
    assert lines["bundle hash"] == evidence.bundle.hash and lines["k"] == "10" and "alpha" not in lines
    assert len(lines["configuration"]) == 64
    assert evidence.bundle.hash[:12] in footer(lines) and evidence.bundle.hash not in footer(lines)


def test_configuration_hash_is_that_of_the_report() -> None:
    evidence = Evidence(Bundle.load(Path(__file__).parents[3] / "checkpoints" / "shapes", "cpu"))
    assert provenance(evidence.bundle)["configuration"] == evidence.report.config_sha256
