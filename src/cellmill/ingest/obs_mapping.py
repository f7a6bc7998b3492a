"""A table of cells by the mapping file (floor 4, pure): renamed, mapped, typed, with ontology terms beside.

What is done to each column is counted, for the plan and for the report of the input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cellmill.errors import ConfigError, InputError, nearest
from cellmill.ingest.obs_map import COMMON_COLUMNS, ONTOLOGY_SUFFIX, ColumnRule, ObsMap
from cellmill.sources import Source
from cellmill.store.obs import arrow_type, type_name
from cellmill.units import count_text

__all__ = ["ColumnRecord", "MappedObs", "map_obs", "map_table"]

_KEPT = "author_"  # before the name of a column whose values were mapped under the same name
_SHOWN = 8


@dataclass
class ColumnRecord:
    """What was done to make one column.

    Attributes
    ----------
    column, type : str
        Of the store.
    file_column : str or None
        Of the file; None for a constant.
    constant : scalar or None
    n_cells : int
        Cells with a value.
    values : list of (old, new, cells)
        Each value that the table maps, most cells first; new is None where it becomes none.
    unused : list of str
        Values in the table that no cell has.
    others : list of (value, cells)
        Values that the table does not name.
    others_become : str
        "keep" or "null".
    kept_as : str or None
        Where the file's own values are, if they were mapped.
    ontology : str or None
        Column of the terms.
    without_term : list of (label, cells)
        Labels for which there is none.
    """

    column: str
    file_column: str | None
    constant: Any = None
    type: str = ""
    type_in_file: str = ""
    n_cells: int = 0
    values: list[tuple[str, Any, int]] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    others: list[tuple[str, int]] = field(default_factory=list)
    others_become: str = "keep"
    kept_as: str | None = None
    ontology: str | None = None
    without_term: list[tuple[str, int]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, without what does not apply."""
        plain = {name: value for name, value in vars(self).items() if value not in (None, [], "")}
        plain["values"] = [{"from": old, "to": new, "cells": n} for old, new, n in self.values]
        for name in ("others", "without_term"):
            plain[name] = [{"value": value, "cells": n} for value, n in getattr(self, name)]
        return {name: value for name, value in plain.items() if value != []}

    def __str__(self) -> str:
        origin = f"{self.file_column}" if self.constant is None else f"constant {self.constant!r}"
        said = [f"{self.column} <- {origin}: {self.type}, {count_text(self.n_cells)} cells"]
        if self.type_in_file and self.type_in_file != self.type:
            said[0] += f" ({self.type_in_file} in the file)"
        if self.values:
            said.append("mapped " + _some([f"{old!r} -> {new!r} ({count_text(n)})" for old, new, n in self.values]))
        if self.others:
            what = "kept as they are" if self.others_become == "keep" else "made null"
            said.append(f"not in the table, {what}: " + _some([f"{v!r} ({count_text(n)})" for v, n in self.others]))
        if self.unused:
            said.append("in the table, but in no cell: " + _some([repr(value) for value in self.unused]))
        if self.kept_as:
            said.append(f"the file's own values stay in {self.kept_as}")
        if self.ontology:
            said.append(f"terms in {self.ontology}")
        if self.without_term:
            said.append("without a term: " + _some([f"{v!r} ({count_text(n)})" for v, n in self.without_term]))
        if self.column not in COMMON_COLUMNS and (near := nearest(self.column, COMMON_COLUMNS)):
            said.append(f"{self.column!r} is no column of the common schema.{near}")
        return "; ".join(said)


def _some(texts: list[str]) -> str:
    rest = f" and {count_text(len(texts) - _SHOWN)} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + rest


@dataclass(frozen=True)
class MappedObs:
    """The table of cells of an input under the names of the store.

    Attributes
    ----------
    table : Table
        `cell` first, then the columns.
    records : tuple of ColumnRecord
    origin : dict of str to str
        Column -> the file's column, where that is called otherwise or was made.
    """

    table: pa.Table
    records: tuple[ColumnRecord, ...] = ()
    origin: Mapping[str, str] = field(default_factory=dict)


def map_obs(source: Source, obs_map: ObsMap | None) -> MappedObs:
    """Return the cells of an input, mapped.

    Raises
    ------
    ConfigError
        When a column that is mapped is not in the file, naming the nearest; when a name would stand twice.
    InputError
        When a value is not of the type that is asked for, or not in a table that must name all.
    """
    table = source.obs()
    rules = obs_map.rules_for(source.path) if obs_map is not None else {}
    return map_table(table, rules, where=str(source.path)) if rules else MappedObs(table)


