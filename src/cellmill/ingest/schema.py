"""Names and types of a store's obs (floor 4): datasets, columns of each file, and the schema that holds all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cellmill.errors import ConfigError, InputError, nearest
from cellmill.sources import Source
from cellmill.store.obs import FACT_COLUMNS, STANDARD_COLUMNS, type_name, unify_types

__all__ = ["check_renames", "dataset_names", "obs_columns_of", "unified_schema"]


def dataset_names(sources: Sequence[Source]) -> list[str]:
    """A name for each dataset: its file's; with folders in front where names would be equal."""
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
    source: Source, rename: dict[str, str], spelling: dict[str, str]
) -> tuple[tuple[str, str, str], ...]:
    """File's column, store's column and type, for each column of a source's obs but the cells' names.

    SQL does not tell upper case from lower: a column is spelt as in the first source that has it (`spelling`), and one
    that differs from another of its own file in case alone gets a number.
    """
    table = source.obs()
    reserved = {name.casefold() for name in (*STANDARD_COLUMNS, *FACT_COLUMNS, "row")}
    taken: set[str] = set()
    result = []
    for name in table.column_names[1:]:
        new = rename.get(name, name)
        if new.casefold() in reserved:
            new = f"source_{new}"
        if new.casefold() in taken and name in rename:
            raise ConfigError(
                f"{source.path}: two columns of obs would both be called {new!r}; change the renaming of {name!r}"
            )
        stem, number = new, 2
        while new.casefold() in taken:
            new, number = f"{stem}_{number}", number + 1
        new = spelling.setdefault(new.casefold(), new)
        taken.add(new.casefold())
        result.append((name, new, type_name(table.schema.field(name).type)))
    return tuple(result)


def check_renames(rename: Sequence[tuple[str, str]], sources: Sequence[Source]) -> None:
    """Check that each column to rename is there.

    Raises
    ------
    ConfigError
        Naming the nearest column that is.
    """
    columns = {name for source in sources for name in source.obs().column_names[1:]}
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
