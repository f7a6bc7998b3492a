"""Pieces of the h5ad layout, written with h5py alone (floor 3).

Knows the on-disk conventions of AnnData format 0.1.0. Must not know what is simulated.
"""

from __future__ import annotations

from collections.abc import Sequence

import h5py
import numpy as np
import numpy.typing as npt

__all__ = ["STRING", "begin_frame", "mark", "write_categorical", "write_empty_groups", "write_numbers", "write_strings"]

STRING = h5py.string_dtype("utf-8")


def mark(node: h5py.Group | h5py.Dataset, encoding: str, version: str) -> None:
    """Say how a node is encoded."""
    node.attrs["encoding-type"] = encoding
    node.attrs["encoding-version"] = version


def begin_frame(file: h5py.File, name: str, columns: Sequence[str]) -> h5py.Group:
    """Make the group of a data frame (obs, var) whose index is ``_index``; its columns are written by the caller."""
    group = file.create_group(name)
    mark(group, "dataframe", "0.2.0")
    group.attrs["_index"] = "_index"
    group.attrs.create("column-order", np.array(columns, dtype=object), dtype=STRING)
    return group


def write_strings(group: h5py.Group, name: str, values: Sequence[str]) -> None:
    """Write a text column."""
    mark(group.create_dataset(name, data=np.array(values, dtype=object), dtype=STRING), "string-array", "0.2.0")


def write_numbers(group: h5py.Group, name: str, values: npt.NDArray[np.generic]) -> None:
    """Write a column of numbers or booleans."""
    mark(group.create_dataset(name, data=values), "array", "0.2.0")


def write_categorical(frame: h5py.Group, name: str, codes: npt.NDArray[np.integer], categories: Sequence[str]) -> None:
    """Write a column of at most 127 categories; `codes` are positions in `categories`."""
    group = frame.create_group(name)
    mark(group, "categorical", "0.2.0")
    group.attrs["ordered"] = False
    write_numbers(group, "codes", codes.astype(np.int8))
    write_strings(group, "categories", categories)


def write_empty_groups(file: h5py.File) -> None:
    """Write the groups that every h5ad has and that hold nothing here."""
    for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
        mark(file.create_group(name), "dict", "0.1.0")
