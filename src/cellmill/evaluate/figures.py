"""The figures of a report (floor 7), as SVG text to be put into a page.

Knows matplotlib and numbers; must not know files or pages. No global state of matplotlib is changed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import blended_transform_factory

from cellmill.evaluate.metrics import Interval, interval
from cellmill.evaluate.report import ArmData, ReportData, Row
from cellmill.evaluate.results import ALL_CELLS
from cellmill.page.figure import (
    LABEL_COLOURS,
    REST_COLOUR,
    SOFT,
    STYLE,
    legend_columns,
    new_figure,
    short_label,
    svg_of,
)
from cellmill.units import count_text

__all__ = [
    "draw_cell_types",
    "draw_composition",
    "draw_curves",
    "draw_effects",
    "draw_scatter",
]

ARM_COLOURS = ("#3b6fb6", "#e07b39", "#3a9a6e", "#b0497e", "#8a6fc1", "#9a8a2f", "#2aa5b8", "#6b7480")
BASELINE_MARKERS = ("|", "D", "s", "^")
_LABELS_SHOWN = 12
_LEGEND_ROW_HEIGHT = 0.235  # inches
_ARMS_IN_SCATTER = 6
_TYPES_SHOWN = 14


def arm_colours(arms: Sequence[ArmData]) -> dict[str, str]:
    """Return the colour of each arm, the same in all figures."""
    return {arm.name: ARM_COLOURS[i % len(ARM_COLOURS)] for i, arm in enumerate(arms)}


def draw_composition(data: ReportData) -> str:
    """Return stacked bars: training cells of each arm by the labels of each column that was described."""
    columns = list(dict.fromkeys(column for arm in data.arms for column in arm.composition))
    if not columns:
        return ""
    entries = [_legend_of(*_labels_of(data.arms, column)) for column in columns]
    rows = [math.ceil(len(labels) / legend_columns(labels, most=6)) for labels in entries]
    with mpl.rc_context(STYLE):
        bars = 0.95 + 0.44 * len(data.arms)
        heights = [height for n in rows for height in (bars, 0.34 + _LEGEND_ROW_HEIGHT * n)]
        figure = new_figure(10.4, sum(heights))
        grid = figure.subplots(2 * len(columns), 1, height_ratios=heights)
        for axes, below, column in zip(grid[::2], grid[1::2], columns, strict=True):
            _stack(axes, data.arms, column)
            _legend_below(below, axes, figure)
    return svg_of(figure)


def _labels_of(arms: Sequence[ArmData], column: str) -> tuple[list[str], list[str]]:
    """Return the labels of a column that are shown, commonest first, and those that are drawn as one."""
    totals: dict[str, int] = {}
    for arm in arms:
        for label, n in arm.composition.get(column, {}).items():
            totals[label] = totals.get(label, 0) + n
    ordered = sorted(totals, key=lambda label: (label == "(none)", -totals[label], label))
    return ordered[:_LABELS_SHOWN], ordered[_LABELS_SHOWN:]


def _legend_of(shown: Sequence[str], rest: Sequence[str]) -> list[str]:
    return [*map(short_label, shown), *([f"{len(rest)} others"] if rest else [])]


def _stack(axes: Axes, arms: Sequence[ArmData], column: str) -> None:
    shown, rest = _labels_of(arms, column)
    names = _legend_of(shown, rest)
    left = np.zeros(len(arms))
    for i, label in enumerate(shown):
        widths = np.array([arm.composition.get(column, {}).get(label, 0) for arm in arms], dtype=float)
        colour = REST_COLOUR if label == "(none)" else LABEL_COLOURS[i % len(LABEL_COLOURS)]
        axes.barh(range(len(arms)), widths, left=left, height=0.62, color=colour, edgecolor="white", label=names[i])
        left += widths
    if rest:
        widths = np.array([sum(arm.composition.get(column, {}).get(label, 0) for label in rest) for arm in arms], float)
        axes.barh(range(len(arms)), widths, left=left, height=0.62, color=REST_COLOUR, label=names[-1])
        left += widths
    for i, total in enumerate(left):
        axes.text(total + left.max() * 0.008, i, count_text(int(total)), va="center", fontsize=10, color=SOFT)
    axes.set_yticks(range(len(arms)), [short_label(arm.name) for arm in arms])
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.set_xlim(0, left.max() * 1.08)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count_text(int(value))))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_title(f"Training cells by {column.replace('_', ' ')}")


def _legend_below(axes: Axes, of: Axes, figure: Figure) -> None:
    """Put the legend of other axes into these, from the figure's left side on, whatever room their ticks take."""
    axes.set_axis_off()
    handles, labels = of.get_legend_handles_labels()
    legend = axes.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(0, 1), ncols=legend_columns(labels, most=6),
        bbox_transform=blended_transform_factory(figure.transFigure, axes.transAxes),
        handlelength=0.9, handleheight=0.9, columnspacing=1.4, borderaxespad=0.2,
    )  # fmt: skip
    legend.set_in_layout(False)  # or a wide legend would take its room from the bars


