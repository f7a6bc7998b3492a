"""`cellmill append`: more count matrices into a store."""

from __future__ import annotations

import time
from typing import Any

from rich.text import Text

import cellmill as cm
from cellmill.cli.build import show_next, show_plan, show_skipped, show_sources, skipped_inputs, source_reports
from cellmill.cli.display import console, examples, print_json, show_facts
from cellmill.cli.info import duplicates_text, written_summary
from cellmill.cli.parameters import (
    About,
    AllowRounding,
    AsJson,
    BlockCells,
    Counts,
    DaskAddress,
    DatasetName,
    Downloads,
    DryRun,
    FileFormat,
    Inputs,
    MaxMito,
    Memory,
    MinCellsPerGene,
    MinCounts,
    MinGenes,
    MinMatch,
    NoDuplicates,
    ObsMap,
    RemoveDownloads,
    Rename,
    Scratch,
    SkipBad,
    StoreArgument,
    Threads,
    WhereIn,
    Workers,
    renames,
)
from cellmill.cli.progress import drawn
from cellmill.units import plural, size_text, time_text

__all__ = ["EPILOG", "append"]

EPILOG = examples(
    "cellmill append atlas.mill liver.h5ad",
    "cellmill append atlas.mill 'new-studies/*.h5ad' --rename donor=donor_id",
    "cellmill append atlas.mill counts.h5ad --dataset-name GSE132044",
    "cellmill append atlas.mill 'studies/*.h5ad' --skip-bad --dry-run",
    "cellmill append atlas.mill 'new/*.h5ad' --min-counts 500 --max-mito 0.2",
    "cellmill append atlas.mill 'new-studies/*.h5ad' --workers 4",
)


def append(
    store: StoreArgument,
    inputs: Inputs,
    min_match: MinMatch = 0.6,
    counts: Counts = "X",
    rename: Rename = None,
    obs_map: ObsMap = None,
    dataset_name: DatasetName = None,
    file_format: FileFormat = None,
    about: About = None,
    skip_bad: SkipBad = False,
    allow_rounding: AllowRounding = 0.0,
    where: WhereIn = None,
    min_counts: MinCounts = 0,
    min_genes: MinGenes = 0,
    max_mito: MaxMito = None,
    min_cells_per_gene: MinCellsPerGene = 0,
    downloads: Downloads = None,
    remove_downloads: RemoveDownloads = False,
    dry_run: DryRun = False,
    block_cells: BlockCells = 4096,
    memory: Memory = None,
    scratch: Scratch = None,
    no_duplicates: NoDuplicates = False,
    threads: Threads = 0,
    workers: Workers = None,
    dask: DaskAddress = None,
    as_json: AsJson = False,
) -> None:
    """Add cells to a store; its own stay as they are, and it is the old store until all is finished."""
    policy: dict[str, Any] = {"counts": counts, "min_match": min_match, "skip_bad": skip_bad, "format": file_format}
    policy |= {"allow_rounding": allow_rounding, "where": where, "min_counts": min_counts, "min_genes": min_genes}
    policy |= {"max_mito": max_mito, "min_cells_per_gene": min_cells_per_gene}
    policy |= {"obs_map": cm.ingest.ObsMap.of(obs_map), "dataset_name": dataset_name}
    columns = renames(rename or [])
    if dry_run:
        told = cm.ingest.read_about(about) if about else None
        limits: dict[str, Any] = {
            "memory_bytes": cm.ingest.memory_bytes_of(memory),
            "scratch": cm.ingest.scratch_of(scratch),
        }
        options = cm.ingest.BuildOptions(**policy, **limits, rename=tuple(columns.items()), about=told)
        with drawn():
            here = cm.ingest.fetched_inputs(inputs, downloads=downloads)
            planned = cm.ingest.plan_append(store, here.inputs, options=options, fetched=here)
        show_plan(planned, workers=workers, as_json=as_json)
        return
    before, started = cm.open(store), time.perf_counter()
    with drawn():
        grown = cm.append(
            store,
            inputs,
            rename=columns,
            about=about,
            block_cells=block_cells,
            memory=memory,
            scratch=scratch,
            threads=threads,
            workers=workers,
            dask=dask,
            duplicates=not no_duplicates,
            downloads=downloads,
            keep_downloads=not remove_downloads,
            **policy,
        )
    found = written_summary(grown, store)
    found["added"] = {
        "n_cells": grown.n_cells - before.n_cells,
        "n_genes": grown.n_genes - before.n_genes,
        "bytes": grown.n_bytes - before.n_bytes,
        "sources": [source.name for source in grown.manifest.sources[len(before.manifest.sources) :]],
    }
    found["seconds"] = round(time.perf_counter() - started, 3)
    if grown.manifest.generation > before.manifest.generation:
        found["skipped"] = skipped_inputs(grown)
    else:  # nothing was new, and no run reported
        options = cm.ingest.BuildOptions(**policy, rename=tuple(columns.items()))
        found["skipped"] = [one.to_dict() for one in cm.ingest.plan_append(store, inputs, options=options).skipped]
    found["sources_built"] = source_reports(grown, first=len(before.manifest.sources))
    if as_json:
        print_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    show_skipped(found["skipped"])
    added = found["added"]
    if not added["sources"]:
        console().print(Text(f"nothing is new: {found['path']} stays as it is"), soft_wrap=True)
        return
    show_facts(
        found["path"],
        {
            "added": f"{plural(added['n_cells'], 'cell')} of {', '.join(added['sources'])}",
            "new genes": added["n_genes"],
            "new counts": size_text(added["bytes"]),
            "cells": found["n_cells"],
            "genes": found["n_genes"],
            "duplicates": duplicates_text(found),
            "time": time_text(found["seconds"]),
            "digest": found["digest"],
        },
    )
    show_sources(found["sources_built"])
    show_next(found["path"])
