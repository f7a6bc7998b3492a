"""Variance of standardised, clipped counts (floor 4): Seurat's third method ("vst"), in two passes.

The second pass is needed because counts are clipped by a fit to the moments of the first. The one module that knows
scikit-misc, whose loess (the original of Cleveland and others) is what Seurat and scanpy fit with.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from scipy import sparse

from cellmill.errors import InputError, MissingDependencyError
from cellmill.statistics.blocks import F64, Cells, column_sums, measure_blocks
from cellmill.statistics.moments import GeneStatistics, statistics_of_cells

try:
    from skmisc.loess import loess
except ImportError:
    raise MissingDependencyError("scikit-misc", extra="hvg", needed_for="the flavor seurat_v3") from None

__all__ = ["expected_deviation", "score_standardised"]

_SPAN = 0.3
_WARNINGS_OF_R = ("singularities", "pseudoinverse used", "neighborhood radius", "reciprocal condition number")


def score_standardised(
    cells: Cells, genes: Sequence[str] | None, *, block_cells: int, threads: int
) -> tuple[GeneStatistics, F64]:
    """Return the moments of the raw counts, and the variance of each gene's standardised counts; NaN without variance.

    Counts are centred on the gene's mean and divided by the deviation that is expected of genes of such a mean
    (`expected_deviation`); those beyond sqrt(n_cells) deviations are clipped to it.

    Raises
    ------
    InputError
        When the fit fails, as it does for a handful of genes.

    Source: Stuart et al. (2019); equal to scanpy 1.11.5 `pp.highly_variable_genes(flavor="seurat_v3")`.
    """
    moments = statistics_of_cells(cells, genes, normalise="raw", block_cells=block_cells, threads=threads)
    n, mean = moments.n_cells, moments.mean
    deviation = expected_deviation(mean, moments.variance)
    clip = deviation * np.sqrt(n) + mean
    below, squares_below, n_above = (np.zeros(len(mean)) for _ in range(3))
    for one, two, three in measure_blocks(
        cells,
        partial(_sums_below, clip=clip),
        genes=genes,
        block_cells=block_cells,
        threads=threads,
        told="clipped variances",
    ):
        below += one
        squares_below += two
        n_above += three
    sums, squares = below + n_above * clip, squares_below + n_above * clip * clip
    score = (n * mean * mean + squares - 2 * sums * mean) / ((n - 1) * deviation * deviation)
    return moments, np.where(moments.variance > 0, score, np.nan)


def expected_deviation(mean: F64, variance: F64) -> F64:
    """Return the standard deviation of genes of such a mean: loess of log10 variance on log10 mean; 1 without variance.

    Where many genes have one and the same mean, as in few or shallow cells, the local parabolas are not determined;
    loess then takes the pseudo-inverse and says so. That is a warning to R, and so to Seurat; scanpy stops at it.

    Raises
    ------
    InputError
        When the fit fails.
    """
    varies = variance > 0
    model = loess(np.log10(mean[varies]), np.log10(variance[varies]), span=_SPAN, degree=2)
    try:
        model.fit()
    except ValueError as error:
        if not any(hint in str(error) for hint in _WARNINGS_OF_R):
            raise InputError(
                f"seurat_v3: loess cannot be fitted to the variances of {int(varies.sum()):,} genes that vary "
                f"({error}). Take more cells, leave out batches of few cells, or choose another flavor, for example "
                "pearson."
            ) from None
    fitted = np.zeros(len(mean))
    fitted[varies] = model.outputs.fitted_values
    if not np.isfinite(fitted).all():
        raise InputError("seurat_v3: loess gives no number for some genes; choose another flavor, for example pearson")
    deviation: F64 = np.sqrt(10**fitted)
    return deviation


def _sums_below(counts: sparse.csr_array, *, clip: F64) -> tuple[F64, F64, F64]:
    """Return sum, and sum of squares, of the counts that are not clipped: whole numbers; and how many are."""
    above = counts.data > clip[counts.indices]
    kept = np.where(above, 0.0, counts.data)
    return column_sums(counts, kept), column_sums(counts, kept * kept), column_sums(counts, above.astype(np.float64))
