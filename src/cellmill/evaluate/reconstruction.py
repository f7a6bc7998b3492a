"""How well a trained model reconstructs cells it has not seen, beside what it has to beat (floor 7).

Knows run folders, models, baselines and measures; must not know how training goes or how results are drawn.
Cells are read in batches; no store is ever whole in memory.
Shape letters: B cells of a batch, G genes of the model, H genes that are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from cellmill.errors import ConfigError, InputError
from cellmill.evaluate.baselines import Baselines, fit_baselines
from cellmill.evaluate.cells import EvalSet, PanelReader, ResolvedSet, read_labels, resolve_sets, training_cells
from cellmill.evaluate.metrics import log1p_cp10k, pearson_per_cell, r2_per_cell
from cellmill.evaluate.results import (
    EvaluationResult,
    SetScores,
    identity_of,
    read_result,
    summarise,
    write_result,
)
from cellmill.events import emit
from cellmill.kernel import derive_key
from cellmill.models import LoadedModel, load
from cellmill.statistics import hvg_of_cells
from cellmill.units import share_text

__all__ = ["choose_genes", "evaluate_run"]

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
_HVG = 1000
_ENOUGH_GENES = 0.8


class HasFolder(Protocol):
    """A run's record: something with the folder of the run."""

    @property
    def folder(self) -> Path: ...


def choose_genes(run: str | Path | HasFolder, n: int = _HVG) -> list[str]:
    """Return the `n` most variable genes (seurat) of the training cells of a run, among the model's genes, best first.

    Chosen on training cells once and used for every set and every arm, so that results can be compared.
    """
    folder = _folder_of(run)
    genes = load(folder / "model").genes
    return list(hvg_of_cells(training_cells(folder), genes, n).gene_ids)


def evaluate_run(
    run: str | Path | HasFolder,
    sets: Sequence[EvalSet] | None = None,
    *,
    hvg_genes: Sequence[str] | Literal["evaluation"] | None = None,
    components: Sequence[int] | None = None,
    batch_size: int = 512,
    device: str = "cpu",
    seed: int = 0,
) -> EvaluationResult:
    """Return how well the model of a run, and the baselines, reconstruct each cell of each set.

    Each method is asked for counts per 10,000 over the model's genes, is logarithmised, and is correlated with the
    cell's own over the measured genes. The model answers with the mean of its posterior, not with a draw. The same
    inputs again read the results back.

    Parameters
    ----------
    run : path or record
        A finished run folder. Results go to its subfolder `evaluation`.
    sets : sequence of EvalSet, optional
        The run's own validation cells when not given.
    hvg_genes : sequence of str, "evaluation", or None
        The measured genes. None: 1,000 of the training cells (`choose_genes`). "evaluation": 1,000 of each set
        itself, as the composition study published it; results of two sets then differ for that alone.
    components : sequence of int, optional
        Sizes of the PCA baselines; the size of the model's latent space and 50 when not given.
    batch_size : int
        Cells in memory at a time.
    seed : int
        Of the sample that PCA is fitted on, and of the bootstrap over donors.

    Raises
    ------
    NotFoundError
        When the folder holds no trained model.
    ConfigError, InputError
        For a set without cells, a column that is not there, or measured genes that the model does not have.

    Source: scFM-datamix "Reconstruction R2", with its one draw, per-set genes and lost sign put right by default.
    """
    folder = _folder_of(run)
    model = load(folder / "model", device=device)
    resolved = resolve_sets(_validation_sets(folder) if sets is None else sets)
    sizes = tuple(dict.fromkeys(components or (model.config.n_latent, 50)))
    measured = _measured_genes(folder, model, hvg_genes)
    identity = identity_of(model.hash, resolved, measured, sizes, seed)
    known = read_result(folder, identity)
    if known is not None:
        emit(f"evaluating {folder.name}", message="up to date")
        return known
    baselines = _baselines_of(folder, model, max(sizes), batch_size, seed)
    scores = [_score_set(one, model, baselines, sizes, measured, batch_size) for one in resolved]
    summary = summarise(scores, generator=np.random.default_rng(derive_key(seed, "bootstrap")))
    result = EvaluationResult(folder, identity, summary, _settings_of(measured, model, sizes, scores))
    write_result(result, scores)
    return result


def _folder_of(run: str | Path | HasFolder) -> Path:
    return Path(run) if isinstance(run, str | Path) else run.folder


def _validation_sets(folder: Path) -> list[EvalSet]:
    cells = training_cells(folder, part="validation")
    if not cells:
        raise ConfigError(f"{folder}: this run has no validation cells, so name the sets to evaluate on")
    sets = []
    for store, rows in cells:
        columns = store.obs.columns
        cell_type = "cell_type" if "cell_type" in columns else None
        sets.append(EvalSet("validation", store, rows=rows, cell_type=cell_type))
    return sets


def _measured_genes(
    folder: Path, model: LoadedModel, asked: Sequence[str] | Literal["evaluation"] | None
) -> list[str] | None:
    """Return the measured genes; None when each set chooses its own."""
    if asked is None:
        return choose_genes(folder)
    if isinstance(asked, str):
        if asked != "evaluation":
            raise ConfigError(f"hvg_genes is {asked!r}: expected gene ids, 'evaluation', or None")
        return None
    missing = [gene for gene in asked if gene not in set(model.genes)]
    if missing or len(asked) < 2:
        raise InputError(
            f"{len(missing)} of {len(asked)} measured genes are not among the model's {len(model.genes):,} genes, for "
            f"example {', '.join(missing[:5])}; choose them with choose_genes(run folder)"
            if missing
            else "at least two measured genes are needed for a correlation"
        )
    return list(asked)


# ---- methods ----------------------------------------------------------------------------------------------------

