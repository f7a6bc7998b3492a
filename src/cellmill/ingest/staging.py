"""The folder in which a store is made (floor 4): what is finished is journalled, so that a killed build goes on.

The folder lies beside the store to be, `.NAME.building`; it holds the store so far in `store/`, and in `journal/` one
entry for each finished shard. A store appears under its own name only when all is there, by renaming `store/`.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.storage import exchange_folders, exclusive_lock, hash_file, sync_folder, write_atomic
from cellmill.store.manifest import MANIFEST_NAME, FileEntry, ShardEntry

__all__ = ["JournalEntry", "Staging"]


@dataclass(frozen=True)
class JournalEntry:
    """A finished shard and what was learnt on the way.

    Attributes
    ----------
    source : int
        Number of the input in the plan.
    stop : int
        Rows of the input done after this shard.
    detected : int64, shape (n_store_genes,)
        Cells of the shard in which each gene is detected.
    umi : float64, shape (n_source_genes,)
        Sum of counts of each gene of the input in the shard.
    largest : int
        Largest count of the shard.
    merged : int
        Entries of the shard's cells that named a gene of the same cell again, and were added to it.
    """

    source: int
    stop: int
    shard: ShardEntry
    detected: npt.NDArray[np.int64]
    umi: npt.NDArray[np.float64]
    largest: int
    merged: int

    def pack(self) -> bytes:
        """Return the entry as an npz file."""
        shard = self.shard
        facts = {
            "source": self.source, "stop": self.stop, "largest": self.largest, "merged": self.merged,
            "cells": vars(shard.cells), "obs": vars(shard.obs), "uids": vars(shard.uids),
            "n_cells": shard.n_cells, "nnz": shard.nnz, "name": shard.source,
        }  # fmt: skip
        buffer = io.BytesIO()
        np.savez(buffer, facts=np.array(json.dumps(facts)), detected=self.detected, umi=self.umi)
        return buffer.getvalue()

    @classmethod
    def unpack(cls, path: Path) -> JournalEntry:
        """Read an entry back."""
        with np.load(path, allow_pickle=False) as archive:
            facts: dict[str, Any] = json.loads(str(archive["facts"]))
            detected, umi = archive["detected"], archive["umi"]
        shard = ShardEntry(
            cells=FileEntry(**facts["cells"]), obs=FileEntry(**facts["obs"]), uids=FileEntry(**facts["uids"]),
            n_cells=facts["n_cells"], nnz=facts["nnz"], source=facts["name"],
        )  # fmt: skip
        return cls(facts["source"], facts["stop"], shard, detected, umi, facts["largest"], facts["merged"])


class Staging:
    """The place where the store `target` is being made; use as `with Staging.locked(target) as staging`."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.place = self.folder_of(target)
        self.folder = self.place / "store"
        self._journal = self.place / "journal"
        self._key = self.place / "key"
        self._lock = self.place / "lock"
        self._retired = self.place / "retired"
        self._finished = self.place / "finished"
        self._publishing = self.place / "publishing"

    @staticmethod
    def folder_of(target: Path) -> Path:
        """Return where the store `target` is made."""
        return target.with_name(f".{target.name}.building")

    @classmethod
    @contextmanager
    def locked(cls, target: Path) -> Iterator[Staging]:
        """Hold the place for this process; another one gets StoreLockedError."""
        staging = cls(target)
        with exclusive_lock(staging._lock, what=f"the store {target}"):
            staging._recover()
            try:
                yield staging
            finally:
                # published, or left by an error before any work was finished: nothing worth keeping
                if not any(staging._journal.glob("*.npz")):
                    shutil.rmtree(staging.place)

    def _recover(self) -> None:
        """Find out how far a publishing came that was interrupted, and undo what was not its last step."""
        if self._retired.exists():
            if self.target.exists():
                shutil.rmtree(self._retired)
            else:
                self._retired.replace(self.target)
        if self._finished.exists():
            manifest = self._finished / MANIFEST_NAME
            if manifest.exists() and hash_file(manifest) == self._publishing.read_text():
                self._finished.replace(self.folder)
            else:  # the old store, after the exchange
                shutil.rmtree(self._finished)

    def prepare(self, key: str) -> list[JournalEntry]:
        """Make the place ready for the build `key`; returns what an interrupted build of the same key had finished."""
        if not self._key.exists() or self._key.read_text() != key:
            self._clear()
            write_atomic(self._key, key.encode())
        self._journal.mkdir(exist_ok=True)
        for name in ("shards", "obs", "reports"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._keep_sound_entries()
        entries = self.entries()
        known = {Path(file.path).name for entry in entries for file in entry.shard.files}
        for file in [*(self.folder / "shards").iterdir(), *(self.folder / "obs").iterdir()]:
            if file.name not in known:
                file.unlink()  # half a shard, or one whose journal entry was not written
        return entries

    def _keep_sound_entries(self) -> None:
        """Forget the first entry that is not what was written, or whose files are not, and all that follow it."""
        sound = True
        for number, file in enumerate(self._entry_files()):
            sound = sound and file.stem == f"{number:05d}" and self._is_sound(file)
            if not sound:
                file.unlink()

    def _is_sound(self, file: Path) -> bool:
        try:
            shard = JournalEntry.unpack(file).shard
            return all((self.folder / e.path).stat().st_size == e.bytes for e in shard.files)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            return False

    def _entry_files(self) -> list[Path]:
        return sorted(file for file in self._journal.glob("*.npz") if not file.name.startswith("."))

    @property
    def n_entries(self) -> int:
        """Finished shards so far."""
        return len(self._entry_files())

    def entries(self) -> list[JournalEntry]:
        """Return the journal, in order."""
        return [JournalEntry.unpack(file) for file in self._entry_files()]

    def record(self, number: int, entry: JournalEntry) -> None:
        """Write the journal entry of shard `number`: from now on it counts as finished."""
        write_atomic(self._journal / f"{number:05d}.npz", entry.pack())

    def forget_source(self, source: int) -> None:
        """Remove the shards of an input that turned out not to be usable."""
        for file, entry in zip(self._entry_files(), self.entries(), strict=True):
            if entry.source == source:
                file.unlink()
                for named in entry.shard.files:
                    (self.folder / named.path).unlink()

    def publish(self) -> None:
        """Give the finished store its name, in the place of a store that lies there.

        Until the rename everything is kept, so that a process killed anywhere in here leaves the old store or the new
        one, and the next call concludes.
        """
        sync_folder(self.folder)
        if self.target.exists():
            write_atomic(self._publishing, hash_file(self.folder / MANIFEST_NAME).encode())
            self.folder.replace(self._finished)
            exchange_folders(self._finished, self.target, by_way_of=self._retired)
        else:
            self.folder.replace(self.target)
        sync_folder(self.target.parent)
        self._clear()

    def _clear(self) -> None:
        """Remove all but the lock, the journal first: what it names must not be missed."""
        for entry in sorted(self.place.iterdir(), key=lambda path: path != self._journal):
            if entry == self._lock:
                continue
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
