"""Others' scores and features of a bundle's images, as the command import keeps them."""

from sdviz.analysis import Evidence
from sdviz.analysis.imports import Imported, ImportFile, ImportProblem, import_files, read_import
from sdviz.ui.cache.kept import kept


@kept("imports")
def _read(evidence: Evidence, files: tuple[ImportFile, ...]) -> tuple[dict[ImportFile, Imported], list[str]]:
    found, problems = dict[ImportFile, Imported](), list[str]()
    for file in files:
        try:
            found[file] = read_import(file)
        except ImportProblem as error:
            problems.append(str(error))
    return found, problems


def imports_of(evidence: Evidence) -> dict[ImportFile, Imported]:
    """Returns the imports of a bundle; those that cannot be read are left out."""
    return _read(evidence, import_files(evidence.bundle.hash))[0]


def import_problems(evidence: Evidence) -> list[str]:
    """Returns one line for each import that cannot be read."""
    return _read(evidence, import_files(evidence.bundle.hash))[1]
