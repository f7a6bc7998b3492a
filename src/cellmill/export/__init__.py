"""Export (floor 7): stores as the files that other tools read, one module per format.

Knows stores and foreign formats; must not know models, training or how a store came to be.
"""

from __future__ import annotations

from cellmill.export.anndata import h5ad

__all__ = ["h5ad"]
