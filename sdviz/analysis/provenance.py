"""The provenance that every figure and table carries: bundle, configuration, settings, versions."""

from collections.abc import Mapping

from ..bundle import Bundle
from ..text import tree_hash

SHOWN_VERSIONS = ("sdviz", "torch", "diffusers", "numpy", "python")


def provenance(bundle: Bundle, **settings: object) -> dict[str, str]:
    """Describes a figure's origin by name and value; settings that are None are left out."""
    m = bundle.manifest
    lines = {
        "bundle": bundle.path.name if bundle.path else "in memory",
        "bundle hash": bundle.hash,
        "trained on": f"{m.dataset}, {m.n_clusters} clusters, labels from {m.labels_from}",
    }
    if m.config:
        # the same as in report.json
        lines["configuration"] = tree_hash(m.config)
        lines["seeds"] = _seeds(m.config)
    lines |= {name: str(value) for name, value in settings.items() if value is not None}
    versions = {k: v for k, v in m.versions.items() if k in SHOWN_VERSIONS}
    lines["versions"] = ", ".join(f"{k} {v}" for k, v in versions.items())
    return lines


def footer(lines: Mapping[str, str]) -> str:
    """The provenance in one line for the foot of a picture, with hashes of 12 digits."""
    return "; ".join(f"{k} {v[:12] if 'hash' in k or k == 'configuration' else v}" for k, v in lines.items())


def _seeds(config: Mapping[str, object]) -> str:
    found = {"run": config.get("seed")}
    for stage, part in config.items():
        if isinstance(part, Mapping) and "seed" in part:
            found[stage] = part["seed"]
    return ", ".join(f"{stage} {seed}" for stage, seed in found.items() if seed is not None)
