"""Simulated cells with the structure of real data, and the files a lab would have them in (floor 3).

Knows distributions and three file formats. Must not know of stores, sources, mixtures or torch; needs no anndata.

    atlas.py            a small atlas: studies, donors, batches, markers; write.py its files
    reference.py        the reference sample that stores are measured on; write_reference.py its files
    h5ad_parts.py       pieces of the h5ad layout
"""

from __future__ import annotations

from cellmill.simulate.atlas import CELL_TYPES, Study, simulate_atlas
from cellmill.simulate.reference import ReferenceBlock, ReferenceModel, reference_blocks, reference_model
from cellmill.simulate.write import write_10x_h5, write_atlas, write_h5ad, write_mex
from cellmill.simulate.write_reference import reference_genes, write_reference

__all__ = [
    "CELL_TYPES",
    "ReferenceBlock",
    "ReferenceModel",
    "Study",
    "reference_blocks",
    "reference_genes",
    "reference_model",
    "simulate_atlas",
    "write_10x_h5",
    "write_atlas",
    "write_h5ad",
    "write_mex",
    "write_reference",
]
