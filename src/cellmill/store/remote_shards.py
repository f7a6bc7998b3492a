"""Shards behind a URL (floor 3): where frames lie, and the bytes around them, through the cache.

Of a shard the footer and the offsets are fetched when it is first used, into a file with a hole where the frames are,
so that it is opened as a local shard is. Frames are fetched in blocks of fixed size, the missing ones of a batch in as
few requests as their places allow, all shards at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from cellmill.errors import CellmillError, CorruptStoreError
from cellmill.storage import hash_bytes, write_atomic
from cellmill.storage.cache import StoreFolder
from cellmill.storage.ranges import BLOCK_BYTES, blocks_of, plan_ranges
from cellmill.storage.remote import Asked, Remote
from cellmill.store.format import FOOTER_BYTES, offsets_bytes, pack_header
from cellmill.store.manifest import ShardEntry
from cellmill.store.shard import Shard, open_shard

__all__ = ["RemoteShard", "RemoteShards"]

_BYTES_AT_ONCE = 64 << 20  # of answers in memory beside the buffers that they are copied to
_ALIGNMENT_BYTES = 8  # paddings around the offsets, at most
_INDEX_MORE_BYTES = 5 * 4096  # what an index takes on disk beside its offsets: footer, header, tag, ends of pages

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]


@dataclass
class RemoteShard:
    """One shard whose index is here.

    Attributes
    ----------
    index : Shard
        The shard with a hole for frames: `index.spans` holds, `index.frames` is zeros.
    path : str
        Below the URL of the store.
    tag : str
        Validator of the object when the index was fetched.
    key : str
        Of its blocks in the cache.
    is_confirmed : bool
        Whether the server gave this tag to this process; else it is remembered from an earlier one.
    """

    index: Shard
    path: str
    n_bytes: int
    tag: str
    key: str
    is_confirmed: bool

    def spans(self, cells: I64) -> tuple[U64, U64]:
        """Return where frames of cells begin and end in the file, uint64.

        Raises
        ------
        CorruptStoreError
            When offsets do not ascend within the frames.
        """
        start, stop = self.index.spans(cells)
        footer = self.index.footer
        if len(cells) and ((start > stop).any() or int(stop.max()) > footer.frames_bytes):
            raise CorruptStoreError(f"{self.path}: its offsets do not ascend within its frames; copy the store again")
        first = np.uint64(footer.frames_start)
        return start + first, stop + first


class RemoteShards:
    """The shards of one store at a URL, opened when they are used.

    Parameters
    ----------
    remote
        Where the store lies.
    folder
        Where its indices are kept; the cache of blocks belongs to it.
    entries
        The shards as the manifest names them.
    """

    def __init__(self, remote: Remote, folder: StoreFolder, entries: Sequence[ShardEntry]) -> None:
        self.remote = remote
        self.folder = folder
        self._cache = folder.cache
        self.hits = self.misses = 0  # blocks that `buffers` found in the cache, and that it fetched
        self._entries = entries
        self._open: dict[int, RemoteShard] = {}

    # ---- opening ----------------------------------------------------------------------------------------------

    def opened(self, numbers: Iterable[int], *, n_genes: int) -> tuple[list[RemoteShard], bool]:
        """Return shards with their indices, and whether any had to be fetched; the missing ones come side by side.

        Raises
        ------
        CorruptStoreError
            When an index contradicts the manifest or its own checksums.
        """
        wanted = list(numbers)
        missing = [number for number in wanted if number not in self._open]
        for number in missing:
            if (kept := self._kept(number, n_genes=n_genes)) is not None:
                self._open[number] = kept
        missing = [number for number in missing if number not in self._open]
        self._fetch_indices(missing, n_genes=n_genes)
        return [self._open[number] for number in wanted], bool(missing)

    def forget_unconfirmed(self, numbers: Iterable[int]) -> bool:
        """Forget indices that an earlier process fetched, since the server has other objects now; True if any."""
        forgotten = [number for number in numbers if number in self._open and not self._open[number].is_confirmed]
        for number in forgotten:
            del self._open[number]
            for path in self._places(number):
                path.unlink(missing_ok=True)
        return bool(forgotten)

    def _places(self, number: int) -> tuple[Path, Path]:
        path = self.folder.path / self._entries[number].cells.path
        return path, path.with_name(f"{path.name}.tag")

    def _kept(self, number: int, *, n_genes: int) -> RemoteShard | None:
        path, tag_path = self._places(number)
        try:
            tag = tag_path.read_text(encoding="utf-8")
            index = _checked_index(path, self._entries[number], n_genes=n_genes)
            os.utime(path)
        except (OSError, ValueError, CellmillError):  # not here, or damaged: it is fetched
            return None
        return self._shard(number, index, tag, is_confirmed=False)

    def _shard(self, number: int, index: Shard, tag: str, *, is_confirmed: bool) -> RemoteShard:
        cells = self._entries[number].cells
        # the tag as well: what a server gave under another one may have been another file
        key = hash_bytes(f"{cells.xxh3} {cells.bytes} {tag}".encode())
        return RemoteShard(index, cells.path, cells.bytes, tag, key, is_confirmed)

    def _fetch_indices(self, numbers: Sequence[int], *, n_genes: int) -> None:
        if not numbers:
            return
        asked = [self._tail(self._entries[number]) for number in numbers]
        answers = self.remote.read(asked)
        for number, tail, answer in zip(numbers, asked, answers, strict=True):
            path, tag_path = self._places(number)
            temporary = self.folder.temporary(self._entries[number].cells.path)
            try:
                self._cache.claim(offsets_bytes(self._entries[number].n_cells, 32) + _INDEX_MORE_BYTES)
                self._write_index(temporary, number, tail, answer.data, answer.tag, n_genes=n_genes)
                write_atomic(tag_path, answer.tag.encode())
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
            index = _checked_index(path, self._entries[number], n_genes=n_genes, where=self.remote.place(tail.path))
            self._open[number] = self._shard(number, index, answer.tag, is_confirmed=True)

    @staticmethod
    def _tail(entry: ShardEntry) -> Asked:
        """Return the request for the footer and offsets of 16 bits, whose lengths follow from the number of cells."""
        size = entry.cells.bytes
        tail_bytes = offsets_bytes(entry.n_cells, 16) + _ALIGNMENT_BYTES + FOOTER_BYTES
        return Asked(entry.cells.path, max(0, size - tail_bytes), size, object_bytes=size)

    def _write_index(self, temporary: Path, number: int, tail: Asked, data: bytes, tag: str, *, n_genes: int) -> None:
        """Write a file of the shard's length that holds header, offsets and footer at their places."""
        entry = self._entries[number]
        place = self.remote.place(entry.cells.path)
        start = tail.start or 0
        with temporary.open("wb") as file:
            file.truncate(entry.cells.bytes)
            file.write(pack_header())
            file.seek(start)
            file.write(data)
            file.flush()
            footer = _named(lambda: open_shard(temporary, entry, n_genes=n_genes), temporary, place).footer
            if footer.offsets_start < start:  # offsets of 32 bits: longer than was asked for
                rest = Asked(entry.cells.path, footer.offsets_start, start, tag=tag, object_bytes=entry.cells.bytes)
                file.seek(footer.offsets_start)
                file.write(self.remote.read([rest])[0].data)

    # ---- bytes ------------------------------------------------------------------------------------------------

    def buffers(self, wanted: Sequence[tuple[RemoteShard, U64, U64]]) -> list[tuple[U8, U64, U64]]:
        """Return bytes that hold spans of shards, and where each span lies in them.

        Parameters
        ----------
        wanted
            Shards, each once, with where spans begin and end in the file, uint64.

        Returns
        -------
        list of (uint8, uint64, uint64)
            For each shard: a buffer, begin and end of each span within it.
        """
        blocks = [blocks_of(start, stop) for _, start, stop in wanted]
        held: list[dict[int, bytes | memoryview]] = []
        for (shard, _, _), numbers in zip(wanted, blocks, strict=True):
            found = {n: self._cache.read_block(shard.key, n, n_bytes=_block_bytes(shard, n)) for n in numbers.tolist()}
            held.append({n: data for n, data in found.items() if data is not None})
        missing = [
            (shard, np.array([n for n in numbers.tolist() if n not in known], dtype=np.int64))
            for (shard, _, _), numbers, known in zip(wanted, blocks, held, strict=True)
        ]
        lacking = sum(len(numbers) for _, numbers in missing)
        self.misses += lacking
        self.hits += sum(map(len, blocks)) - lacking
        for position, number, data in self._fetch(missing):
            held[position][number] = data
        return [
            _placed(numbers, known, start, stop)
            for (_, start, stop), numbers, known in zip(wanted, blocks, held, strict=True)
        ]

    def fetch_missing(self, wanted: Sequence[tuple[RemoteShard, U64, U64]]) -> None:
        """Bring what spans of shards need into the cache, unless it is there."""
        missing = []
        for shard, start, stop in wanted:
            numbers = blocks_of(start, stop)
            absent = [not self._cache.touch_block(shard.key, n) for n in numbers.tolist()]
            missing.append((shard, numbers[np.array(absent, dtype=bool)]))
        for _ in self._fetch(missing):
            pass

    def forget(self, wanted: Sequence[tuple[RemoteShard, U64, U64]]) -> None:
        """Forget the cached bytes that spans of shards lie in."""
        for shard, start, stop in wanted:
            for number in blocks_of(start, stop).tolist():
                self._cache.drop_block(shard.key, number)

    def forget_unlike(self, number: int, path: Path, *, n_genes: int) -> int:
        """Forget cached bytes of a shard that are not those of the file `path`, which is proven; returns how many."""
        shard = self._open.get(number) or self._kept(number, n_genes=n_genes)
        if shard is None or path.stat().st_size != shard.n_bytes:
            return 0
        forgotten = 0
        with path.open("rb") as file:
            for block in range(-(-shard.n_bytes // BLOCK_BYTES)):
                held = self._cache.read_block(shard.key, block, n_bytes=_block_bytes(shard, block))
                if held is None:
                    continue
                file.seek(block * BLOCK_BYTES)
                if file.read(BLOCK_BYTES) != held:
                    self._cache.drop_block(shard.key, block)
                    forgotten += 1
        return forgotten

    def _fetch(self, missing: Sequence[tuple[RemoteShard, I64]]) -> Iterator[tuple[int, int, memoryview]]:
        """Fetch blocks into the cache; yields position in `missing`, number and bytes of each, neighbours included."""
        plan = [(position, *span) for position, (_, numbers) in enumerate(missing) for span in plan_ranges(numbers)]
        for group in _groups(plan):
            asked = []
            for position, first, stop in group:
                shard = missing[position][0]
                end = min(stop * BLOCK_BYTES, shard.n_bytes)
                asked.append(Asked(shard.path, first * BLOCK_BYTES, end, tag=shard.tag, object_bytes=shard.n_bytes))
            for (position, first, stop), answer in zip(group, self.remote.read(asked), strict=True):
                shard = missing[position][0]
                shard.is_confirmed = True
                view = memoryview(answer.data)
                parts = {n: view[(n - first) * BLOCK_BYTES :][:BLOCK_BYTES] for n in range(first, stop)}
                self._cache.put_blocks(shard.key, parts)
                for number, data in parts.items():
                    yield position, number, data


def _checked_index(path: Path, entry: ShardEntry, *, n_genes: int, where: str = "") -> Shard:
    index = _named(lambda: open_shard(path, entry, n_genes=n_genes), path, where or str(path))
    if xxhash.xxh3_64_intdigest(np.ascontiguousarray(index.offsets_section).data) != index.footer.offsets_hash:
        raise CorruptStoreError(
            f"{where or path}: the checksum of its offsets does not hold. Copy the store there again."
        )
    return index


def _named(open_it: Callable[[], Shard], path: Path, where: str) -> Shard:
    """Open an index; an error names the object at the URL, not the copy of its index."""
    try:
        return open_it()
    except CorruptStoreError as error:
        raise CorruptStoreError(str(error).replace(str(path), where)) from None


def _groups(plan: Sequence[tuple[int, int, int]]) -> Iterator[list[tuple[int, int, int]]]:
    """Cut a plan of ranges into pieces of bounded size."""
    group: list[tuple[int, int, int]] = []
    size = 0
    for one in plan:
        n_bytes = (one[2] - one[1]) * BLOCK_BYTES
        if group and size + n_bytes > _BYTES_AT_ONCE:
            yield group
            group, size = [], 0
        group.append(one)
        size += n_bytes
    if group:
        yield group


def _block_bytes(shard: RemoteShard, number: int) -> int:
    return min(BLOCK_BYTES, shard.n_bytes - number * BLOCK_BYTES)


def _placed(numbers: I64, held: Mapping[int, bytes | memoryview], start: U64, stop: U64) -> tuple[U8, U64, U64]:
    """Join blocks, end to end in ascending order; returns them and where the spans lie now."""
    parts = [np.frombuffer(held[number], dtype=np.uint8) for number in numbers.tolist()]
    buffer = np.concatenate(parts) if parts else np.empty(0, dtype=np.uint8)
    block = (start // np.uint64(BLOCK_BYTES)).astype(np.int64)
    # a span over several blocks stays in one piece: all of them are here, so they are neighbours here as well
    moved = (block - np.searchsorted(numbers, block)).astype(np.uint64) * np.uint64(BLOCK_BYTES)
    return buffer, start - moved, stop - moved
