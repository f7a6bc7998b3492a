"""The kernel in plain NumPy: the oracle of the native one, and its fallback (floor 1, kernel).

Same functions, same arguments, same bytes and numbers as `_native`; `cellmill.kernel` checks arguments and raises.
Knows nothing of the native module, of files, or of threads (the argument is taken and ignored).
"""

from __future__ import annotations

from cellmill.kernel.reference.chromosome_sentences import tokenise_sentences
from cellmill.kernel.reference.count_tokens import tokenise_counts
from cellmill.kernel.reference.gather import (
    fingerprint,
    frame_sizes,
    gather,
    gather_dense,
    gather_rows,
    gather_rows_dense,
)
from cellmill.kernel.reference.hvg_panels import count_other_genes, tokenise_panels
from cellmill.kernel.reference.ingest import ingest
from cellmill.kernel.reference.known_cells import count_known, write_known
from cellmill.kernel.reference.model import HeadModel
from cellmill.kernel.reference.profiles import tokenise_panel, tokenise_profiles
from cellmill.kernel.reference.random import keyed_u64, mix64, permute
from cellmill.kernel.reference.ranks import rank_genes
from cellmill.kernel.reference.rows import Panel, RowTable
from cellmill.kernel.reference.sequences import tokenise_sequences
from cellmill.kernel.reference.split import encode
from cellmill.kernel.reference.state_sentences import tokenise_state
from cellmill.kernel.reference.tokens import pooled

__all__ = [
    "HeadModel",
    "Panel",
    "RowTable",
    "count_known",
    "count_other_genes",
    "encode",
    "fingerprint",
    "frame_sizes",
    "gather",
    "gather_dense",
    "gather_rows",
    "gather_rows_dense",
    "ingest",
    "keyed_u64",
    "mix64",
    "permute",
    "pooled",
    "rank_genes",
    "tokenise_counts",
    "tokenise_panel",
    "tokenise_panels",
    "tokenise_profiles",
    "tokenise_sentences",
    "tokenise_sequences",
    "tokenise_state",
    "write_known",
]
