"""The page of a report (floor 7): one HTML file with its figures in it.

Knows how things look; must not know where numbers come from.
"""

from __future__ import annotations

from typing import Any

from cellmill.evaluate.collect import number_text
from cellmill.evaluate.figures import draw_cell_types, draw_composition, draw_curves, draw_effects, draw_scatter
from cellmill.evaluate.metrics import Interval
from cellmill.evaluate.report import ReportData, TableRow
from cellmill.page.document import drawn, render_document

__all__ = ["render_page"]

_ARMS_IN_SCATTER = 6


def render_page(data: ReportData) -> str:
    """Return the report as one HTML document that fetches nothing."""
    return render_document(
        "cellmill.evaluate",
        "report.html.j2",
        filters={"number": number_text, "signed": _signed, "spread": _spread},
        data=data,
        figures={
            "composition": drawn(draw_composition(data)),
            "curves": drawn(draw_curves(data)),
            "scatter": drawn(draw_scatter(data)),
            "cell_types": drawn(draw_cell_types(data)),
            "effects": drawn(draw_effects(data)),
        },
        groups=[(one, [row for row in data.table if row.set == one]) for one in data.sets],
        best={one: _best(data, one) for one in data.sets},
        baselines=list(data.table[0].baselines),
        longest=max((row.r2.mean for row in data.table if row.r2.n), default=1.0) or 1.0,
        intervals=_interval_text(data),
        scatter_left_out=[arm.name for arm in data.arms[_ARMS_IN_SCATTER:]],
        plan_columns=_plan_columns(data),
        n_latent=data.arms[0].runs[0].record["config"].get("model", {}).get("n_latent"),
    )


def _best(data: ReportData, one: str) -> str:
    rows = [row for row in data.table if row.set == one and row.r2.n]
    return max(rows, key=_r2).arm if len(rows) > 1 else ""


def _r2(row: TableRow) -> float:
    return row.r2.mean


def _signed(value: float) -> str:
    return number_text(value, sign=True)


def _spread(one: Interval) -> str:
    return f"{number_text(one.low)} to {number_text(one.high)}" if one.n > 1 else ""


def _interval_text(data: ReportData) -> str:
    kinds = {row.r2.kind for row in data.table if row.r2.n}
    most = max((row.r2.n for row in data.table), default=0)
    if kinds <= {"none"}:
        return "There is one seed, so there are no intervals."
    said = []
    if "range" in kinds:
        said.append("the range of two seeds")
    if "t95" in kinds:
        said.append(f"95 % t-intervals of the mean over up to {most} seeds")
    return f"Intervals are {' or '.join(said)}."


def _plan_columns(data: ReportData) -> list[tuple[str, str]]:
    """Return (key, heading) of the plan's columns that say something."""
    headings = {
        "name": "component",
        "split": "split",
        "cells": "cells",
        "draws": "draws per epoch",
        "effective_epochs": "passes per epoch",
        "share_obtained": "share",
        "donors": "donors",
        "duplicates_removed": "duplicates removed",
        "excluded": "excluded",
    }
    rows: list[dict[str, Any]] = [row for table in data.plan_tables.values() for row in table]
    return [(key, text) for key, text in headings.items() if any(row.get(key) not in (None, "", {}) for row in rows)]
