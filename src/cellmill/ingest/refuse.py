"""Why a file is refused (floor 4): which value, where, and where its raw counts may be instead."""

from __future__ import annotations

import numpy as np

from cellmill.errors import NotRawCountsError
from cellmill.events import emit
from cellmill.ingest.audit import Violation, find_violation
from cellmill.sources import Source

__all__ = ["is_raw", "refusal"]

_NEARLY_WHOLE = 1e-3
_LOG_RANGE = 15.0  # log1p of CP10k stays below log1p(10^4) = 9.2; of raw counts below about 14


def is_raw(source: Source, matrix: str) -> bool:
    """Return whether every value of a matrix is a raw count; reads until the first that is not."""
    return all(find_violation(block) is None for block in source.blocks(matrix))


def refusal(source: Source, matrix: str, violation: Violation, *, skip_bad: bool = False) -> NotRawCountsError:
    """Return the error for a matrix that is not raw: file, matrix, cell, gene, value, and what to do.

    With `skip_bad` the file is left out anyway, so that this is no advice.
    """
    genes = source.genes_of(matrix).index
    cells = source.obs().column("cell")
    gene = genes[violation.gene] if violation.gene < len(genes) else "?"
    cell = cells[violation.cell].as_py() if violation.cell < len(cells) else "?"
    shown = np.format_float_positional(violation.value, precision=6, trim="-")
    return NotRawCountsError(
        f"{source.path}: the matrix {matrix} does not hold raw counts. Cell {cell!r} (row {violation.cell}), gene "
        f"{gene!r} (column {violation.gene}) has the value {shown}, which is {violation.why}; a raw count is a whole "
        "number of molecules or reads, 0 or more. "
        f"{_nearly_whole(violation)}{_advice(source, matrix, skip_bad=skip_bad)}"
    )


def _nearly_whole(violation: Violation) -> str:
    """What may be done about a value that a lossy conversion has moved a little; nothing is rounded unasked."""
    distance = abs(violation.value - np.rint(violation.value)) if np.isfinite(violation.value) else np.inf
    if distance > _NEARLY_WHOLE:
        return ""
    return (
        f"It lies {distance:.1g} from a whole number: where counts went through a lossy conversion, --allow-rounding "
        f"{_NEARLY_WHOLE:g} (in Python: allow_rounding={_NEARLY_WHOLE:g}) rounds such values and reports how many. "
    )


def _advice(source: Source, matrix: str, *, skip_bad: bool) -> str:
    others = [info.name for info in source.matrices() if info.name != matrix]
    for name in others:
        emit(f"looking for raw counts in {source.path.name}", message=f"proving {name} of {source.path.name}")
    raw = [name for name in others if is_raw(source, name)]
    if raw:
        choice = " or ".join(f"--counts {name}" for name in raw)
        where = " and ".join(_spoken(name) for name in raw)
        return f"Raw counts are in {where}: pass {choice} (in Python: counts={raw[0]!r}), or --counts auto."
    looked = ", ".join([matrix, *others])
    return (
        f"No matrix of this file holds raw counts (looked at: {looked}). {_guess(source, matrix)}"
        "Ask for the count matrix from before normalisation (often a file with 'raw' or 'counts' in its name beside "
        "this one)" + ("." if skip_bad else ", or leave this file out with --skip-bad (in Python: skip_bad=True).")
    )


def _spoken(name: str) -> str:
    kind, _, layer = name.partition("/")
    if kind == "layers":
        return f"layers['{layer}']"
    return "raw.X" if name == "raw" else name


def _guess(source: Source, matrix: str) -> str:
    block = next(iter(source.blocks(matrix, block_cells=256)), None)
    if block is None or len(block.data) == 0:
        return ""
    values = block.data.astype(np.float64)
    largest, smallest = float(np.nanmax(values)), float(np.nanmin(values))
    if smallest < 0:
        return "Negative values are typical of scaled or batch-corrected data. "
    if largest < _LOG_RANGE:
        return f"The largest value of its first cells is {largest:.2f}: typical of log-normalised data. "
    return "Values with fractions are typical of normalised data (CPM, TPM, size factors). "
