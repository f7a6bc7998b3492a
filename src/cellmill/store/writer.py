"""Writing a store (floor 3): shards one by one, then the manifest. Knows nothing of where cells came from.

Nothing becomes part of a store before a manifest names it, and a manifest is written last, atomically.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from cellmill.errors import InputError
from cellmill.storage import hash_file, sync_file, sync_folder, write_atomic
from cellmill.store.format import HEADER_BYTES, MAX_FRAMES_BYTES, Footer, pack_header, padding_bytes
from cellmill.store.manifest import MANIFEST_NAME, FileEntry, Manifest

__all__ = ["ShardWriter", "file_entry", "write_genes", "write_manifest"]


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
        self._uids: list[npt.NDArray[np.uint64]] = []
        self._write(pack_header())

    @property
    def n_cells(self) -> int:
        """Cells written so far."""
        return sum(len(sizes) for sizes in self._sizes)

    def append(
        self,
        frames: npt.NDArray[np.uint8],
        offsets: npt.NDArray[np.uint64],
        uids: npt.NDArray[np.uint64],
        *,
        nnz: int,
    ) -> None:
        """Append encoded cells.

        Parameters
        ----------
        frames, offsets
            As `kernel.encode` returns them: uint8, shape (n_bytes,); uint64, shape (n_cells + 1,).
        uids
            uint64, shape (n_cells,).
        nnz
            Counts in these frames.
        """
        if len(offsets) != len(uids) + 1:
            raise InputError(f"{len(offsets)} offsets do not fit {len(uids)} cells")
        if self.frames_bytes + len(frames) > MAX_FRAMES_BYTES:
            raise InputError(f"{self.path}: a shard holds at most {MAX_FRAMES_BYTES} bytes of frames")
        data = np.ascontiguousarray(frames).data
        self._write(data)
        self._frames.update(data)
        self._sizes.append(np.diff(offsets).astype(np.uint32))
        self._uids.append(np.asarray(uids, dtype=np.uint64))
        self.frames_bytes += len(frames)
        self.nnz += nnz

    def finish(self) -> FileEntry:
        """Write offsets, uids and footer, flush, and give the file its name."""
        sizes = np.concatenate([np.zeros(1, np.uint32), *self._sizes])
        offsets = np.cumsum(sizes, dtype=np.uint64).astype("<u4")
        uids = np.concatenate([np.empty(0, np.uint64), *self._uids]).astype("<u8")
        at = HEADER_BYTES + self.frames_bytes
        offsets_start = self._pad(at, 4)
        self._write(offsets.tobytes())
        uids_start = self._pad(offsets_start + offsets.nbytes, 8)
        self._write(uids.tobytes())
        footer = Footer(
            n_genes=self.n_genes,
            n_cells=len(uids),
            nnz=self.nnz,
            frames_start=HEADER_BYTES,
            frames_bytes=self.frames_bytes,
            frames_hash=self._frames.intdigest(),
            offsets_start=offsets_start,
            offsets_bytes=offsets.nbytes,
            offsets_hash=xxhash.xxh3_64_intdigest(offsets.tobytes()),
            uids_start=uids_start,
            uids_bytes=uids.nbytes,
            uids_hash=xxhash.xxh3_64_intdigest(uids.tobytes()),
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


def write_genes(
    folder: Path,
    *,
    gene_ids: Sequence[str],
    symbols: Sequence[str],
    tokens: npt.NDArray[np.int64],
    detection_rate: npt.NDArray[np.float64],
) -> FileEntry:
    """Write genes.parquet, genes in storage order; returns its entry."""
    table = pa.table(
        {
            "gene_id": pa.array(gene_ids, pa.string()),
            "symbol": pa.array(symbols, pa.string()),
            "token": pa.array(tokens, pa.int64()),
            "detection_rate": pa.array(detection_rate, pa.float64()),
        }
    )
    temporary = folder / ".genes.parquet.tmp"
    pq.write_table(table, temporary, compression="zstd")
    sync_file(temporary)
    temporary.replace(folder / "genes.parquet")
    return file_entry(folder, "genes.parquet")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Seal a manifest and write it: the instant at which the store becomes what it names."""
    write_atomic(folder / MANIFEST_NAME, manifest.sealed().to_json())
