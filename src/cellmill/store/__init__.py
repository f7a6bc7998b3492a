"""The store (floor 3): cells near their entropy, each readable alone.

Knows bytes, frames, genes and obs; knows nothing of where cells came from (`sources`, `ingest`) nor of torch.
"""

from __future__ import annotations

from cellmill.store.disk import disk_bytes
from cellmill.store.duplicates import MEMORY_BYTES, Duplicates, find_duplicates
from cellmill.store.equal_cells import FEW_COUNTS
from cellmill.store.manifest import (
    HEAD_NAME,
    MANIFEST_NAME,
    VOCABULARY_NAME,
    FileEntry,
    Manifest,
    ShardEntry,
    Shards,
    SourceEntry,
    Sources,
)
from cellmill.store.merge import merge_stores
from cellmill.store.obs import FACT_COLUMNS, STANDARD_COLUMNS, ObsTable
from cellmill.store.protection import Protection, protect_store, protection_of, release_store
from cellmill.store.reader import Frames, Store, open_store
from cellmill.store.verify import VerifyReport

__all__ = [
    "FACT_COLUMNS",
    "FEW_COUNTS",
    "HEAD_NAME",
    "MANIFEST_NAME",
    "MEMORY_BYTES",
    "STANDARD_COLUMNS",
    "VOCABULARY_NAME",
    "Duplicates",
    "FileEntry",
    "Frames",
    "Manifest",
    "ObsTable",
    "Protection",
    "ShardEntry",
    "Shards",
    "SourceEntry",
    "Sources",
    "Store",
    "VerifyReport",
    "disk_bytes",
    "find_duplicates",
    "merge_stores",
    "open_store",
    "protect_store",
    "protection_of",
    "release_store",
]
