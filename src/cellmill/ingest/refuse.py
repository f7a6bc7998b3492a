"""Why a file is refused (floor 4): which value, where, and where its raw counts may be instead."""

from __future__ import annotations

import math

import numpy as np

from cellmill.errors import InputError, NotRawCountsError
from cellmill.events import emit
from cellmill.ingest.audit import Violation, find_violation
from cellmill.ingest.options import BuildOptions
from cellmill.sources import Source

__all__ = ["is_raw", "refusal"]

_NEARLY_WHOLE = 1e-3
_UP_TO = ", up to 2^32-1 (4294967295)"
_MOST_NAMED = 5
_LONG = 1e16
_LOG_RANGE = 15.0  # log1p of CP10k stays below log1p(10^4) = 9.2; of raw counts below about 14


def is_raw(source: Source, matrix: str) -> bool:
    """Return whether every value of a matrix is a raw count; reads until the first that is not."""
    return all(find_violation(block) is None for block in source.blocks(matrix))


def refusal(source: Source, matrix: str, violation: Violation, *, options: BuildOptions) -> InputError:
    """Return the error for a matrix that cannot be taken: file, matrix, cell, gene, value, and what to do.

    What `options` ask for already (to leave the file out, to look for the counts) is no advice.
    """
    cells = source.obs().column("cell")
    cell = cells[violation.cell].as_py() if violation.cell < len(cells) else "?"
    place = f"Cell {cell!r} (row {violation.cell})"
    if violation.summed:
        said = _sum_too_large(source, matrix, violation)
        return InputError(f"{source.path}: the matrix {matrix} cannot be stored. {place}, {said}")
    gene, up_to = _gene(source, matrix, violation.gene), _UP_TO if violation.why.startswith("above") else ""
    return NotRawCountsError(
        f"{source.path}: the matrix {matrix} does not hold raw counts. {place}, gene {gene!r} (column "
        f"{violation.gene}) has the value {_shown(violation.value)}, which is {violation.why}; a raw count is a whole "
        f"number of molecules or reads, 0 or more{up_to}. {_nearly_whole(violation)}{_advice(source, matrix, options)}"
    )


def _gene(source: Source, matrix: str, column: int) -> str:
    genes = source.genes_of(matrix).index
    return genes[column] if column < len(genes) else "?"


def _sum_too_large(source: Source, matrix: str, violation: Violation) -> str:
    n = len(violation.summed)
    named = ", ".join(repr(_gene(source, matrix, column)) for column in violation.summed[:_MOST_NAMED])
    columns = ", ".join(map(str, violation.summed[:_MOST_NAMED]))
    more = f" and {n - _MOST_NAMED} more" if n > _MOST_NAMED else ""
    return (
        f"genes {named}{more} (columns {columns}{more}), which are one gene and are summed, add up to "
        f"{violation.value}, which is {violation.why}: more than a store can hold, and more molecules or reads than "
        "a cell has. Where the columns are one and the same, written twice, keep one of them and write the file again."
    )


def _shown(value: int | float) -> str:
    """A value in as few digits as tell what is wrong with it."""
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value) or value == math.floor(value):
        return f"{value:.0f}" if abs(value) < _LONG else repr(value)
    # fewer digits would show 2.9999999 as 3
    texts = [f"{value:.{digits}g}" for digits in (6, 9)]
    return next((text for text in texts if not float(text).is_integer()), repr(value))


def _nearly_whole(violation: Violation) -> str:
    """What may be done about a value that a lossy conversion has moved a little; nothing is rounded unasked."""
    distance = abs(violation.value - round(violation.value)) if violation.why == "not whole" else math.inf
    if distance > _NEARLY_WHOLE:
        return ""
    return (
        f"It lies {distance:.1g} from a whole number: where counts went through a lossy conversion, --allow-rounding "
        f"{_NEARLY_WHOLE:g} (in Python: allow_rounding={_NEARLY_WHOLE:g}) rounds such values and reports how many. "
    )


def _advice(source: Source, matrix: str, options: BuildOptions) -> str:
    others = [info.name for info in source.matrices() if info.name != matrix]
    for name in others:
        emit(f"looking for raw counts in {source.path.name}", message=f"proving {name} of {source.path.name}")
    raw = [name for name in others if is_raw(source, name)]
    if raw:
        choice = " or ".join(f"--counts {name}" for name in raw)
        where = " and ".join(_spoken(name) for name in raw)
        # of several, auto asks which; and what was passed already helps no more
        auto = ", or --counts auto" if len(raw) == 1 and options.counts != "auto" else ""
        return f"Raw counts are in {where}: pass {choice} (in Python: counts={raw[0]!r}){auto}."
    looked = ", ".join([matrix, *others])
    return (
        f"No matrix of this file holds raw counts (looked at: {looked}). {_guess(source, matrix)}"
        "Ask for the count matrix from before normalisation (often a file with 'raw' or 'counts' in its name beside "
        "this one)"
        + ("." if options.skip_bad else ", or leave this file out with --skip-bad (in Python: skip_bad=True).")
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
