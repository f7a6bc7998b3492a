"""The four panels of a choice of genes (floor 4), as a PNG. Knows matplotlib; must not know stores."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from cellmill.page.figure import ACCENT, REST_COLOUR, STYLE, new_figure, png_of, short_label
from cellmill.statistics.analysis import SCORE_NAMES, Analysis
from cellmill.units import count_text

__all__ = ["draw_analysis"]

CHOSEN_COLOUR = "#c8553d"
_BARS = 20
_BINS = 40
_MOST_ON_ONE_AXIS = 10  # the best score over the last that is shown, before one gene flattens the others
_LOG = ", log axis"


def draw_analysis(analysis: Analysis) -> bytes:
    """Return the four panels: score against mean, means of the chosen, in how many cells they are, and the best 20."""
    with mpl.rc_context(STYLE):
        figure = new_figure(12, 9.4, hspace=0.06)
        panels = figure.subplots(2, 2)
        _draw_scores(panels[0, 0], analysis)
        _draw_means(panels[0, 1], analysis)
        _draw_percent(panels[1, 0], analysis)
        _draw_best(panels[1, 1], analysis)
        return png_of(figure)


def _plain(value: float, _: int) -> str:
    return f"{value:,.6g}"


def _draw_scores(axes: Axes, analysis: Analysis) -> None:
    chosen = np.zeros(len(analysis.score), dtype=bool)
    chosen[analysis.chosen] = True
    for which, colour, size, what in (
        (~chosen & ~np.isnan(analysis.score), REST_COLOUR, 5, "other genes"),
        (chosen, CHOSEN_COLOUR, 8, "chosen"),
    ):
        label = f"{what} ({count_text(int(which.sum()))})"
        axes.scatter(
            analysis.log_mean[which], analysis.score[which], s=size, color=colour, linewidths=0, alpha=0.7, label=label
        )
    is_log = analysis.flavor != "seurat" and (analysis.score[analysis.chosen] > 0).all()
    if is_log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("log1p of the mean per 10,000 counts" if analysis.flavor == "seurat" else "log1p of the mean count")
    axes.set_ylabel(f"{SCORE_NAMES[analysis.flavor]}{_LOG if is_log else ''}")
    axes.grid()
    axes.legend(loc="lower right" if analysis.flavor == "dispersion" else "upper right", markerscale=2)
    axes.set_title("Variability and mean of each gene")


def _draw_means(axes: Axes, analysis: Analysis) -> None:
    axes.hist(analysis.log_mean[analysis.chosen], bins=_BINS, color=ACCENT, edgecolor="white", linewidth=0.5)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("log1p of the mean")
    axes.set_ylabel(f"chosen genes{_LOG}")
    axes.grid(axis="y")
    axes.set_title("Mean expression of the chosen genes")


def _draw_percent(axes: Axes, analysis: Analysis) -> None:
    percent = analysis.percent[analysis.chosen]
    axes.hist(percent, bins=np.linspace(0, 100, _BINS + 1).tolist(), color=ACCENT, edgecolor="white", linewidth=0.5)
    axes.set_xlim(0, 100)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} %"))
    axes.tick_params(axis="x", pad=9)  # or 0 and 0 % run into each other in the corner
    axes.set_xlabel("cells in which the gene is detected")
    axes.set_ylabel("chosen genes")
    axes.grid(axis="y")
    axes.set_title(f"Detection of the chosen genes in {count_text(analysis.n_cells)} cells")


def _draw_best(axes: Axes, analysis: Analysis) -> None:
    best = analysis.chosen[:_BARS]
    scores = analysis.score[best]
    is_log = len(best) > 0 and scores.min() > 0 and scores.max() > _MOST_ON_ONE_AXIS * scores.min()
    if is_log:  # dots, since a bar has no foot where there is no zero
        axes.hlines(range(len(best)), scores.min() / 2, scores, color=REST_COLOUR, lw=1.2, zorder=1)
        axes.scatter(scores, range(len(best)), s=42, color=CHOSEN_COLOUR, zorder=2)
        axes.set_xscale("log")
        axes.set_xlim(scores.min() / 2, scores.max() * 1.5)
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.barh(range(len(best)), scores, color=CHOSEN_COLOUR, height=0.7)
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.set_yticks(range(len(best)), [short_label(analysis.names[i]) for i in best], fontsize=9.5)
    axes.set_ylim(len(best) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel(f"{SCORE_NAMES[analysis.flavor]}{_LOG if is_log else ''}")
    axes.set_title(f"The best {len(best)}")