def map_table(table: pa.Table, rules: Mapping[str, ColumnRule], *, where: str) -> MappedObs:
    """Return a table by some rules; raises as `map_obs`."""
    file_columns = table.column_names[1:]
    rules = {target: rule for target, rule in rules.items() if not _left_out(target, rule, file_columns)}
    taken_from = {target: _origin(target, rule, file_columns, where) for target, rule in rules.items()}
    made: dict[str, pa.ChunkedArray] = {}
    records: list[ColumnRecord] = []
    origin: dict[str, str] = {}
    for target, rule in rules.items():
        place = f"{where}, obs column {target!r}"
        old = taken_from[target]
        column = None if old is None else table.column(old)
        record, columns = _made(target, rule, old, column, table.num_rows, place)
        made |= columns
        records.append(record)
        origin |= dict.fromkeys(columns, old if old is not None else f"constant {rule.constant!r}")
    # a column that was only renamed or typed is gone; one whose values were mapped stays as the author has it
    gone = {old for target, old in taken_from.items() if old is not None and rules[target].values is None}
    kept = [name for name in file_columns if name not in gone]
    result = {"cell": table.column("cell")}
    made_names = {name.casefold(): name for name in made}
    for name in file_columns:
        for target in [t for t, old in taken_from.items() if old == name]:
            result |= {new: made[new] for new in (target, target + ONTOLOGY_SUFFIX) if new in made}
        if name in kept:
            own = _own_name(name, made_names, taken_from, file_columns, where)
            result[own] = table.column(name)
            if own != name:
                origin[own] = name
            for record in records:
                if record.file_column == name and record.values:
                    record.kept_as = own
    result |= {name: column for name, column in made.items() if name not in result}
    return MappedObs(pa.table(result), tuple(records), origin)


def _left_out(target: str, rule: ColumnRule, file_columns: list[str]) -> bool:
    return rule.optional and rule.constant is None and (rule.from_column or target) not in file_columns


def _origin(target: str, rule: ColumnRule, file_columns: list[str], where: str) -> str | None:
    if rule.constant is not None:
        return None
    wanted = rule.from_column or target
    if wanted not in file_columns:
        raise ConfigError(
            f"{where}: the mapping makes {target!r} of the obs column {wanted!r}, which the file does not have."
            f"{nearest(wanted, file_columns)} Columns: {', '.join(file_columns) or 'none'}. Where files may lack it, "
            "say `optional: true`."
        )
    return wanted


def _own_name(
    name: str, made: Mapping[str, str], taken_from: Mapping[str, str | None], file_columns: list[str], where: str
) -> str:
    """Return what a column of the file that stays is called: as it is, unless a column that is made is called so."""
    target = made.get(name.casefold())
    if target is None:
        return name
    kept = f"{_KEPT}{name}"
    is_free = kept.casefold() not in made and kept.casefold() not in map(str.casefold, file_columns)
    if taken_from.get(target) == name and is_free:
        return kept
    raise ConfigError(
        f"{where}: the mapping makes a column {target!r}, and the file has one called {name!r} already. Give that "
        f"another name in the mapping as well, for example original_{name}: {name}"
    )


def _made(
    target: str, rule: ColumnRule, old: str | None, column: pa.ChunkedArray | None, n_rows: int, place: str
) -> tuple[ColumnRecord, dict[str, pa.ChunkedArray]]:
    """Make one column, and the terms beside it."""
    record = ColumnRecord(column=target, file_column=old, constant=rule.constant, others_become=rule.others)
    if column is None:
        assert rule.constant is not None
        single = pa.array([rule.constant])
        kind = "category" if isinstance(rule.constant, str) else type_name(single.type)
        column = pa.chunked_array([_repeated(single, n_rows, kind)])
    else:
        record.type_in_file = type_name(column.type)
    if rule.values is not None:
        column = _mapped(column, rule, record, place)
    if rule.type is not None:
        column = _typed(column, rule.type, place)
    record.type = type_name(column.type)
    record.n_cells = n_rows - column.null_count
    made = {target: column}
    if rule.ontology is not None:
        record.ontology = f"{target}{ONTOLOGY_SUFFIX}"
        made[record.ontology] = _terms(column, rule.ontology, record)
    return record, made


