"""Files on this machine (floor 2): mapped, hashed, written atomically, locked. Knows nothing of cells.

Every file that others may read is written under a temporary name in the same folder, flushed to the disk, and
renamed; the folder is flushed too. So a reader sees the old file or the new one, never half of either.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from cellmill.errors import DiskSpaceError, InputError, NotFoundError, StoreLockedError
from cellmill.units import size_text

__all__ = [
    "NO_ROOM",
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
    "write_atomic",
]

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HASH_BLOCK_BYTES = 1 << 22
_AT_FDCWD = -100
_MAP_FAILED = ctypes.c_void_p(-1).value
_RENAME_EXCHANGE = 2


def _c_library() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    library.mmap.restype = pointer
    library.mmap.argtypes = (pointer, size, number, number, number, ctypes.c_long)  # long: off_t on every 64-bit Unix
    library.munmap.argtypes = (pointer, size)
    library.madvise.argtypes = (pointer, size, number)
    return library


_C = _c_library()


def map_file(path: Path, *, at_random: bool = False) -> npt.NDArray[np.uint8]:
    """Return the file's bytes as a read-only memory map, uint8, shape (n_bytes,).

    `at_random` says that small pieces of it will be read in no order: the system then reads no more than these.

    Raises
    ------
    NotFoundError
        When there is no such file.
    InputError
        When the system does not read it: a folder, a circle of links, a bad disk.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such file") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        n_bytes = os.fstat(descriptor).st_size
        if n_bytes == 0:  # an empty file cannot be mapped
            return np.empty(0, dtype=np.uint8)
        mapping = _Mapping(descriptor, n_bytes, path)
        if at_random and hasattr(mmap, "MADV_RANDOM"):
            mapping.madvise(mmap.MADV_RANDOM, 0, n_bytes)
        return np.asarray(mapping)
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(descriptor)


def _unreadable(path: Path, error: OSError) -> InputError:
    what = "this is a folder, not a file" if path.is_dir() else f"the system does not read it ({error.strerror})"
    return InputError(f"{path}: {what}. See what lies there, and restore it from a copy.")


