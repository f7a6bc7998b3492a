"""What was fetched, kept on disk (floor 2): blocks of objects and whole files, in one folder of bounded size.

Any number of processes share the folder. The rules that make this safe:

- A file appears under its name by renaming, whole or not at all.
- A block carries a checksum of itself and of its name; what does not hold is thrown away and counts as not there.
- Whoever reads may find any block gone at any time, and then fetches it again.
- Whole files of a store are used by name (Arrow, DuckDB); whoever has the store open holds a shared lock on its
  folder, and eviction passes over folders that are locked.
- Blocks are written under a lock, beside a counter of bytes; whoever finds it above the limit evicts, oldest use
  first, and counts anew. Nobody waits for the network with the lock held, and readers do not need it.

Layout: `blocks/KK/KEY/NUMBER`, `stores/KEY/...`, `lock`, `usage`.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import xxhash

from cellmill.errors import CacheError, ConfigError
from cellmill.units import size_text

__all__ = ["DEFAULT_LIMIT_BYTES", "Cache", "CacheUsage", "StoreFolder", "default_folder", "default_limit_bytes"]

DEFAULT_LIMIT_BYTES = 20 << 30
_KEPT_SHARE = 0.9  # what eviction leaves, so that it is not needed again at once
_ABANDONED_SECONDS = 600.0  # a temporary file this old was left behind by a process that died
_HEADER = struct.Struct("<8sQ")
_MAGIC = b"CELLBLK1"
_USAGE = struct.Struct("<Q")
_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_serial = itertools.count()


def default_folder() -> Path:
    """Return where the cache lies: CELLMILL_CACHE, else `cellmill` in XDG_CACHE_HOME, else in ~/.cache."""
    if own := os.environ.get("CELLMILL_CACHE"):
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "cellmill"


def default_limit_bytes() -> int:
    """Return how large the cache may grow: CELLMILL_CACHE_LIMIT ("50 GiB", "500MB", bytes), else 20 GiB.

    Raises
    ------
    ConfigError
        When the variable is no size.
    """
    text = os.environ.get("CELLMILL_CACHE_LIMIT")
    return DEFAULT_LIMIT_BYTES if text is None else parse_size(text, where="CELLMILL_CACHE_LIMIT")


def parse_size(text: str | int, *, where: str) -> int:
    """Return a number of bytes; `text` is a whole number, or a number with a unit.

    Examples
    --------
    >>> parse_size("1.5 GiB", where="limit")
    1610612736
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", str(text).lower())
    if match is None or match[2] not in _SIZES:
        raise ConfigError(f"{where}: expected a size such as '50 GiB' or a number of bytes, found {text!r}")
    return int(float(match[1]) * _SIZES[match[2]])


@dataclass(frozen=True)
class CacheUsage:
    """What a cache holds: bytes on disk, its limit in bytes, and how many blocks and whole files."""

    n_bytes: int
    limit_bytes: int
    n_blocks: int
    n_files: int


