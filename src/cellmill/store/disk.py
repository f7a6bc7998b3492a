"""How much of a disk a store takes (floor 3, pure): one definition for whatever tells of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cellmill.store.manifest import Manifest

__all__ = ["disk_bytes"]


def disk_bytes(manifest: Manifest) -> dict[str, int]:
    """Return the bytes of all files that a manifest names, and of the manifest itself, by what they hold.

    Reports of runs and marks of duplicates, which no manifest names, are not among them.

    Returns
    -------
    dict of str to int
        counts, obs, uids, genes, vocabulary, head genes (of stores that have a model of these), reports (of sources)
        and manifest; their sum is what a store takes.
    """
    shards, head = manifest.shards, manifest.head
    return {
        "counts": int(shards.numbers("cells", "bytes").sum()),
        "obs": int(shards.numbers("obs", "bytes").sum()),
        "uids": int(shards.numbers("uids", "bytes").sum()),
        "genes": manifest.genes.bytes,
        "vocabulary": manifest.vocabulary.bytes,
        **({} if head is None else {"head genes": head.bytes}),
        "reports": int(manifest.sources.numbers("report", "bytes").sum()),
        "manifest": len(manifest.to_json()),
    }
