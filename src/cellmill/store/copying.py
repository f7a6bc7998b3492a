"""Files copied by the system and proven by their hash (floor 3): what a merge does with shards it need not touch."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import xxhash

from cellmill.errors import CorruptStoreError
from cellmill.storage import sync_folder
from cellmill.store.manifest import FileEntry

__all__ = ["copy_file"]

_FICLONE = 0x40049409  # Linux: share the blocks of one file with another, where the file system can
_BLOCK_BYTES = 1 << 22
_CANNOT = (
    errno.EXDEV,
    errno.EOPNOTSUPP,
    errno.ENOTSUP,
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENOTTY,
    errno.EBADF,
    errno.EPERM,
)


def copy_file(source: Path, entry: FileEntry, folder: Path, path: str) -> FileEntry:
    """Copy a file of a store to `folder / path`, under a temporary name and renamed; returns its entry there.

    The blocks are shared with the source where the file system can do that, else copied within the system, else through
    this process. Either way every byte of the copy is read and hashed.

    Raises
    ------
    CorruptStoreError
        When the bytes are not those that the manifest names.
    """
    target = folder / path
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with source.open("rb", buffering=0) as old, temporary.open("wb+", buffering=0) as new:
            shared = _share_blocks(old.fileno(), new.fileno())
            found = _copy_and_hash(old.fileno(), new.fileno(), shared=shared)
            os.fsync(new.fileno())
        if found != (entry.bytes, entry.xxh3):
            raise CorruptStoreError(
                f"{source}: its {found[0]} bytes (xxh3 {found[1]}) are not those that the manifest names "
                f"({entry.bytes} bytes, xxh3 {entry.xxh3}). Restore it from a copy or build the store again."
            )
        temporary.replace(target)
    except FileNotFoundError as error:
        if Path(error.filename or "") != source:
            raise
        raise CorruptStoreError(
            f"{source}: missing, though the manifest names it. Restore it from a copy or build the store again."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)
    return FileEntry(path=path, bytes=entry.bytes, xxh3=entry.xxh3)


def _share_blocks(old: int, new: int) -> bool:
    try:
        fcntl.ioctl(new, _FICLONE, old)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False
    return True


def _copy_and_hash(old: int, new: int, *, shared: bool) -> tuple[int, str]:
    """Return length and xxh3-128 of the new file, block by block as it is filled."""
    state, at = xxhash.xxh3_128(), 0
    while True:
        n = _BLOCK_BYTES if shared else _copy_block(old, new, at)
        block = os.pread(new, n, at) if n else b""
        if not block:
            return at, state.hexdigest()
        state.update(block)
        at += len(block)


def _copy_block(old: int, new: int, at: int) -> int:
    """Copy up to a block that begins at `at`; returns how many bytes, 0 at the end."""
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(old, new, _BLOCK_BYTES, at, at)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
    block = os.pread(old, _BLOCK_BYTES, at)
    written = 0
    while written < len(block):
        written += os.pwrite(new, block[written:], at + written)
    return len(block)
