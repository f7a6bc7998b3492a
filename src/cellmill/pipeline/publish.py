"""The report of an experiment (floor 8): what its evaluated runs, plans and sources say, handed to `cellmill.evaluate`.

Gathers; draws nothing and computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cellmill import __version__
from cellmill.evaluate import ReportData, collect_report, write_report
from cellmill.evaluate.results import ALL_CELLS
from cellmill.pipeline.config import ExperimentConfig
from cellmill.store import open_store
from cellmill.units import count_text

__all__ = ["publish_report"]

Json = Any
Results = Mapping[str, Mapping[str, Json]]


def publish_report(
    config: ExperimentConfig, run_folder: Callable[[str, int], Path], results: Results
) -> dict[str, Json]:
    """Write report.html, report.json and report.csv into the experiment's folder.

    Parameters
    ----------
    config : ExperimentConfig
    run_folder : callable
        The folder of the run of an arm and a seed, evaluated.
    results : mapping
        What each stage found out, by its name.

    Returns
    -------
    dict
        `headline`: the report's own three numbers, as a list of label, value and detail. `accuracy`: for each set and
        arm the Pearson correlation per cell, over seeds, and that of the baselines.
    """
    assert config.out is not None
    plans = {arm: results[f"plan {arm}"] for arm in config.arms}
    data = collect_report(
        config.report.title or config.name,
        arms={arm: [run_folder(arm, seed) for seed in config.seeds] for arm in config.arms},
        base=config.base_arm if len(config.arms) > 1 else None,
        control=config.report.control,
        intro=config.report.note,
        notes=_notes(config, plans),
        plan_tables={arm: [_plan_row(row) for row in plan["components"]] for arm, plan in plans.items()},
        provenance=_provenance(config),
        next_command=config.report.next_command,
    )
    write_report(config.out / "report.html", data)
    return {
        "headline": [{"label": one.label, "value": one.value, "detail": one.detail} for one in data.headline],
        "accuracy": _accuracy(data),
    }


def _accuracy(data: ReportData) -> list[dict[str, Json]]:
    rows = []
    for row in data.table:
        baselines: dict[str, list[float]] = {}
        for score in data.scores:
            of_all = score["cell_type"] == ALL_CELLS and score["method"] != "model"
            if of_all and (score["set"], score["arm"]) == (row.set, row.arm) and score["pearson_mean"] is not None:
                baselines.setdefault(score["method"], []).append(score["pearson_mean"])
        rows.append(
            {
                "set": row.set,
                "arm": row.arm,
                "n_cells": row.n_cells,
                "pearson": row.pearson.to_dict(),
                "baselines": {name: sum(values) / len(values) for name, values in baselines.items()},
            }
        )
    return rows


def _notes(config: ExperimentConfig, plans: Mapping[str, Mapping[str, Json]]) -> list[str]:
    notes = [f"{one.name}: {one.note}" for one in config.evaluation if one.note]
    said: dict[str, list[str]] = {}
    for arm, plan in plans.items():
        for warning in plan["warnings"]:
            said.setdefault(warning, []).append(arm)
    return notes + [f"{', '.join(arms)}: {warning}" for warning, arms in said.items()]


def _plan_row(row: Mapping[str, Json]) -> dict[str, Json]:
    return {**row, "excluded": ", ".join(f"{n} by {rule}" for rule, n in row["excluded"].items()) or "none"}


def _provenance(config: ExperimentConfig) -> dict[str, str]:
    assert config.data.store is not None
    store = open_store(config.data.store)
    sources = ", ".join(f"{one.name} ({count_text(one.n_cells)} cells)" for one in store.manifest.sources)
    said = {
        "experiment": config.name,
        "cellmill": __version__,
        "store": f"{count_text(store.n_cells)} cells, {count_text(store.n_genes)} genes, digest {store.digest}",
        "sources": sources,
        "vocabulary": store.vocabulary_hash,
        "seeds": ", ".join(str(seed) for seed in config.seeds),
        "selection and split seed": str(config.seed),
    }
    if config.data.rename:
        said["columns renamed"] = ", ".join(f"{old} to {new}" for old, new in config.data.rename.items())
    if config.split is not None:
        shares = f"{config.split.train:g} / {config.split.validation:g} / {config.split.test:g}"
        said["split"] = f"by {config.split.by}, {shares} training / validation / test"
    return said
