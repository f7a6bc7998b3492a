"""`cellmill build`: count matrices to a store."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.padding import Padding
from rich.text import Text

import cellmill as cm
from cellmill.cli.display import console, error_console, examples, print_json, show_facts
from cellmill.cli.errors import EXIT_USAGE
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
    Threads,
    Verbose,
    WhereIn,
    Workers,
    part_of_many,
    renames,
)
from cellmill.cli.progress import drawn
from cellmill.errors import ConfigError, InputError
from cellmill.storage.urls import is_url
from cellmill.units import plural, size_text, time_text

__all__ = [
    "EPILOG",
    "build",
    "show_built",
    "show_next",
    "show_plan",
    "show_skipped",
    "show_sources",
    "skipped_inputs",
    "source_reports",
]

EPILOG = examples(
    "cellmill build atlas.mill blood.h5ad gut.h5 mex-folder/",
    "cellmill build atlas.mill 'studies/*.h5ad' --rename donor=donor_id",
    "cellmill build atlas.mill 'studies/*.h5ad' --obs-map labels.yaml --dry-run",
    "cellmill build atlas.mill 'studies/*.h5ad' --skip-bad",
    "cellmill build atlas.mill normalised.h5ad --counts layers/counts",
    "cellmill build atlas.mill raw.h5 --min-counts 500 --max-mito 0.2",
    "cellmill build atlas.mill 'new/*.h5ad' --where \"tissue = 'blood'\"",
    "cellmill build atlas.mill 'studies/*.h5ad' --about about.yaml",
    "cellmill build atlas.mill 'studies/*.h5ad' --dry-run",
    "cellmill build atlas.mill GSE1_counts.csv.gz -v",
    "cellmill build atlas.mill counts.csv --format csv-genes-x-cells",
    "cellmill build a.mill https://example.org/blood.h5ad --downloads /tmp",
    "cellmill build atlas.mill 'studies/*.h5ad' --workers 4",
    "cellmill build atlas.mill by-gene.h5ad --memory 2GiB --scratch /scratch",
    "cellmill build atlas.mill 'studies/*.h5ad' --dask tcp://node1:8786",
    "cellmill build atlas.mill 'studies/*.h5ad' --task 3/16",
)


def skipped_inputs(store: cm.Store) -> list[dict[str, str]]:
    """Return the inputs that the last run over a store left out: path and reason."""
    generation = store.manifest.generation
    name = f"append-{generation}.json" if generation else "build.json"
    report = json.loads((store.path / "reports" / name).read_text(encoding="utf-8"))
    skipped: list[dict[str, str]] = report["skipped"]
    return skipped


def show_skipped(skipped: list[dict[str, str]], *, what: str = "skipped") -> None:
    """Show which inputs were left out, and why."""
    if skipped:
        out = console()
        out.print(f"{len(skipped)} {what}")
        for one in skipped:
            out.print(Text(f"  {one['path']}", style="bold"), soft_wrap=True)
            reason = one["reason"].removeprefix(one["path"]).removeprefix(":").strip()
            out.print(Padding(Text(reason), (0, 0, 1, 6)))


def _show(found: dict[str, Any]) -> None:
    show_skipped(found["skipped"])
    stored, inputs = found["bytes_on_disk"], found["inputs_bytes"]
    share = f" ({stored / inputs:.0%} of the inputs' {size_text(inputs)})" if inputs else ""
    per_nonzero = found["bytes_per_nonzero"]
    show_facts(
        found["path"],
        {
            "cells": found["n_cells"],
            "genes": found["n_genes"],
            "nonzero counts": found["nnz"],
            "size": f"{size_text(stored)}{share}",
            "counts": f"{per_nonzero:.2f} bytes per nonzero" if per_nonzero else "none",
            "duplicates": duplicates_text(found),
            "time": time_text(found["seconds"]),
            "digest": found["digest"],
        },
    )
    show_sources(found["sources_built"])
    show_next(found["path"])


def source_reports(store: cm.Store, *, first: int = 0) -> list[dict[str, Any]]:
    """Return what became of each input of a store, from source number `first`: a line in words, and the numbers."""
    found = []
    for source in store.manifest.sources[first:]:
        report = json.loads((store.path / source.report.path).read_text(encoding="utf-8"))
        told = (
            "name",
            "cells_read",
            "n_cells",
            "filters",
            "features_left_out",
            "markers_left_out",
            "rounded",
            "warnings",
        )
        facts = {name: report[name] for name in told if name in report}
        matched = ("n_genes", "matched", "share_matched", "umi_share_matched")
        facts |= {"genes": {name: report["genes"].get(name) for name in matched}}
        found.append({"line": cm.ingest.summary_line(report), **facts})
    return found


def show_sources(sources: list[dict[str, Any]]) -> None:
    """Show one line for each input, and below it its warnings and what filters removed."""
    out = console()
    for source in sources:
        out.print(Text(source["line"]), soft_wrap=True)
        for line in source.get("filters", ()):
            what = "cell" if "cells_removed" in line else "gene"
            removed = plural(line[f"{what}s_removed"], what)
            out.print(Text(f"  {line['filter']} {line['value']}: {removed} removed"), soft_wrap=True)
        for warning in source.get("warnings", ()):
            out.print(Text(f"  warning: {warning}", style="yellow"), soft_wrap=True)


def show_next(path: str) -> None:
    """Show what may be done with a store that was just written."""
    out = console()
    out.print("What next:")
    for line in (
        f"cellmill info {path}",
        f"cellmill head {path}",
        f"cellmill card {path}",
        f"cellmill genes report {path}",
    ):
        out.print(Text(f"  {line}"), soft_wrap=True)


def build(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The folder to make, for example atlas.mill.")],
    inputs: Inputs,
    vocabulary: Annotated[
        str | None,
        typer.Option(
            "--vocabulary",
            metavar="NAME",
            help="human, mouse, union (the files' own ids) or a vocabulary's JSON file; recognised by default.",
        ),
    ] = None,
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the store if it is there.")] = False,
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
    task: Annotated[
        str | None,
        typer.Option(
            "--task", metavar="I/N", help="Do part I of N, as a job of an array; then `cellmill commit STORE`."
        ),
    ] = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Make a store from count matrices: counts proven raw, genes aligned, every drop reported."""
    policy: dict[str, Any] = {"counts": counts, "min_match": min_match, "skip_bad": skip_bad, "format": file_format}
    policy |= {"allow_rounding": allow_rounding, "where": where, "min_counts": min_counts, "min_genes": min_genes}
    policy |= {"max_mito": max_mito, "min_cells_per_gene": min_cells_per_gene}
    policy |= {"obs_map": cm.ingest.ObsMap.of(obs_map), "dataset_name": dataset_name}
    columns = renames(rename or [])
    if verbose:
        show_guesses(inputs, file_format)
    if dry_run:
        told = cm.ingest.read_about(about) if about else None
        limits = {"memory_bytes": cm.ingest.memory_bytes_of(memory), "scratch": cm.ingest.scratch_of(scratch)}
        asked = {**policy, **limits, "rename": tuple(columns.items()), "about": told}
        _dry_run(inputs, vocabulary, asked, downloads=downloads, workers=workers, as_json=as_json)
        return
    if task is not None:
        if dask is not None:
            raise ConfigError("--task is a part done by hand, --dask gives out the parts itself: give one of them")
        _build_part(
            store,
            inputs,
            part=part_of_many(task),
            as_json=as_json,
            vocabulary=vocabulary,
            rename=columns,
            about=about,
            overwrite=overwrite,
            block_cells=block_cells,
            memory=memory,
            scratch=scratch,
            threads=threads,
            workers=workers or 1,
            duplicates=not no_duplicates,
            **policy,
        )
        return
    started = time.perf_counter()
    with drawn():
        built = cm.build(
            store,
            inputs,
            vocabulary=vocabulary,
            rename=columns,
            about=about,
            overwrite=overwrite,
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
    show_built(built, store, seconds=time.perf_counter() - started, as_json=as_json)


def show_built(built: cm.Store, path: Path, *, seconds: float, as_json: bool) -> None:
    """Show what a build has made; `path` as it was given, so that "what next" can be pasted."""
    found = written_summary(built, path)
    found["inputs_bytes"] = sum(source.bytes for source in built.manifest.sources)
    found["seconds"] = round(seconds, 3)
    found["skipped"] = skipped_inputs(built)
    found["sources_built"] = source_reports(built)
    if as_json:
        print_json(found)
    else:
        _show(found)


def show_guesses(inputs: list[str], file_format: str | None) -> None:
    """Say on standard error what each input is read as, and why; what cannot be read is said by the build itself."""
    out = error_console()
    urls = [one for one in inputs if is_url(one)]
    for one in urls:
        out.print(
            Text(f"{cm.sources.recorded_url(one)}: fetched first, and then read as what it turns out to be"),
            soft_wrap=True,
        )
    files = [one for one in inputs if one not in urls]
    found, passed = cm.sources.find_inputs(files, keep_unusable=True) if files else ([], [])
    for path in found:
        if file_format is not None:
            said = f"{path}: read as {file_format}, since --format says so"
        else:
            try:
                said = cm.sources.explain_guess(path)
            except InputError as error:
                said = str(error)
        out.print(Text(said), soft_wrap=True)
    for other in passed:
        out.print(Text(f"{other.path}: passed over, {other.why}"), soft_wrap=True)


def _build_part(store: Path, inputs: list[str], *, part: tuple[int, int], as_json: bool, **policy: Any) -> None:
    with drawn():
        done = cm.ingest.build_part(store, inputs, part=part, **policy)
    if as_json:
        print_json(done)
        return
    out, (one, of) = console(), part
    cells, tasks = plural(done.n_cells, "cell"), plural(done.n_tasks, "task")
    out.print(Text(f"part {one} of {of} is done: {cells} in {done.tasks} of {tasks}"))
    out.print(Text(f"When all parts are: cellmill commit {store}"), soft_wrap=True)


def _dry_run(
    inputs: list[str],
    vocabulary: str | None,
    policy: dict[str, Any],
    *,
    downloads: Path | None,
    workers: int | None,
    as_json: bool,
) -> None:
    options = cm.ingest.BuildOptions(**policy)
    with drawn():
        here = cm.ingest.fetched_inputs(inputs, downloads=downloads)
        planned = cm.ingest.plan_build(here.inputs, vocabulary=vocabulary, options=options, fetched=here)
    show_plan(planned, workers=workers, as_json=as_json)


def show_plan(planned: cm.ingest.BuildPlan, *, workers: int | None, as_json: bool) -> None:
    """Show what would be written and what it needs; ends with 2 when inputs cannot be used."""
    needs = cm.ingest.estimate(planned, workers=workers)
    if as_json:
        print_json({**planned.to_dict(), "estimate": needs.to_dict()})
    else:
        show_skipped([one.to_dict() for one in planned.skipped])
        show_skipped([one.to_dict() for one in planned.refused], what="cannot be used")
        console().print(Text(f"{planned}\n{needs}"), soft_wrap=True)
    if planned.refused:
        raise typer.Exit(EXIT_USAGE)
