"""The cells of a run (floor 7): its plans, its genes, and an account of them that stays in the run folder.

Knows mixtures and stores by row ids and obs; must not know torch or how training goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cellmill.errors import ConfigError, InputError, MixtureError, QueryError
from cellmill.mixture import Balance, Mixture, Plan
from cellmill.statistics import hvg_of_cells
from cellmill.storage import sync_file
from cellmill.store import Store
from cellmill.train.config import HvgGenes, RunConfig

__all__ = ["choose_run_genes", "count_labels", "describe_mixture", "resolve_plans", "write_manifest"]

_ROWS_AT_A_TIME = 1_000_000
_SCHEMA = pa.schema(
    [
        ("part", pa.dictionary(pa.int8(), pa.string())),
        ("component", pa.dictionary(pa.int32(), pa.string())),
        ("store", pa.dictionary(pa.int32(), pa.string())),
        ("row", pa.int64()),
        ("uid", pa.uint64()),
    ]
)


def resolve_plans(config: RunConfig) -> tuple[Plan, Plan | None, list[str]]:
    """Return the plan of training, that of validation (None for none), and notes on how they came about."""
    mixture = _mixture_of(config.mixture, seed=config.seeds.data)
    if isinstance(mixture, Mixture) and mixture.ladder_shares:
        raise ConfigError(
            f"the mixture {mixture.name!r} is a ladder of {len(mixture.ladder_shares)}, and a run trains on one: leave "
            "`ladder` out, and give each component its share: choose: 10%"
        )
    plan = mixture if isinstance(mixture, Plan) else mixture.plan()
    notes = list(plan.warnings)
    if config.validation is None:
        return plan, None, notes
    if config.validation != "auto":
        given = _mixture_of(config.validation, seed=config.seeds.data)
        validation = given if isinstance(given, Plan) else given.plan()
        _check_apart(plan, validation)
        return plan, validation, notes
    if isinstance(mixture, Plan) or mixture.split is None:
        return plan, None, [*notes, "no validation cells: the mixture has no split and none were given"]
    found, left_out = _validation_of(mixture)
    if found is not None:
        _check_apart(plan, found)  # a component of split "all" may train on the validation cells of another one
    notes += [f"component {name!r} has no validation cells" for name in left_out]
    return plan, found, notes


def _mixture_of(given: Any, *, seed: int | None) -> Mixture | Plan:
    if isinstance(given, Mixture | Plan):
        return given
    if isinstance(given, Path):
        return Mixture.from_yaml(given)
    content = dict(given)
    if seed is not None:
        content.setdefault("seed", {"data": seed})
    return Mixture.from_dict(content)


def _validation_of(mixture: Mixture) -> tuple[Plan | None, list[str]]:
    """Return the plan over the validation split of those training components that have validation cells."""
    trained = [c.name for c in mixture.components if c.split in (None, "train")]
    left_out = [c.name for c in mixture.components if c.name not in trained]
    kept = []
    for name in trained:
        try:
            mixture.with_split("validation", only=[name]).plan()
        except MixtureError:
            left_out.append(name)
        else:
            kept.append(name)
    return (mixture.with_split("validation", only=kept).plan() if kept else None), left_out


def _check_apart(plan: Plan, validation: Plan) -> None:
    """Refuse validation cells that are trained on: their loss would say nothing."""
    for index, store in enumerate(plan.stores):
        for other, held in enumerate(validation.stores):
            if held.digest == store.digest:
                shared = len(np.intersect1d(plan.rows(index), validation.rows(other), assume_unique=True))
                if shared:
                    raise InputError(
                        f"{shared:,} validation cells of {store.path} are trained on as well; validate on another "
                        "split, or exclude them from the mixture"
                    )


def describe_mixture(given: Any) -> Any:
    """Return a mixture as YAML can hold it; of a Plan, which YAML cannot hold, its name and hash."""
    if isinstance(given, Plan):
        return {"plan": {"name": given.name, "hash": given.hash}}
    if isinstance(given, Path):
        return str(given.absolute())
    if not isinstance(given, Mixture):
        return _plain(given)
    inherited = 0 if given.base is None else len(given.base.exclude)
    own_exclusions = given.exclude[inherited:]
    parts = {
        "name": given.name,
        "seed": asdict(given.seeds),
        "split": None if given.split is None else asdict(given.split),
        "exclude": [asdict(replace(one, store="")) | {"store": one.store} for one in own_exclusions],
        "dedupe": given.dedupe,
        "balance": None if given.balance is None else asdict(given.balance),
        "units": None if given.units is None else given.units.to_dict(),
        "base": None if given.base is None else describe_mixture(given.base),
        "cells": given.cells,
        "draws": given.draws,
        "components": [
            {
                "name": one.name,
                "store": list(one.stores),
                "where": one.where,
                "split": one.split,
                "proportion": one.proportion,
                "repeat": one.repeat,
                "choose": one.choose,
                "evenly": one.evenly,
                "sketch": one.sketch,
                "balance": asdict(one.balance) if isinstance(one.balance, Balance) else None,
                "op": None if one.op == "add" else one.op,
            }
            for one in given.own_components
        ],
    }
    return _plain(parts)


def _plain(value: Any) -> Any:
    """Return a value with stores and paths as absolute paths, and nothing where there is None."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, Store):
        return str(Path(value.path).absolute())
    return str(value.absolute()) if isinstance(value, Path) else value


