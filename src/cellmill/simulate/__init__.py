"""Simulated cells with the structure of real data, and the files a lab would have them in (floor 3).

Knows distributions and three file formats. Must not know of stores, sources, mixtures or torch; needs no anndata.
"""

from __future__ import annotations

from cellmill.simulate.atlas import CELL_TYPES, Study, simulate_atlas
from cellmill.simulate.write import write_10x_h5, write_atlas, write_h5ad, write_mex

__all__ = ["CELL_TYPES", "Study", "simulate_atlas", "write_10x_h5", "write_atlas", "write_h5ad", "write_mex"]
