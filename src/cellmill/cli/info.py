"""`cellmill info`: what a store holds, without reading a single cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cellmill as cm
from cellmill.cli.display import examples, print_json, show_facts, show_table
from cellmill.cli.parameters import AsJson, StoreArgument
from cellmill.units import count_text, plural, size_text

__all__ = ["EPILOG", "duplicates_text", "info", "summary", "written_summary"]

EPILOG = examples("cellmill info atlas.mill", "cellmill info atlas.mill --json")


def summary(store: cm.Store) -> dict[str, Any]:
    """Return what `cellmill info --json` writes: sizes, hashes, sources and columns of a store."""
    manifest = store.manifest
    parts = cm.store.disk_bytes(manifest)
    return {
        "path": str(store.path),
        "n_cells": store.n_cells,
        "n_genes": store.n_genes,
        "nnz": store.nnz,
        "digest": store.digest,
        "vocabulary": {"name": manifest.vocabulary_name, "hash": store.vocabulary_hash},
        "format_version": manifest.format_version,
        "cellmill_version": manifest.cellmill_version,
        "n_shards": len(manifest.shards),
        "bytes": parts,
        "bytes_on_disk": sum(parts.values()),
        "bytes_per_nonzero": store.n_bytes / store.nnz if store.nnz else None,
        "obs": store.obs.schema,
        "sources": [
            {"name": s.name, "kind": s.kind, "path": s.uri, "matrix": s.matrix, "n_cells": s.n_cells, "bytes": s.bytes}
            for s in manifest.sources
        ],
    }


def written_summary(store: cm.Store, path: Path) -> dict[str, Any]:
    """Return the summary of a store that was just written at `path`, as that was given, with its equal cells."""
    found = store.duplicates
    return {**summary(store), "path": str(path), "n_duplicates": None if found is None else found.n_duplicates}


def duplicates_text(found: dict[str, Any]) -> str:
    """Return in words how many cells of a store that was just written equal an earlier one."""
    n = found["n_duplicates"]
    if n is None:
        return f"not looked for; cellmill duplicates {found['path']} does"
    if n == 0:
        return "none"
    cells = "1 cell equals" if n == 1 else f"{count_text(n)} cells equal"
    return f"{cells} an earlier one; cellmill duplicates {found['path']} shows of which sources"


def _show(found: dict[str, Any]) -> None:
    per_nonzero = found["bytes_per_nonzero"]
    parts = {name: size_text(n) for name, n in found["bytes"].items()}
    parts["counts"] += f" ({per_nonzero:.2f} bytes per nonzero)" if per_nonzero else ""
    show_facts(
        found["path"],
        {
            "cells": found["n_cells"],
            "genes": f"{count_text(found['n_genes'])} (vocabulary: {found['vocabulary']['name'] or 'unnamed'})",
            "nonzero counts": found["nnz"],
            "size": f"{size_text(found['bytes_on_disk'])} in {plural(found['n_shards'], 'shard')}",
            "of which": ", ".join(f"{name} {size}" for name, size in parts.items()),
            "digest": found["digest"],
            "obs columns": ", ".join(found["obs"]),
        },
    )
    rows = [[s["name"], s["kind"], s["matrix"], s["n_cells"], size_text(s["bytes"])] for s in found["sources"]]
    show_table(["source", "kind", "matrix", "cells", "input size"], rows)


def info(store: StoreArgument, as_json: AsJson = False) -> None:
    """Show what a store holds: cells, genes, size, sources and obs columns."""
    found = {**summary(cm.open(store)), "path": str(store)}
    if as_json:
        print_json(found)
    else:
        _show(found)