def _repeated(single: pa.Array, n_rows: int, kind: str) -> pa.Array:
    if kind == "category":
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n_rows, np.int32)), single)
    return pa.repeat(single[0], n_rows)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column without a dictionary, NaN as null."""
    plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    if pa.types.is_floating(plain.type):
        return pc.if_else(pc.is_nan(plain), pa.scalar(None, plain.type), plain)
    return plain


def _encoded(column: pa.ChunkedArray) -> tuple[pa.Array, list[str]]:
    """Return the codes of a column's values, null for none, and these as texts, each once."""
    found = pc.dictionary_encode(_plain(column).cast(pa.string())).combine_chunks()
    if isinstance(found, pa.ChunkedArray):
        found = found.chunk(0) if found.num_chunks else pa.array([], pa.dictionary(pa.int32(), pa.string()))
    return found.indices, found.dictionary.to_pylist()


def _counted(codes: pa.Array, n_values: int) -> list[int]:
    known = codes.drop_null().to_numpy(zero_copy_only=False)
    counts: list[int] = np.bincount(known, minlength=n_values).tolist()
    return counts


def _mapped(column: pa.ChunkedArray, rule: ColumnRule, record: ColumnRecord, place: str) -> pa.ChunkedArray:
    """Return a column with its values by the table of the rule."""
    assert rule.values is not None
    codes, texts = _encoded(column)
    counts = _counted(codes, len(texts))
    named = [(text, rule.values[text], n) for text, n in zip(texts, counts, strict=True) if text in rule.values]
    others = [(text, n) for text, n in zip(texts, counts, strict=True) if text not in rule.values]
    record.values = sorted(named, key=lambda one: -one[2])
    record.others = sorted(others, key=lambda one: -one[1])
    found = set(texts)
    record.unused = [text for text in rule.values if text not in found]
    if others and rule.others == "error":
        shown = _some([f"{text!r} ({count_text(n)} cells)" for text, n in record.others])
        raise InputError(
            f"{place}: {count_text(len(others))} values are not in its table, and `others: error` is said: {shown}. "
            "Name them under `values`, or say `others: keep` or `others: null`."
        )
    new = [rule.values.get(text, text if rule.others == "keep" else None) for text in texts]
    kinds = {type(value) for value in new if value is not None}
    if kinds <= {str}:
        return pa.chunked_array([_as_categories(codes, new)])
    if kinds == {int, float}:
        new = [None if value is None else float(value) for value in new]
    elif len(kinds) > 1:
        first = {kind.__name__: next(v for v in new if type(v) is kind) for kind in sorted(kinds, key=str)}
        listed = ", ".join(f"{kind} {value!r}" for kind, value in first.items())
        raise InputError(
            f"{place}: the table gives values of several types ({listed}; values that it does not name stay texts). "
            "Put texts in quotes, name all values, or say `others: null`."
        )
    return pa.chunked_array([pa.array(new).take(codes)])


def _as_categories(codes: pa.Array, texts: list[Any]) -> pa.DictionaryArray:
    """Return categories of texts by code; several codes may have one text, or None."""
    labels = list(dict.fromkeys(text for text in texts if text is not None))
    position = {text: i for i, text in enumerate(labels)}
    new = pa.array([None if text is None else position[text] for text in texts], pa.int32())
    return pa.DictionaryArray.from_arrays(new.take(codes), pa.array(labels, pa.string()))


def _typed(column: pa.ChunkedArray, kind: str, place: str) -> pa.ChunkedArray:
    """Return a column in a type, each value exactly or an error that names one that is not."""
    target = arrow_type(kind)
    plain = _plain(column)
    if kind == "category":
        return plain.cast(pa.string()).dictionary_encode().cast(target)
    values = pc.unique(plain).drop_null()
    try:
        values.cast(target)
    except pa.ArrowException:
        wrong = next(value for value in values if not _can_be(value, target))
        raise InputError(
            f"{place}: {wrong.as_py()!r} is no {kind}. Give it another value under `values` (null for none), or take "
            "another `type`."
        ) from None
    return plain.cast(target)


def _can_be(value: pa.Scalar, target: pa.DataType) -> bool:
    try:
        value.cast(target)
    except pa.ArrowException:
        return False
    return True


def _terms(column: pa.ChunkedArray, ontology: str | Mapping[str, str], record: ColumnRecord) -> pa.ChunkedArray:
    codes, labels = _encoded(column)
    terms = [ontology if isinstance(ontology, str) else ontology.get(label) for label in labels]
    counts = _counted(codes, len(labels))
    without = [(label, n) for label, term, n in zip(labels, terms, counts, strict=True) if term is None and n]
    record.without_term = sorted(without, key=lambda one: -one[1])
    return pa.chunked_array([_as_categories(codes, terms)])
