"""The end of a build (floor 4): genes, reports and manifest, from what the finished shards add up to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill import kernel
from cellmill.errors import CellmillError, InputError
from cellmill.events import emit
from cellmill.ingest.admission import Tally
from cellmill.ingest.duplicates import look_for_duplicates
from cellmill.ingest.plan import BuildPlan, Skipped, SourcePlan
from cellmill.ingest.shards import ShardRecord
from cellmill.sources.archive import size_of
from cellmill.storage import write_atomic
from cellmill.store import HEAD_NAME, VOCABULARY_NAME, Duplicates, FileEntry, Manifest, Shards, SourceEntry, Sources
from cellmill.store.measured import MEASURED, measured_record
from cellmill.store.staging import Staging
from cellmill.store.writer import file_entry, own_version, write_genes, write_manifest
from cellmill.units import plural

__all__ = ["conclude", "run_report_name"]


_GENES_NAMED = 5
# kinds of inputs of which every stored entry is a count, but for the markers before lists
_OF_MARKED_LISTS = frozenset({"parquet", "scbank"})


@dataclass
class _Tally:
    """What the finished shards of one input add up to."""

    umi: npt.NDArray[np.float64]
    n_cells: int = 0
    nnz: int = 0
    largest: int = 0
    merged: int = 0
    admitted: Tally = field(default_factory=Tally)


def conclude(
    plan: BuildPlan,
    staging: Staging,
    records: Sequence[ShardRecord],
    skipped: Sequence[Skipped],
    *,
    digest_of: Callable[[SourcePlan], str],
    started: float,
) -> None:
    """Write everything of the store but its shards, the manifest last; `digest_of` gives the hash of an input.

    Raises
    ------
    InputError
        When every input was left out.
    """
    used = _used_sources(plan, records, skipped)
    if not used:
        raise InputError("no input is left to build from:\n" + "\n".join(f"  {s.path}: {s.reason}" for s in skipped))
    base = plan.base.manifest if plan.base else None
    genes = _write_genes(plan, staging, records)
    own: dict[int, list[ShardRecord]] = {}
    for record in records:
        own.setdefault(record.source, []).append(record)
    _require_cells(plan, staging, used, own)
    sources = [_write_source(plan, staging, source, own.get(source[0], []), digest_of) for source in used]
    manifest = Manifest(
        vocabulary_hash=plan.vocabulary.hash,
        vocabulary_name=plan.vocabulary_name,
        vocabulary=base.vocabulary if base else _write_vocabulary(plan, staging),
        genes=genes,
        head=base.head if base else _write_head(plan, staging),
        obs_schema=plan.schema_of(used),
        shards=Shards([*(base.shards if base else ()), *(record.shard for record in records if record.shard)]),
        sources=Sources([*(base.sources if base else ()), *sources]),
        cellmill_version=own_version(),
    ).sealed()
    duplicates = look_for_duplicates(plan, staging, manifest) if plan.options.duplicates else None
    left = _genes_left(plan, used)
    _write_run_report(plan, staging, records, skipped, started, duplicates, left)
    write_manifest(staging.folder, manifest)


def run_report_name(plan: BuildPlan) -> str:
    """Return the path, within the store, of the facts of this run."""
    return f"reports/append-{plan.generation}.json" if plan.base else "reports/build.json"


def _used_sources(
    plan: BuildPlan, records: Sequence[ShardRecord], skipped: Sequence[Skipped]
) -> list[tuple[int, SourcePlan]]:
    """Inputs that are in the store, with their numbers; also those without cells."""
    written = {record.source for record in records}
    left_out = {skip.path for skip in skipped}
    return [
        (i, source)
        for i, source in enumerate(plan.sources)
        if i in written or (source.n_cells == 0 and source.path not in left_out)
    ]


def _genes_left(plan: BuildPlan, used: Sequence[tuple[int, SourcePlan]]) -> list[str]:
    """Return the genes that inputs alone brought which turned out bad while they were read; tells of them.

    Where genes stand was settled before the first shard was written, so these columns stay, and are zero everywhere.
    """
    measured = np.zeros(len(plan.vocabulary), dtype=bool)
    for _, source in used:
        measured[source.target[source.target >= 0]] = True
    if plan.base:
        measured[plan.base.order] = True
    left = [plan.vocabulary.ids[i] for i in plan.order[~measured[plan.order]].tolist()]
    if left:
        named = ", ".join(left[:_GENES_NAMED]) + (", ..." if len(left) > _GENES_NAMED else "")
        advice = "To be rid of them, build again without the inputs that were left out"
        emit(
            "finishing",
            message=f"warning: {plural(len(left), 'gene')} of the store are of inputs that were left out, and no other "
            f"has measured them: {named}. {advice}.",
        )
    return left


def _write_genes(plan: BuildPlan, staging: Staging, records: Sequence[ShardRecord]) -> FileEntry:
    n_cells = sum(record.shard.n_cells for record in records if record.shard)
    detected = sum((record.detected for record in records), start=np.zeros(len(plan.order), dtype=np.int64))
    if plan.base:
        n_cells += plan.base.manifest.n_cells
        detected[: len(plan.base.detected)] += plan.base.detected
    return write_genes(
        staging.folder,
        gene_ids=plan.gene_ids,
        symbols=[plan.vocabulary.symbols[i] for i in plan.order],
        tokens=np.asarray(plan.vocabulary.tokens, dtype=np.int64)[plan.order],
        detection_rate=detected / max(1, n_cells),
        generation=plan.generation,
    )


def _write_head(plan: BuildPlan, staging: Staging) -> FileEntry | None:
    if plan.head is None:
        return None
    write_atomic(staging.folder / HEAD_NAME, plan.head)
    return file_entry(staging.folder, HEAD_NAME)


def _write_vocabulary(plan: BuildPlan, staging: Staging) -> FileEntry:
    plan.vocabulary.to_json(staging.folder / VOCABULARY_NAME)
    return file_entry(staging.folder, VOCABULARY_NAME)


def _tally(plan: SourcePlan, own: Sequence[ShardRecord]) -> _Tally:
    tally = _Tally(umi=np.zeros(plan.n_genes))
    for record in own:
        tally = replace(
            tally,
            umi=tally.umi + record.umi,
            n_cells=tally.n_cells + (record.shard.n_cells if record.shard else 0),
            nnz=tally.nnz + (record.shard.nnz if record.shard else 0),
            largest=max(tally.largest, record.largest),
            merged=tally.merged + record.merged,
            admitted=tally.admitted + record.tally,
        )
    return tally


def _write_source(
    plan: BuildPlan,
    staging: Staging,
    numbered: tuple[int, SourcePlan],
    records: Sequence[ShardRecord],
    digest_of: Callable[[SourcePlan], str],
) -> SourceEntry:
    """Write the report of one input, from its own records; returns its entry."""
    number, source = numbered
    tally = _tally(source, records)
    removed = tally.admitted.removed
    if tally.n_cells + sum(removed.values()) != source.n_cells:
        raise CellmillError(
            f"{source.path}: {source.n_cells} cells were planned, {tally.n_cells} are in the shards, "
            f"{sum(removed.values())} were removed by filters; "
            f"nothing was published. Remove {staging.place} and run the same command again."
        )
    digest = digest_of(source)
    size = size_of(source.path)
    report = {
        "name": source.name, "kind": source.kind, "uri": source.uri or str(source.path), "bytes": size, "xxh3": digest,
        "matrix": source.matrix, "cells_read": source.n_cells, "n_cells": tally.n_cells,
        "filters": _filter_lines(plan, source, removed), "warnings": list(source.warnings), "counts_stored": tally.nnz,
        "proof": {"whole, finite and not negative": "all values", "largest_count": tally.largest,
                  "umis": int(tally.umi.sum())},
        "genes": source.report.with_umi_shares(tally.umi).to_dict() | {"umi_share_matched": _matched(source, tally)},
        "genes_dropped": list(source.unmatched), "features_left_out": dict(source.dropped),
        MEASURED: measured_record(
            source.target, vocabulary_hash=plan.vocabulary.hash, n_vocabulary=len(plan.vocabulary)
        ),
        "obs": [
            {"file": source.obs_origin.get(old, old), "store": new, "type": kind} for old, new, kind in source.obs_names
        ],
        "obs_mapping": [record.to_dict() for record in source.obs_records],
        "entries_merged": tally.merged,
        "notes": list(source.notes),
        "about": plan.options.about.of(source.path) if plan.options.about else {},
    }  # fmt: skip
    if source.kind in _OF_MARKED_LISTS:
        report["markers_left_out"] = source.stored - tally.admitted.entries
    if plan.options.allow_rounding:
        rounded = tally.admitted.rounded
        report["rounded"] = {
            "allowed_distance": plan.options.allow_rounding,
            "values": rounded.values,
            "largest_distance": rounded.largest_distance,
        }
    name = f"reports/{plan.first_report + number:05d}.json"
    write_atomic(staging.folder / name, (json.dumps(report, indent=1, default=str) + "\n").encode())
    return SourceEntry(
        name=source.name,
        kind=source.kind,
        uri=source.uri or str(source.path),
        bytes=size,
        xxh3=digest,
        matrix=source.matrix,
        n_cells=tally.n_cells,
        report=file_entry(staging.folder, name),
    )


def _filter_lines(plan: BuildPlan, source: SourcePlan, removed: Mapping[str, int]) -> list[dict[str, Any]]:
    """One line for each filter, in the order in which they were applied."""
    filters = plan.options.filters
    lines = [
        {"filter": name, "value": value, "cells_removed": removed.get(name, 0)}
        for name, value in filters.of_cells.items()
    ]
    if filters.min_cells_per_gene:
        matched = np.unique(source.target[source.target >= 0])
        rare = int(np.count_nonzero(~np.isin(matched, plan.order)))
        lines.append({"filter": "min_cells_per_gene", "value": filters.min_cells_per_gene, "genes_removed": rare})
    return lines


def _matched(source: SourcePlan, tally: _Tally) -> float | None:
    """Share of the counts of the taken cells on genes that the vocabulary has; None without counts."""
    total = float(tally.umi.sum())
    return float(tally.umi[source.target >= 0].sum()) / total if total else None


def _require_cells(
    plan: BuildPlan,
    staging: Staging,
    used: Sequence[tuple[int, SourcePlan]],
    records: Mapping[int, Sequence[ShardRecord]],
) -> None:
    """Refuse to make a store, or add to one, when filters have removed every cell.

    Raises
    ------
    InputError
        With what each filter removed of each input.
    """
    if not plan.options.filters.of_cells or any(record.shard for own in records.values() for record in own):
        return
    lines = []
    for number, source in used:
        removed = _tally(source, records.get(number, ())).admitted.removed
        told = ", ".join(f"{name} removed {n}" for name, n in removed.items())
        lines.append(f"  {source.name}: {source.n_cells} cells read, {told}")
    staging.forget()  # what is kept would be found again to be nothing
    told = "\n".join(lines)
    raise InputError(
        f"no cell is left after the filters:\n{told}\nAsk less of cells; what they hold, a store that is built without "
        'filters shows: cellmill query STORE "SUMMARIZE obs"'
    )


def _write_run_report(
    plan: BuildPlan,
    staging: Staging,
    records: Sequence[ShardRecord],
    skipped: Sequence[Skipped],
    started: float,
    duplicates: Duplicates | None,
    genes_left: Sequence[str],
) -> None:
    """Facts of this run (times, what was skipped); not named by the manifest, since they differ from run to run."""
    report = {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seconds": round(time.time() - started, 3),
        "kernel": kernel.IMPLEMENTATION,
        "cellmill": own_version(),
        "n_cells": sum(record.shard.n_cells for record in records if record.shard),
        "skipped": [one.to_dict() for one in skipped],
        "genes_of_skipped_alone": list(genes_left),
        "duplicates": None if duplicates is None else duplicates.to_dict(),
    }
    write_atomic(staging.folder / run_report_name(plan), (json.dumps(report, indent=1) + "\n").encode())
