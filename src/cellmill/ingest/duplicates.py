"""Equal cells of a store that is being concluded (floor 4): looked for among all of its cells, old and new."""

from __future__ import annotations

from cellmill.events import emit
from cellmill.ingest.plan import BuildPlan
from cellmill.store import Duplicates, Manifest
from cellmill.store.duplicates import KeyFile, mark_duplicates
from cellmill.store.staging import Staging
from cellmill.units import count_text

__all__ = ["look_for_duplicates"]


def look_for_duplicates(plan: BuildPlan, staging: Staging, manifest: Manifest) -> Duplicates:
    """Write the duplicates of the store of a manifest beside its reports, and say what should be known at once.

    Raises
    ------
    CorruptStoreError
        When obs of the store that is added to is damaged.
    """
    n_old = len(plan.base.manifest.shards) if plan.base else 0
    old = plan.base.path if plan.base else staging.folder
    files = [
        KeyFile((old if i < n_old else staging.folder) / shard.obs.path, shard.n_cells, shard.source)
        for i, shard in enumerate(manifest.shards)
    ]
    found = mark_duplicates(staging.folder, manifest, files, scratch=staging.place)
    for message in _messages(found):
        emit("duplicates", message=message)
    return found


def _messages(found: Duplicates) -> list[str]:
    said = []
    if found.n_duplicates:
        said.append(
            f"cells that equal an earlier one in all their counts: {count_text(found.n_duplicates)}; "
            "cellmill duplicates shows between which sources"
        )
    if found.uid_repeats:
        said.append(
            f"cells with the uid of an earlier one: {count_text(found.uid_repeats)}; rules by uid take both. Another "
            "name of one of their files gives other uids"
        )
    return said
