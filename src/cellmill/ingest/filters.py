"""Which cells are taken (floor 4): by facts of whole cells and by SQL over obs, each filter with its own count.

Knows facts and obs. Must not know files, vocabularies, or how a removal is told to the user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cellmill.errors import ConfigError
from cellmill.ingest.facts import CellFacts
from cellmill.store.obs import arrow_type, cast_obs
from cellmill.store.obs_query import check_condition, run_query

__all__ = ["CellFilters", "FilteredObs", "check_filters", "check_where"]

Mask = npt.NDArray[np.bool_]
_ROW = "__cellmill_row"
_WHERE = "where (--where)"
# of the store's genes, which may depend on which cells are taken; facts of whole cells do not
_NOT_YET_KNOWN = frozenset({"fingerprint", "stored_counts", "n_genes_stored"})


@dataclass(frozen=True)
class CellFilters:
    """What a cell needs to be taken, in the order in which filters are applied; and what a gene needs.

    Attributes
    ----------
    min_counts, min_genes : int
        Least `total_counts` and `n_genes_detected`; 0 for none.
    max_mito : float or None
        Highest `mito_share`; cells in which it is not known stay.
    where : str or None
        SQL condition over obs, facts of whole cells included.
    min_cells_per_gene : int
        Genes that are new to the store are left out when fewer of the taken cells, of all inputs, have a count of them.
    """

    min_counts: int = 0
    min_genes: int = 0
    max_mito: float | None = None
    where: str | None = None
    min_cells_per_gene: int = 0

    @property
    def of_cells(self) -> dict[str, Any]:
        """The filters that remove cells, in order: name and value."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "min_cells_per_gene"}
        unset = {"min_counts": 0, "min_genes": 0, "max_mito": None, "where": None}
        return {name: value for name, value in values.items() if value != unset[name]}

    def told(self) -> str:
        """Return the filters of cells in words, empty where there are none."""
        words = {"min_counts": "at least {} counts", "min_genes": "at least {} genes",
                 "max_mito": "at most {} of counts mitochondrial", "where": "{}"}  # fmt: skip
        of_cells = [words[name].format(value) for name, value in self.of_cells.items()]
        return f"cells with {', '.join(of_cells)}" if of_cells else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the filters that are set, as plain data."""
        of_genes = {"min_cells_per_gene": self.min_cells_per_gene} if self.min_cells_per_gene else {}
        return self.of_cells | of_genes


def check_filters(filters: CellFilters) -> None:
    """Refuse what cannot be meant, before a file is opened.

    Raises
    ------
    ConfigError
        For a number below 0, or a share outside 0..1.
    QueryError
        For a condition that is not one, or that does not look at one cell at a time.
    """
    for name in ("min_counts", "min_genes", "min_cells_per_gene"):
        if getattr(filters, name) < 0:
            option = name.replace("_", "-")
            raise ConfigError(f"{name} (--{option}) is a number of 0 or more; found {getattr(filters, name)}")
    share = filters.max_mito
    if share is not None and not 0 <= share <= 1:
        percent = f"; for {share:g} % give {share / 100:g}" if 1 < share <= 100 else ""
        raise ConfigError(
            f"max_mito (--max-mito) is a share of the cell's counts, from 0 to 1; found {share:g}{percent}"
        )
    if filters.where is not None:
        check_condition(filters.where, what=_WHERE)


def check_where(where: str, schema: Sequence[tuple[str, str]]) -> None:
    """Check that a condition can be asked of inputs with these columns.

    Raises
    ------
    QueryError
        For a column that no input has, naming the nearest, and what DuckDB refuses otherwise.
    """
    known = _known(schema)
    empty = pa.schema([(name, arrow_type(kind)) for name, kind in [(_ROW, "int64"), *known]]).empty_table()
    _chosen(where, empty, known)


class FilteredObs:
    """Obs of one input, of which filters ask cells.

    Parameters
    ----------
    obs
        One row for each cell of the file from row `first`, under the names of the store.
    schema
        Columns of the store and their types, as SQL over the store will see them.
    first
        Row of the file that the first row of `obs` is.
    """

    def __init__(
        self, filters: CellFilters, obs: pa.Table, schema: Sequence[tuple[str, str]], *, first: int = 0
    ) -> None:
        self._filters = filters
        self._obs = obs
        self._schema = _known(schema)
        self._first = first

    @classmethod
    def of(
        cls, filters: CellFilters, obs: pa.Table, schema: Sequence[tuple[str, str]], *, first: int = 0
    ) -> FilteredObs | None:
        """Return it, or None where no filter is set that removes cells."""
        return cls(filters, obs, schema, first=first) if filters.of_cells else None

    def taken(self, start: int, facts: CellFacts) -> tuple[Mask, dict[str, int]]:
        """Return which of the cells from row `start` of the file are taken, and how many each filter removed.

        Notes
        -----
        A cell that several filters would remove is counted by the first of them.
        """
        taken = np.ones(len(facts.total_counts), dtype=bool)
        removed = {}
        for name, value in self._filters.of_cells.items():
            passing = self._where(value, start, facts, taken) if name == "where" else _PASSING[name](facts, value)
            removed[name] = int(np.count_nonzero(taken & ~passing))
            taken &= passing
        return taken, removed

    def _where(self, where: str, start: int, facts: CellFacts, asked: Mask) -> Mask:
        rows = np.flatnonzero(asked)
        table = self._obs.take(pa.array(start - self._first + rows))
        for name, values in facts.columns().items():
            table = table.append_column(name, pa.array(values[rows]))
        seen = cast_obs(table, self._schema).add_column(0, _ROW, pa.array(rows.astype(np.int64)))
        passing = np.zeros(len(asked), dtype=bool)
        passing[_chosen(where, seen, self._schema)] = True
        return passing


def _chosen(where: str, table: pa.Table, schema: Sequence[tuple[str, str]]) -> npt.NDArray[np.int64]:
    asked = f"{_WHERE}: the condition {where!r}"  # and not the SQL around it, which nobody wrote
    found = run_query(f'SELECT "{_ROW}" FROM obs WHERE (\n{where}\n)', table, schema, asked=asked)
    return np.asarray(found.column(_ROW).to_numpy(), dtype=np.int64)


def _known(schema: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, kind) for name, kind in schema if name not in _NOT_YET_KNOWN]


def _of_mito(facts: CellFacts, most: float) -> Mask:
    # in 32 bits, as SQL over the store compares them; what is not known is no reason to remove a cell
    return np.asarray(~(facts.mito_share > np.float32(most)))


_PASSING = {
    "min_counts": lambda facts, least: facts.total_counts >= least,
    "min_genes": lambda facts, least: facts.n_genes_detected >= least,
    "max_mito": _of_mito,
}
