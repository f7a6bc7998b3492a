"""From a store to the data of its card (floor 7): manifest, reports, obs, and a sample of cells for the genes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cellmill.card.content import CardData, GenePoints
from cellmill.card.tally import tally_cells
from cellmill.errors import CorruptStoreError
from cellmill.genes.resolve import Outcome
from cellmill.statistics import gene_statistics
from cellmill.storage import hash_bytes
from cellmill.store.disk import disk_bytes
from cellmill.store.measured import read_record

if TYPE_CHECKING:
    from cellmill.store import FileEntry, SourceEntry, Store

__all__ = ["OUTCOME_TEXTS", "collect_card"]

_GENE_CELLS = 100_000

# what a reader of a card is told about each outcome; one that is not here is shown by its name
OUTCOME_TEXTS: dict[str, str] = {
    "exact_id": "id",
    "successor_id": "retired id",
    "symbol_with_id": "symbol with its id",
    "current_symbol": "symbol",
    "tenx_symbol": "symbol of an older 10x reference",
    "previous_symbol": "previous symbol",
    "orthologue_symbol": "older human symbol",
    "alias": "alias",
    "ambiguous": "ambiguous",
    "unmatched": "not found",
    "not_in_vocabulary": "not in the vocabulary",
}


def collect_card(store: Store, *, name: str | None = None, gene_cells: int = _GENE_CELLS, threads: int = 0) -> CardData:
    """Return the data of a store's card.

    Parameters
    ----------
    name : str, optional
        What the store is called; its folder's name when not given.
    gene_cells : int
        Means and variances of genes are taken over that many cells, evenly spaced over the store.
    threads : int
        0 for one per core.

    Raises
    ------
    CorruptStoreError
        When obs or a report is damaged.

    Notes
    -----
    Memory is that of one shard's obs columns, and of the labels there are; it does not grow with the cells.
    """
    compositions, spreads = tally_cells(store)
    positions = store.vocabulary.index_of(store.gene_ids)
    sources = tuple(_source(store, entry, positions) for entry in store.manifest.sources)
    known = [str(outcome) for outcome in Outcome]
    seen = {outcome for source in sources for outcome in source["genes"].get("outcomes", {})}
    ordered = [*(one for one in known if one in seen), *sorted(seen - set(known))]
    return CardData(
        name=name or store.location.rstrip("/").rpartition("/")[2],
        facts=_facts(store),
        compositions=compositions,
        spreads=spreads,
        genes=_genes(store, gene_cells, threads),
        outcomes={one: OUTCOME_TEXTS.get(one, one.replace("_", " ")) for one in ordered},
        sources=sources,
        duplicates=_duplicates(store),
        runs=_runs(store),
    )


def _facts(store: Store) -> dict[str, Any]:
    manifest, parts = store.manifest, disk_bytes(store.manifest)
    return {
        "n_cells": store.n_cells,
        "n_genes": store.n_genes,
        "nnz": store.nnz,
        "n_shards": len(manifest.shards),
        "n_sources": len(manifest.sources),
        "bytes": parts,
        "bytes_on_disk": sum(parts.values()),
        "bytes_of_sources": sum(entry.bytes for entry in manifest.sources),
        "bytes_per_count": store.n_bytes / store.nnz if store.nnz else None,
        "genes_per_cell": store.nnz / store.n_cells if store.n_cells else None,
        "digest": store.digest,
        "vocabulary": {
            "name": manifest.vocabulary_name,
            "hash": store.vocabulary_hash,
            "n_genes": len(store.vocabulary),
        },
        "format_version": manifest.format_version,
        "cellmill_version": manifest.cellmill_version,
        "obs": store.obs.schema,
    }


def _genes(store: Store, most_cells: int, threads: int) -> GenePoints | None:
    if not store.nnz:
        return None
    n = min(store.n_cells, most_cells)
    rows = None if n == store.n_cells else np.linspace(0, store.n_cells - 1, n).round().astype(np.int64)
    found = gene_statistics(store, rows, threads=threads)
    there = np.flatnonzero(found.n_detected)
    genes = store.genes.take(there)
    ids, symbols = genes.column("gene_id").to_pylist(), genes.column("symbol").to_pylist()
    return GenePoints(
        n_cells=found.n_cells,
        gene_ids=tuple(ids),
        symbols=tuple(symbol or gene_id for gene_id, symbol in zip(ids, symbols, strict=True)),
        mean=tuple(found.mean[there].tolist()),
        variance=tuple(found.variance[there].tolist()),
    )


# ---- reports ----------------------------------------------------------------------------------------------------


def _source(store: Store, entry: SourceEntry, positions: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return what a card says of a source: its report without the lists that only programs read."""
    where = f"{store.location}/{entry.report.path}"
    report = _read_report(store.local_file(entry.report), where, proven=entry.report)
    genes: Mapping[str, Any] = report.get("genes", {})
    dropped = report.get("genes_dropped", [])
    return {
        "name": entry.name,
        "kind": entry.kind,
        "uri": entry.uri,
        "matrix": entry.matrix,
        "n_cells": entry.n_cells,
        "bytes": entry.bytes,
        "xxh3": entry.xxh3,
        "counts_stored": report.get("counts_stored"),
        "proof": report.get("proof", {}),
        "genes": {
            "n_genes": genes.get("n_genes", 0),
            "matched": genes.get("matched", 0),
            "share_matched": genes.get("share_matched", 0.0),
            "outcomes": genes.get("outcomes", {}),
            "umi_shares": genes.get("umi_shares") or {},
            "n_merged": len(genes.get("duplicates", [])),
            "unmatched_examples": genes.get("unmatched_examples", dropped[:10]),
            "n_dropped": len(dropped),
            "n_measured": _n_measured(store, report, positions, where),
            "species": genes.get("species"),
            "reference": genes.get("reference"),
        },
        "entries_merged": report.get("entries_merged", 0),
        "about": report.get("about", {}),
        "cells_read": report.get("cells_read", entry.n_cells),
        "filters": report.get("filters", []),
        "rounded": report.get("rounded"),
        "warnings": [str(warning) for warning in report.get("warnings", [])],
        "notes": [str(note) for note in report.get("notes", [])],
    }


