"""`cellmill bench`: how fast a store reads on this machine, and where the time goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

import cellmill as cm
from cellmill.cli.display import examples, print_json, show_facts, show_table
from cellmill.cli.parameters import AsJson, StoreArgument
from cellmill.cli.progress import drawn
from cellmill.units import size_text

if TYPE_CHECKING:
    from cellmill.bench import ColdProfile, StoreReport, WarmProfile

__all__ = ["EPILOG", "bench"]

EPILOG = examples("cellmill bench atlas.mill", "cellmill bench atlas.mill --seconds 3 --repeats 5 --json > bench.json")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _show_rates(report: StoreReport) -> None:
    rows = [
        [
            rate.workload.order,
            rate.workload.form,
            rate.cache,
            rate.workload.batch_cells,
            rate.workload.threads,
            round(rate.median),
            f"{round(rate.low):,} – {round(rate.high):,}",
        ]
        for rate in report.rates
    ]
    show_table(["rows", "form", "cache", "batch", "threads", "cells per second", "least – most"], rows)


def _warm_line(profile: WarmProfile) -> str:
    return (
        f"{profile.microseconds_per_cell:.2f} µs a cell: kernel {_percent(profile.kernel)} "
        f"({profile.nanoseconds_per_count:.2f} ns a count), "
        f"checks and CSR around it {_percent(profile.python)}"
    )


def _cold_line(profile: ColdProfile | None, resident: float | None) -> str:
    if profile is None:
        return "not measured"
    fetched = (
        "" if profile.disk_bytes_per_cell is None else f", {size_text(profile.disk_bytes_per_cell)} a cell fetched"
    )
    stayed = f"; {_percent(resident)} of the pages stayed in memory" if resident else "; no page stayed in memory"
    return (
        f"waiting for the disk {_percent(profile.waiting)}, {profile.major_faults_per_cell:.2f} page faults a cell"
        f"{fetched} for {size_text(profile.frame_bytes_per_cell)} asked for{stayed if resident is not None else ''}"
    )


def _show(report: StoreReport) -> None:
    ratio = report.bytes_per_nonzero / report.entropy_bytes_per_nonzero if report.entropy_bytes_per_nonzero else 0.0
    show_facts(
        report.path,
        {
            "cells": report.n_cells,
            "nonzero counts": report.nnz,
            "bytes per count": f"{report.bytes_per_nonzero:.3f}",
            "gene-wise entropy": (
                f"{report.entropy_bytes_per_nonzero:.3f} bytes per count, of {report.entropy_cells:,} cells; "
                f"the store is {ratio:.2f} times that"
            ),
            "machine": f"{report.machine}; {report.kernel} kernel, {report.threads} threads",
            "panel": f"{report.panel_genes:,} genes",
        },
    )
    _show_rates(report)
    facts = {f"warm, batch {profile.batch_cells}": _warm_line(profile) for profile in report.warm}
    facts["cold, batch 64"] = _cold_line(report.cold, report.cold_resident)
    if report.memory_bytes is not None:
        facts["memory"] = f"{size_text(report.memory_bytes)} of this process, mapped pages of the store aside"
    show_facts("Where the time of random reads on one thread goes", facts)


def bench(
    store: StoreArgument,
    seconds: Annotated[float, typer.Option("--seconds", metavar="SECONDS", help="Seconds of each measurement.")] = 0.5,
    repeats: Annotated[
        int, typer.Option("--repeats", metavar="N", help="Repeats of each measurement; the median is shown.")
    ] = 3,
    threads: Annotated[
        int, typer.Option("--threads", metavar="N", help="What all threads means; 0 for all cores.")
    ] = 0,
    cold: Annotated[
        bool, typer.Option("--cold/--no-cold", help="Also read after the store's pages were dropped from memory.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Measure how fast a store reads on this machine, and say where the time goes."""
    with drawn():
        report = cm.bench.measure_store(store, seconds=seconds, repeats=repeats, threads=threads, cold=cold)
    if as_json:
        print_json(report)
    else:
        _show(report)
