"""Names and types of a store's obs (floor 4): datasets, columns of each file, and the schema that holds all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from cellmill.errors import ConfigError, InputError, nearest
from cellmill.ingest.obs_map import ObsMap
from cellmill.sources import Source
from cellmill.store.obs import FACT_COLUMNS, STANDARD_COLUMNS, type_name, unify_types

__all__ = ["check_renames", "dataset_names", "obs_columns_of", "unified_schema"]


def dataset_names(sources: Sequence[Source], *, given: str | None = None, obs_map: ObsMap | None = None) -> list[str]:
    """Return a name for each dataset: what it is given, else its file's, with folders in front where those are equal.

    Parameters
    ----------
    given
        For all of them, "{name}" standing for the name of the file.
    obs_map
        May name each; comes first.

    Raises
    ------
    InputError
        When several inputs would be one dataset.
    """
    names = _file_names(sources)
    for i, (source, own) in enumerate(zip(sources, list(names), strict=True)):
        mapped = obs_map.dataset_of(source.path, own) if obs_map is not None else None
        if mapped is not None:
            names[i] = mapped
        elif given is not None:
            names[i] = given.replace("{name}", own)
    repeated = [name for name, n in Counter(names).items() if n > 1]
    if repeated:
        inputs = [str(source.path) for source, name in zip(sources, names, strict=True) if name == repeated[0]]
        raise InputError(
            f"{len(inputs)} inputs would all be the dataset {repeated[0]!r} ({', '.join(inputs[:3])}); names are what "
            "uids are made of. Let {name} stand for the file's, as in --dataset-name 'GSE132044/{name}', or name each "
            "in the mapping file."
        )
    return names


def _file_names(sources: Sequence[Source]) -> list[str]:
    names = [source.name for source in sources]
    for depth in range(1, 16):
        repeated = {name for name, n in Counter(names).items() if n > 1}
        if not repeated:
            return names
        for i, source in enumerate(sources):
            if names[i] in repeated:
                parents = source.path.resolve().parent.parts[1:][-depth:]
                names[i] = "_".join([*parents, source.name])
    raise InputError(f"datasets need names of their own; {sorted(repeated)} stand for several inputs")


def obs_columns_of(
    table: pa.Table, rename: dict[str, str], spelling: dict[str, str], *, where: Path
) -> tuple[tuple[str, str, str], ...]:
    """Column, store's column and type, for each column of a source's obs but the cells' names.

    SQL does not tell upper case from lower: a column is spelt as in the first source that has it (`spelling`), and one
    that differs from another of its own file in case alone gets a number.
    """
    reserved = {name.casefold() for name in (*STANDARD_COLUMNS, *FACT_COLUMNS, "row")}
    taken: set[str] = set()
    result = []
    for name in table.column_names[1:]:
        new = rename.get(name, name)
        if new.casefold() in reserved:
            new = f"source_{new}"
        if new.casefold() in taken and name in rename:
            raise ConfigError(
                f"{where}: two columns of obs would both be called {new!r}; change the renaming of {name!r}"
            )
        stem, number = new, 2
        while new.casefold() in taken:
            new, number = f"{stem}_{number}", number + 1
        new = spelling.setdefault(new.casefold(), new)
        taken.add(new.casefold())
        result.append((name, new, type_name(table.schema.field(name).type)))
    return tuple(result)


def check_renames(rename: Sequence[tuple[str, str]], tables: Sequence[pa.Table]) -> None:
    """Check that each column to rename is there.

    Raises
    ------
    ConfigError
        Naming the nearest column that is.
    """
    columns = {name for table in tables for name in table.column_names[1:]}
    for old, _ in rename:
        if old not in columns:
            raise ConfigError(
                f"no input has an obs column {old!r} to rename.{nearest(old, columns)} "
                f"Columns: {', '.join(sorted(columns))}"
            )


def unified_schema(obs_names: Sequence[tuple[tuple[str, str, str], ...]]) -> tuple[tuple[str, str], ...]:
    """Return the columns of a store, in order, and the type that holds the values of all sources."""
    schema = STANDARD_COLUMNS | FACT_COLUMNS
    for columns in obs_names:
        for _, name, kind in columns:
            schema[name] = unify_types(schema[name], kind) if name in schema else kind
    return tuple((name, "string" if kind == "null" else kind) for name, kind in schema.items())
