"""From a store to AnnData (floor 3): the one module of the store that knows anndata and pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from cellmill.errors import MissingDependencyError

try:
    import anndata
except ImportError:
    raise MissingDependencyError("anndata", extra="anndata", needed_for="store.to_anndata()") from None

if TYPE_CHECKING:
    from cellmill.store.reader import Store

__all__ = ["to_anndata"]

_EXACT_IN_FLOAT32 = 2**24


def to_anndata(store: Store, rows: npt.NDArray[np.int64]) -> anndata.AnnData:
    """Return cells of a store as AnnData.

    X is a csr_matrix of raw counts, float32 as the field's tools expect; float64 when a count is above 2^24, which
    float32 cannot hold exactly. obs is indexed by the cells' names in their files; var by gene id.
    """
    counts = store.read(rows)
    exact = counts.nnz == 0 or int(counts.data.max()) <= _EXACT_IN_FLOAT32
    x = sparse.csr_matrix(counts.astype(np.float32 if exact else np.float64))
    obs = store.obs.to_pandas(rows=rows)
    obs.index = pd.Index(obs.pop("cell").astype(str).to_numpy(), dtype=object)
    var = store.genes.to_pandas().set_index("gene_id")
    var.index.name = None
    var.index = var.index.astype(object)
    return anndata.AnnData(X=x, obs=obs, var=var)
