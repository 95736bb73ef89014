"""Names that users give to clusters, kept by bundle in one file of the runs' folder."""

import json
from pathlib import Path

from filelock import FileLock, Timeout

from ..files import read_json, write_atomically
from ..text import LineError, one_line

FILE = "cluster_names.json"
MAX_LENGTH = 40
_WAIT_SEC = 5.0


class NamesError(LineError):
    """A name cannot be given; the message is one line."""


def read_names(file: Path, bundle_hash: str) -> dict[int, str]:
    """The names given to a bundle's clusters; empty if the file is missing or damaged."""
    try:
        return _of_bundle(_read(file), bundle_hash)
    except NamesError:
        return {}


def shown_names(usual: tuple[str, ...], given: dict[int, str]) -> tuple[str, ...]:
    """The name of each cluster: the given one, else the bundle's own."""
    return tuple(given.get(cluster, name) for cluster, name in enumerate(usual))


def rename(file: Path, bundle_hash: str, cluster: int, name: str, usual: tuple[str, ...]) -> tuple[str, ...]:
    """Gives a cluster a name; "" or the bundle's own name removes the given one.

    Writers take turns, and the file is replaced atomically.

    Args:
        file: Its folder is created if needed.
        cluster: 0..C-1.
        name: At most `MAX_LENGTH` characters; runs of white space become one space.
        usual: The bundle's own names, C of them.

    Returns:
        The names of all clusters, as `shown_names`.

    Raises:
        NamesError: The name is too long or taken, or the file is damaged or cannot be written.
    """
    name = one_line(name)
    if len(name) > MAX_LENGTH:
        raise NamesError(f"a name has at most {MAX_LENGTH} characters, this one has {len(name)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock"), timeout=_WAIT_SEC):
            everything = _read(file)
            given = _of_bundle(everything, bundle_hash)
            given.pop(cluster, None)
            name = name or usual[cluster]
            if name in [one for i, one in enumerate(shown_names(usual, given)) if i != cluster]:
                raise NamesError(f"another cluster is called {name!r} already")
            if name != usual[cluster]:
                given[cluster] = name
            everything[bundle_hash] = {str(one): given[one] for one in sorted(given)}
            if not given:
                del everything[bundle_hash]
            write_atomically(file, json.dumps(everything, indent=1, ensure_ascii=False) + "\n")
    except Timeout as error:
        raise NamesError(f"{file} is in use: try again") from error
    except OSError as error:
        raise NamesError(f"{file} cannot be written: {error.strerror or error}") from error
    return shown_names(usual, given)


def _read(file: Path) -> dict[str, object]:
    try:
        found = read_json(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise NamesError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise NamesError(f"{file} is damaged: mend or delete it") from error
    if not isinstance(found, dict):
        raise NamesError(f"{file} is damaged: mend or delete it")
    return found


def _of_bundle(everything: dict[str, object], bundle_hash: str) -> dict[int, str]:
    part = everything.get(bundle_hash)
    if not isinstance(part, dict):
        return {}
    return {int(k): v for k, v in part.items() if str(k).isdecimal() and isinstance(v, str) and v}
