from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]
Genes = npt.NDArray[np.integer[Any]]

def encode(
    indptr: I64, indices: Genes, values: U32, n_genes: int, head: HeadModel | None, threads: int
) -> tuple[U8, U64]: ...

class Panel:
    def __init__(self, column_of: I32, n_columns: int) -> None: ...

class RowTable:
    def __init__(self, firsts: I64) -> None: ...
    def put(self, shard: int, frames: U8, starts: U32, steps: U16) -> None: ...
    def missing(self, rows: I64) -> list[int]: ...
    def will_need(self, rows: I64) -> None: ...

def gather(
    shards: Sequence[U8],
    shard_of: I64,
    start: I64,
    stop: I64,
    n_genes: int,
    head: HeadModel | None,
    panel: Panel | None,
    kind: int,
    totals: bool,
    threads: int,
) -> tuple[tuple[int, int] | None, I64, I32, npt.NDArray[Any], U64 | None]: ...
def gather_rows(
    table: RowTable,
    rows: I64,
    n_genes: int,
    head: HeadModel | None,
    panel: Panel | None,
    kind: int,
    totals: bool,
    threads: int,
) -> tuple[tuple[int, int] | None, I64, I32, npt.NDArray[Any], U64 | None]: ...
def frame_sizes(
    shards: Sequence[npt.NDArray[np.uint8]], shard_of: I64, start: I64, stop: I64, n_genes: int, head: HeadModel | None
) -> tuple[tuple[int, int] | None, I64]: ...
def gather_dense(
    shards: Sequence[U8],
    shard_of: I64,
    start: I64,
    stop: I64,
    n_genes: int,
    head: HeadModel | None,
    panel: Panel | None,
    transform: int,
    divisors: U64 | None,
    out: F32,
    totals: U64 | None,
    threads: int,
) -> tuple[int, int] | None: ...
def gather_rows_dense(
    table: RowTable,
    rows: I64,
    n_genes: int,
    head: HeadModel | None,
    panel: Panel | None,
    transform: int,
    divisors: U64 | None,
    out: F32,
    totals: U64 | None,
    threads: int,
) -> tuple[int, int] | None: ...
def vectors_in_use() -> int: ...
def limit_vectors(most: int) -> None: ...
def fingerprint(indptr: I64, indices: Genes, values: U32, gene_hashes: U64, threads: int) -> U64: ...
def ingest(
    indptr: I64,
    indices: Genes,
    values: npt.NDArray[Any],
    position_of: I32,
    gene_hashes: U64,
    head: HeadModel | None,
    threads: int,
    classes: npt.NDArray[np.uint8] | None = None,
) -> tuple[Any, ...]: ...
def permute(positions: U64, n: int, key: int) -> U64: ...
def mix64(x: U64) -> U64: ...
def keyed_u64(key: int, uids: U64, counter: int) -> U64: ...
def model_fault(data: bytes) -> int: ...

class HeadModel:
    def __init__(self, data: bytes) -> None: ...
    @property
    def n_genes(self) -> int: ...
    def encode(self, indptr: I64, indices: Genes, values: U32) -> tuple[U8, U64]: ...
    def decode(self, sections: U8, offsets: U64, capacity: int) -> tuple[tuple[int, int] | None, I64, I32, U32]: ...

def count_other_genes(cells: Any, plan: Any, out: Any, threads: int) -> None: ...
def tokenise_counts(cells: Any, plan: Any, out: Any, threads: int) -> None: ...
def tokenise_panels(cells: Any, plan: Any, out: Any, threads: int) -> None: ...
def pooled(bytes: int) -> U8: ...
def tokenise_sentences(cells: Any, plan: Any, out: Any, threads: int) -> None: ...
def tokenise_sequences(cells: Any, rules: Any, plan: Any, numbers: Any, out: Any, threads: int) -> None: ...
def tokenise_profiles(cells: Any, rules: Any, plan: Any, numbers: Any, out: Any, threads: int) -> None: ...
def tokenise_panel(cells: Any, rows: Any, threads: int) -> None: ...
def tokenise_state(cells: Any, plan: Any, out: Any, threads: int) -> None: ...
def rank_genes(cells: Any, rules: Any, plan: Any, out: Any, threads: int) -> None: ...
