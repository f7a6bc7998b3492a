"""What is known of a finished shard before a manifest names it (floor 3): one small file for each."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.store.entries import FileEntry, ShardEntry

__all__ = ["JournalEntry", "read_sound"]


class _KeptArrays(Mapping[str, npt.NDArray[Any]]):
    """Arrays of an entry, in its file."""

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        self._path = path
        self._names = names

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self._names:
            raise KeyError(name)
        with np.load(self._path, allow_pickle=False) as archive:
            array: npt.NDArray[Any] = archive[f"array_{name}"]
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


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
        arrays that who writes the store needs at its end. Of an entry that was read back each is read from its file
        when it is asked for: ten thousand entries of 20,000 genes would hold gigabytes.
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
            names = [name.removeprefix("array_") for name in archive.files if name != "text"]
            for name in names:
                archive[f"array_{name}"]  # checked against its checksum, and let go
        arrays = _KeptArrays(path, tuple(names))
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
