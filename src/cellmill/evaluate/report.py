"""The report of an experiment (floor 7): its data, and the three files it is written as.

Knows numbers and text only; how the page looks is in `page`, how figures are drawn in `figures`, and where the numbers
come from in `collect`.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cellmill.evaluate.metrics import Interval
from cellmill.storage import write_atomic

__all__ = ["SCORE_COLUMNS", "ArmData", "Headline", "ReportData", "ReportFiles", "RunData", "TableRow", "write_report"]

REPORT_FORMAT = 1
SCORE_COLUMNS = (
    *("arm", "seed", "set", "cell_type", "method", "n_cells", "n_scored"),
    *("r2_mean", "r2_median", "r2_low", "r2_high", "pearson_mean", "pearson_median"),
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Headline:
    """One number that matters, ready to be read."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True)
class RunData:
    """One trained and evaluated run.

    Attributes
    ----------
    seed : str
        By which runs of different arms are paired.
    folder : str
    history : list of dict
        One row per epoch, as in history.csv.
    genes : dict of str to list of (gene id, observed mean, predicted mean)
        By evaluation set, of the model.
    record : dict
        run.json.
    """

    seed: str
    folder: str
    history: list[Row]
    genes: dict[str, list[tuple[str, float, float]]]
    record: Row


@dataclass(frozen=True)
class ArmData:
    """One arm: the same training cells, one run for each seed.

    Attributes
    ----------
    composition : dict
        {column: {label: cells}} of the training cells.
    """

    name: str
    n_cells: int
    n_draws: int
    epochs: int
    composition: dict[str, dict[str, int]]
    runs: tuple[RunData, ...]


@dataclass(frozen=True)
class TableRow:
    """One arm on one evaluation set, over its seeds.

    Attributes
    ----------
    r2, pearson : Interval
        Mean over cells, its interval over seeds.
    baselines : dict of str to Interval
        R2 of each baseline, fitted on the training cells of this arm.
    against_base, against_control : Interval or None
        Difference in R2 of runs of the same seed.
    """

    set: str
    arm: str
    n_train: int
    n_cells: int
    r2: Interval
    pearson: Interval
    baselines: dict[str, Interval]
    against_base: Interval | None
    against_control: Interval | None


@dataclass(frozen=True)
class ReportData:
    """Everything that the report shows, and nothing that it does not.

    Attributes
    ----------
    title, intro : str
    headline : tuple of Headline
        The three numbers that matter.
    base, control : str or None
        The arm that others are compared with, and the one that only adds more of the same.
    sets : tuple of str
        Evaluation sets in their order.
    arms : tuple of ArmData
    table : tuple of TableRow
    scores : list of dict
        One row per arm, seed, set, cell type and method, as in report.csv.
    settings : dict
        How accuracy was measured.
    plan_tables : dict of str to list of dict
        By arm, one row per component.
    notes : tuple of str
    provenance : dict of str to str
    next_command : str
    """

    title: str
    intro: str
    headline: tuple[Headline, ...]
    base: str | None
    control: str | None
    sets: tuple[str, ...]
    arms: tuple[ArmData, ...]
    table: tuple[TableRow, ...]
    scores: list[Row]
    settings: Row
    plan_tables: dict[str, list[Row]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    provenance: dict[str, str] = field(default_factory=dict)
    next_command: str = ""

    def to_dict(self) -> Row:
        """Return the report as JSON values: the numbers of the page, without the curves and points of its figures."""
        return {
            "format": REPORT_FORMAT,
            "title": self.title,
            "headline": [asdict(one) for one in self.headline],
            "base": self.base,
            "control": self.control,
            "sets": list(self.sets),
            "arms": [_arm_dict(arm) for arm in self.arms],
            "table": [_row_dict(row) for row in self.table],
            "scores": self.scores,
            "settings": self.settings,
            "plans": self.plan_tables,
            "notes": list(self.notes),
            "provenance": self.provenance,
        }


def _arm_dict(arm: ArmData) -> Row:
    runs = [
        {
            "seed": run.seed,
            "folder": run.folder,
            "hashes": run.record["hashes"],
            "versions": run.record["versions"],
            "metrics": run.record["metrics"],
            "seconds": run.record["seconds"],
            "peak_memory_bytes": run.record["peak_memory_bytes"],
            "device": run.record["device"],
        }
        for run in arm.runs
    ]
    return {
        "name": arm.name,
        "n_cells": arm.n_cells,
        "n_draws": arm.n_draws,
        "epochs": arm.epochs,
        "composition": arm.composition,
        "runs": runs,
    }


def _row_dict(row: TableRow) -> Row:
    def plain(one: Interval | None) -> Row | None:
        return None if one is None else one.to_dict()

    return {
        "set": row.set,
        "arm": row.arm,
        "n_train": row.n_train,
        "n_cells": row.n_cells,
        "r2": plain(row.r2),
        "pearson": plain(row.pearson),
        "baselines": {name: plain(one) for name, one in row.baselines.items()},
        "against_base": plain(row.against_base),
        "against_control": plain(row.against_control),
    }


@dataclass(frozen=True)
class ReportFiles:
    """Where the report was written."""

    html: Path
    json: Path
    csv: Path


def write_report(path: str | Path, data: ReportData) -> ReportFiles:
    """Write the page at `path`, and the same numbers as JSON and CSV beside it, each in one rename.

    The page is one file: figures are drawn into it, nothing is fetched from anywhere.

    Raises
    ------
    MissingDependencyError
        When matplotlib or jinja2 is not installed (extra `report`).
    """
    page = importlib.import_module("cellmill.evaluate.page")  # the one module that needs matplotlib and jinja2
    target = Path(path)
    files = ReportFiles(target, target.with_suffix(".json"), target.with_suffix(".csv"))
    html: str = page.render_page(data)
    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(files.json, (text + "\n").encode())
    write_atomic(files.csv, _csv_text(data.scores).encode())
    write_atomic(files.html, html.encode())
    return files


def _csv_text(scores: Sequence[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(SCORE_COLUMNS)
    for row in scores:
        writer.writerow(["" if row[name] is None else row[name] for name in SCORE_COLUMNS])
    return buffer.getvalue()
