"""Faults of a frame, and the error that names them (floor 1, kernel).

Both implementations hand back the same code for the same bytes; the words live here alone.
Knows nothing of files: whoever maps positions to shards and rows adds that with `add_note`.
"""

from __future__ import annotations

from cellmill.errors import FrameError, InputError

__all__ = [
    "COUNT_KIND",
    "COUNT_OVERFLOW",
    "EXCEPTION",
    "GENE_RANGE",
    "HEADER",
    "HEAD_ESCAPE",
    "HEAD_STATE",
    "NONZEROS",
    "OUTSIDE",
    "TRAILING",
    "TRUNCATED",
    "UNARY",
]
__all__ += ["count_kind_error", "frame_error"]

OUTSIDE = 1
TRUNCATED = 2
NONZEROS = 3
HEADER = 4
TRAILING = 5
EXCEPTION = 6
UNARY = 7
COUNT_OVERFLOW = 8
GENE_RANGE = 9
HEAD_STATE = 10
HEAD_ESCAPE = 11
COUNT_KIND = 20  # not the frame's fault: the type asked for does not hold a count

_WORDS = {
    OUTSIDE: "its byte range does not lie inside the shard",
    TRUNCATED: "it ends before its last block",
    NONZEROS: "it claims more nonzeros than there are genes",
    HEADER: "a block header has an impossible mode, width or length",
    TRAILING: "bytes are left over after its last block",
    EXCEPTION: "an exception points outside its block or backwards",
    UNARY: "a unary section does not hold one bit per value",
    COUNT_OVERFLOW: "a count is larger than 4,294,967,295",
    GENE_RANGE: "a gene position is not below the number of genes",
    HEAD_STATE: "its head genes begin or end in a state that no encoder reaches",
    HEAD_ESCAPE: "an escaped count of a head gene is 0",
}


def frame_error(position: int, code: int, *, n_genes: int) -> FrameError:
    """Return the FrameError for row `position` of a batch; its `.position` is that row."""
    error = FrameError(
        f"frame of row {position} of this batch cannot be decoded (n_genes={n_genes}): {_WORDS[code]}. "
        "The store is damaged or belongs to another gene list; `cellmill verify` finds every damaged shard."
    )
    error.position = position  # type: ignore[attr-defined]
    error.reason = _WORDS[code]  # type: ignore[attr-defined]
    return error


def count_kind_error(position: int, dtype: str) -> InputError:
    """Return the error for a count of row `position` of a batch that a dtype does not hold; `.position` is that row."""
    limit = {"int32": "2,147,483,647", "float32": "16,777,216, beyond which it rounds"}.get(dtype, "its range")
    error = InputError(
        f"row {position} of this batch holds a count above what {dtype} holds exactly ({limit}). "
        "Read it as uint32, int64 or float64."
    )
    error.position = position  # type: ignore[attr-defined]
    return error
