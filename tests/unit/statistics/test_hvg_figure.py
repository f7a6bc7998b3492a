"""The four panels of a choice of genes: axes say what they are, and no gene flattens the others."""

from __future__ import annotations

import numpy as np
import pytest

from cellmill.statistics.analysis import Analysis

figure = pytest.importorskip("cellmill.statistics.figure", reason="figures are drawn with matplotlib")


def drawn(scores: list[float]) -> list:
    """Return the axes of the panels of genes with these scores, all of them chosen."""
    n = len(scores)
    kept = []
    analysis = Analysis(
        names=tuple(f"G{i}" for i in range(n)), mean=np.linspace(0.1, 9, n), log_mean=np.log1p(np.linspace(0.1, 9, n)),
        score=np.array(scores), percent=np.linspace(0, 100, n), chosen=np.argsort(-np.array(scores)),
        flavor="dispersion", n_cells=100,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure, "png_of", lambda made: kept.extend(made.axes) or made.canvas.draw() or b"")
        figure.draw_analysis(analysis)
    return kept


def ticks(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def test_a_gene_far_above_the_others_does_not_flatten_them():
    best = drawn([25_000.0, *np.linspace(300, 900, 19)])[3]
    assert best.get_xscale() == "log" and best.get_xlabel().endswith(", log axis")
    assert "1,000" in ticks(best.xaxis)


def test_scores_of_one_size_have_bars_and_thousands_are_separated():
    best = drawn(list(np.linspace(4_000, 9_000, 20)))[3]
    assert best.get_xscale() == "linear" and len(best.patches) == 20
    assert "4,000" in ticks(best.xaxis)


def test_every_logarithmic_axis_is_called_so():
    for axes in drawn([25_000.0, *np.linspace(300, 900, 19)]):
        for scale, label in ((axes.get_xscale(), axes.get_xlabel()), (axes.get_yscale(), axes.get_ylabel())):
            assert (scale == "log") == label.endswith(", log axis")
