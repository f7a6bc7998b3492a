"""Bytes (floor 2): files on this machine, objects behind a URL, and the cache between them. Knows nothing of cells.

`local` is files, and what this package gives by name; `urls` tells a URL from a path; `cache` keeps on disk what was
fetched; `remote` fetches, and is the one module that knows obstore (extra `cloud`).
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
    sync_file,
    sync_folder,
    write_atomic,
)

__all__ = [
    "exchange_folders",
    "exclusive_lock",
    "free_bytes",
    "hash_bytes",
    "hash_file",
    "map_file",
    "require_free_bytes",
    "sync_file",
    "sync_folder",
    "write_atomic",
]
