"""One shard, mapped (floor 3): its file of frames when a cell of it is first asked for, its uids when they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from cellmill import kernel
from cellmill.errors import CorruptStoreError, FrameError
from cellmill.storage import map_file
from cellmill.store.format import Footer, parse_footer, parse_offsets, parse_uids
from cellmill.store.manifest import FileEntry, ShardEntry

__all__ = ["Shard", "map_uids", "open_shard"]


@dataclass(frozen=True)
class Shard:
    """A mapped shard.

    Attributes
    ----------
    data : uint8, shape (file_bytes,)
        The whole file.
    frames : uint8, shape (frames_bytes,)
    offset_bases : uint32
        With `offset_bits` 16: where the first frame of each group of 16 begins. With 32: where each frame begins, and
        where the last one ends.
    offset_steps : uint16
        With `offset_bits` 16, shape (n_cells + 1,): what each entry is above its group's base. With 32: empty.
    """

    path: Path
    data: npt.NDArray[np.uint8]
    footer: Footer
    frames: npt.NDArray[np.uint8]
    offset_bases: npt.NDArray[np.uint32]
    offset_steps: npt.NDArray[np.uint16]

    @property
    def offset_bits(self) -> int:
        """Which of the two layouts the offsets have: 16 or 32."""
        return self.footer.offset_bits

    @property
    def offsets_section(self) -> npt.NDArray[np.uint8]:
        """The bytes of the offsets, uint8, shape (offsets_bytes,)."""
        start = self.footer.offsets_start
        return self.data[start : start + self.footer.offsets_bytes]

    def damaged_sections(self) -> list[str]:
        """Return the names of the sections whose bytes do not give the footer's hash; reads all of them."""
        sections = (
            ("frames", self.frames, self.footer.frames_hash),
            ("offsets", self.offsets_section, self.footer.offsets_hash),
        )
        return [
            name
            for name, data, stated in sections
            if xxhash.xxh3_64_intdigest(np.ascontiguousarray(data).data) != stated
        ]

    def spans(self, cells: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """Return where the frames of cells begin and end within `frames`, uint64; cells are trusted to be in range.

        Touches the entries of these cells alone.
        """
        return self._entries(cells), self._entries(cells + 1)

    def portions(
        self, cells: npt.NDArray[np.int64], *, n_genes: int, head: Any, most_cells: int = 4096
    ) -> Iterator[npt.NDArray[np.int64]]:
        """Yield cells in pieces that hold some four million nonzeros at most, or one cell; memory is bounded by them.

        A cell whose frame cannot be told the size of is a piece of its own and the last: who decodes it finds out why.
        """
        for at in range(0, len(cells), most_cells):
            part = cells[at : at + most_cells]
            sizes, faulty = self._sizes(part, n_genes=n_genes, head=head)
            begin, before = 0, np.concatenate([[0], np.cumsum(sizes)])
            while begin < len(sizes):
                end = int(np.searchsorted(before, before[begin] + _MOST_NONZEROS, side="right")) - 1
                end = max(end, begin + 1)
                yield part[begin:end]
                begin = end
            if faulty:
                yield part[len(sizes) : len(sizes) + 1]
                return

    def _sizes(self, cells: npt.NDArray[np.int64], *, n_genes: int, head: Any) -> tuple[npt.NDArray[np.int64], bool]:
        """Return nonzeros of cells up to the first at fault, and whether there is such a one."""
        start, stop = self.spans(cells)

        def sizes_of(n: int) -> npt.NDArray[np.int64]:
            return kernel.frame_sizes(
                [self.frames], np.zeros(n, np.int64), start[:n], stop[:n], n_genes=n_genes, head=head
            )

        try:
            return sizes_of(len(cells)), False
        except FrameError as error:
            return sizes_of(getattr(error, "position", 0)), True

    def _entries(self, at: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        if self.offset_bits == 32:
            return self.offset_bases[at].astype(np.uint64)
        # in 64 bits: a damaged sum shall be out of bounds, not somewhere else
        entries: npt.NDArray[np.uint64] = self.offset_bases[at >> 4].astype(np.uint64) + self.offset_steps[at]
        return entries


def open_shard(path: Path, entry: ShardEntry, *, n_genes: int | None) -> Shard:
    """Map a shard and check that it is the one that the manifest names.

    Its number of genes is checked where that of the store is known: at most as many, for a shard that was written
    before genes were added has fewer.

    Raises
    ------
    CorruptStoreError
        When the file's length, footer or sizes contradict the manifest.
    """
    data = _mapped(path, entry.cells)
    footer = parse_footer(data, where=str(path))
    if (footer.n_cells, footer.nnz) != (entry.n_cells, entry.nnz):
        raise CorruptStoreError(
            f"{path}: the footer says {footer.n_cells} cells and {footer.nnz} counts, "
            f"the manifest {entry.n_cells} and {entry.nnz}. {_REMEDY}"
        )
    if n_genes is not None and footer.n_genes > n_genes:
        raise CorruptStoreError(f"{path}: the footer says {footer.n_genes} genes, the store has {n_genes}. {_REMEDY}")
    frames = data[footer.frames_start : footer.frames_start + footer.frames_bytes]
    return Shard(path, data, footer, frames, *parse_offsets(data, footer))


def map_uids(path: Path, entry: ShardEntry) -> npt.NDArray[np.uint64]:
    """Map the uids of a shard's cells, uint64, shape (n_cells,).

    Raises
    ------
    CorruptStoreError
        When the file is not one of uids, or not of as many.
    """
    return parse_uids(_mapped(path, entry.uids), n_cells=entry.n_cells, where=str(path))


def _mapped(path: Path, entry: FileEntry) -> npt.NDArray[np.uint8]:
    data = map_file(path, at_random=True)
    if len(data) != entry.bytes:
        raise CorruptStoreError(f"{path}: the manifest says {entry.bytes} bytes, the file has {len(data)}. {_REMEDY}")
    return data


_MOST_NONZEROS = 4_000_000  # 32 MiB of genes and counts
_REMEDY = "Restore it from a copy or build the store again."
