"""From a store to AnnData (floor 3): the one module of the store that knows anndata and pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cellmill.errors import MissingDependencyError

try:
    import anndata
    import pandas as pd
except ImportError as error:
    raise MissingDependencyError(error.name or "anndata", extra="anndata", needed_for="store.to_anndata()") from None

if TYPE_CHECKING:
    from cellmill.store.reader import Store

__all__ = ["to_anndata"]

_EXACT_IN_FLOAT32 = 2**24
_NULLABLE = {
    pa.bool_(): pd.BooleanDtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}


def to_anndata(store: Store, rows: npt.NDArray[np.int64]) -> anndata.AnnData:
    """Return cells of a store as AnnData.

    X is a csr_matrix of raw counts, float32 as the field's tools expect; float64 when a count is above 2^24, which
    float32 cannot hold exactly. obs is indexed by the cells' names in their files; var by gene id. Columns with nulls
    are nullable ones: whole numbers and truth values of pandas' own types, text as categories, real numbers NaN.
    """
    from scipy import sparse

    counts = store.read(rows)
    exact = counts.nnz == 0 or int(counts.data.max()) <= _EXACT_IN_FLOAT32
    x = sparse.csr_matrix(counts.astype(np.float32 if exact else np.float64))
    obs = _frame(store.obs.to_arrow(rows=rows))
    obs.index = pd.Index(obs.pop("cell").astype(str).to_numpy(), dtype=object)
    var = store.genes.to_pandas().set_index("gene_id")
    var.index.name = None
    var.index = var.index.astype(object)
    return anndata.AnnData(X=x, obs=obs, var=var)


def _frame(table: pa.Table) -> pd.DataFrame:
    """Return obs in types that keep every digit beside nulls, and that anndata can write."""
    return pd.DataFrame({name: _series(table.column(name)) for name in table.column_names})


def _series(column: pa.ChunkedArray) -> pd.Series[Any]:
    if column.null_count and pa.types.is_string(column.type):
        column = pc.dictionary_encode(column)
    series: pd.Series[Any] = column.to_pandas(types_mapper=_NULLABLE.get if column.null_count else None)
    return series
