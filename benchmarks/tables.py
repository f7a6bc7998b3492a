"""Numbers of a comparison as tables, goals and a picture."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from systems_known import SYSTEMS, TITLES

Summary = dict[str, dict[str, Any]]


def summarise(raw: Iterable[dict[str, Any]], sample: dict[str, Any]) -> Summary:
    """Return, for each system, medians and spread of everything that was measured."""
    numbers: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for answer in raw:
        found = numbers[answer["system"]]
        if "peak_rss" in answer:
            found["convert_seconds"].append(answer["seconds"])
        for key in ("peak_rss", "peak_anonymous", "count_bytes", "total_bytes"):
            if key in answer:
                found[key].append(answer[key])
        for rate in answer.get("rates", []):
            key = f"{answer['action']} {rate['kind']} {rate['batch']}x{rate['threads']}".replace("speed", "warm")
            found[key].append(rate["cells_per_second"])
        for key in ("anonymous", "open_seconds"):
            if key in answer:
                found[key].append(answer[key])
        if "anonymous" in answer:
            found["own_memory"].append(answer["anonymous"] - answer["anonymous_before"])
    summary: Summary = {}
    for name in SYSTEMS:
        if numbers[name]:
            summary[name] = {key: spread(values) for key, values in numbers[name].items()}
            for key in ("count_bytes", "total_bytes"):
                if key in summary[name]:
                    summary[name][f"{key}_per_nonzero"] = spread([v / sample["nonzeros"] for v in numbers[name][key]])
    return summary


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "low": min(values), "high": max(values), "n": len(values)}


# ---- goals ---------------------------------------------------------------------------------------------------------


def goals(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the store must reach, what it reaches in this run, and whether; ratios of medians."""
    summary, entropy = result["summary"], result["sample"]["entropy_bytes_per_nonzero"]
    peers = [name for name in summary if SYSTEMS[name] == "peer"]

    def get(name: str, key: str) -> float | None:
        return summary.get(name, {}).get(key, {}).get("median")

    def best_peer(*keys: str) -> float | None:
        found = [value for name in peers for key in keys if (value := get(name, key))]
        return max(found, default=None)

    warm_64, warm_1, warm_2 = "warm random 64x1", "warm random 512x1", "warm random 512x2"
    ours_1, size = get("cellmill", warm_1), get("cellmill", "count_bytes_per_nonzero")
    disk = result.get("disk", {})
    peak = get("cellmill", "peak_rss")
    listed = [
        ("bytes per nonzero", "<=", 0.90, size),
        ("bytes per nonzero / gene-wise entropy", "<=", 1.25, _ratio(size, entropy)),
        ("1 thread, batch 512 / memory map", ">=", 1.0, _ratio(ours_1, get("memmap", warm_1))),
        ("1 thread, batch 512 / scipy in memory", ">=", 1.2, _ratio(ours_1, get("memory", warm_1))),
        ("2 threads, batch 512 / memory map, 1 thread", ">=", 1.8,
         _ratio(get("cellmill", warm_2), get("memmap", warm_1))),
        (
            "2 threads, batch 512 / best peer, one or two",
            ">=",
            3.0,
            _ratio(get("cellmill", warm_2), best_peer(warm_1, warm_2)),
        ),
        ("batch 64 / batch 512, 1 thread", ">=", 0.85, _ratio(get("cellmill", warm_64), ours_1)),
        ("dense panel of 2,000 genes / CSR, 1 thread", ">=", 1.5, _ratio(get("cellmill", "warm panel 512x1"), ours_1)),
        (
            "cold, batch 64, 1 thread / best peer",
            ">=",
            2.0,
            _ratio(get("cellmill", "cold random 64x1"), best_peer("cold random 64x1")),
        ),
        (
            "cold, batch 512, 2 threads / best peer",
            ">=",
            2.0,
            _ratio(get("cellmill", "cold random 512x2"), best_peer("cold random 512x2", "cold random 512x1")),
        ),
        ("cold, batch 512, 1 thread / reads of the disk, 1 thread", ">=", 1.0,
         _ratio(get("cellmill", "cold random 512x1"), disk.get("threads_1"))),
        ("cold, batch 512, 2 threads / reads of the disk, 2 threads", ">=", 1.0,
         _ratio(get("cellmill", "cold random 512x2"), disk.get("threads_2"))),
        (
            "conversion: cellstream seconds / ours",
            ">=",
            2.0,
            _ratio(get("cellstream", "convert_seconds"), get("cellmill", "convert_seconds")),
        ),
        ("conversion: peak memory, GiB", "<", 1.0, None if peak is None else peak / 2**30),
        ("memory of a reader, MiB", "<", 200.0, _ratio(get("cellmill", "own_memory"), 2**20)),
    ]  # fmt: skip
    tests = {"<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b, "<": lambda a, b: a < b}
    return [
        {
            "what": what,
            "goal": f"{sign} {bound:g}",
            "found": found,
            "met": None if found is None else tests[sign](found, bound),
        }
        for what, sign, bound, found in listed
    ]


def _ratio(first: float | None, second: float | None) -> float | None:
    return first / second if first is not None and second else None


# ---- Markdown ------------------------------------------------------------------------------------------------------


def table_text(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def cell_text(found: dict[str, float] | None, *, scale: float = 1.0, digits: int = 0) -> str:
    """Return "median (low–high)", or the median alone where nothing varies."""
    if not found:
        return "–"
    middle, low, high = (f"{found[key] / scale:,.{digits}f}" for key in ("median", "low", "high"))
    return middle if low == high else f"{middle} ({low}–{high})"


def markdown(result: dict[str, Any]) -> str:
    """Return the whole comparison as a page."""
    sample, summary, box = result["sample"], result["summary"], result["machine"]
    parts = [
        f"# Stores side by side, {sample['cells']:,} cells",
        (
            f"`{result['command']}`, {box['date']}; {box['processor']}, {box['processors']} processors, "
            f"{box['memory']}, {box['system']}; load before: {box['load_before']}; commit {box['commit']}."
        ),
        (
            f"Sample: {sample['cells']:,} cells x {sample['genes']:,} genes, {sample['nonzeros']:,} nonzeros "
            f"({sample['nonzeros_per_cell']:,.0f} a cell, {100 * sample['share_of_ones']:.1f} % ones), gene-wise "
            f"entropy {sample['entropy_bytes_per_nonzero']:.3f} bytes per nonzero. Medians of "
            f"{result['settings']['repeats']} rounds of {result['settings']['seconds']:g} s (lowest–highest); systems "
            "alternate, each in a fresh process. Values of every system were compared with the source before it was "
            "timed."
        ),
        "## Size and conversion from h5ad",
        table_text(
            ["system", "bytes per nonzero, counts", "whole folder", "seconds", "peak memory MiB", "of it its own"],
            [
                [
                    TITLES[name],
                    cell_text(found.get("count_bytes_per_nonzero"), digits=3),
                    cell_text(found.get("total_bytes_per_nonzero"), digits=3),
                    cell_text(found.get("convert_seconds"), digits=1),
                    cell_text(found.get("peak_rss"), scale=2**20),
                    cell_text(found.get("peak_anonymous"), scale=2**20),
                ]
                for name, found in summary.items()
                if "count_bytes" in found
            ],
        ),
        "## Cells per second, page cache warm",
        _speed_table(
            summary,
            "warm",
            ["random 64x1", "random 512x1", "random 64x2", "random 512x2", "sequential 512x1", "panel 512x1"],
        ),
        (
            "64x1: batches of 64 on one thread, pinned to one processor; x2: two threads, or two DataLoader workers "
            "where a system has no threads. Batches are torch CSR; the panel is 2,000 highly variable genes as dense "
            "float32. Own memory: anonymous memory after one-thread reading, less that before opening."
        ),
    ]
    if "disk" in result:
        disk = result["disk"]
        parts += [
            "## Cells per second, page cache dropped",
            _speed_table(summary, "cold", ["random 64x1", "random 512x1", "random 512x2"], memory=False),
            (
                f"Dropped by {result['cold_by']}. The first batch, in which files are opened, is not timed. The disk "
                f"itself: {disk['threads_1']:,.0f} random reads of {disk['block_bytes']:,} bytes (a mean frame) per "
                f"second on one thread, {disk['threads_2']:,.0f} on two. Below a guest system a host may still cache."
            ),
        ]
    parts += [
        "## Goals",
        table_text(
            ["figure", "goal", "found", "met"],
            [
                [g["what"], g["goal"], "–" if g["found"] is None else f"{g['found']:.3g}",
                 {True: "yes", False: "**no**", None: "not measured"}[g["met"]]]
                for g in result["goals"]
            ],
        ),
        "## Versions",
        "\n".join(
            f"- {TITLES[name]}: " + ", ".join(f"{k} {v}" for k, v in found.items())
            for name, found in result["versions"].items() if found
        ),
    ]  # fmt: skip
    if result["left_out"]:
        parts += ["## Left out", "\n".join(f"- {TITLES[n]}: {why}" for n, why in result["left_out"].items())]
    return "\n\n".join(parts) + "\n"


def _speed_table(summary: Summary, cache: str, modes: Sequence[str], *, memory: bool = True) -> str:
    rows = []
    for name, found in summary.items():
        cells = [cell_text(found.get(f"{cache} {mode}")) for mode in modes]
        if set(cells) != {"–"}:
            rows.append([TITLES[name], *cells, *([cell_text(found.get("own_memory"), scale=2**20)] if memory else [])])
    return table_text(["system", *modes, *(["own memory MiB"] if memory else [])], rows)


def files_markdown(result: dict[str, Any]) -> str:
    """Return sizes on real files as a page, with a verdict for each."""
    names = [name for name in ["cellmill", *TITLES] if any(name in row["bytes"] for row in result["files"])]
    names = list(dict.fromkeys(names))
    rows = []
    for row in result["files"]:
        ours = row["bytes"].get("cellmill")
        sizes = [f"{row['bytes'][n] / row['nonzeros']:.3f}" if n in row["bytes"] else "–" for n in names]
        others = {n: size for n, size in row["bytes"].items() if n != "cellmill"}
        larger = [TITLES[n] for n, size in others.items() if ours is not None and ours >= size]
        verdict = "–" if ours is None else "smallest" if not larger else "larger than " + ", ".join(larger)
        entropy = row["entropy_bytes_per_nonzero"]
        ratio = "–" if ours is None else f"{ours / row['nonzeros'] / entropy:.2f}"
        shape = f"{row['cells']:,} x {row['genes']:,}"
        rows.append([row["file"], shape, f"{row['nonzeros_per_cell']:,.0f}", f"{entropy:.3f}", ratio, *sizes, verdict])
    box = result["machine"]
    head = ["file", "cells x genes", "nonzeros a cell", "entropy", "cellmill / entropy", *(TITLES[n] for n in names)]
    text = [
        "# Sizes on real files",
        f"`{result['command']}`, {box['date']}, commit {box['commit']}.",
        (
            "Bytes per nonzero of the counts alone (values, genes, where each cell begins), without obs; entropy is "
            "gene-wise, of the whole file. Values of every system were compared with the source."
        ),
        table_text([*head, "verdict"], rows),
    ]
    left = [f"- {row['file']}, {TITLES[n]}: {why}" for row in result["files"] for n, why in row["left_out"].items()]
    return "\n\n".join([*text, *(["## Left out", "\n".join(left)] if left else [])]) + "\n"


# ---- files ---------------------------------------------------------------------------------------------------------


def write(result: dict[str, Any], folder: Path, *, stem: str) -> list[Path]:
    """Write JSON, Markdown and picture; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{stem}-{time.strftime('%Y-%m-%d')}"
    if (folder / f"{stem}.json").exists():  # a second one of the day, perhaps of another machine, takes nothing away
        stem += time.strftime("-%H%M")
    paths = [folder / f"{stem}.json", folder / f"{stem}.md", folder / f"{stem}.png"]
    paths[0].write_text(json.dumps(result, indent=1) + "\n")
    text = markdown(result)
    if draw(result["summary"], result["sample"], paths[2]):
        text += f"\n![bytes per nonzero against cells per second]({paths[2].name})\n"
    else:
        paths.pop()
    paths[1].write_text(text)
    return paths


def write_files(result: dict[str, Any], folder: Path) -> list[Path]:
    """Write JSON and Markdown of sizes on real files; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"files-{time.strftime('%Y-%m-%d')}"
    paths = [folder / f"{stem}.json", folder / f"{stem}.md"]
    paths[0].write_text(json.dumps(result, indent=1) + "\n")
    paths[1].write_text(files_markdown(result))
    return paths


def draw(summary: Summary, sample: dict[str, Any], path: Path) -> bool:
    """Draw size against speed, one point a system; False when matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(7.5, 4.8), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for name, found in summary.items():
        size = found.get("count_bytes_per_nonzero", {}).get("median", 8.0)
        speed = found.get("warm random 512x1")
        if not speed:
            continue
        colour = "tab:red" if name == "cellmill" else "tab:grey" if SYSTEMS[name] == "ours" else "tab:blue"
        error = [[speed["median"] - speed["low"]], [speed["high"] - speed["median"]]]
        axes.errorbar(size, speed["median"], yerr=error, fmt="o", color=colour, capsize=3)
        axes.annotate(TITLES[name], (size, speed["median"]), xytext=(6, 4), textcoords="offset points", fontsize=8)
    entropy = sample["entropy_bytes_per_nonzero"]
    axes.axvline(entropy, color="black", linestyle=":", linewidth=1)
    axes.annotate("gene-wise entropy", (entropy, 0.02), xycoords=("data", "axes fraction"), rotation=90, fontsize=7)
    axes.set(
        xscale="log", yscale="log", xlabel="bytes per nonzero count (less is better)", xlim=(0.6, 16),
        ylabel="random cells per second, one thread, warm, batch 512",
        title=f"{sample['cells']:,} simulated cells x {sample['genes']:,} genes",
    )  # fmt: skip
    axes.grid(visible=True, which="both", alpha=0.2)
    figure.savefig(path)
    return True
