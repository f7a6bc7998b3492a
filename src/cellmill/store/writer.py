"""Writing a store (floor 3): shards one by one, then the manifest. Knows nothing of where cells came from.

Nothing becomes part of a store before a manifest names it, and a manifest is written last, atomically.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from cellmill.errors import InputError
from cellmill.storage import hash_bytes, hash_file, sync_file, sync_folder, write_atomic
from cellmill.store.format import (
    HEADER_BYTES,
    MAX_FRAMES_BYTES,
    Footer,
    pack_header,
    pack_offsets,
    pack_uids,
    padding_bytes,
)
from cellmill.store.gene_table import GENE_SCHEMA
from cellmill.store.manifest import MANIFEST_NAME, FileEntry, Manifest

__all__ = ["ShardWriter", "file_entry", "own_version", "write_genes", "write_manifest", "write_uids"]


class ShardWriter:
    """Writes one shard file in one pass; it appears under its name only when `finish` returns.

    Parameters
    ----------
    path
        Where the shard shall be; the work goes on under a temporary name beside it.
    n_genes
        Number of genes of the store; every frame's genes are below it.
    """

    def __init__(self, path: Path, *, n_genes: int) -> None:
        self.path = path
        self.n_genes = n_genes
        self.nnz = 0
        self.frames_bytes = 0
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._file = self._temporary.open("wb")
        self._whole = xxhash.xxh3_128()
        self._frames = xxhash.xxh3_64()
        self._sizes: list[npt.NDArray[np.uint32]] = []
        self._write(pack_header())

    @property
    def n_cells(self) -> int:
        """Cells written so far."""
        return sum(len(sizes) for sizes in self._sizes)

    def append(self, frames: npt.NDArray[np.uint8], offsets: npt.NDArray[np.uint64], *, nnz: int) -> None:
        """Append encoded cells.

        Parameters
        ----------
        frames, offsets
            As `kernel.encode` returns them: uint8, shape (n_bytes,); uint64, shape (n_cells + 1,).
        nnz
            Counts in these frames.
        """
        if self.frames_bytes + len(frames) > MAX_FRAMES_BYTES:
            raise InputError(f"{self.path}: a shard holds at most {MAX_FRAMES_BYTES} bytes of frames")
        data = np.ascontiguousarray(frames).data
        self._write(data)
        self._frames.update(data)
        self._sizes.append(np.diff(offsets).astype(np.uint32))
        self.frames_bytes += len(frames)
        self.nnz += nnz

    def finish(self) -> FileEntry:
        """Write offsets and footer, flush, and give the file its name."""
        sizes = np.concatenate([np.zeros(1, np.uint32), *self._sizes])
        offset_bits, offsets = pack_offsets(np.cumsum(sizes, dtype=np.uint64).astype(np.uint32))
        offsets_start = self._pad(HEADER_BYTES + self.frames_bytes, 4)
        self._write(offsets)
        self._pad(offsets_start + len(offsets), 8)
        footer = Footer(
            offset_bits=offset_bits,
            n_genes=self.n_genes,
            n_cells=self.n_cells,
            nnz=self.nnz,
            frames_start=HEADER_BYTES,
            frames_bytes=self.frames_bytes,
            frames_hash=self._frames.intdigest(),
            offsets_start=offsets_start,
            offsets_bytes=len(offsets),
            offsets_hash=xxhash.xxh3_64_intdigest(offsets),
        )
        self._write(footer.pack())
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._file.close()
        self._temporary.replace(self.path)
        sync_folder(self.path.parent)
        return FileEntry(path=f"shards/{self.path.name}", bytes=size, xxh3=self._whole.hexdigest())

    def abandon(self) -> None:
        """Close and remove what was written so far; nothing happens after `finish`."""
        if not self._file.closed:
            self._file.close()
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._whole.update(data)

    def _pad(self, position: int, alignment: int) -> int:
        padding = padding_bytes(position, alignment)
        self._write(b"\0" * padding)
        return position + padding


def file_entry(folder: Path, path: str) -> FileEntry:
    """Return the entry of a finished file of a store."""
    full = folder / path
    return FileEntry(path=path, bytes=full.stat().st_size, xxh3=hash_file(full))


def write_uids(folder: Path, path: str, uids: npt.NDArray[np.uint64]) -> FileEntry:
    """Write the uids of a shard's cells, uint64, shape (n_cells,); returns their entry."""
    raw = pack_uids(uids)
    write_atomic(folder / path, raw)
    return FileEntry(path=path, bytes=len(raw), xxh3=hash_bytes(raw))


def write_genes(
    folder: Path,
    *,
    gene_ids: Sequence[str],
    symbols: Sequence[str],
    tokens: npt.NDArray[np.int64],
    detection_rate: npt.NDArray[np.float64],
    generation: int = 0,
) -> FileEntry:
    """Write the table of genes, in storage order, under the name of its generation; returns its entry."""
    name = f"genes-{generation}.parquet" if generation else "genes.parquet"
    columns = {"gene_id": gene_ids, "symbol": symbols, "token": tokens, "detection_rate": detection_rate}
    table = pa.table(columns, schema=GENE_SCHEMA)
    temporary = folder / f".{name}.tmp"
    pq.write_table(table, temporary, compression="zstd")
    sync_file(temporary)
    temporary.replace(folder / name)
    return file_entry(folder, name)


def own_version() -> str:
    """Return the version of cellmill that writes, as manifests name it."""
    try:
        return version("cellmill")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0+unknown"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Seal a manifest and write it: the instant at which the store becomes what it names."""
    write_atomic(folder / MANIFEST_NAME, manifest.sealed().to_json())
