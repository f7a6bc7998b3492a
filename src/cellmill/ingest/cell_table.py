"""Obs of an input under the names of the store (floor 4): cells named, columns as the plan calls them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cellmill.ingest.convert import cell_uids
from cellmill.ingest.plan import SourcePlan
from cellmill.sources import Source

__all__ = ["cell_table", "known_facts"]


def cell_table(plan: SourcePlan, whole: pa.Table, origins: pa.Table | None, start: int, stop: int) -> pa.Table:
    """Rows of an input's obs, which is given whole and mapped, under the store's names, with dataset and uid."""
    table = whole.slice(start, stop - start)
    if origins is not None:
        own = origins.slice(start, stop - start)
        columns = {"cell": table.column("cell"), "dataset": own.column("dataset"), "uid": own.column("uid")}
        return pa.table(columns | {new: table.column(old) for old, new, _ in plan.obs_names})
    seen = Counter(whole.column("cell").slice(0, start).to_pylist()) if start else Counter[str]()
    names = table.column("cell").to_pylist()
    occurrences = []
    for name in names:
        occurrences.append(seen[name])
        seen[name] += 1
    columns = {
        "cell": table.column("cell"),
        "dataset": pa.array([plan.name] * len(names), pa.string()),
        "uid": pa.array(cell_uids(plan.name, names, occurrences), pa.uint64()),
    }
    columns |= {new: table.column(old) for old, new, _ in plan.obs_names}
    return pa.table(columns)


def known_facts(source: Source) -> dict[str, npt.NDArray[Any]]:
    """Return facts of all whole cells of an input by name, where it knows them better than its counts tell."""
    origins = source.origins()
    if origins is None:
        return {}
    names = [name for name in origins.column_names if name not in ("dataset", "uid")]
    return {name: np.asarray(origins.column(name).to_numpy(zero_copy_only=False)) for name in names}
