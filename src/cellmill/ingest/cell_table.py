"""Obs of an input under the names of the store (floor 4): cells named, columns as the plan calls them."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from cellmill.ingest.convert import cell_uids
from cellmill.ingest.plan import SourcePlan

__all__ = ["cell_table"]


def cell_table(plan: SourcePlan, whole: pa.Table, start: int, stop: int) -> pa.Table:
    """Rows of an input's obs, which is given whole and mapped, under the store's names, with dataset and uid."""
    table = whole.slice(start, stop - start)
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