class Cache:
    """A folder of bounded size for what was fetched. Cheap to make, to pickle and to fork.

    Parameters
    ----------
    folder
        Where; `default_folder()` when None. Made when it is first written to.
    limit_bytes
        How large it may grow; `default_limit_bytes()` when None. Only whole files of stores that are open now may
        take it beyond.
    """

    def __init__(self, folder: str | Path | None = None, limit_bytes: int | None = None) -> None:
        self.folder = default_folder() if folder is None else Path(folder).expanduser().absolute()
        self.limit_bytes = default_limit_bytes() if limit_bytes is None else limit_bytes
        if self.limit_bytes < 0:
            raise ConfigError(f"the limit of the cache must not be negative, found {self.limit_bytes}")

    def __repr__(self) -> str:
        return f"Cache({str(self.folder)!r}, {size_text(self.limit_bytes)})"

    def prepare(self) -> None:
        """Make the folder and try to write to it.

        Raises
        ------
        CacheError
            When that cannot be, with the reason and the way out.
        """
        try:
            for name in ("blocks", "stores"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            with self._locked():
                pass
            probe = self.folder / f".probe.{os.getpid()}.{next(_serial)}.tmp"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise CacheError(
                f"{self.folder}: cannot be used as the cache of what is read from a URL ({error.strerror or error}). "
                "Name a folder that can be written to: set CELLMILL_CACHE, or pass "
                "storage_options={'cache_folder': ...}."
            ) from None

    # ---- blocks -----------------------------------------------------------------------------------------------

    def read_block(self, key: str, number: int, *, n_bytes: int) -> bytes | None:
        """Return a block, or None when it is not here, or not whole; marks it as used now."""
        path = self._block_path(key, number)
        try:
            with path.open("rb", buffering=0) as file:
                raw = file.read(_HEADER.size + n_bytes + 1)
                if _is_sound(raw, key, number, n_bytes):
                    os.utime(file.fileno())
                    return raw[_HEADER.size :]
            path.unlink(missing_ok=True)  # damaged: make room for what will be fetched
        except OSError:  # not there, just evicted, or not readable: all the same to the caller, who fetches it
            pass
        return None

    def touch_block(self, key: str, number: int) -> bool:
        """Whether a block is here; marks it as used now. Its checksum is looked at when it is read."""
        try:
            os.utime(self._block_path(key, number))
        except OSError:
            return False
        return True

    def put_blocks(self, key: str, blocks: Mapping[int, bytes | memoryview]) -> None:
        """Keep blocks of one object; a disk that is full, or a batch that would fill the cache, is no error."""
        needed = sum(len(data) + _HEADER.size for data in blocks.values())
        if needed > self.limit_bytes // 2:
            return
        # written under the lock: an eviction by another process counts what is there, not what is about to be
        with contextlib.suppress(OSError), self._locked():
            self._claim(needed)
            folder = self._block_path(key, 0).parent
            for number, data in blocks.items():
                _write_renamed(folder / str(number), _checked(data, key, number))

    def drop_block(self, key: str, number: int) -> None:
        """Forget a block, whose bytes turned out not to be the object's: it is fetched when it is next wanted."""
        with contextlib.suppress(OSError):
            self._block_path(key, number).unlink(missing_ok=True)

    def _block_path(self, key: str, number: int) -> Path:
        return self.folder / "blocks" / key[:2] / key / str(number)

    # ---- whole files ------------------------------------------------------------------------------------------

    def store_folder(self, key: str) -> StoreFolder:
        """Return the folder for whole files of one store, held so that nothing in it is evicted."""
        return StoreFolder(self, key)

    # ---- size -------------------------------------------------------------------------------------------------

    def claim(self, n_bytes: int) -> None:
        """Make room for bytes of whole files that are about to be written, and count them."""
        with self._locked():
            self._claim(n_bytes)

    def _claim(self, n_bytes: int) -> None:
        """Count bytes; evicts when they would not fit. The caller holds the lock."""
        used = self._read_usage() + n_bytes
        if used > self.limit_bytes:
            used = self._evict(max(0, int(self.limit_bytes * _KEPT_SHARE) - n_bytes)) + n_bytes
        self._write_usage(used)

    def usage(self) -> CacheUsage:
        """Return what the folder holds now, by looking; 0 where there is none."""
        entries = list(self._entries())
        blocks = sum(1 for entry in entries if entry.is_block)
        total = sum(entry.n_bytes for entry in entries)
        return CacheUsage(total, self.limit_bytes, blocks, len(entries) - blocks)

    def _evict(self, keep_bytes: int) -> int:
        """Remove what was not used for longest until `keep_bytes` are left; returns what is left."""
        entries = sorted(self._entries(), key=lambda entry: entry.used_ns)
        left = sum(entry.n_bytes for entry in entries)
        abandoned = time.time_ns() - int(_ABANDONED_SECONDS * 1e9)
        in_use: dict[Path, bool] = {}
        for entry in entries:
            if left <= keep_bytes:
                break
            if entry.is_temporary and entry.used_ns > abandoned:
                continue
            if entry.store is not None:
                if entry.store not in in_use:
                    in_use[entry.store] = _is_in_use(entry.store)
                if in_use[entry.store]:
                    continue
            with contextlib.suppress(OSError):
                entry.path.unlink()
                left -= entry.n_bytes
        for folder in self.folder.glob("blocks/*/*"):
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        return left

    def _entries(self) -> Iterator[_Entry]:
        for folder, is_block in ((self.folder / "blocks", True), (self.folder / "stores", False)):
            for at, _, names in os.walk(folder):
                for name in names:
                    path = Path(at) / name
                    if name == _IN_USE:
                        continue
                    store = None if is_block else folder / path.relative_to(folder).parts[0]
                    with contextlib.suppress(OSError):  # gone meanwhile
                        found = path.stat()
                        # a shard's index has a hole where its frames were: it takes less than its length
                        n_bytes = found.st_size if is_block else min(found.st_size, found.st_blocks * 512)
                        yield _Entry(path, found.st_mtime_ns, n_bytes, is_block, store)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read_usage(self) -> int:
        try:
            used: int = _USAGE.unpack((self.folder / "usage").read_bytes())[0]
        except (OSError, struct.error):  # first use, or a process died while it wrote: look
            used = sum(entry.n_bytes for entry in self._entries())
        return used

    def _write_usage(self, used: int) -> None:
        (self.folder / "usage").write_bytes(_USAGE.pack(used))


@dataclass(frozen=True)
class _Entry:
    path: Path
    used_ns: int
    n_bytes: int
    is_block: bool
    store: Path | None

    @property
    def is_temporary(self) -> bool:
        return self.path.name.endswith(".tmp")


class StoreFolder:
    """Whole files of one store, by their names in it. While this lives, in any process, none of them is evicted."""

    def __init__(self, cache: Cache, key: str) -> None:
        cache.prepare()
        self.cache = cache
        self.path = cache.folder / "stores" / key
        self.path.mkdir(exist_ok=True)
        self._lock = os.open(self.path / _IN_USE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def __del__(self) -> None:
        if (lock := getattr(self, "_lock", None)) is not None:
            os.close(lock)

    def temporary(self, name: str) -> Path:
        """Return a path beside the one of `name`, of this process alone, to write to and then `Path.replace`."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.with_name(f".{path.name}.{os.getpid()}.{next(_serial)}.tmp")


_IN_USE = ".in-use"


def _is_in_use(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / _IN_USE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def _checksum(data: bytes | memoryview, key: str, number: int) -> int:
    state = xxhash.xxh3_64(f"{key}/{number}/".encode())  # under another name it is another block
    state.update(data)
    return state.intdigest()


def _checked(data: bytes | memoryview, key: str, number: int) -> bytes:
    return _HEADER.pack(_MAGIC, _checksum(data, key, number)) + bytes(data)


def _is_sound(raw: bytes, key: str, number: int, n_bytes: int) -> bool:
    if len(raw) != _HEADER.size + n_bytes:
        return False
    magic, stated = _HEADER.unpack_from(raw)
    return bool(magic == _MAGIC and _checksum(memoryview(raw)[_HEADER.size :], key, number) == stated)


def _write_renamed(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all; not flushed: after a crash the checksum tells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{next(_serial)}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