# raw counts (B, G) and the same as log1p(CP10k) -> prediction (B, H) of the measured genes as log1p(CP10k)
Method = Callable[[npt.NDArray[np.float32], F64], F64]


def _methods_of(model: LoadedModel, baselines: Baselines, sizes: Sequence[int], columns: I64) -> dict[str, Method]:
    def ask_model(counts: npt.NDArray[np.float32], logged: F64) -> F64:
        return log1p_of_share(model.reconstruct(counts)[:, columns])

    def ask_mean(counts: npt.NDArray[np.float32], logged: F64) -> F64:
        return np.broadcast_to(baselines.mean_profile[columns], (len(logged), len(columns)))

    def ask_components(size: int) -> Method:
        return lambda counts, logged: baselines.components.reconstruct(logged, size, columns=columns)

    methods = {"model": ask_model, "mean profile": ask_mean}
    return methods | {f"PCA {size}": ask_components(size) for size in sizes}


def log1p_of_share(share: npt.NDArray[np.float32]) -> F64:
    """Return log1p of 10,000 x the share of each gene, float64: the scale on which cells are compared."""
    result: F64 = np.log1p(1e4 * share.astype(np.float64))
    return result


def _baselines_of(folder: Path, model: LoadedModel, n_components: int, batch_size: int, seed: int) -> Baselines:
    cells = training_cells(folder)
    n_cells = sum(len(rows) for _, rows in cells)

    def batches() -> Any:
        done = 0
        for store, rows in cells:
            for counts in PanelReader(store, model.genes).batches(rows, batch_size=batch_size):
                done += counts.shape[0]
                yield counts
                emit(f"baselines of {folder.name}", done=done, total=n_cells, unit="cells")

    return fit_baselines(batches, n_genes=len(model.genes), n_cells=n_cells, n_components=n_components, seed=seed)


# ---- scoring ----------------------------------------------------------------------------------------------------


def _score_set(
    one: ResolvedSet,
    model: LoadedModel,
    baselines: Baselines,
    sizes: Sequence[int],
    measured: Sequence[str] | None,
    batch_size: int,
) -> SetScores:
    readers = [PanelReader(store, model.genes) for _, store, _ in one.parts]
    present = min(reader.share_present for reader in readers)
    notes = []
    if present < _ENOUGH_GENES:
        notes.append(
            f"only {share_text(present, digits=0)} of the model's genes are in the cells of {one.name!r}; "
            "the others count as zero"
        )
    genes = list(measured) if measured is not None else _own_genes(one, model)
    place = {gene: i for i, gene in enumerate(model.genes)}
    columns = np.array([place[gene] for gene in genes], dtype=np.int64)
    methods = _methods_of(model, baselines, sizes, columns)
    pearson: dict[str, list[F64]] = {name: [] for name in methods}
    predicted_sum = {name: np.zeros(len(genes)) for name in methods}
    observed_sum = np.zeros(len(genes))
    done = 0
    for reader, (_, _, rows) in zip(readers, one.parts, strict=True):
        for start in range(0, len(rows), batch_size):
            counts_BG = reader.dense(rows[start : start + batch_size])
            logged_BG = log1p_cp10k(counts_BG)
            true_BH = logged_BG[:, columns]
            observed_sum += true_BH.sum(axis=0)
            for name, method in methods.items():
                predicted_BH = method(counts_BG, logged_BG)
                predicted_sum[name] += predicted_BH.sum(axis=0)
                pearson[name].append(pearson_per_cell(predicted_BH, true_BH))
            done += len(counts_BG)
            emit(f"evaluating on {one.name}", done=done, total=one.n_cells, unit="cells")
    joined = {name: np.concatenate(parts) for name, parts in pearson.items()}
    return SetScores(
        name=one.name,
        pearson=joined,
        r2={name: r2_per_cell(values) for name, values in joined.items()},
        stores=[store.location for _, store, rows in one.parts for _ in range(len(rows))],
        rows=np.concatenate([rows for _, _, rows in one.parts]),
        uids=np.concatenate([store.uids(rows) for _, store, rows in one.parts]),
        cell_types=[label for part, store, rows in one.parts for label in read_labels(store, part.cell_type, rows)],
        donors=[label for part, store, rows in one.parts for label in read_labels(store, _donor(part, store), rows)],
        genes=genes,
        observed_mean=observed_sum / one.n_cells,
        predicted_mean={name: total / one.n_cells for name, total in predicted_sum.items()},
        share_genes_present=present,
        notes=tuple(notes),
    )


def _donor(part: EvalSet, store: Any) -> str | None:
    return part.donor if part.donor is not None and part.donor in store.obs.columns else None


def _own_genes(one: ResolvedSet, model: LoadedModel) -> list[str]:
    cells = []
    for _, store, rows in one.parts:
        known = set(store.gene_ids)
        lacking = [gene for gene in model.genes if gene not in known]
        if lacking:
            raise InputError(
                f"hvg_genes='evaluation' needs all genes of the model in {store.path}; {len(lacking)} are missing, for "
                f"example {', '.join(lacking[:5])}. Give a list of genes instead."
            )
        cells.append((store, rows))
    return list(hvg_of_cells(cells, model.genes, _HVG).gene_ids)


def _settings_of(
    measured: Sequence[str] | None, model: LoadedModel, sizes: Sequence[int], scores: Sequence[SetScores]
) -> dict[str, Any]:
    return {
        "scale": "log1p of counts per 10,000 over the model's genes",
        "prediction": "decoder at the posterior mean",
        "measured genes": "chosen on each evaluation set" if measured is None else "the same for every set",
        "n_measured_genes": {one.name: len(one.genes) for one in scores},
        "n_model_genes": len(model.genes),
        "pca": list(sizes),
        "notes": [note for one in scores for note in one.notes],
    }
