"""What the choice of genes left behind (floor 4): hvg_info.json and the four panels of hvg_analysis.png.

Names and keys are those of the scBaseCount downloader's `preprocess_hvgs`, so that what reads its files reads these.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellmill.statistics.blocks import F64, I64
from cellmill.statistics.variable import HvgResult
from cellmill.storage import write_atomic

if TYPE_CHECKING:
    from cellmill.store import Store

__all__ = ["FIGURE_NAME", "INFO_NAME", "Analysis", "analysis_of", "write_analysis"]

INFO_NAME, FIGURE_NAME = "hvg_info.json", "hvg_analysis.png"
SCORE_NAMES = {
    "dispersion": "dispersion (variance / mean of counts)",
    "seurat": "normalised dispersion",
    "seurat_v3": "standardised variance",
    "pearson": "variance of Pearson residuals",
}
_TOP = 10


@dataclass(frozen=True)
class Analysis:
    """A choice of genes as arrays, genes in storage order.

    Attributes
    ----------
    names : tuple of str
        Symbols; ids where a gene has none.
    mean, score : float64 (n_genes,)
        As in the table of the result; the score NaN where a gene has none.
    log_mean : float64 (n_genes,)
        log1p of the mean.
    percent : float64 (n_genes,)
        Share of the cells in which the gene is detected, in percent.
    chosen : int64 (n,)
        Positions of the chosen genes, best first.
    """

    names: tuple[str, ...]
    mean: F64
    log_mean: F64
    score: F64
    percent: F64
    chosen: I64
    flavor: str
    n_cells: int


def analysis_of(result: HvgResult) -> Analysis:
    """Return the arrays of a result."""
    table = result.table
    ids, symbols = table.column("gene_id").to_pylist(), table.column("symbol").to_pylist()
    mean: F64 = table.column("mean").to_numpy()
    rank = table.column("rank").fill_null(0).to_numpy()
    chosen = np.flatnonzero(rank)
    return Analysis(
        names=tuple(symbol or gene_id for gene_id, symbol in zip(ids, symbols, strict=True)),
        mean=mean,
        log_mean=mean if result.flavor == "seurat" else np.log1p(mean),
        score=table.column("score").fill_null(float("nan")).to_numpy(),
        percent=100.0 * table.column("n_detected").to_numpy() / max(result.n_cells, 1),
        chosen=chosen[np.argsort(rank[chosen])].astype(np.int64),
        flavor=result.flavor,
        n_cells=result.n_cells,
    )


def write_analysis(
    result: HvgResult,
    folder: str | Path,
    *,
    store: Store,
    asked: Mapping[str, Any] | None = None,
    not_measured: Mapping[str, int] | None = None,
) -> tuple[Path, Path]:
    """Write hvg_info.json and hvg_analysis.png into `folder`, which is made; returns their paths.

    Parameters
    ----------
    store
        The store of the result: its digest is written down, by which a reader tells whether the genes are still its.
    asked
        How the genes were asked for (how many, flavor, condition, batch), to be written down.
    not_measured
        How many of the chosen genes each source did not measure (`unmeasured_genes`), to be written down.

    Raises
    ------
    MissingDependencyError
        When matplotlib is not installed (extra `report`); nothing is written then.
    """
    figure = importlib.import_module("cellmill.statistics.figure")  # with matplotlib, which is optional
    analysis = analysis_of(result)
    picture: bytes = figure.draw_analysis(analysis)
    info = {
        **_indices(analysis, result),
        "statistics": _statistics(analysis, result),
        "asked": {"flavor": result.flavor, "n": len(result.gene_ids), **(asked or {})},
        "batches": list(result.batches),
        **({} if not_measured is None else {"not_measured": dict(not_measured)}),
        "store": {"digest": store.digest, "n_cells": store.n_cells, "vocabulary_hash": store.vocabulary_hash},
    }
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths = target / INFO_NAME, target / FIGURE_NAME
    write_atomic(paths[0], (json.dumps(info, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
    write_atomic(paths[1], picture)
    return paths


def _indices(analysis: Analysis, result: HvgResult) -> dict[str, Any]:
    """Positions count in the store's order of genes; keys of a JSON object are texts, and so are those here."""
    chosen = analysis.chosen.tolist()
    return {
        "hvg_indices": chosen,
        "hvg_names": [analysis.names[i] for i in chosen],
        "hvg_gene_ids": list(result.gene_ids),
        "gene_to_hvg_idx": {str(gene): place for place, gene in enumerate(chosen)},
    }


def _statistics(analysis: Analysis, result: HvgResult) -> dict[str, Any]:
    chosen, top = analysis.chosen, analysis.chosen[:_TOP]
    scores = analysis.score[chosen]
    word = "dispersion" if result.flavor == "dispersion" else "score"
    n_detected = result.table.column("n_detected").to_numpy()
    return {
        "total_cells_analyzed": analysis.n_cells,
        "total_genes": len(analysis.names),
        "expressed_genes": int((n_detected >= result.least_detected).sum()),
        "n_hvgs": len(chosen),
        f"mean_{word}": _number(scores, np.mean),
        f"median_{word}": _number(scores, np.median),
        f"min_{word}": _number(scores, np.min),
        f"max_{word}": _number(scores, np.max),
        "mean_expression": _number(analysis.mean[chosen], np.mean),
        "median_pct_cells": _number(analysis.percent[chosen], np.median),
        "top_10_hvgs": [analysis.names[i] for i in top],
        f"top_10_{word}s": analysis.score[top].tolist(),
        "top_10_pct_cells": analysis.percent[top].tolist(),
    }


def _number(values: F64, summary: Any) -> float | None:
    return float(summary(values)) if len(values) else None
