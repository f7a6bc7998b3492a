"""From evaluated run folders to the data of a report (floor 7).

Knows what lies in a run folder and how runs are compared; must not know how a report looks.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from cellmill.errors import ConfigError, NotFoundError, nearest
from cellmill.evaluate.metrics import Interval, interval
from cellmill.evaluate.report import ArmData, Headline, ReportData, Row, RunData, TableRow
from cellmill.evaluate.results import ALL_CELLS, EvaluationResult, read_evaluation
from cellmill.units import count_text, time_text

__all__ = ["collect_report"]

_POINTS_PER_SET = 1500


def collect_report(
    title: str,
    *,
    arms: Mapping[str, Sequence[str | Path]],
    base: str | None = None,
    control: str | None = None,
    intro: str = "",
    notes: Sequence[str] = (),
    plan_tables: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    provenance: Mapping[str, str] | None = None,
    next_command: str = "",
) -> ReportData:
    """Return the data of a report over evaluated runs.

    Parameters
    ----------
    arms : mapping of str to run folders
        One finished and evaluated folder per seed. Arms and evaluation sets come in the order given.
    base : str, optional
        The arm that the others are compared with, seed by seed.
    control : str, optional
        The arm that has as many cells as the others and only adds more of the base's kind.

    Raises
    ------
    ConfigError
        When there is no arm, an arm has no run, or base or control is not an arm.
    NotFoundError
        When a folder is not that of a finished, evaluated run.
    """
    if not arms or not all(arms.values()):
        raise ConfigError("a report needs at least one arm, and every arm at least one run folder")
    for role, name in (("base", base), ("control", control)):
        if name is not None and name not in arms:
            raise ConfigError(f"{role} is {name!r}, which is not an arm.{nearest(name, arms)} Arms: {', '.join(arms)}")
    read = {name: [_read_run(Path(folder)) for folder in folders] for name, folders in arms.items()}
    sets = tuple(dict.fromkeys(row["set"] for runs in read.values() for _, result in runs for row in result.summary))
    scores = [
        {"arm": name, "seed": run.seed, **row}
        for name, runs in read.items()
        for run, result in runs
        for row in result.summary
    ]
    arm_data = tuple(_arm_of(name, [run for run, _ in runs]) for name, runs in read.items())
    table = tuple(_table_row(one, arm, scores, base, control) for one in sets for arm in arm_data)
    settings = _settings_of([result for runs in read.values() for _, result in runs])
    said = list(dict.fromkeys([*notes, *settings.pop("notes", [])]))
    return ReportData(
        title=title,
        intro=intro,
        headline=_headline(table, sets, arm_data, base, control),
        base=base,
        control=control,
        sets=sets,
        arms=arm_data,
        table=table,
        scores=scores,
        settings=settings,
        plan_tables={name: [dict(row) for row in rows] for name, rows in (plan_tables or {}).items()},
        notes=tuple(said),
        provenance=dict(provenance or {}),
        next_command=next_command,
    )


# ---- reading ----------------------------------------------------------------------------------------------------


def _read_run(folder: Path) -> tuple[RunData, EvaluationResult]:
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"{folder}: no run.json here, so not a run folder; train it first") from None
    result = read_evaluation(folder)
    if result is None:
        raise NotFoundError(f"{folder}: this run has not been evaluated; call evaluate_run on it first")
    seed = str(record["config"].get("seeds", {}).get("init", "0"))
    return RunData(seed, str(folder), _read_history(folder), _read_genes(folder), record), result


def _read_history(folder: Path) -> list[Row]:
    with (folder / "history.csv").open(encoding="utf-8", newline="") as handle:
        return [
            {name: float(value) if value else None for name, value in line.items()} for line in csv.DictReader(handle)
        ]


def _read_genes(folder: Path) -> dict[str, list[tuple[str, float, float]]]:
    """Return mean observed and predicted expression of the measured genes by set, at most 1,500 of each."""
    table = pq.read_table(folder / "evaluation" / "genes.parquet", filters=[("method", "=", "model")])
    found: dict[str, list[tuple[str, float, float]]] = {}
    columns = (table.column(name).to_pylist() for name in ("set", "gene_id", "observed_mean", "predicted_mean"))
    for one, gene, observed, predicted in zip(*columns, strict=True):
        points = found.setdefault(one, [])
        if len(points) < _POINTS_PER_SET:
            points.append((gene, observed, predicted))
    return found


def _arm_of(name: str, runs: Sequence[RunData]) -> ArmData:
    first = runs[0].record
    return ArmData(
        name=name,
        n_cells=int(first["n_cells"]),
        n_draws=int(first["n_draws"]),
        epochs=int(first["epochs"]),
        composition=first["composition"],
        runs=tuple(runs),
    )


def _settings_of(results: Sequence[EvaluationResult]) -> Row:
    """Return the settings of the first run, with the notes of all; and a note when runs were measured differently."""
    first = dict(results[0].settings)
    notes = [note for result in results for note in result.settings.get("notes", [])]
    compared = ("scale", "prediction", "measured genes", "n_measured_genes")
    if any(result.settings.get(key) != first.get(key) for result in results for key in compared):
        notes.append("the runs were not measured in the same way, so they cannot be compared with one another")
    return {**first, "notes": list(dict.fromkeys(notes))}


# ---- comparing --------------------------------------------------------------------------------------------------


def values_by_seed(
    scores: Sequence[Row], *, arm: str, evaluation_set: str, method: str, measure: str, cell_type: str = ALL_CELLS
) -> dict[str, float]:
    """Return one measure by seed; a run that could not be scored is left out."""
    wanted = (arm, evaluation_set, method, cell_type)
    return {
        row["seed"]: row[measure]
        for row in scores
        if (row["arm"], row["set"], row["method"], row["cell_type"]) == wanted and row[measure] is not None
    }


def _table_row(one: str, arm: ArmData, scores: Sequence[Row], base: str | None, control: str | None) -> TableRow:
    def over_seeds(name: str, method: str, measure: str) -> dict[str, float]:
        return values_by_seed(scores, arm=name, evaluation_set=one, method=method, measure=measure)

    methods = list(dict.fromkeys(row["method"] for row in scores if row["method"] != "model"))
    mine = over_seeds(arm.name, "model", "r2_mean")

    def against(other: str | None) -> Interval | None:
        if other is None or other == arm.name:
            return None
        theirs = over_seeds(other, "model", "r2_mean")
        return interval([mine[seed] - theirs[seed] for seed in mine if seed in theirs])

    sizes = [row["n_cells"] for row in scores if row["set"] == one and row["cell_type"] == ALL_CELLS]
    return TableRow(
        set=one,
        arm=arm.name,
        n_train=arm.n_cells,
        n_cells=max(sizes),
        r2=interval(mine.values()),
        pearson=interval(over_seeds(arm.name, "model", "pearson_mean").values()),
        baselines={method: interval(over_seeds(arm.name, method, "r2_mean").values()) for method in methods},
        against_base=against(base),
        against_control=against(control),
    )


# ---- the three numbers that matter ------------------------------------------------------------------------------


def _headline(
    table: Sequence[TableRow], sets: Sequence[str], arms: Sequence[ArmData], base: str | None, control: str | None
) -> tuple[Headline, ...]:
    first = _row(table, sets[0], base or arms[0].name)
    best = _best_baseline(first)
    against = f"; best baseline: {best} {number_text(first.baselines[best].mean)}" if best else ""
    accuracy = Headline(
        f"R² on {first.set}",
        number_text(first.r2.mean),
        f"{first.arm}, {count_text(first.n_cells)} unseen cells{_spread(first.r2)}{against}",
    )
    effects = [row for row in table if row.arm != control and row.against_base is not None and row.against_base.n]
    if not effects:
        return (accuracy, _against_the_best_baseline(first), _work(arms))
    strongest = max(effects, key=lambda row: abs(row.against_base.mean) if row.against_base else 0.0)
    assert strongest.against_base is not None
    effect = Headline(
        f"{strongest.arm} against {base}",
        number_text(strongest.against_base.mean, sign=True),
        f"R² on {strongest.set}: the largest change{_spread(strongest.against_base)}",
    )
    versus = strongest.against_control
    if versus is None or not versus.n:
        return (accuracy, effect, _against_the_best_baseline(first))
    kind = Headline(
        "beyond more cells of the same kind",
        number_text(versus.mean, sign=True),
        f"R² on {strongest.set}, {strongest.arm} against the size control {control}{_spread(versus)}",
    )
    return (accuracy, effect, kind)


def _row(table: Sequence[TableRow], one: str, arm: str) -> TableRow:
    return next(row for row in table if (row.set, row.arm) == (one, arm))


def _against_the_best_baseline(row: TableRow) -> Headline:
    """The model against what it has to beat: the best baseline, whichever that is, and not the easiest."""
    others = ", ".join(f"{name} {number_text(one.mean)}" for name, one in row.baselines.items())
    best = _best_baseline(row)
    if best is None:
        return Headline("against the best baseline", number_text(math.nan), "no baseline was measured")
    difference = row.r2.mean - row.baselines[best].mean
    return Headline(
        f"against the best baseline, {best}",
        number_text(difference, sign=True),
        f"R² on {row.set}; of the baselines: {others}",
    )


def _best_baseline(row: TableRow) -> str | None:
    measured = {name: one.mean for name, one in row.baselines.items() if one.n and not math.isnan(one.mean)}
    return max(measured, key=measured.__getitem__) if measured else None


def _work(arms: Sequence[ArmData]) -> Headline:
    runs = [run for arm in arms for run in arm.runs]
    seconds = sum(float(run.record["seconds"]) for run in runs)
    presented = sum(arm.n_draws * arm.epochs * len(arm.runs) for arm in arms)
    cells = max(arm.n_cells for arm in arms)
    return Headline(
        "cells trained on",
        count_text(cells),
        f"{count_text(presented)} presented over {len(runs)} runs in {time_text(seconds)}",
    )


def _spread(one: Interval) -> str:
    if one.n < 2:
        return ", one seed"
    kind = f"{one.n} seeds" if one.kind == "range" else f"{one.n} seeds, 95 %"
    return f" ({number_text(one.low)} to {number_text(one.high)}, {kind})"


def number_text(value: float, *, sign: bool = False) -> str:
    """Return a measure with three decimals and a true minus; a dash when there is none."""
    if math.isnan(value) or not np.isfinite(value):
        return "–"
    text = f"{value:+.3f}" if sign else f"{value:.3f}"
    if float(text) == 0:
        text = "0.000" if not sign else "±0.000"
    return text.replace("-", "−")
