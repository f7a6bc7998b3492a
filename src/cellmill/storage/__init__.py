"""Bytes (floor 2): files on this machine, objects behind a URL, and the cache between them. Knows nothing of cells.

`local` is files, and what this package gives by name; `memory` is how much of that there is; `stamps` tells one state
of a file from another; `urls` tells a URL from a path; `cache` keeps on disk what was fetched; `remote` fetches, and is
the one module that knows obstore (extra `cloud`).
"""

from __future__ import annotations

from cellmill.storage.local import (
    exchange_folders,
    exclusive_lock,
    free_bytes,
    hash_bytes,
    hash_file,
    map_file,
    require_free_bytes,
    room_told,
    shared_lock,
    sync_file,
    sync_folder,
    write_atomic,
)
from cellmill.storage.memory import available_memory, total_memory

__all__ = [
    "available_memory",
    "exchange_folders",
    "exclusive_lock",
    "free_bytes",
    "hash_bytes",
    "hash_file",
    "map_file",
    "require_free_bytes",
    "room_told",
    "shared_lock",
    "sync_file",
    "sync_folder",
    "total_memory",
    "write_atomic",
]
