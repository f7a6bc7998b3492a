"""scFoundation's input (floor 5, tokens): log-normalised genes at their places in a list, and two tokens of depth."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

from cellmill.errors import ConfigError, InputError, VocabularyError
from cellmill.genes import Vocabulary
from cellmill.kernel import ProfileRules, TokenCells
from cellmill.kernel.profiles import PROFILE_ORDERS, PROFILE_VALUES
from cellmill.tokens.batch import TokenBatch
from cellmill.tokens.cells import (
    Pad,
    as_cells,
    as_totals,
    check_choice,
    check_flag,
    check_number,
    check_pad,
    check_whole,
    keep_plain,
    row_starts,
)
from cellmill.tokens.model_tokens import GivenTokens, ModelTokens
from cellmill.tokens.profiles import Tail, Wanted, check_places, make_profiles, read_profiles, row_sums, whole_totals
from cellmill.tokens.ranks import refuse_no_total
from cellmill.tokens.recipe import as_panel, tell_no_memory

__all__ = ["ScFoundation"]

F64 = npt.NDArray[np.float64]
Input = Literal["counts", "log1p", "bulk", "bulk_log1p"]
DepthOf = Literal["list", "cell"]


@dataclass(frozen=True, kw_only=True)
class ScFoundation:
    """The expressed genes of a list, then T (the depth aimed at) and S (the depth there is): what its encoder is fed.

    `batch.genes` holds places in the list, ascending, T at `n_genes` and S at `n_genes` + 1; `batch.values` the values.

    Parameters
    ----------
    resolution
        T: "t4", the number itself; "f2", log10(2 * total); "a0.5", S + 0.5.
    depth
        The total: of the genes in the "list", as the original has it; or of the whole "cell".
    input
        What `counts` are. "counts", of single cells: value ``log1p(count / total * 1e4)``, S ``log10(total)``. "log1p":
        values of single cells that are normalised already; S is of the `totals` that encode is given. "bulk": counts
        of bulk samples, normalised to `target_sum`; T and S are log10 of the sum of the values. "bulk_log1p": bulk
        values that are normalised already; T and S are their sum.
    target_sum
        For input "bulk": the total to normalise to; the original took the median of its matrix.
    n_genes
        Genes of the list.
    token_of
        Place in the list of each vocabulary token, -1 for none, or of gene ids (then with `vocabulary`). None: the
        tokens of columns are places already.
    pad_value
        `pad_token_id` of the checkpoint's configuration.
    pad, multiple
        "longest": to the longest row of the batch, rounded up to a multiple; "max": to n_genes + 2; "none": rows one
        after the other, with `batch.cu_seqlens`. Padding has the place of T, as in the original: tell it by `lengths`.
    genes
        Gene ids of a panel, in order; all genes when None.
    faithful
        Drop T and S that are not above 0, so that a cell with one count ends without S; take S of log values from their
        sum where no totals are given.

    Raises
    ------
    ConfigError
        Naming the parameter.

    Notes
    -----
    In double, rounded once. An empty cell has T and S alone, S = 0. Nothing is random.

    Source: biomap-research/scFoundation `d09626a`, `model/get_embedding.py` and `model/load.py`; what differs is listed
    in docs/recipes/scfoundation.md.

    Examples
    --------
    >>> counts = sparse.csr_array(np.array([[6, 0, 4], [0, 0, 0]], dtype=np.uint32))
    >>> batch = ScFoundation().encode(counts, np.array([2, 0, 1]), np.zeros(2, np.uint64))
    >>> batch.genes.tolist()
    [[1, 2, 19264, 19265], [19264, 19265, 19264, 19264]]
    >>> batch.values[0].numpy().round(2).tolist(), batch.lengths.tolist()
    ([8.289999961853027, 8.699999809265137, 4.0, 1.0], [4, 2])
    """

    resolution: str = "t4"
    depth: DepthOf = "list"
    input: Input = "counts"
    target_sum: float | None = None
    n_genes: int = 19264
    token_of: GivenTokens | None = field(default=None, repr=False, compare=False)
    vocabulary: Vocabulary | None = field(default=None, repr=False, compare=False)
    pad_value: float = 103.0
    pad: Pad = "longest"
    multiple: int = 1
    genes: tuple[str, ...] | None = None
    faithful: bool = False
    table: ModelTokens = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _aim(self.resolution)
        check_choice("depth", self.depth, DepthOf)
        check_choice("input", self.input, Input)
        check_whole("n_genes", self.n_genes, least=1)
        check_pad(self, self.pad, self.multiple)
        if (self.input == "bulk") != (self.target_sum is not None):
            raise ConfigError(
                f"target_sum goes with input='bulk' and must be given there; found {self.target_sum} with "
                f"{self.input!r}. The original took the median total of its samples."
            )
        if self.target_sum is not None:
            check_number("target_sum", self.target_sum, above=0)
        check_number("pad_value", self.pad_value)
        check_flag("faithful", self.faithful)
        object.__setattr__(self, "genes", as_panel(self.genes, self.vocabulary))
        object.__setattr__(self, "table", ModelTokens(self.token_of, self.vocabulary))
        keep_plain(self)

    def numbers_of(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return what stands in `batch.genes` for the gene of each vocabulary token, -1 for none."""
        return self.table.of(tokens)

    def own_names(self) -> dict[int, str]:
        """Return what the recipe puts into `batch.genes` itself, by name."""
        return {self.n_genes: "T", self.n_genes + 1: "S"}

    @tell_no_memory
    def encode(
        self,
        counts: sparse.csr_array,
        genes: npt.NDArray[np.int64],
        keys: npt.NDArray[np.uint64],
        *,
        totals: npt.NDArray[Any] | None = None,
    ) -> TokenBatch:
        """Return the tokens of n cells; see `Recipe.encode`.

        Raises
        ------
        NotRawCountsError
            For counts that are negative or fractional.
        InputError
            For arguments that do not fit each other, tokens outside the list, and log values without totals.
        """
        tokens = self.table.of(genes)
        check_places(tokens, self.n_genes)
        if self.input in ("log1p", "bulk_log1p"):
            cells, given = _read_values(counts, tokens, keys)
            total = (
                row_sums(cells.indptr, given)
                if self.input == "bulk_log1p"
                else self._log_totals(counts, cells, given, totals)
            )
            return self._rows(cells, total, given)
        cells = read_profiles(counts, tokens, keys, faithful=self.faithful)
        total = row_sums(cells.indptr, cells.counts).astype(np.float64)
        if self.depth == "cell":
            total = whole_totals(counts, totals)
        if self.input == "counts":
            return self._rows(cells, total, None)
        values = np.log1p(cells.counts / np.repeat(total, cells.sizes) * (self.target_sum or 0.0))
        return self._rows(cells, row_sums(cells.indptr, values), values)

    def _log_totals(self, counts: Any, cells: TokenCells, given: F64, totals: npt.NDArray[Any] | None) -> F64:
        if totals is None and self.faithful:
            return row_sums(cells.indptr, given)
        if totals is None:
            raise InputError(
                f"totals must be the raw counts of each of the {len(cells)} cells, which log values do not tell; "
                "found none. faithful=True does without."
            )
        whole, _ = as_totals(counts, totals)
        refuse_no_total(whole, cells.sizes > 0, "the cell has values, so it has counts")
        return whole

    def _rows(self, cells: TokenCells, total: F64, given: F64 | None) -> TokenBatch:
        tail = self._tail(total)
        rules = ProfileRules(
            values=PROFILE_VALUES["log1p" if given is None else "given"],
            order=PROFILE_ORDERS["token"],
            pad_token=self.n_genes,
            pad_value=self.pad_value,
        )
        starts = row_starts(cells.sizes + tail.sizes, self.n_genes + 2, pad=self.pad, multiple=self.multiple)
        return make_profiles(cells, rules, cells.sizes, starts, Wanted(self.pad), tail=tail, totals=total, given=given)

    def _tail(self, total: F64) -> Tail:
        how, number = _aim(self.resolution)
        with np.errstate(divide="ignore"):
            known = total if self.faithful else np.maximum(total, 1.0) if self.input == "counts" else _above_zero(total)
            s = np.log10(known)
            t = {"t": np.full(len(s), number), "f": np.log10(known * number), "a": s + number}[how]
        if self.input == "bulk":
            t = s
        if self.input == "bulk_log1p":
            t = s = total
        values = np.stack([t, s], axis=1).astype(np.float32)
        places = np.tile(np.array([self.n_genes, self.n_genes + 1]), (len(s), 1))
        return Tail(places, values, (values > 0 if self.faithful else np.ones(values.shape)).astype(np.uint8))

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values; the table of tokens by its hash."""
        names = ("resolution", "depth", "input", "target_sum", "n_genes", "pad_value", "pad", "multiple", "faithful")
        return {
            "recipe": "scfoundation",
            **{name: getattr(self, name) for name in names},
            "token_of": self.table.hash,
            "genes": None if self.genes is None else list(self.genes),
        }


def _above_zero(total: F64) -> F64:
    """Return totals of values, which may be below 1; 1 where there are none, whose logarithm is 0."""
    return np.where(total > 0, total, 1.0)


def _aim(resolution: object) -> tuple[str, float]:
    """Return letter and number of the depth aimed at."""
    try:
        how, number = str(resolution)[:1], float(str(resolution)[1:])
    except ValueError:
        how, number = "", 0.0
    if how not in ("t", "f", "a") or not math.isfinite(number) or (how == "f" and number <= 0):
        raise ConfigError(
            "resolution must be t, f or a with a number, such as 't4' (the depth itself), 'f2' (a factor above 0) or "
            f"'a0.5' (added to log10 of the depth); found {resolution!r}"
        )
    return how, number


def _read_values(counts: Any, tokens: Any, keys: Any) -> tuple[TokenCells, F64]:
    """Return cells, and the value of each of their entries; what is not above 0 in float32 is no entry."""
    if not sparse.issparse(counts) or counts.format != "csr":
        as_cells(counts, tokens, keys)  # which says what is expected
    values = np.asarray(counts.data, dtype=np.float64)
    if not (np.isfinite(values) & (values >= 0)).all():
        at = int(np.flatnonzero(~(np.isfinite(values) & (values >= 0)))[0])
        raise InputError(f"counts must be log1p of normalised counts, 0 or more; found {values[at]} in entry {at}")
    # The places of the entries travel as counts: what is left of them says which values are left.
    there = values.astype(np.float32) > 0
    places = np.where(there, np.arange(1, len(values) + 1), 0)
    cells = as_cells(sparse.csr_array((places, counts.indices, counts.indptr), shape=counts.shape), tokens, keys)
    known = cells.token_of[cells.token_of >= 0]
    if len(np.unique(known)) != len(known):
        raise VocabularyError(
            "genes has a token for two columns; logarithms cannot be added up, so hand each gene once"
        )
    return cells, values[cells.counts.astype(np.int64) - 1]
