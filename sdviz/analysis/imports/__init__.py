"""Others' scores and features of a bundle's images: read from a file, measured, kept, and shown beside ours."""

from .reading import ImportProblem
from .store import Imported, ImportFile, add_import, find_import, import_files, read_features, read_import

__all__ = [
    "ImportFile",
    "ImportProblem",
    "Imported",
    "add_import",
    "find_import",
    "import_files",
    "read_features",
    "read_import",
]
