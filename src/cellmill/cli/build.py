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
from cellmill.cli.display import console, examples, print_json, show_facts
from cellmill.cli.info import summary
from cellmill.cli.parameters import AsJson
from cellmill.cli.progress import drawn
from cellmill.errors import ConfigError
from cellmill.units import size_text, time_text

__all__ = ["EPILOG", "build", "renames"]

EPILOG = examples(
    "cellmill build atlas.mill blood.h5ad gut.h5 mex-folder/",
    "cellmill build atlas.mill 'studies/*.h5ad' --rename donor=donor_id",
    "cellmill build atlas.mill 'studies/*.h5ad' --skip-bad",
    "cellmill build atlas.mill normalised.h5ad --counts layers/counts",
    "cellmill build atlas.mill 'studies/*.h5ad' --dry-run",
)


def renames(pairs: list[str]) -> dict[str, str]:
    """Return {old: new} from texts "old=new".

    Raises
    ------
    ConfigError
        For a text that is not of this form, or a column renamed twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        old, equals, new = (part.strip() for part in pair.partition("="))
        if not (old and equals and new):
            raise ConfigError(f"--rename {pair!r}: expected OLD=NEW, for example --rename donor=donor_id")
        if found.get(old, new) != new:
            raise ConfigError(f"--rename: the column {old!r} is given two new names, {found[old]!r} and {new!r}")
        found[old] = new
    return found


def _skipped(store: cm.Store) -> list[dict[str, str]]:
    report = json.loads((store.path / "reports" / "build.json").read_text(encoding="utf-8"))
    skipped: list[dict[str, str]] = report["skipped"]
    return skipped


def _show_skipped(skipped: list[dict[str, str]]) -> None:
    if skipped:
        out = console()
        out.print(f"{len(skipped)} skipped")
        for one in skipped:
            out.print(Text(f"  {one['path']}", style="bold"), soft_wrap=True)
            reason = one["reason"].removeprefix(one["path"]).removeprefix(":").strip()
            out.print(Padding(Text(reason), (0, 0, 1, 6)))


def _show(found: dict[str, Any]) -> None:
    _show_skipped(found["skipped"])
    size, inputs = found["bytes"], found["inputs_bytes"]
    stored = sum(size.values())
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
            "time": time_text(found["seconds"]),
            "digest": found["digest"],
        },
    )
    out = console()
    out.print("What next:")
    for line in (
        f"cellmill info {found['path']}",
        f"cellmill head {found['path']}",
        f"cellmill genes report {found['path']}",
    ):
        out.print(Text(f"  {line}"), soft_wrap=True)


def build(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The folder to make, for example atlas.mill.")],
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="h5ad, 10x HDF5, Matrix Market folders; patterns; folders of these."),
    ],
    vocabulary: Annotated[
        str | None,
        typer.Option(
            "--vocabulary",
            metavar="NAME",
            help="human, mouse, union (the files' own ids) or a vocabulary's JSON file; recognised by default.",
        ),
    ] = None,
    min_match: Annotated[
        float, typer.Option("--min-match", metavar="SHARE", help="Refuse a file of which fewer genes are matched.")
    ] = 0.6,
    counts: Annotated[
        str, typer.Option("--counts", metavar="MATRIX", help="Where the raw counts are: X, raw, layers/NAME, or auto.")
    ] = "X",
    rename: Annotated[
        list[str] | None, typer.Option("--rename", metavar="OLD=NEW", help="Rename a column of obs; may be repeated.")
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option("--format", metavar="KIND", help="h5ad, 10x-h5 or mex; recognised by content by default."),
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Leave out inputs that cannot be used, and list them, instead of stopping."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the store if it is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be built, and write nothing.")] = False,
    block_cells: Annotated[
        int, typer.Option("--block-cells", metavar="N", min=1, help="Cells read at once; memory grows with it.")
    ] = 4096,
    threads: Annotated[int, typer.Option("--threads", metavar="N", min=0, help="Threads; 0 is one per core.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Make a store from count matrices: counts proven raw, genes aligned, every drop reported."""
    policy: dict[str, Any] = {"counts": counts, "min_match": min_match, "skip_bad": skip_bad, "format": file_format}
    columns = renames(rename or [])
    if dry_run:
        _dry_run(inputs, vocabulary, {**policy, "rename": tuple(columns.items())}, as_json=as_json)
        return
    started = time.perf_counter()
    with drawn():
        built = cm.build(
            store,
            inputs,
            vocabulary=vocabulary,
            rename=columns,
            overwrite=overwrite,
            block_cells=block_cells,
            threads=threads,
            **policy,
        )
    found = {**summary(built), "path": str(store)}  # as it was given, so that "what next" can be pasted
    found["inputs_bytes"] = sum(source.bytes for source in built.manifest.sources)
    found["seconds"] = round(time.perf_counter() - started, 3)
    found["skipped"] = _skipped(built)
    if as_json:
        print_json(found)
    else:
        _show(found)


def _dry_run(inputs: list[str], vocabulary: str | None, policy: dict[str, Any], *, as_json: bool) -> None:
    with drawn():
        planned = cm.ingest.plan_build(inputs, vocabulary=vocabulary, options=cm.ingest.BuildOptions(**policy))
    if as_json:
        print_json(planned)
        return
    _show_skipped([one.to_dict() for one in planned.skipped])
    console().print(Text(str(planned)), soft_wrap=True)
