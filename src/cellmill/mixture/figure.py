"""A plan as a figure (floor 4, mixture): shares, cells and draws, and what was left out. Knows matplotlib and rows."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from cellmill.mixture.table import PlanRow
from cellmill.page.figure import ACCENT, INK, REST_COLOUR, SOFT, STYLE, new_figure, png_of, short_label
from cellmill.units import count_text

__all__ = ["draw_plan"]

_MOST_ROWS = 24
_BAR = 0.34  # inches


def draw_plan(name: str, rows: Sequence[PlanRow]) -> bytes:
    """Return the figure of a plan as PNG: each component's share, how often its cells come, and what was removed."""
    shown = sorted(rows, key=lambda row: -row.draws)[:_MOST_ROWS]
    labels = [short_label(row.name) for row in shown]
    at = np.arange(len(shown))[::-1]
    with mpl.rc_context(STYLE):
        figure = new_figure(11.0, 1.4 + _BAR * max(4, len(shown)))
        more = f" (the largest {_MOST_ROWS} of {len(rows)})" if len(rows) > len(shown) else ""
        figure.suptitle(f"{name or 'plan'}: {count_text(len(rows))} components{more}", x=0.01, ha="left", color=INK)
        share, epochs, removed = figure.subplots(1, 3, sharey=True, width_ratios=(1.2, 1, 1.2))
        _shares(share, shown, at)
        _epochs(epochs, shown, at)
        _removed(removed, shown, at)
        share.set_yticks(at, labels)
        share.set_ylim(-0.7, len(shown) - 0.3)
        return png_of(figure)


def _shares(axes: Axes, rows: Sequence[PlanRow], at: np.ndarray) -> None:
    axes.barh(at, [100 * row.share_obtained for row in rows], height=0.62, color=ACCENT)
    for y, row in zip(at, rows, strict=True):  # wanted: a line across the bar, so that a difference is seen
        axes.plot([100 * row.share_wanted] * 2, [y - 0.4, y + 0.4], color=INK, linewidth=1.2)
        axes.annotate(f" {100 * row.share_obtained:.3g} %", (100 * row.share_obtained, y), va="center", color=INK)
    axes.set_xlim(0, 1.25 * max(100 * row.share_obtained for row in rows))
    axes.set_title("share presented (line: wanted)", fontsize=11)
    axes.set_xlabel("%")


def _epochs(axes: Axes, rows: Sequence[PlanRow], at: np.ndarray) -> None:
    axes.barh(at, [row.effective_epochs for row in rows], height=0.62, color=SOFT)
    for y, row in zip(at, rows, strict=True):
        axes.annotate(f" {row.effective_epochs:.3g} x {count_text(row.cells)}", (row.effective_epochs, y), va="center")
    axes.axvline(1.0, color=REST_COLOUR, linewidth=0.8)
    axes.set_xlim(0, 1.9 * max(1.0, *(row.effective_epochs for row in rows)))
    axes.set_title("epochs of each cell x cells", fontsize=11)
    axes.set_xlabel("epochs")


def _removed(axes: Axes, rows: Sequence[PlanRow], at: np.ndarray) -> None:
    kinds = ["duplicates", *sorted({rule for row in rows for rule in row.excluded})]
    left = np.zeros(len(rows))
    colours = [SOFT, ACCENT, REST_COLOUR, INK]
    for i, kind in enumerate(kinds):
        counts = np.array(
            [row.duplicates_removed if kind == "duplicates" else row.excluded.get(kind, 0) for row in rows]
        )
        if counts.any():
            label = kind if kind == "duplicates" else f"excluded by {kind}"
            axes.barh(at, counts, left=left, height=0.62, color=colours[i % len(colours)], label=label)
        left += counts
    axes.set_title("cells left out", fontsize=11)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count_text(int(value))))
    if left.any():
        axes.legend(loc="best", frameon=False)
    else:
        axes.set_xlim(0, 1)
        axes.set_xticks([])
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", va="center", color=REST_COLOUR)
