"""What is known of a finished shard before a manifest names it (floor 3): one small file for each."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.store.entries import FileEntry, ShardEntry

__all__ = ["JournalEntry", "read_sound"]


@dataclass(frozen=True)
class JournalEntry:
    """A finished shard and what was learnt on the way.

    Attributes
    ----------
    shard : ShardEntry or None
        None for work that left no cells.
    facts : mapping
        Plain data, and
    arrays : mapping
        arrays that who writes the store needs at its end.
    """

    shard: ShardEntry | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Files of the shard."""
        return self.shard.files if self.shard else ()

    def pack(self) -> bytes:
        """Return the entry as an npz file."""
        buffer = io.BytesIO()
        text = json.dumps({"shard": asdict(self.shard) if self.shard else None, "facts": self.facts})
        arrays: dict[str, Any] = {f"array_{name}": value for name, value in self.arrays.items()}
        np.savez(buffer, text=np.array(text), **arrays)
        return buffer.getvalue()

    @classmethod
    def unpack(cls, path: Path) -> JournalEntry:
        """Read an entry back."""
        with np.load(path, allow_pickle=False) as archive:
            body: dict[str, Any] = json.loads(str(archive["text"]))
            arrays = {name.removeprefix("array_"): archive[name] for name in archive.files if name != "text"}
        shard = body["shard"]
        if shard is None:
            return cls(None, body["facts"], arrays)
        shard |= {key: FileEntry(**shard[key]) for key in ("cells", "obs", "uids")}
        return cls(ShardEntry(**shard), body["facts"], arrays)


def read_sound(entry_file: Path, folder: Path) -> JournalEntry | None:
    """Return an entry, or None when it, or a file in `folder` that it names, is not what was written."""
    try:
        entry = JournalEntry.unpack(entry_file)
        sound = all((folder / file.path).stat().st_size == file.bytes for file in entry.files)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None
    return entry if sound else None