def _n_measured(store: Store, report: Mapping[str, Any], positions: npt.NDArray[np.int64], where: str) -> int | None:
    """Return how many genes of the store a source measured; None where its report is older than that."""
    measured = read_record(
        report, vocabulary_hash=store.vocabulary_hash, n_vocabulary=len(store.vocabulary), where=where
    )
    return None if measured is None else int(measured[positions].sum())


def _read_report(path: Path, where: str, *, proven: FileEntry | None = None) -> dict[str, Any]:
    """Read a report; with `proven`, only the bytes that the manifest names."""
    try:
        raw = path.read_bytes()
        if proven is not None and (len(raw), hash_bytes(raw)) != (proven.bytes, proven.xxh3):
            raise ValueError("not the bytes that the manifest names")
        found = json.loads(raw)
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise CorruptStoreError(
            f"{where}: this report cannot be read ({error}). Restore it from a copy or build the store again."
        ) from None
    return found


def _duplicates(store: Store) -> dict[str, Any] | None:
    found = store.duplicates
    return None if found is None else found.to_dict()


def _runs(store: Store) -> tuple[dict[str, Any], ...]:
    """Return the builds and appends that left a report in the store, in their order; there need be none."""
    folder = store.path / "reports"
    if not folder.is_dir():
        return ()
    appended = sorted(folder.glob("append-*.json"), key=lambda path: int(path.stem.rpartition("-")[2]))
    there = [path for path in [folder / "build.json", *appended] if path.is_file()]
    return tuple({"name": path.stem, **_read_report(path, str(path))} for path in there)
