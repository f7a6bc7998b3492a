"""Parquet files of a store (floor 3): what Arrow cannot read is a damaged store, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cellmill.errors import CorruptStoreError
from cellmill.storage import hash_bytes
from cellmill.store.manifest import FileEntry

__all__ = ["damage_named", "open_parquet", "read_proven_parquet"]


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn what Arrow raises while it reads `path` into CorruptStoreError."""
    try:
        yield
    except (PermissionError, CorruptStoreError):
        raise
    except FileNotFoundError:
        raise CorruptStoreError(f"{path}: missing, though the manifest names it. {_REMEDY}") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        first_line = (str(error).strip() or repr(error)).splitlines()[0]
        raise CorruptStoreError(f"{path}: cannot be read as Parquet ({first_line}). {_REMEDY}") from None


_REMEDY = "Restore it from a copy or build the store again."


def open_parquet(path: Path, *, n_rows: int) -> pq.ParquetFile:
    """Return a Parquet file, open; its footer is read.

    Raises
    ------
    CorruptStoreError
        When it is not Parquet, or has not `n_rows` rows.
    """
    with damage_named(path):
        file = pq.ParquetFile(path)
        found = file.metadata.num_rows
    if found != n_rows:
        raise CorruptStoreError(f"{path}: {found} rows, the manifest says {n_rows}. {_REMEDY}")
    return file


def read_proven_parquet(path: Path, entry: FileEntry, *, remedy: str = _REMEDY) -> pa.Table:
    """Return a whole Parquet file whose bytes are those of its entry; `remedy` says what to do where they are not.

    Raises
    ------
    CorruptStoreError
        When length or hash differ, or the bytes are not Parquet.
    """
    with damage_named(path):
        raw = path.read_bytes()
        if len(raw) != entry.bytes or hash_bytes(raw) != entry.xxh3:
            raise CorruptStoreError(
                f"{path}: its {len(raw)} bytes are not those that the manifest names ({entry.bytes} bytes, xxh3 "
                f"{entry.xxh3}). {remedy}"
            )
        # Not read_table: that brings pandas in, for a third of a second. Not by threads: one of arrow's may hold the
        # bytes a moment longer than this call, and give them back to an interpreter that has ended, which aborts.
        return pq.ParquetFile(pa.BufferReader(raw)).read(use_threads=False)
