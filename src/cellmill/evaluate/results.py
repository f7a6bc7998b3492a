"""Results of an evaluation: their shape, their summary, and how they are kept in a run folder (floor 7).

Knows numbers, labels and files; must not know models or how results are drawn.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cellmill.evaluate.cells import ResolvedSet
from cellmill.evaluate.metrics import bootstrap_groups
from cellmill.storage import sync_file, write_atomic

__all__ = [
    "EvaluationResult",
    "SetScores",
    "identity_of",
    "read_evaluation",
    "read_result",
    "summarise",
    "write_result",
]

RESULT_FORMAT = 1
ALL_CELLS = "(all)"
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SetScores:
    """The measures of one evaluation set, cell by cell.

    Attributes
    ----------
    name : str
    pearson, r2 : dict of str to float64 (n_cells,)
        By method; "model" is the trained one.
    stores : list of str
    rows : int64 (n_cells,)
    uids : uint64 (n_cells,)
    cell_types, donors : list of str
    genes : list of str
        The measured genes.
    observed_mean : float64 (n_measured,)
        Mean log1p(CP10k) over the cells.
    predicted_mean : dict of str to float64 (n_measured,)
    share_genes_present : float
        Share of the model's genes that the cells' store has.
    notes : tuple of str
    """

    name: str
    pearson: dict[str, F64]
    r2: dict[str, F64]
    stores: list[str]
    rows: npt.NDArray[np.int64]
    uids: npt.NDArray[np.uint64]
    cell_types: list[str]
    donors: list[str]
    genes: list[str]
    observed_mean: F64
    predicted_mean: dict[str, F64]
    share_genes_present: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation came to.

    Attributes
    ----------
    folder : Path
        The run folder; results lie in its subfolder `evaluation`.
    identity : str
        Hash of model, sets, measured genes and settings.
    summary : list of dict
        One row per set, cell type ("(all)" for all cells) and method: n_cells, n_scored, pearson_mean, pearson_median,
        r2_mean, r2_median, and the bounds r2_low, r2_high of the mean by bootstrap over donors (None without donors).
    settings : dict
    """

    folder: Path
    identity: str
    summary: list[dict[str, Any]]
    settings: dict[str, Any]

    def score(self, evaluation_set: str, *, method: str = "model", cell_type: str = ALL_CELLS) -> dict[str, Any]:
        """Return the row of the summary for one set, method and cell type.

        Raises
        ------
        KeyError
            When there is none.
        """
        wanted = (evaluation_set, cell_type, method)
        for row in self.summary:
            if (row["set"], row["cell_type"], row["method"]) == wanted:
                return row
        raise KeyError(wanted)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "format": RESULT_FORMAT,
            "identity": self.identity,
            "settings": self.settings,
            "summary": self.summary,
        }


def identity_of(
    model_hash: str, sets: Sequence[ResolvedSet], measured: Sequence[str] | None, sizes: Sequence[int], seed: int
) -> str:
    """Return a hash of everything that decides the results: the same hash means the same numbers."""
    state = hashlib.blake2b(digest_size=16)
    state.update(json.dumps([RESULT_FORMAT, model_hash, list(sizes), seed, measured and list(measured)]).encode())
    for one in sets:
        for part, store, rows in one.parts:
            state.update(json.dumps([one.name, store.digest, part.cell_type, part.donor, len(rows)]).encode())
            state.update(np.ascontiguousarray(rows, dtype="<i8").tobytes())
    return state.hexdigest()


