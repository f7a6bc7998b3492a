"""Columns of obs as codes and numbers, ready for batches (floor 6, loader). Knows Arrow columns and stores' obs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cellmill.errors import ConfigError, nearest
from cellmill.store import Store
from cellmill.store.columns import numbers_of

__all__ = ["ObsColumn", "ObsWanted", "load_obs", "with_columns"]

Numbers = npt.NDArray[np.int64] | npt.NDArray[np.float64] | npt.NDArray[np.float32]
# names of columns; or each with the categories whose codes are wanted (None: those that occur)
ObsWanted = Sequence[str] | Mapping[str, Sequence[str] | None]


@dataclass(frozen=True)
class ObsColumn:
    """One column of all stores.

    Attributes
    ----------
    name : str
    categories : tuple of str or None
        Names of the codes, in order; None for numbers.
    values : tuple of arrays
        For each store int32[n_cells] codes, -1 for null and for what is not among the categories; or numbers, of
        the same type in every store: int64[n_cells], float64[n_cells] or float32[n_cells], as `load_obs` says.
    """

    name: str
    categories: tuple[str, ...] | None
    values: tuple[npt.NDArray[np.int32] | Numbers, ...]

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of the column in a batch: codes are int64."""
        return np.dtype(np.int64) if self.categories is not None else self.values[0].dtype


def load_obs(stores: Sequence[Store], wanted: ObsWanted) -> tuple[ObsColumn, ...]:
    """Return the columns, read once.

    Text gets codes; categories are those that occur in any of the stores, sorted, so codes do not depend on which
    cells a plan takes. Whole numbers become int64 (of uint64 the bits, as `batch.cells`); where one of the stores has
    nulls in the column, float64, which holds whole numbers up to 2^53, with NaN for null. Other numbers and booleans
    become float32, with NaN for null.

    Raises
    ------
    ConfigError
        For a column that a store does not have, naming the nearest.
    """
    if isinstance(wanted, str):
        raise ConfigError(f"obs must be a list of column names, not the text {wanted!r}; write [{wanted!r}]")
    asked = wanted if isinstance(wanted, Mapping) else dict.fromkeys(wanted)
    return tuple(_load(stores, name, fixed) for name, fixed in asked.items())


def with_columns(wanted: ObsWanted, more: Sequence[str]) -> ObsWanted:
    """Return what is wanted, and more columns where they are not among it."""
    if isinstance(wanted, Mapping):
        return {**wanted, **{name: None for name in more if name not in wanted}}
    if isinstance(wanted, str):  # refused by `load_obs`, which says why
        return wanted
    return [*wanted, *(name for name in more if name not in wanted)]


def _load(stores: Sequence[Store], name: str, fixed: Sequence[str] | None) -> ObsColumn:
    columns = [_column(store, name) for store in stores]
    if fixed is None and not any(_is_text(column.type) for column in columns):
        return ObsColumn(name, None, _numbers(columns))
    texts = [pc.dictionary_encode(_plain(column).cast(pa.string())) for column in columns]
    if fixed is None:
        categories = tuple(sorted({value for text in texts for value in text.dictionary.to_pylist()}))
    else:
        categories = tuple(fixed)
    code = {value: i for i, value in enumerate(categories)}
    if len(code) != len(categories):
        raise ConfigError(f"obs column {name!r}: a category is named twice")
    return ObsColumn(name, categories, tuple(_codes(text, code) for text in texts))


def _column(store: Store, name: str) -> pa.Array:
    columns = store.obs.columns
    if name not in columns:
        raise ConfigError(
            f"{store.path} has no column {name!r} in obs.{nearest(name, columns)} Columns: {', '.join(columns)}"
        )
    return store.column(name)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _plain(column: pa.Array) -> pa.Array:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _numbers(columns: Sequence[pa.Array]) -> tuple[Numbers, ...]:
    """Return one type for all stores, so that a column of a batch has one."""
    if not all(pa.types.is_integer(column.type) for column in columns):
        return tuple(_floats(column, np.float32) for column in columns)
    if any(column.null_count for column in columns):
        return tuple(_floats(column, np.float64) for column in columns)
    return tuple(numbers_of(column).astype(np.int64) for column in columns)


def _floats(column: pa.Array, dtype: type[np.float32 | np.float64]) -> Numbers:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    floats: npt.NDArray[np.float64] = numbers_of(column.cast(pa.float64(), safe=False), null=np.nan)
    numbers: Numbers = floats.astype(np.float64) if dtype is np.float64 else floats.astype(np.float32)
    return numbers


def _codes(text: pa.DictionaryArray, code: Mapping[str, int]) -> npt.NDArray[np.int32]:
    own = np.array([*(code.get(value, -1) for value in text.dictionary.to_pylist()), -1], dtype=np.int32)
    index = numbers_of(text.indices, null=-1)  # -1 is the last of `own`
    found: npt.NDArray[np.int32] = own[index]
    return found
