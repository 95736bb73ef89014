"""Names that people give to clusters, by bundle: one file in the runs' folder; bundles stay as they are."""

import json
from pathlib import Path

from filelock import FileLock, Timeout

from ..files import write_atomically

FILE = "cluster_names.json"
MAX_LENGTH = 40
_WAIT_SEC = 5.0


class NamesError(ValueError):
    """A name that cannot be given; the message says why, in one line."""


def read_names(file: Path, bundle_hash: str) -> dict[int, str]:
    """The names given to a bundle's clusters in `cluster_names.json`; none without a sound file."""
    try:
        return _of_bundle(_read(file), bundle_hash)
    except NamesError:
        return {}


def shown_names(usual: tuple[str, ...], given: dict[int, str]) -> tuple[str, ...]:
    """A name for each cluster: the given one, else its usual one."""
    return tuple(given.get(cluster, name) for cluster, name in enumerate(usual))


def rename(file: Path, bundle_hash: str, cluster: int, name: str, usual: tuple[str, ...]) -> tuple[str, ...]:
    """Gives a cluster a name; "" or its usual name takes the given one back.

    The file is replaced whole, by one writer at a time.

    Args:
        file: As `read_names`; its folder is made where it is missing.
        cluster: 0..C-1.
        name: At most `MAX_LENGTH` characters; spaces at the ends and line breaks go.
        usual: The bundle's own names, C of them.

    Returns:
        All names of the bundle as they are now shown.

    Raises:
        NamesError: Too long, another cluster's name, a damaged file, or a folder that cannot be written.
    """
    name = " ".join(name.split())
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
        raise NamesError(f"{file} is held by somebody else: try again") from error
    except OSError as error:
        raise NamesError(f"{file} cannot be written: {error.strerror or error}") from error
    return shown_names(usual, given)


def _read(file: Path) -> dict[str, object]:
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise NamesError(f"{file} cannot be read: {error}") from error
    try:
        found = json.loads(text)
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
