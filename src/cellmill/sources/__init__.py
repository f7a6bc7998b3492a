"""Inputs of cellmill: one file per kind, each yields blocks of counts with obs and genes (floor 3).

Knows file formats of count matrices. Must not know stores, vocabularies, or what is done with the cells: values are
handed on as stored, and `cellmill.ingest` proves that they are raw counts. Imports neither anndata nor pandas.

    guess.py        what lies at a path -> the source that reads it
    base.py         Source, MatrixInfo, CountBlock, GeneColumns: what every source gives
    h5ad.py         h5ad of all ages
    zarr.py         AnnData zarr of formats 2 and 3, folders and zip files
    annotated.py    what those two share: AnnData's layout; frame.py reads obs and var
    loom.py         loom of versions 1 to 3
    tenx.py         10x HDF5, versions 2 and 3
    mex.py          Matrix Market folders; mex_text.py streams the text, mex_names.py tells which files belong together
    three_ca.py     studies as the Curated Cancer Cell Atlas lays them out
    archive.py      tar archives of inputs; archived.py a source that lies in one; files.py which files an input is
    parquet.py      token lists in Parquet, as Tahoe-100M has them; scbank.py scBank folders; token_lists.py the lists
    gene_tokens.py  which gene a token stands for; parquet_file.py Parquet with errors that help; label_join.py
    table.py        tables of counts as text; table_head.py, table_text.py read it, table_axes.py tells genes from cells
    arrays.py       groups and arrays of any container; hdf5.py and zarr_arrays.py are the two there are
    matrix.py       sparse matrices read by blocks; dense.py dense ones in either orientation
    spill.py        entries sorted by cell in bounded memory; entry_reader.py rows from a stream of entries
    rows.py         arithmetic on rows, pure; features.py which features are genes; side_table.py labels from CSV
"""

from __future__ import annotations

from cellmill.sources.base import CountBlock, GeneColumns, Limits, MatrixInfo, Source
from cellmill.sources.download import recorded_url
from cellmill.sources.guess import (
    FORMATS,
    expand_inputs,
    explain_guess,
    find_inputs,
    guess_format,
    open_source,
    register_format,
)
from cellmill.sources.h5ad import H5adSource
from cellmill.sources.loom import LoomSource
from cellmill.sources.mex import MexSource
from cellmill.sources.parquet import ParquetSource
from cellmill.sources.passed import PassedOver
from cellmill.sources.reopened import ReopenedSource
from cellmill.sources.scbank import ScbankSource
from cellmill.sources.table import TableSource
from cellmill.sources.tenx import TenxSource
from cellmill.sources.three_ca import ThreeCaSource
from cellmill.sources.zarr import ZarrSource
from cellmill.sources.zarr_arrays import is_zarr

__all__ = [
    "FORMATS",
    "CountBlock",
    "GeneColumns",
    "H5adSource",
    "Limits",
    "LoomSource",
    "MatrixInfo",
    "MexSource",
    "ParquetSource",
    "PassedOver",
    "ReopenedSource",
    "ScbankSource",
    "Source",
    "TableSource",
    "TenxSource",
    "ThreeCaSource",
    "ZarrSource",
    "expand_inputs",
    "explain_guess",
    "find_inputs",
    "guess_format",
    "is_zarr",
    "open_source",
    "recorded_url",
    "register_format",
]
