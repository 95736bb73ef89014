"""The command line: python -m sdviz ...

Slow imports are inside the commands, so that --help answers at once.
"""

from . import benches, bundles, check, clusters, imports, runs  # noqa: F401 - they add their commands to the app
from .common import app

__all__ = ["app", "main"]


def main() -> None:
    """Runs the command line."""
    app()
