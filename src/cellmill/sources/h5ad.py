"""h5ad files of all ages, read through h5py on the raw groups (floor 3, sources).

Knows that they are HDF5; what lies in them is AnnData's (`annotated.py`).
"""

from __future__ import annotations

from cellmill.sources.annotated import AnnotatedSource
from cellmill.sources.arrays import Group
from cellmill.sources.hdf5 import Hdf5Group, open_hdf5

__all__ = ["H5adSource"]


class H5adSource(AnnotatedSource):
    """One h5ad file; matrices "X", "raw" and "layers/NAME"."""

    kind = "h5ad"
    container = "h5ad"

    def _open_root(self) -> Group:
        self._file = open_hdf5(self.path)
        return Hdf5Group(self._file)

    def _close_root(self) -> None:
        self._file.close()
