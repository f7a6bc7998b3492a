"""The folder in which a store is made (floor 4): what is finished is journalled, so that a killed build goes on.

The folder lies beside the store to be, `.NAME.building`; it holds the shards and one journal entry for each. A store
appears under its own name only when all is there, by renaming the folder.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.storage import exclusive_lock, sync_folder, write_atomic
from cellmill.store.manifest import FileEntry, ShardEntry

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
            "cells": vars(shard.cells),
"obs": vars(shard.obs), "n_cells": shard.n_cells, "nnz": shard.nnz, "name": shard.source,
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
            cells=FileEntry(**facts["cells"]), obs=FileEntry(**facts["obs"]), n_cells=facts["n_cells"],
            nnz=facts["nnz"], source=facts["name"],
        )  # fmt: skip
        return cls(facts["source"], facts["stop"], shard, detected, umi, facts["largest"], facts["merged"])


class Staging:
    """The place where the store `target` is being made; use as `with Staging.locked(target) as staging`."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.folder = self.folder_of(target)

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
            try:
                yield staging
            finally:
                # left by an error before any work was finished: nothing worth keeping
                if staging.folder.exists() and not staging.entries():
                    shutil.rmtree(staging.folder)

    @property
    def _lock(self) -> Path:
        return self.folder / "lock"

    def prepare(self, key: str) -> list[JournalEntry]:
        """Make the place ready for the build `key`; returns what an interrupted build of the same key had finished."""
        key_file = self.folder / "key"
        if not key_file.exists() or key_file.read_text() != key:
            self._clear()
            write_atomic(key_file, key.encode())
        for name in ("shards", "obs", "reports", "journal"):
            (self.folder / name).mkdir(exist_ok=True)
        entries = self.entries()
        known = {Path(e.shard.cells.path).name for e in entries} | {Path(e.shard.obs.path).name for e in entries}
        for file in [*(self.folder / "shards").iterdir(), *(self.folder / "obs").iterdir()]:
            if file.name not in known:
                file.unlink()  # half a shard, or one whose journal entry was not written
        return entries

    def entries(self) -> list[JournalEntry]:
        """Return the journal, in order."""
        files = sorted((self.folder / "journal").glob("*.npz"))
        return [JournalEntry.unpack(file) for file in files if not file.name.startswith(".")]

    def record(self, number: int, entry: JournalEntry) -> None:
        """Write the journal entry of shard `number`: from now on it counts as finished."""
        write_atomic(self.folder / "journal" / f"{number:05d}.npz", entry.pack())

    def forget_source(self, source: int) -> None:
        """Remove the shards of an input that turned out not to be usable."""
        for file, entry in zip(sorted((self.folder / "journal").glob("*.npz")), self.entries(), strict=True):
            if entry.source == source:
                file.unlink()
                (self.folder / entry.shard.cells.path).unlink()
                (self.folder / entry.shard.obs.path).unlink()

    def publish(self, *, overwrite: bool) -> None:
        """Give the finished store its name."""
        shutil.rmtree(self.folder / "journal")
        (self.folder / "key").unlink()
        sync_folder(self.folder)
        retired = self.target.with_name(f".{self.target.name}.{os.getpid()}.old")
        if overwrite and self.target.exists():
            self.target.replace(retired)
        self._lock.unlink()
        self.folder.replace(self.target)
        sync_folder(self.target.parent)
        shutil.rmtree(retired, ignore_errors=True)

    def _clear(self) -> None:
        for entry in self.folder.iterdir():
            if entry == self._lock:
                continue
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
