"""The figures of a card (floor 7), as SVG text. Knows matplotlib and the card's numbers; must not know stores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from cellmill.card.content import Composition, GenePoints, Spread
from cellmill.page.figure import ACCENT, INK, REST_COLOUR, SOFT, STYLE, new_figure, short_label, svg_of
from cellmill.units import count_text, plural

__all__ = ["draw_compositions", "draw_genes", "draw_spreads"]

_LABELS_SHOWN = 10
_GENES_NAMED = 8
_GENES_LOOKED_AT = 40
_POINTS_DRAWN = 6000
_BAR = 0.27  # inches


def draw_compositions(compositions: Sequence[Composition]) -> str:
    """Return bars of cells by label, two columns of panels."""
    if not compositions:
        return ""
    pairs = [compositions[i : i + 2] for i in range(0, len(compositions), 2)]
    heights = [0.75 + _BAR * max(_rows_of(one) for one in pair) for pair in pairs]
    with mpl.rc_context(STYLE):
        figure = new_figure(10.4, sum(heights) + 0.2, hspace=0.04)
        grid = figure.subplots(len(pairs), 2, squeeze=False, height_ratios=heights)
        for row, pair, height in zip(grid, pairs, heights, strict=True):
            most = round((height - 0.75) / _BAR)
            for axes, one in zip(row, pair, strict=False):
                _draw_bars(axes, one, most)
            for axes in row[len(pair) :]:
                axes.set_axis_off()
        return svg_of(figure)


def _bars_of(one: Composition) -> tuple[list[str], list[int], int]:
    """Return labels, their cells, and how many of them are labels of the files."""
    labels = list(one.cells)[:_LABELS_SHOWN]
    cells = [one.cells[label] for label in labels]
    named = len(labels)
    if one.n_labels == len(labels) + 1:  # a bar for one label is better its own
        labels, cells, named = [*one.cells][: named + 1], [*one.cells.values()][: named + 1], named + 1
    elif one.n_labels > len(labels):
        labels.append(f"{count_text(one.n_labels - named)} others")
        cells.append(sum(one.cells.values()) - sum(cells))
    return labels, cells, named


def _rows_of(one: Composition) -> int:
    """Return how many rows a panel needs: its bars, and a line of text where cells have no label."""
    return len(_bars_of(one)[0]) + (one.n_unlabelled > 0)


def _draw_bars(axes: Axes, one: Composition, most: int) -> None:
    labels, cells, named = _bars_of(one)
    colours = [ACCENT if i < named else REST_COLOUR for i in range(len(labels))]
    axes.barh(range(len(labels)), cells, color=colours, height=0.7)
    top = max(cells, default=1)
    for i, n in enumerate(cells):
        axes.text(n + top * 0.015, i, count_text(n), va="center", fontsize=9.5, color=SOFT)
    if one.n_unlabelled:  # in words: a bar would be of another kind, and often longer than all others together
        verb = "has" if one.n_unlabelled == 1 else "have"
        said = f"{plural(one.n_unlabelled, 'cell')} {verb} no value"
        axes.text(0, len(labels), said, va="center", fontsize=9.5, color=SOFT, style="italic")
    axes.set_yticks(range(len(labels)), [short_label(label) for label in labels], fontsize=10)
    axes.set_ylim(max(most, _rows_of(one)) - 0.45, -0.55)
    axes.set_xlim(0, top * 1.22)
    axes.xaxis.set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    kinds = f", {count_text(one.n_labels)} kinds" if one.n_labels > _LABELS_SHOWN else ""
    axes.set_title(f"Cells by {short_label(one.title)}{kinds}", parse_math=False)


def draw_spreads(spreads: Sequence[Spread]) -> str:
    """Return histograms over cells, two columns of panels."""
    drawn = [one for one in spreads if one.cells]
    if not drawn:
        return ""
    n_rows = math.ceil(len(drawn) / 2)
    with mpl.rc_context(STYLE):
        figure = new_figure(10.4, 2.6 * n_rows, hspace=0.06)
        panels = figure.subplots(n_rows, 2, squeeze=False).ravel()
        for axes, one in zip(panels, drawn, strict=False):
            _draw_histogram(axes, one)
        for axes in panels[len(drawn) :]:
            axes.set_axis_off()
        return svg_of(figure)


def _draw_histogram(axes: Axes, one: Spread) -> None:
    edges = np.array(one.edges)
    axes.bar(edges[:-1], one.cells, width=np.diff(edges), align="edge", color=ACCENT, edgecolor="white", linewidth=0.4)
    if one.is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count_text(int(value)) if value >= 1 else ""))
        decades = np.log10(edges[-1] / edges[0])
        subs = (1.0, 2.0, 5.0) if decades < 1.5 else (1.0, 3.0) if decades < 3 else (1.0,)
        axes.xaxis.set_major_locator(LogLocator(10, subs=subs))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        largest = max((edge for edge, n in zip(edges[1:], one.cells, strict=True) if n), default=1.0)
        axes.set_xlim(0, largest)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
        axes.xaxis.set_major_locator(MaxNLocator(6))
    if one.median is not None and (one.median > 0 or not one.is_log):
        axes.axvline(one.median, color=INK, lw=1.1, ls=(0, (4, 3)))
        text = count_text(int(one.median)) if one.is_log else f"{100 * one.median:.1f} %"
        on_the_left = one.median > edges[0] + 0.6 * (axes.get_xlim()[1] - edges[0]) if not one.is_log else False
        axes.annotate(
            f"median {text}",
            (one.median, 0.97),
            xycoords=("data", "axes fraction"),
            xytext=(-5 if on_the_left else 5, 0),
            textcoords="offset points",
            ha="right" if on_the_left else "left",
            va="top",
            fontsize=9.5,
            color=INK,
        )
    axes.set_ylim(0, max(one.cells) * 1.18)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: count_text(int(value))))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.grid(axis="y")
    axes.set_title(f"{one.title[0].upper()}{one.title[1:]}")


def draw_genes(genes: GenePoints | None) -> str:
    """Return variance against mean of each gene, the Poisson line, and the names of the most dispersed."""
    if genes is None or not genes.mean:
        return ""
    mean, variance = np.array(genes.mean), np.array(genes.variance)
    there = np.flatnonzero((mean > 0) & (variance > 0))
    if not len(there):
        return ""
    step = max(1, len(there) // _POINTS_DRAWN)
    dispersion = variance[there] / mean[there]
    named = there[np.argsort(-dispersion, kind="stable")[:_GENES_LOOKED_AT]]
    shown = np.union1d(there[::step], named)
    with mpl.rc_context(STYLE):
        figure = new_figure(10.4, 4.6)
        axes = figure.subplots()
        axes.scatter(mean[shown], variance[shown], s=7, color=ACCENT, alpha=0.35, linewidths=0, rasterized=True)
        ends = np.array([mean[there].min(), mean[there].max()])
        axes.plot(ends, ends, color=SOFT, lw=1.2, ls=(0, (4, 3)), label="variance of pure counting (Poisson)")
        for i in _apart(named, mean, variance):
            axes.annotate(
                genes.symbols[i],
                (mean[i], variance[i]),
                xytext=(-5, 4),
                textcoords="offset points",
                ha="right",
                fontsize=9.5,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("mean count")
        axes.set_ylabel("variance of counts")
        axes.grid()
        axes.legend(loc="lower right")
        return svg_of(figure)


def _apart(genes: npt.NDArray[np.int64], mean: npt.NDArray[np.float64], variance: npt.NDArray[np.float64]) -> list[int]:
    """Return the genes whose names do not overlap, most dispersed first: half a decade apart in mean or variance."""
    chosen: list[int] = []
    for gene in genes.tolist():
        x, y = np.log10(mean[gene]), np.log10(variance[gene])
        near = [abs(np.log10(mean[i]) - x) < 0.6 and abs(np.log10(variance[i]) - y) < 0.5 for i in chosen]
        if len(chosen) < _GENES_NAMED and not any(near):
            chosen.append(gene)
    return chosen