def draw_curves(data: ReportData) -> str:
    """Return training (solid) and validation (dashed) losses by epoch, a thin line for each seed."""
    panels = (("reconstruction_loss", "Reconstruction loss per cell"), ("elbo", "Negative ELBO per cell"))
    colours = arm_colours(data.arms)
    with mpl.rc_context(STYLE):
        figure = new_figure(10.4, 3.9)
        axes_pair = figure.subplots(1, 2)
        for axes, (name, title) in zip(axes_pair, panels, strict=True):
            kept: list[float] = []
            for arm in data.arms:
                for run in arm.runs:
                    kept += _curve(axes, run.history, f"{name}_train", colours[arm.name], "-")
                    kept += _curve(axes, run.history, f"{name}_validation", colours[arm.name], "--")
            _limit(axes, kept)
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.grid(axis="y")
        handles = [mpl.lines.Line2D([], [], color=colours[arm.name], lw=2, label=arm.name) for arm in data.arms]
        handles += [
            mpl.lines.Line2D([], [], color=SOFT, lw=1.4, label="training"),
            mpl.lines.Line2D([], [], color=SOFT, lw=1.4, ls="--", label="validation"),
        ]
        figure.legend(
            handles=handles,
            loc="outside lower left",
            ncols=legend_columns([str(one.get_label()) for one in handles], most=7),
            columnspacing=1.6,
        )
    return svg_of(figure)


def _curve(axes: Axes, history: Sequence[Row], column: str, colour: str, style: str) -> list[float]:
    """Draw one curve and return its values after the first tenth of the epochs, by which the axis is set."""
    points = [(row["epoch"] + 1, row[column]) for row in history if row.get(column) is not None]
    if not points:
        return []
    epochs, values = zip(*points, strict=True)
    axes.plot(epochs, values, color=colour, lw=1.3, ls=style, alpha=0.9, marker="o" if len(points) == 1 else None, ms=4)
    settled = [value for epoch, value in points if epoch > len(history) / 10]
    return settled or list(values)