class _Mapping:
    """A file's bytes in memory, read-only, until nobody refers to them; `np.asarray` makes an array that does.

    Holds no descriptor, of which a process may have few: `mmap.mmap`, and so `np.memmap`, keeps one for each file.
    """

    __slots__ = ("__array_interface__", "_address", "_n_bytes")

    def __init__(self, descriptor: int, n_bytes: int, path: Path) -> None:
        self._n_bytes = 0
        address = _C.mmap(None, n_bytes, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address in (None, _MAP_FAILED):
            number = ctypes.get_errno()
            raise OSError(number, f"cannot be mapped ({os.strerror(number)})", str(path))
        self._address, self._n_bytes = address, n_bytes
        self.__array_interface__ = {"version": 3, "data": (address, True), "shape": (n_bytes,), "typestr": "|u1"}

    def madvise(self, option: int, start: int, length: int) -> None:
        """Tell the system how part of the bytes will be used, as `mmap.mmap.madvise` does; it may not care."""
        _C.madvise(self._address + start, length, option)

    def __del__(self, unmap: Callable[[int, int], int] = _C.munmap) -> None:  # bound: modules may be gone at the end
        if self._n_bytes:
            unmap(self._address, self._n_bytes)


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, also after a crash."""
    # of this thread: two that write the same file would move away each other's
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Flush a finished file to the disk, so that a later rename cannot outrun its contents."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk; some network file systems refuse, which is harmless here."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def exchange_folders(new: Path, old: Path, *, by_way_of: Path) -> None:
    """Put `new` under the name of `old`, in one step where the system can (Linux): `old` then lies where `new` did.

    Elsewhere in two, between which nothing lies under the name and `old` at `by_way_of`, where it also stays: a caller
    that finds `by_way_of` but not `old` moves it back.
    """
    if _exchange(new, old):
        return
    old.replace(by_way_of)
    new.replace(old)


def _exchange(first: Path, second: Path) -> bool:
    """Let two names change places in one step; False when this system or file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here = ctypes.c_int(_AT_FDCWD)
    done: int = renameat2(here, os.fsencode(first), here, os.fsencode(second), ctypes.c_uint(_RENAME_EXCHANGE))
    return done == 0


def hash_bytes(data: bytes) -> str:
    """Return the xxh3-128 of some bytes, as 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(data)


def hash_file(path: Path, *, between_blocks: Callable[[], None] | None = None) -> str:
    """Return the xxh3-128 of a file, or of all files of a folder in order of their names, as 32 hexadecimal digits.

    `between_blocks` is called after every few MiB; what it raises ends the work.
    """
    state = xxhash.xxh3_128()
    block = memoryview(bytearray(_HASH_BLOCK_BYTES))  # one for all, since fresh memory costs as much as the reading
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            state.update(str(file.relative_to(path)).encode())
        with file.open("rb", buffering=0) as handle:
            while n_bytes := handle.readinto(block):
                state.update(block[:n_bytes])
                if between_blocks is not None:
                    between_blocks()
    return state.hexdigest()


def free_bytes(path: Path) -> int:
    """Return how many bytes may still be written where `path` lies or will lie."""
    folder = path
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_free_bytes(path: Path, needed_bytes: int, *, what: str) -> None:
    """Check that there is room before work starts.

    Raises
    ------
    DiskSpaceError
        Naming what is needed, what is free, and where.
    """
    free = free_bytes(path)
    if free < needed_bytes:
        raise DiskSpaceError(
            f"{path}: {what} needs about {size_text(needed_bytes)}, but only {size_text(free)} are free there. "
            "Free some room or choose another place."
        )


@contextmanager
def room_told(folder: Path, needed_bytes: int, *, what: str, remedy: str) -> Iterator[None]:
    """Turn the system's refusal of more room for temporary files, while the enclosed code writes them, into an error.

    Raises
    ------
    DiskSpaceError
        Naming the folder: these files lie elsewhere than the store.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, DiskSpaceError) or error.errno not in NO_ROOM:
            raise
        raise DiskSpaceError(
            f"{what} needs {size_text(needed_bytes)} in {folder}, where no room was left ({error.strerror}). {remedy}"
        ) from error


@contextmanager
def exclusive_lock(path: Path, *, what: str) -> Iterator[None]:
    """Hold the lock file `path` while the enclosed code runs; the kernel frees it when the process dies.

    Raises
    ------
    StoreLockedError
        When somebody holds it: the message names host, process and since when.
    """
    descriptor = _open_locked(path, what=what)
    try:
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S %Z")}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        yield
    finally:
        os.close(descriptor)  # closing frees the lock


@contextmanager
def shared_lock(path: Path, *, what: str) -> Iterator[None]:
    """Hold the lock file `path` together with others who share it, while the enclosed code runs.

    Raises
    ------
    StoreLockedError
        When somebody holds it who does not share it.
    """
    descriptor = _open_locked(path, what=what, kind=fcntl.LOCK_SH)
    try:
        yield
    finally:
        os.close(descriptor)


_MOST_MISSES = 1000  # in a row, each of some microseconds; what lasts longer is no passing state


def _open_locked(path: Path, *, what: str, kind: int = fcntl.LOCK_EX) -> int:
    """Return a descriptor that holds the lock of the file which lies at `path` now."""
    misses = 0
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except (FileNotFoundError, FileExistsError):
            misses += 1  # the holder before us may be removing the folder: there one moment, gone the next
            if misses == _MOST_MISSES:
                raise
            continue
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise StoreLockedError(
                f"{what} is being written by another process ({_owner_text(path)}). "
                "Wait for it to finish, or stop it; finished work is kept."
            ) from None
        if _lies_at(path, descriptor):
            return descriptor
        os.close(descriptor)  # the holder before us moved or removed the file between our open and our lock


def _lies_at(path: Path, descriptor: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def _owner_text(path: Path) -> str:
    try:
        owner = json.loads(path.read_text())
        return f"host {owner['host']}, process {owner['pid']}, since {owner['since']}"
    except (OSError, ValueError, KeyError):
        return "owner unknown"