def summarise(scores: Sequence[SetScores], *, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Return one row for each set, cell type and method; all cells of a set come first, then types by size."""
    table = []
    for one in scores:
        labels = np.array(one.cell_types, dtype=object)
        donors = _codes(one.donors)
        table += _rows_of(one, ALL_CELLS, np.ones(len(labels), dtype=bool), donors, generator)
        names, sizes = np.unique(labels, return_counts=True)
        if len(names) == 1 and names[0] == "(none)":
            continue
        for name in names[np.lexsort((names, -sizes))]:
            table += _rows_of(one, str(name), labels == name, donors, generator)
    return table


def _codes(labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return a code for each label; -1 for "(none)"."""
    names, codes = np.unique(np.array(labels, dtype=object), return_inverse=True)
    return np.where(names[codes] == "(none)", -1, codes).astype(np.int64)


def _rows_of(
    one: SetScores,
    cell_type: str,
    chosen: npt.NDArray[np.bool_],
    donors: npt.NDArray[np.int64],
    generator: np.random.Generator,
) -> list[dict[str, Any]]:
    rows = []
    for method, pearson in one.pearson.items():
        signed, squared = pearson[chosen], one.r2[method][chosen]
        scored = ~np.isnan(signed)
        bounds = bootstrap_groups(squared, donors[chosen], generator=generator)
        rows.append(
            {
                "set": one.name,
                "cell_type": cell_type,
                "method": method,
                "n_cells": int(chosen.sum()),
                "n_scored": int(scored.sum()),
                "pearson_mean": _finite(signed[scored].mean()) if scored.any() else None,
                "pearson_median": _finite(np.median(signed[scored])) if scored.any() else None,
                "r2_mean": _finite(squared[scored].mean()) if scored.any() else None,
                "r2_median": _finite(np.median(squared[scored])) if scored.any() else None,
                "r2_low": bounds[0] if bounds else None,
                "r2_high": bounds[1] if bounds else None,
            }
        )
    return rows


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


# ---- files ------------------------------------------------------------------------------------------------------


def write_result(result: EvaluationResult, scores: Sequence[SetScores]) -> None:
    """Write cells.parquet and genes.parquet, and last evaluation.json, which makes them count."""
    folder = result.folder / "evaluation"
    folder.mkdir(exist_ok=True)
    _write_table(folder / "cells.parquet", pa.concat_tables([_cell_table(one) for one in scores]))
    _write_table(folder / "genes.parquet", pa.concat_tables([_gene_table(one) for one in scores]))
    text = json.dumps(result.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(folder / "evaluation.json", (text + "\n").encode())


def _cell_table(one: SetScores) -> pa.Table:
    """The long table: one row for each cell and method."""
    same: Mapping[str, Any] = {
        "store": pa.array(one.stores, pa.string()).dictionary_encode(),
        "row": one.rows,
        "uid": one.uids,
        "cell_type": pa.array(one.cell_types, pa.string()).dictionary_encode(),
        "donor": pa.array(one.donors, pa.string()).dictionary_encode(),
    }
    tables = [
        pa.table(
            {
                "set": pa.array([one.name] * len(one.rows), pa.string()).dictionary_encode(),
                "method": pa.array([method] * len(one.rows), pa.string()).dictionary_encode(),
                **same,
                "pearson": one.pearson[method],
                "r2": one.r2[method],
            }
        )
        for method in one.pearson
    ]
    return pa.concat_tables(tables).unify_dictionaries()


def _gene_table(one: SetScores) -> pa.Table:
    return pa.concat_tables(
        pa.table(
            {
                "set": pa.array([one.name] * len(one.genes), pa.string()),
                "method": pa.array([method] * len(one.genes), pa.string()),
                "gene_id": pa.array(one.genes, pa.string()),
                "observed_mean": one.observed_mean,
                "predicted_mean": predicted,
            }
        )
        for method, predicted in one.predicted_mean.items()
    )


def _write_table(path: Path, table: pa.Table) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(table, temporary, compression="zstd")
    sync_file(temporary)
    temporary.replace(path)


def read_evaluation(folder: Path) -> EvaluationResult | None:
    """Return the results in a run folder; None when there are none, or they are of another format."""
    try:
        content = json.loads((folder / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("format") != RESULT_FORMAT:
        return None
    return EvaluationResult(folder, content["identity"], content["summary"], content["settings"])


def read_result(folder: Path, identity: str) -> EvaluationResult | None:
    """Return the results in a run folder when they are those that `identity` names."""
    known = read_evaluation(folder)
    return known if known is not None and known.identity == identity else None