def choose_run_genes(config: RunConfig, plan: Plan, validation: Plan | None) -> list[str]:
    """Return the gene ids of the model, in the storage order of the plan's first store, or as they were listed.

    Raises
    ------
    InputError
        When the stores share no gene, or the validation cells lack one.
    QueryError
        When a gene that was listed is in no store.
    """
    if isinstance(config.genes, tuple):
        genes = list(config.genes)
    else:
        genes = _common_genes(plan.stores)
        if isinstance(config.genes, HvgGenes):
            cells = [(store, plan.rows(index)) for index, store in enumerate(plan.stores)]
            chosen = set(hvg_of_cells(cells, genes, config.genes.hvg).gene_ids)
            genes = [gene for gene in genes if gene in chosen]
    for store in (*plan.stores, *(validation.stores if validation else ())):
        try:
            store.gene_positions(genes)
        except QueryError as error:
            error.add_note("the model's genes must be in every store that it is trained and validated on")
            raise
    return genes


def _common_genes(stores: Sequence[Store]) -> list[str]:
    first, *others = stores
    shared = set(first.gene_ids).intersection(*(store.gene_ids for store in others))
    if not shared:
        raise InputError(f"{', '.join(str(store.path) for store in stores)}: these stores share no gene")
    return [gene for gene in first.gene_ids if gene in shared]


def count_labels(plan: Plan, columns: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return for each column of obs how many training cells have each label, the commonest first.

    A column that no store of the plan has is left out; cells without a label count as "(none)".
    """
    result = {}
    for column in columns:
        counts: dict[str, int] = {}
        known = False
        for index, store in enumerate(plan.stores):
            rows = plan.rows(index)
            if column in store.obs.columns:
                known = True
                _add_labels(counts, store.column(column, rows))
            else:
                counts["(none)"] = counts.get("(none)", 0) + len(rows)
        if known:
            result[column] = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return result


def _add_labels(counts: dict[str, int], column: pa.Array) -> None:
    texts = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    for entry in pc.value_counts(texts.cast(pa.string())).to_pylist():
        label = "(none)" if entry["values"] is None else entry["values"]
        counts[label] = counts.get(label, 0) + int(entry["counts"])


def write_manifest(path: Path, plan: Plan, validation: Plan | None) -> None:
    """Write which cells were trained and validated on, as Parquet: part, component, store, row, uid.

    Each cell of a component stands once, however often it is drawn. Atomic; memory is bounded.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with pq.ParquetWriter(temporary, _SCHEMA, compression="zstd") as writer:
        for part, of in (("train", plan), ("validation", validation)):
            for batch in _manifest_batches(of, part) if of is not None else ():
                writer.write_table(batch)
    sync_file(temporary)
    temporary.replace(path)


def _manifest_batches(plan: Plan, part: str) -> Iterator[pa.Table]:
    for component in plan.parts:
        for segment in component.cells.segments:
            store = plan.stores[segment.store]
            for start in range(0, len(segment), _ROWS_AT_A_TIME):
                rows = segment.take(np.arange(start, min(start + _ROWS_AT_A_TIME, len(segment)), dtype=np.int64))
                same = [part, component.name, store.location]
                repeated = [pa.array([value] * len(rows), pa.string()).dictionary_encode() for value in same]
                columns = [*repeated, pa.array(rows), pa.array(store.uids(rows))]
                yield pa.table(columns, names=_SCHEMA.names).cast(_SCHEMA)
