"""Finished shards that have no number yet (floor 3): written by any process that sees the folder, put in order by one.

A task writes its shards as pieces under its own key, each in a folder of the process that writes it, and moves what
is finished to its place: the files of a shard first, then its entry in the journal, from which on it counts. Two
processes that carry out the same task write the same bytes under the same names, so that either may be last.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cellmill.storage import sync_folder, write_atomic
from cellmill.store.entries import ShardEntry
from cellmill.store.journal import JournalEntry, read_sound

__all__ = ["Pieces"]

_ENDINGS = {"cells": "cells", "obs": "parquet", "uids": "uids"}
_PLACES = {"cells": "shards", "obs": "obs", "uids": "obs"}


class Pieces:
    """The pieces of a store that is being made in the folder `place`.

    Parameters
    ----------
    place
        The folder of `Staging`; all processes that take part see it under some path.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.folder = place / "pieces"
        self._store = place / "store"
        self._journal = place / "journal"
        self._desks = place / "desks"
        self._assembly = place / "assembly"

    def open(self) -> None:
        """Make the folders that are missing."""
        for folder in (self.folder, self._journal, self._desks):
            folder.mkdir(exist_ok=True)
        for name in ("shards", "obs", "reports"):
            (self._store / name).mkdir(parents=True, exist_ok=True)

    def tidy(self, keys: Collection[str]) -> None:
        """Keep sound pieces of the tasks `keys` and remove all else; only while no other process writes here."""
        self.open()
        self._take_apart()
        for file in [path for path in self._store.rglob("*") if path.is_file()]:
            file.unlink()  # what the end of a build writes anew
        for desk in self._desks.iterdir():
            shutil.rmtree(desk)
        known = {file.path for key in set(keys) for entry in self._kept(key) for file in entry.files}
        wanted = set(keys)
        for file in self._entry_files():
            if file.name[:32] not in wanted:
                file.unlink()
        for file in self.folder.iterdir():
            if f"pieces/{file.name}" not in known:
                file.unlink()

    def _entry_files(self) -> list[Path]:
        return sorted(file for file in self._journal.glob("*.npz") if not file.name.startswith("."))

    def _kept(self, key: str) -> list[JournalEntry]:
        """Entries of a task up to the first that is not sound; that one and all that follow are removed."""
        entries = self.finished(key)
        number = len(entries)
        while (file := self._entry_file(key, number)).exists():
            file.unlink()
            number += 1
        return entries

    def _entry_file(self, key: str, number: int) -> Path:
        return self._journal / f"{key}-{number:05d}.npz"

    def finished(self, key: str) -> list[JournalEntry]:
        """Return what is finished of a task, in order; ends before the first piece that is not whole."""
        entries: list[JournalEntry] = []
        while (file := self._entry_file(key, len(entries))).exists():
            entry = read_sound(file, self.place)
            if entry is None:
                break
            entries.append(entry)
        return entries

    @contextmanager
    def desk(self) -> Iterator[Path]:
        """Make a folder of this process's own for unfinished files; removed at the end."""
        folder = self._desks / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        folder.mkdir()  # and not its parents: when they are gone, so is the store for which this works
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(self, desk: Path, key: str, number: int, entry: JournalEntry) -> None:
        """Move the files of a finished shard from a desk to their place, and record it: from now on it counts.

        Parameters
        ----------
        entry
            Paths of its files are relative to `desk`.
        """
        name = f"{key}-{number:05d}"
        shard = entry.shard
        if shard is not None:
            places = {kind: f"pieces/{name}.{ending}" for kind, ending in _ENDINGS.items()}
            for kind, path in places.items():
                (desk / getattr(shard, kind).path).replace(self.place / path)
            sync_folder(self.folder)
            shard = _moved(shard, places)
        write_atomic(self._entry_file(key, number), replace(entry, shard=shard).pack())

    def note(self, name: str, facts: dict[str, Any]) -> None:
        """Keep plain facts beside the journal under a name, in the place of those that are there."""
        write_atomic(self._journal / f"{name}.json", json.dumps(facts).encode())

    def noted(self, name: str) -> dict[str, Any] | None:
        """Return facts that were kept under a name, None where there are none."""
        try:
            facts: dict[str, Any] = json.loads((self._journal / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            return None
        return facts

    def forget_note(self, name: str) -> None:
        """Remove facts that hold no more."""
        (self._journal / f"{name}.json").unlink(missing_ok=True)

    def assemble(self, pieces: Sequence[ShardEntry], *, first: int) -> list[ShardEntry]:
        """Put pieces into the store in the given order, numbered from `first`; returns their entries there.

        Which piece gets which number is written down before the first is moved, so that `tidy` can take an assembly
        apart that was not the end.
        """
        placed = [_moved(shard, _numbered(first + i)) for i, shard in enumerate(pieces)]
        moves = [
            (old.path, f"store/{new.path}")
            for before, after in zip(pieces, placed, strict=True)
            for old, new in zip(before.files, after.files, strict=True)
        ]
        write_atomic(self._assembly, json.dumps(moves).encode())
        for old, new in moves:
            (self.place / old).replace(self.place / new)
        for name in set(_PLACES.values()):
            sync_folder(self._store / name)
        return placed

    def _take_apart(self) -> None:
        if not self._assembly.exists():
            return
        for old, new in json.loads(self._assembly.read_bytes()):
            piece, placed = self.place / old, self.place / new
            if placed.exists() and not piece.exists():
                placed.replace(piece)
        self._assembly.unlink()


def _numbered(number: int) -> dict[str, str]:
    return {kind: f"{_PLACES[kind]}/{number:05d}.{ending}" for kind, ending in _ENDINGS.items()}


def _moved(shard: ShardEntry, places: dict[str, str]) -> ShardEntry:
    cells, obs, uids = (replace(getattr(shard, kind), path=places[kind]) for kind in ("cells", "obs", "uids"))
    return replace(shard, cells=cells, obs=obs, uids=uids)
