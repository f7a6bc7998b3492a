"""Damages one file of a store in every way of a kind and says, as JSON, what readers made of it; run by a test.

python every_bit.py STORE KIND PATH        KIND: bits, truncations, or some: every ninth bit
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cellmill.errors import CellmillError
from cellmill.storage import hash_file
from cellmill.store import Manifest, Store


def damaged(whole: bytes, kind: str) -> Iterator[bytes]:
    if kind == "truncations":
        yield from (whole[:length] for length in range(len(whole)))
        return
    for bit in range(8 * len(whole)) if kind == "bits" else range(0, 8 * len(whole), 9):
        changed = bytearray(whole)
        changed[bit >> 3] ^= 1 << (bit & 7)
        yield bytes(changed)


class Reader:
    """Reads what a file decides, each time as if the store were newly opened; what other files say is kept."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.manifest = Manifest.from_json((folder / "manifest.json").read_bytes(), where="manifest.json")
        self.kept = Store(folder, self.manifest)
        shards = self.manifest.shards
        firsts = np.concatenate([[0], np.cumsum(shards.n_cells)])
        of = [i for i, shard in enumerate(shards) if name in (shard.cells.path, shard.uids.path)] or [len(shards) - 1]
        self.rows = np.arange(firsts[of[0]], firsts[of[0] + 1])
        self.hashes = {file.path: file.xxh3 for shard in shards for file in shard.files}
        self.hashes |= {file.path: file.xxh3 for file in self.manifest.whole_files}
        self.read(None)

    def read(self, data: bytes | None) -> list[bytes]:
        """Return what is read with the file as it is now; `data` is what it holds."""
        if self.name == "manifest.json" and data is not None:
            Manifest.from_json(data, where="manifest.json")
        store = Store(self.folder, self.manifest)
        store._unchanged = self.kept._unchanged
        for what, file in (("genes", self.manifest.genes), ("head_model", self.manifest.head)):
            if file is None or file.path != self.name:
                vars(store)[what] = getattr(self.kept, what)
        if self.name.endswith(".uids"):
            return [store.uids(self.rows).tobytes()]
        matrix = store.read(self.rows, threads=1)
        return [part.tobytes() for part in (matrix.indptr, matrix.indices, matrix.data)]

    def finds(self, *, whole: bool) -> bool:
        """Whether `verify` finds the damage: its first look alone, at the hash of the file, or all of it."""
        if not whole:
            return hash_file(self.folder / self.name) != self.hashes[self.name]
        return any(self.name in problem for problem in Store(self.folder, self.manifest).verify().problems)


def main() -> None:
    folder, kind, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    path = folder / name
    whole = path.read_bytes()
    reader = Reader(folder, name)
    sound = reader.read(whole)
    said: Counter[str] = Counter()
    problems = []
    for number, data in enumerate(damaged(whole, kind)):
        if name != "manifest.json":
            path.write_bytes(data)
        try:
            outcome = "same" if reader.read(data) == sound else "other"
        except CellmillError as error:
            outcome = "refused"
            if path.name not in str(error):
                problems.append(f"{kind} {number}: the error does not name {path.name}: {error}")
            if "cannot be decoded" in str(error) and "row " not in str(error):
                problems.append(f"{kind} {number}: the error names no row: {error}")
        said[outcome] += 1
        if name != "manifest.json" and not reader.finds(whole=number % 256 == 3):
            problems.append(f"{kind} {number}: {outcome}, and verify does not find it")
    path.write_bytes(whole)
    assert reader.read(whole) == sound and Store(folder, reader.manifest).verify().ok
    print(json.dumps({"said": said, "problems": problems}))


if __name__ == "__main__":
    main()
