"""Stores that must stay as they are (floor 3): evaluation sets are registered, and nobody changes them by mistake.

The mark lies beside the manifest, which does not name it: the store's digest is the same with it and without.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from cellmill.errors import ConfigError, InputError, StoreExistsError
from cellmill.storage import write_atomic
from cellmill.store.manifest import MANIFEST_NAME, Manifest

__all__ = ["Protection", "protect_store", "protection_of", "release_store", "require_unprotected"]

_NAME = "protected.json"


@dataclass(frozen=True)
class Protection:
    """What a store is registered as.

    Attributes
    ----------
    name : str
        Of the evaluation set.
    since : str
        When it was registered, ISO 8601 in UTC.
    digest : str
        Of the store at that time.
    n_cells : int
    """

    name: str
    since: str
    digest: str
    n_cells: int


def protect_store(path: str | Path, name: str = "") -> Protection:
    """Register a store as an evaluation set: build, append and merge refuse to change it, and plans name it.

    Parameters
    ----------
    path
        A store in a folder.
    name
        Of the set; that of the folder when empty.

    Raises
    ------
    InputError
        When it is no store, or is registered under another name already.
    """
    folder = Path(path)
    try:
        manifest = Manifest.from_json((folder / MANIFEST_NAME).read_bytes(), where=str(folder))
    except OSError:
        raise InputError(f"{folder}: there is no store here to protect") from None
    known = protection_of(folder)
    if known is not None:
        if name in ("", known.name):
            return known
        raise InputError(
            f"{folder}: it is protected as {known.name!r} since {known.since}; to register it anew: "
            f"cellmill protect {folder} --release"
        )
    made = Protection(
        name=name or folder.resolve().stem,
        since=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        digest=manifest.digest,
        n_cells=int(sum(manifest.shards.n_cells)),
    )
    write_atomic(folder / _NAME, (json.dumps(asdict(made), indent=2) + "\n").encode())
    return made


def release_store(path: str | Path) -> bool:
    """Take the protection of a store away; returns whether there was one."""
    try:
        (Path(path) / _NAME).unlink()
    except FileNotFoundError:
        return False
    return True


def protection_of(path: str | Path) -> Protection | None:
    """Return what a store is registered as, or None.

    Raises
    ------
    ConfigError
        When the mark is there and cannot be read: it protects all the same.
    """
    file = Path(path) / _NAME
    try:
        return Protection(**json.loads(file.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{file}: this mark of a protected store cannot be read ({error}). Remove it with: "
            f"cellmill protect {Path(path)} --release"
        ) from None


def require_unprotected(path: Path) -> None:
    """Check that a store may be changed or replaced.

    Raises
    ------
    StoreExistsError
        When it is protected.
    """
    known = protection_of(path)
    if known is not None:
        raise StoreExistsError(
            f"{path}: protected as the evaluation set {known.name!r} since {known.since}, so nothing is added to it or "
            f"written over it. Choose another name, or release it: cellmill protect {path} --release"
        )
