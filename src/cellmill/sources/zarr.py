"""AnnData zarr stores: format 2 and 3, sharded or not, folders and zip files (floor 3, sources).

Knows that they are zarr; what lies in them is AnnData's (`annotated.py`).
"""

from __future__ import annotations

from cellmill.sources.annotated import AnnotatedSource
from cellmill.sources.arrays import Group
from cellmill.sources.zarr_arrays import ZarrStore

__all__ = ["ZarrSource"]


class ZarrSource(AnnotatedSource):
    """One zarr store as AnnData writes it; matrices "X", "raw" and "layers/NAME".

    Raises
    ------
    MissingDependencyError
        The package zarr is not installed.
    """

    kind = "zarr"
    container = "AnnData zarr store"

    def _open_root(self) -> Group:
        self._store = ZarrStore(self.path)
        return self._store.root

    def _close_root(self) -> None:
        self._store.close()
