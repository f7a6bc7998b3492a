"""Filters that unpack HDF5 chunks: which a dataset needs, and where missing ones come from (floor 3, sources).

HDF5 itself knows gzip, lzf (by h5py) and a few that change no size; zstd, blosc and others are plug-ins, which the
package hdf5plugin brings. Must not know what a dataset means.
"""

from __future__ import annotations

import importlib

import h5py

from cellmill.errors import FormatError, MissingDependencyError

__all__ = ["filters_of", "require_filters"]

NAMES = {
    307: "bzip2", 32000: "lzf", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd",
    32017: "sz", 32018: "fcidecomp", 32024: "sz3", 32026: "blosc2",
}  # fmt: skip


def filters_of(dataset: h5py.Dataset) -> list[int]:
    """Return the numbers of the filters that a dataset's chunks go through, as registered with HDF5."""
    properties = dataset.id.get_create_plist()
    return [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]


def _missing(dataset: h5py.Dataset) -> list[int]:
    return [number for number in filters_of(dataset) if not h5py.h5z.filter_avail(number)]


def require_filters(dataset: h5py.Dataset) -> bool:
    """Make the filters of a dataset available, or say what to install; True when some were not available before.

    Raises
    ------
    MissingDependencyError
        A filter is missing that hdf5plugin may bring.
    FormatError
        hdf5plugin is here and does not know the filter.
    """
    missing = _missing(dataset)
    if not missing:
        return False
    named = ", ".join(f"{NAMES.get(number, 'an unknown one')} (HDF5 filter {number})" for number in missing)
    place = f"{dataset.file.filename}, {dataset.name}"
    try:
        importlib.import_module("hdf5plugin")  # registers its filters
    except ImportError:
        raise MissingDependencyError(
            "hdf5plugin", extra="filters", needed_for=f"{place}: its compression is {named}; unpacking it"
        ) from None
    if _missing(dataset):
        raise FormatError(
            f"{place}: its compression is {named}, which neither HDF5 nor hdf5plugin can unpack here. Write the file "
            "again with gzip, lzf or zstd."
        )
    return True