def _limit(axes: Axes, values: Sequence[float]) -> None:
    """Fit the axis to settled values, so that the first epochs do not flatten what matters."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return
    low, high = min(finite), float(np.quantile(finite, 0.985))
    margin = 0.06 * (high - low or abs(high) or 1)
    axes.set_ylim(low - margin, high + margin)


def draw_scatter(data: ReportData) -> str:
    """Return observed against predicted mean expression of each measured gene, for each arm and set, first seed."""
    arms = data.arms[:_ARMS_IN_SCATTER]
    colours = arm_colours(data.arms)
    n_rows, n_columns = len(arms), len(data.sets)
    size = min(3.1, 10.4 / max(n_columns, 3))
    with mpl.rc_context(STYLE):
        figure = new_figure(max(size * n_columns, 3.4), size * n_rows + 0.5)
        grid = figure.subplots(n_rows, n_columns, squeeze=False, sharex="col", sharey="col")
        for i, arm in enumerate(arms):
            for j, one in enumerate(data.sets):
                _points(grid[i, j], arm.runs[0].genes.get(one, []), colours[arm.name])
                if i == 0:
                    grid[i, j].set_title(one)
                if i == n_rows - 1:
                    grid[i, j].set_xlabel("observed mean, log1p(CP10k)")
                if j == 0:
                    grid[i, j].set_ylabel(f"{arm.name}\npredicted")
    return svg_of(figure)


def _points(axes: Axes, points: Sequence[tuple[str, float, float]], colour: str) -> None:
    if not points:
        axes.text(0.5, 0.5, "not evaluated", ha="center", transform=axes.transAxes, color=SOFT)
        return
    observed = np.array([point[1] for point in points])
    predicted = np.array([point[2] for point in points])
    top = float(max(observed.max(), predicted.max())) * 1.06 or 1.0
    axes.plot([0, top], [0, top], color=SOFT, lw=1, ls=(0, (4, 3)), zorder=1)
    axes.scatter(observed, predicted, s=9, color=colour, alpha=0.45, linewidths=0, rasterized=True, zorder=2)
    axes.set_xlim(-0.02 * top, top)
    axes.set_ylim(-0.02 * top, top)
    axes.set_aspect("equal")
    axes.grid()
    if observed.std() > 0 and predicted.std() > 0:
        r = float(np.corrcoef(observed, predicted)[0, 1])
        axes.text(0.05, 0.93, f"r = {r:.3f}", transform=axes.transAxes, va="top", fontsize=10.5)


def draw_cell_types(data: ReportData) -> str:
    """Return accuracy by cell type: a dot for each arm, its interval over seeds, baselines of the base beside."""
    panels = [(one, types) for one in data.sets if (types := _types_of(data, one))]
    if not panels:
        return ""
    row_height = 0.24 + 0.115 * len(data.arms)
    heights = [0.5 + row_height * len(types) for _, types in panels]
    with mpl.rc_context(STYLE):
        figure = new_figure(10.4, sum(heights) + 0.55 * len(panels) + 0.5)
        stacked = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights, sharex=True)[:, 0]
        for axes, (one, types) in zip(stacked, panels, strict=True):
            _dots(axes, data, one, types)
        stacked[-1].set_xlabel("R² of reconstruction, mean over cells")
        handles, labels = stacked[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower left", ncols=legend_columns(labels, most=6), columnspacing=1.6
        )
    return svg_of(figure)


def _types_of(data: ReportData, one: str) -> list[tuple[str, int]]:
    """Return the commonest cell types of a set with their number of cells."""
    sizes: dict[str, int] = {}
    for row in data.scores:
        if row["set"] == one and row["cell_type"] != ALL_CELLS:
            sizes[row["cell_type"]] = row["n_cells"]
    return sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:_TYPES_SHOWN]


def _dots(axes: Axes, data: ReportData, one: str, types: Sequence[tuple[str, int]]) -> None:
    colours = arm_colours(data.arms)
    reference = data.base or data.arms[0].name
    baselines = list(dict.fromkeys(row["method"] for row in data.scores if row["method"] != "model"))
    by_key = _by_key(data.scores)
    step = 0.62 / max(len(data.arms), 1)
    for i, (cell_type, _) in enumerate(types):
        for k, name in enumerate(baselines):
            found = by_key.get((reference, one, cell_type, name))
            if found is not None and found.n:
                marker = BASELINE_MARKERS[k % len(BASELINE_MARKERS)]
                axes.plot(
                    found.mean, i, marker=marker, ms=14 if marker == "|" else 6, mew=2.2 if marker == "|" else 1.4,
                    mfc="white", mec="#7c8794", ls="", label=name if i == 0 else None, zorder=2,
                )  # fmt: skip
        for k, arm in enumerate(data.arms):
            found = by_key.get((arm.name, one, cell_type, "model"))
            if found is None or not found.n:
                continue
            y = i + (k - (len(data.arms) - 1) / 2) * step
            axes.plot([found.low, found.high], [y, y], color=colours[arm.name], lw=2, solid_capstyle="round", zorder=3)
            axes.plot(
                found.mean, y, "o", ms=7.5, color=colours[arm.name], mec="white", mew=0.8, zorder=4,
                label=arm.name if i == 0 else None,
            )  # fmt: skip
    axes.set_yticks(range(len(types)), [f"{short_label(name)}  ({count_text(n)})" for name, n in types])
    axes.set_ylim(len(types) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    for edge in np.arange(0.5, len(types) - 1):
        axes.axhline(edge, color="#f1f3f6", lw=1, zorder=0)
    axes.set_title(one)


def _by_key(scores: Sequence[Row]) -> Mapping[tuple[str, str, str, str], Interval]:
    """Return the interval over seeds of R2 by arm, set, cell type and method."""
    values: dict[tuple[str, str, str, str], list[float]] = {}
    for row in scores:
        if row["r2_mean"] is not None:
            values.setdefault((row["arm"], row["set"], row["cell_type"], row["method"]), []).append(row["r2_mean"])
    return {key: interval(found) for key, found in values.items()}


def draw_effects(data: ReportData) -> str:
    """Return what each arm changes against the base, on each set: seeds as small dots, mean and interval over them."""
    others = [arm for arm in data.arms if arm.name != data.base]
    if data.base is None or not others:
        return ""
    colours = arm_colours(data.arms)
    by_seed = _differences(data)
    n_rows = len(data.sets) * len(others)
    with mpl.rc_context(STYLE):
        figure = new_figure(10.4, 1.0 + 0.34 * n_rows + 0.3 * len(data.sets))
        axes = figure.subplots()
        places: list[float] = []
        names: list[str] = []
        y = 0.0
        for one in data.sets:
            places.append(y)
            names.append(one)
            y += 0.85
            for arm in others:
                _effect(axes, y, by_seed.get((arm.name, one), []), colours[arm.name])
                places.append(y)
                names.append(arm.name)
                y += 1
            y += 0.35
        axes.axvline(0, color=SOFT, lw=1.2)
        axes.set_yticks(places, names)
        for place, label in enumerate(axes.get_yticklabels()):
            label.set_fontweight("bold" if place % (len(others) + 1) == 0 else "normal")
        axes.set_ylim(y - 0.7, -0.6)
        seen = [
            0.0,
            *(value for found in by_seed.values() for one in [interval(found)] for value in (one.low, one.high)),
        ]
        margin = 0.08 * (max(seen) - min(seen)) or 0.01
        axes.set_xlim(min(seen) - margin, max(seen) + margin)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel(f"change of R² against {data.base}, seed by seed")
    return svg_of(figure)


def _effect(axes: Axes, y: float, differences: Sequence[float], colour: Any) -> None:
    if not differences:
        return
    found = interval(differences)
    axes.plot([found.low, found.high], [y, y], color=colour, lw=2.4, solid_capstyle="round", zorder=3)
    axes.plot(differences, [y] * len(differences), "o", ms=4, color=colour, alpha=0.45, mec="none", zorder=4)
    axes.plot(found.mean, y, "o", ms=8, color=colour, mec="white", mew=1, zorder=5)


def _differences(data: ReportData) -> dict[tuple[str, str], list[float]]:
    of: dict[tuple[str, str, str], float] = {
        (row["arm"], row["set"], row["seed"]): row["r2_mean"]
        for row in data.scores
        if row["method"] == "model" and row["cell_type"] == ALL_CELLS and row["r2_mean"] is not None
    }
    found: dict[tuple[str, str], list[float]] = {}
    for (arm, one, seed), value in of.items():
        reference = of.get((str(data.base), one, seed))
        if reference is not None and arm != data.base:
            found.setdefault((arm, one), []).append(value - reference)
    return found
