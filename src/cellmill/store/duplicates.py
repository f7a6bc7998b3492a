"""Duplicates of a store, or of several (floor 3): how many, between which sources, and which cells they are.

What is found in one store is written beside its reports, `reports/duplicates-N.json` and the marks of cells,
`reports/duplicates-N.parquet`. The manifest names neither: they follow from obs, and can be made again at any time.
They count for the store whose digest they state, and for no other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cellmill.errors import CorruptStoreError, InputError
from cellmill.events import emit
from cellmill.storage import hash_bytes, hash_file, sync_file, sync_folder, write_atomic
from cellmill.storage.urls import refuse_url
from cellmill.store.equal_cells import FEW_COUNTS, EqualCells, Repeats
from cellmill.store.manifest import FileEntry, Manifest
from cellmill.store.marks import MARK_SCHEMA
from cellmill.store.obs_types import STORED_COLUMNS
from cellmill.store.parquet import damage_named, open_parquet, read_proven_parquet
from cellmill.store.staging import Staging

if TYPE_CHECKING:
    from cellmill.store.reader import Store

__all__ = [
    "MEMORY_BYTES",
    "Duplicates",
    "KeyFile",
    "Shared",
    "find_duplicates",
    "mark_duplicates",
    "read_duplicates",
    "read_marks",
]

MEMORY_BYTES = 512 << 20
_CELLS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class KeyFile:
    """The obs of one shard: where it lies, how many cells it has, and what its source is called."""

    path: Path
    n_cells: int
    source: str


@dataclass(frozen=True)
class Shared:
    """Cells of `source` that equal a cell of `other`; for a source and itself, another cell of it."""

    source: str
    other: str
    n_cells: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return dict(vars(self))


@dataclass(frozen=True)
class Duplicates:
    """What was found among the cells of a store, or of several.

    Attributes
    ----------
    min_counts : int
        Cells of fewer counts are in none of the numbers before `few`.
    n_cells : int
        Cells looked at, those of few counts included.
    n_duplicates : int
        Cells that equal an earlier one.
    n_groups : int
        Sets of equal cells.
    by_source : dict of str to int
        Of each source that has any, the cells that equal an earlier one.
    table : tuple of Shared
        Source by source, most cells first.
    wide_groups : int
        Sets from more than 256 sources, which are left out of `table`.
    few : dict
        Cells of fewer than `min_counts` counts: "empty" (without any), "cells" (with some), "repeats" (of these, how
        many equal an earlier one) and "groups" of such. Equality by chance is likely among them.
    fingerprint_collisions : int
        Fingerprints that cells with other totals or numbers of genes share: chance, and no duplicates.
    uid_repeats : int
        Cells whose uid an earlier cell has, and
    uids : tuple
        the first of these: {"uid", "rows"}.
    digest : str
        Of the store; "" for several.
    """

    min_counts: int
    n_cells: int
    n_duplicates: int
    n_groups: int
    by_source: Mapping[str, int]
    table: tuple[Shared, ...]
    wide_groups: int
    few: Mapping[str, int]
    fingerprint_collisions: int
    uid_repeats: int
    uids: tuple[Mapping[str, Any], ...]
    digest: str = ""

    @classmethod
    def of(cls, found: Repeats, sources: Sequence[str], *, min_counts: int, digest: str = "") -> Duplicates:
        """Return what was found, with the names of the sources."""
        table = [Shared(sources[a], sources[b], n) for (a, b), n in found.table.items()]
        return cls(
            min_counts=min_counts,
            n_cells=found.cells,
            n_duplicates=found.repeats,
            n_groups=found.groups,
            by_source={sources[i]: int(found.by_source[i]) for i in np.flatnonzero(found.by_source).tolist()},
            table=tuple(sorted(table, key=lambda one: (-one.n_cells, one.source, one.other))),
            wide_groups=found.wide_groups,
            few=dict(vars(found.few)),
            fingerprint_collisions=found.collisions,
            uid_repeats=found.uid_repeats,
            uids=tuple({"uid": uid, "rows": rows} for uid, rows in sorted(found.uids)),
            digest=digest,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        plain = {name: value for name, value in vars(self).items() if name not in ("table", "uids")}
        plain |= {"by_source": dict(self.by_source), "few": dict(self.few)}
        return plain | {"table": [one.to_dict() for one in self.table], "uids": [dict(one) for one in self.uids]}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Duplicates:
        """Return what `to_dict` gave; a KeyError or TypeError says what is wrong with it."""
        values = {name: body[name] for name in cls.__dataclass_fields__}
        values["table"] = tuple(Shared(**one) for one in values["table"])
        values["uids"] = tuple(values["uids"])
        return cls(**values)


def find_duplicates(
    stores: Sequence[Store] | Store,
    *,
    min_counts: int = FEW_COUNTS,
    memory_bytes: int = MEMORY_BYTES,
    mark: bool = False,
) -> Duplicates:
    """Find equal cells within and between the sources of stores, in memory that does not grow with them.

    Equal are cells with the same fingerprint, number of genes and total. Sources of several stores are called
    "STORE:SOURCE", and rows count through all of them.

    Parameters
    ----------
    stores
        One or more open stores.
    min_counts
        Cells of fewer counts are counted apart (`Duplicates.few`), since they equal each other by chance.
    memory_bytes
        About what may be taken; what does not fit goes to disk for as long as it takes, 56 bytes a cell.
    mark
        Write what was found into the store, which must be one in a folder: `store.duplicates` gives it back, and
        obs has the columns `duplicate_of` and `n_copies`. Builds, appends and merges do it by themselves.

    Raises
    ------
    InputError
        For a negative `min_counts`, no store, or `mark` with several stores or one at a URL.
    StoreLockedError
        With `mark`, when another process is writing to the store.
    DiskSpaceError
        When there is not enough room for what does not fit into memory.

    Examples
    --------
    >>> found = find_duplicates(store)  # doctest: +SKIP
    >>> found.n_duplicates, found.table[:3]  # doctest: +SKIP
    """
    listed = [stores] if not isinstance(stores, Sequence) else list(stores)
    _check_call(listed, min_counts, mark=mark)
    if not mark:
        files = [
            KeyFile(
                store.local_file(shard.obs), shard.n_cells, _source_name(store, shard.source, alone=len(listed) == 1)
            )
            for store in listed
            for shard in store.manifest.shards
        ]
        digest = listed[0].digest if len(listed) == 1 else ""
        with _finder(files, min_counts, memory_bytes, None) as (finder, sources):
            for _ in finder.marks():
                pass
            return Duplicates.of(finder.found, sources, min_counts=min_counts, digest=digest)
    store = listed[0]
    with Staging.locked(store.path) as staging:
        return mark_duplicates(
            store.path,
            store.manifest,
            [KeyFile(store.path / shard.obs.path, shard.n_cells, shard.source) for shard in store.manifest.shards],
            min_counts=min_counts,
            memory_bytes=memory_bytes,
            scratch=staging.place,
        )


def _check_call(stores: Sequence[Store], min_counts: int, *, mark: bool) -> None:
    if not stores:
        raise InputError("looking for duplicates needs at least one store")
    if min_counts < 0:
        raise InputError(f"min_counts must be 0 or more, found {min_counts}")
    if mark and len(stores) > 1:
        raise InputError(
            f"marks are written into one store at a time, found {len(stores)}; merge them, or leave mark out"
        )
    if mark:
        refuse_url(stores[0].location, what="mark duplicates in")


def _source_name(store: Store, source: str, *, alone: bool) -> str:
    return source if alone else f"{store.path.name.removesuffix('.mill')}:{source}"


@contextmanager
def _finder(
    files: Sequence[KeyFile], min_counts: int, memory_bytes: int, scratch: Path | None
) -> Iterator[tuple[EqualCells, list[str]]]:
    """Give a finder that has all cells of the files, and the names of the sources that it numbers."""
    sources = {name: i for i, name in enumerate(dict.fromkeys(file.source for file in files))}
    with EqualCells(
        n_cells=sum(file.n_cells for file in files),
        n_sources=len(sources),
        min_counts=min_counts,
        memory_bytes=memory_bytes,
        folder=scratch,
    ) as finder:
        _keys(files, sources, finder)
        yield finder, list(sources)


def _keys(files: Sequence[KeyFile], sources: Mapping[str, int], finder: EqualCells) -> None:
    """Read fingerprint, genes, total and uid of all cells into `finder`."""
    total, done = sum(file.n_cells for file in files), 0
    for one in files:
        with open_parquet(one.path, n_rows=one.n_cells) as file, damage_named(one.path):
            names = _key_names(file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=_CELLS_AT_ONCE, columns=names):
                fingerprint, uid, detected, counts = (batch.column(name).to_numpy() for name in names)
                finder.add(
                    fingerprints=fingerprint, detected=detected, totals=counts, uids=uid,
                    first_row=done, source=sources[one.source],
                )  # fmt: skip
                done += len(batch)
                emit("looking for duplicates", done=done, total=total, unit="cells")


def _key_names(present: Sequence[str]) -> list[str]:
    """Columns that say which cells are equal, of what is stored of them; an older file has older names for two."""
    stored = ("n_genes_stored", "stored_counts")
    return ["fingerprint", "uid", *(name if name in present else STORED_COLUMNS[name] for name in stored)]


# ---- in a store ------------------------------------------------------------------------------------------------


def mark_duplicates(
    folder: Path,
    manifest: Manifest,
    files: Sequence[KeyFile],
    *,
    min_counts: int = FEW_COUNTS,
    memory_bytes: int = MEMORY_BYTES,
    scratch: Path | None = None,
) -> Duplicates:
    """Find the duplicates of a store and write them into `folder`, the store or the place where it is made.

    Parameters
    ----------
    manifest
        Of the store, sealed or not.
    files
        Its obs, in order of the rows; they may lie elsewhere.
    scratch
        Where what does not fit into memory goes.

    Raises
    ------
    CorruptStoreError
        When a file of obs is damaged.
    DiskSpaceError
        When there is not enough room.
    """
    stem = _stem(folder, manifest)
    stem.parent.mkdir(exist_ok=True)
    with _finder(files, min_counts, memory_bytes, scratch) as (finder, sources):
        marks = _write_marks(finder.marks(), stem.with_suffix(".parquet"))
        found = Duplicates.of(finder.found, sources, min_counts=min_counts, digest=manifest.compute_digest())
    body = {**found.to_dict(), "marks": marks}
    write_atomic(stem.with_suffix(".json"), (json.dumps({"xxh3": _hash_of(body), **body}, indent=1) + "\n").encode())
    if marks is None:
        stem.with_suffix(".parquet").unlink(missing_ok=True)
    return found


def read_duplicates(folder: Path, manifest: Manifest) -> Duplicates | None:
    """Return what was found in a store; None when nobody looked since it is what it is.

    Raises
    ------
    CorruptStoreError
        When the file is damaged.
    """
    body = _read_body(folder, manifest)
    return None if body is None else Duplicates.from_dict(body)


def read_marks(folder: Path, manifest: Manifest) -> pa.Table | None:
    """Return the marks of the cells that equal others: row, duplicate_of, n_copies, rows ascending.

    `duplicate_of` is the row of the first cell of the set, null for that cell itself. None when nobody looked.

    Raises
    ------
    CorruptStoreError
        When a file is damaged.
    """
    body = _read_body(folder, manifest)
    if body is None:
        return None
    if body["marks"] is None:
        return MARK_SCHEMA.empty_table()
    path = _stem(folder, manifest).with_suffix(".parquet")
    return read_proven_parquet(path, FileEntry(path=path.name, **body["marks"]), remedy=_remedy(folder))


def _stem(folder: Path, manifest: Manifest) -> Path:
    return folder / "reports" / f"duplicates-{manifest.generation}"


def _hash_of(body: Mapping[str, Any]) -> str:
    return hash_bytes(json.dumps(body, sort_keys=True).encode())


def _read_body(folder: Path, manifest: Manifest) -> dict[str, Any] | None:
    path = _stem(folder, manifest).with_suffix(".json")
    try:
        body: dict[str, Any] = json.loads(path.read_bytes())
        stated = body.pop("xxh3")
        sound = stated == _hash_of(body)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sound, body = False, {}
    if not sound:
        raise CorruptStoreError(f"{path}: damaged, or changed by hand. {_remedy(folder)}")
    return body if body["digest"] == manifest.digest else None


def _remedy(folder: Path) -> str:
    return f"The cells are as they were; make it again with: cellmill duplicates {folder} --mark"


def _write_marks(marks: Iterator[npt.NDArray[Any]], path: Path) -> dict[str, Any] | None:
    """Write marks as Parquet; returns length and hash of the file, None when there is no mark and no file."""
    temporary = path.with_name(f".{path.name}.tmp")
    writer = None
    try:
        for part in marks:
            writer = writer or pq.ParquetWriter(temporary, MARK_SCHEMA, compression="zstd")
            own = part["row"] == part["first"]
            columns = [part["row"], pa.array(part["first"], mask=own), part["n_copies"]]
            writer.write_table(pa.table([pa.array(column) for column in columns], schema=MARK_SCHEMA))
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        return None
    sync_file(temporary)
    temporary.replace(path)
    sync_folder(path.parent)
    return {"bytes": path.stat().st_size, "xxh3": hash_file(path)}
