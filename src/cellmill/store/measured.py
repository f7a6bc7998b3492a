"""Which genes each source measured (floor 3): a bit for each gene of the vocabulary, kept in the source's report.

A gene that a source did not measure has no counts in its cells, and neither has one that was measured and not found:
only this record tells the two apart. The bits follow the vocabulary, which a store keeps for good, and not the storage
order, which grows: a report is copied as it is when a store is added to or merged with others.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cellmill.errors import CorruptStoreError, NotFoundError, StoreError, nearest
from cellmill.storage import hash_bytes

if TYPE_CHECKING:
    from cellmill.store.manifest import SourceEntry
    from cellmill.store.reader import Store

__all__ = ["MEASURED", "measured_by_source", "measured_genes", "measured_record", "read_record", "sources_of_rows"]

MEASURED = "measured"

Bools = npt.NDArray[np.bool_]


def measured_record(target: npt.NDArray[np.int64], *, vocabulary_hash: str, n_vocabulary: int) -> dict[str, Any]:
    """Return what a source's report says under `MEASURED`.

    Parameters
    ----------
    target : ndarray of int64, shape (n_source_genes,)
        Position of each gene of the source in the vocabulary, -1 for none.
    vocabulary_hash, n_vocabulary
        The vocabulary's hash and number of genes.

    Returns
    -------
    dict
        Plain JSON: `vocabulary_hash`, `n_genes` (how many were measured), `bits` (base64; bit i % 8, least significant
        first, of byte i // 8 stands for gene i of the vocabulary).

    Examples
    --------
    >>> measured_record(np.array([0, 9, -1, 9]), vocabulary_hash="0" * 32, n_vocabulary=10)["bits"]
    'AQI='
    """
    measured = np.zeros(n_vocabulary, dtype=bool)
    measured[target[target >= 0]] = True
    bits = np.packbits(measured, bitorder="little").tobytes()
    return {
        "vocabulary_hash": vocabulary_hash,
        "n_genes": int(np.count_nonzero(measured)),
        "bits": base64.b64encode(bits).decode("ascii"),
    }


def read_record(report: Mapping[str, Any], *, vocabulary_hash: str, n_vocabulary: int, where: str) -> Bools | None:
    """Return which genes of the vocabulary a report says were measured, shape (n_vocabulary,); None where it is silent.

    Raises
    ------
    CorruptStoreError
        When the record is of another vocabulary, of another length, or does not hold as many genes as it says.
    """
    record = report.get(MEASURED)
    if record is None:
        return None
    try:
        raw = base64.b64decode(record["bits"], validate=True)
        stated, said_hash = record["n_genes"], record["vocabulary_hash"]
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise CorruptStoreError(f"{where}: the record of measured genes cannot be read ({error!r})") from None
    if said_hash != vocabulary_hash:
        raise CorruptStoreError(
            f"{where}: the record of measured genes is of the vocabulary {said_hash}, the store's is {vocabulary_hash}"
        )
    if len(raw) != -(-n_vocabulary // 8):
        raise CorruptStoreError(
            f"{where}: the record of measured genes has {len(raw)} bytes; {n_vocabulary} genes take "
            f"{-(-n_vocabulary // 8)}"
        )
    bits = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), bitorder="little").astype(bool)
    if int(np.count_nonzero(bits)) != stated or bits[n_vocabulary:].any():
        raise CorruptStoreError(
            f"{where}: the record of measured genes marks {int(np.count_nonzero(bits))} genes, and says {stated}"
        )
    return bits[:n_vocabulary]


def measured_genes(store: Store, source: str | None = None) -> Bools:
    """Return `Store.measured`: one source's genes, or those of all sources, a row each."""
    sources = store.manifest.sources
    if source is None:
        rows = list(measured_by_source(store))  # a byte a gene and source
        return np.stack(rows) if rows else np.zeros((0, store.n_genes), dtype=bool)
    names = sources.texts("name")
    if source not in names:
        raise NotFoundError(
            f"{store.location}: there is no source {source!r}.{nearest(source, names)} "
            f"It has: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
        )
    return _of_entry(store, sources[names.index(source)])[_positions(store)]


def measured_by_source(store: Store) -> Iterator[Bools]:
    """Yield which genes each source measured, in storage order, a source at a time; raises as `Store.measured`."""
    positions = _positions(store)
    for entry in store.manifest.sources:
        yield _of_entry(store, entry)[positions]


def _positions(store: Store) -> npt.NDArray[np.int64]:
    """Position in the vocabulary of each gene of the store."""
    positions: npt.NDArray[np.int64] = store.vocabulary.index_of(store.gene_ids)
    if (positions < 0).any():
        raise CorruptStoreError(f"{store.location}: its vocabulary does not hold all of its genes")
    return positions


def sources_of_rows(store: Store, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return `Store.source_of`: the position in the manifest's sources of the source of each (checked) row, int64."""
    shards = store.manifest.shards
    position = {name: i for i, name in enumerate(store.manifest.sources.texts("name"))}
    names = shards.texts("source")
    if unknown := [name for name in names if name not in position]:
        raise CorruptStoreError(f"{store.location}: a shard is of the source {unknown[0]!r}, which the manifest lacks")
    of_shard = np.array([position[name] for name in names], dtype=np.int64)
    ends = np.cumsum(shards.n_cells)
    result: npt.NDArray[np.int64] = of_shard[np.searchsorted(ends, rows, side="right")]
    return result


def _of_entry(store: Store, entry: SourceEntry) -> Bools:
    """Genes of the vocabulary that a source measured."""
    vocabulary = store.vocabulary
    path = store.local_file(entry.report)
    where = f"{store.location}/{entry.report.path}"
    try:
        raw = path.read_bytes()
    except OSError:
        raw = b""
    if len(raw) != entry.report.bytes or hash_bytes(raw) != entry.report.xxh3:
        raise CorruptStoreError(
            f"{where}: missing, or not the bytes that the manifest names. Restore it from a copy or build the store "
            "again."
        )
    try:
        report = json.loads(raw)
    except (ValueError, RecursionError):
        report = None
    if not isinstance(report, dict):
        raise CorruptStoreError(f"{where}: not the report of a source. Build the store again.")
    measured = read_record(report, vocabulary_hash=vocabulary.hash, n_vocabulary=len(vocabulary), where=where)
    if measured is None:
        raise StoreError(
            f"{where}: does not say which genes {entry.name!r} measured; it was written before that was kept. Build "
            "the store again from its inputs to have it."
        )
    return measured
