"""A store at a URL (floor 3): what a local one does, through the cache. Knows nothing of connections.

Genes, vocabulary, obs and uids are fetched whole when they are first needed, and checked against the manifest's
hashes; of shards only what the cells asked for need (`cellmill.store.remote_shards`).
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cellmill import kernel
from cellmill.errors import (
    CacheError,
    CellmillError,
    ConfigError,
    CorruptStoreError,
    DiskSpaceError,
    FrameError,
    NotFoundError,
    RemoteChangedError,
    StoreError,
)
from cellmill.events import emit
from cellmill.storage import hash_bytes, hash_file, require_free_bytes, write_atomic
from cellmill.storage.cache import Cache, StoreFolder, parse_size
from cellmill.storage.remote import Asked, Remote
from cellmill.storage.urls import UrlPath, checked_url
from cellmill.store.disk import disk_bytes
from cellmill.store.manifest import MANIFEST_NAME, FileEntry, Manifest, Shards, Sources
from cellmill.store.obs import ObsTable
from cellmill.store.reader import Frames, Store
from cellmill.store.remote_shards import RemoteShard, RemoteShards
from cellmill.store.rows import checked_rows
from cellmill.store.unchanged import Unchanged
from cellmill.store.verify import VerifyReport, verify_store

__all__ = ["RemoteStore", "open_remote"]

_FILES_AT_ONCE = 8
_OWN_OPTIONS = ("cache_folder", "cache_limit", "timeout_seconds", "max_retries", "client_options")

I64 = npt.NDArray[np.int64]


def open_remote(path: str | Path, storage_options: Mapping[str, Any] | None = None) -> RemoteStore:
    """Open a store at a URL; fetches its manifest only.

    Raises
    ------
    NotFoundError
        When there is no manifest.
    ConfigError
        For a URL or an option that cannot be meant.
    CacheError
        When the folder of the cache cannot be written to.
    RemoteDeniedError, RemoteTimeoutError, RemoteError
        When the server does not give it.
    CorruptStoreError
        When the manifest does not hold together.
    """
    given = dict(storage_options or {})
    own = {name: given.pop(name) for name in _OWN_OPTIONS if name in given}
    limit = own.get("cache_limit")
    cache = Cache(own.get("cache_folder"), None if limit is None else parse_size(limit, where="cache_limit"))
    cache.prepare()
    remote = Remote(
        checked_url(path),
        given,
        dict(own.get("client_options", {})),
        timeout_seconds=_positive(own, "timeout_seconds", Remote.timeout_seconds),
        max_retries=int(_positive(own, "max_retries", Remote.max_retries)),
    )
    try:
        answer = remote.read([Asked(MANIFEST_NAME)])[0]
    except NotFoundError:
        raise NotFoundError(
            f"{remote.url}: there is no {MANIFEST_NAME} here, so no cellmill store. Check bucket, folder and spelling; "
            "the URL is that of the store's folder."
        ) from None
    manifest = Manifest.from_json(answer.data, where=remote.place(MANIFEST_NAME))
    return RemoteStore(remote, cache, manifest, answer.tag)


def _positive(own: Mapping[str, Any], name: str, default: float) -> float:
    value = own.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ConfigError(f"storage_options: {name} must be a number that is not negative, found {value!r}")
    return value


class RemoteStore(Store):
    """A store at a URL. All that `Store` can do; cheap to make, to pickle and to fork, as that is.

    Notes
    -----
    What was fetched stays in the cache, and is not fetched again, by this process or another one, until it is evicted.
    Which objects were read is remembered by their ETags: one that was replaced meanwhile raises RemoteChangedError,
    since its cells would be those of another store.
    """

    def __init__(self, remote: Remote, cache: Cache, manifest: Manifest, manifest_tag: str) -> None:
        super().__init__(UrlPath(remote.url), manifest)
        self._remote = remote
        self._cache = cache
        self._manifest_tag = manifest_tag
        self._unchanged = watch = RemoteUnchanged(remote, manifest, manifest_tag)
        self._folder = cache.store_folder(hash_bytes(manifest.to_json()))
        self._fetched = RemoteFiles(remote, self._folder, watch)
        self._remote_shards = RemoteShards(remote, self._folder, manifest.shards)

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteStore, (self._remote, self._cache, self.manifest, self._manifest_tag)

    @property
    def location(self) -> str:
        """The URL."""
        return self._remote.url

    def local_file(self, entry: FileEntry) -> Path:
        """Return a whole file of the store on this machine, fetched when it is not here, its bytes proven."""
        return self._fetched.bring([entry])[0]

    @cached_property
    def obs(self) -> ObsTable:
        """Metadata of the cells, fetched when asked for."""
        return RemoteObs(self._folder.path, self.manifest, self._fetched, unchanged=self._unchanged)

    def uids(self, rows: npt.ArrayLike | None = None) -> npt.NDArray[np.uint64]:
        """Return the uids of cells, uint64: the same cell of the same dataset has the same uid in every store."""
        ids = self._checked_rows(np.arange(self.n_cells) if rows is None else rows)
        self._fetched.bring([self.manifest.shards[int(i)].uids for i in np.unique(self._shard_of(ids))])
        return super().uids(ids)

    def frames(self, rows: I64) -> Frames:
        """Return bytes that hold the frames of cells, as `kernel.gather` takes them; fetches what the cache lacks."""
        shard_of = self._shard_of(rows)
        used, local = np.unique(shard_of, return_inverse=True)
        start = np.empty(len(rows), dtype=np.uint64)
        stop = np.empty(len(rows), dtype=np.uint64)
        buffers = []
        found = self._with_shards(rows, self._remote_shards.buffers)
        for index, (buffer, begins, ends) in zip(used, found, strict=True):
            chosen = shard_of == index
            start[chosen], stop[chosen] = begins, ends
            buffers.append(buffer)
        return buffers, local.astype(np.int64), start, stop

    def _gather(self, rows: I64, **how: Any) -> kernel.Gathered:
        got: kernel.Gathered = self._decoded(kernel.gather_frames, rows, how)
        return got

    @property
    def fuses(self) -> bool:
        """No: what is remote is decoded at once, and fetched again where it came wrong."""
        return False

    def _gather_dense(self, rows: I64, **how: Any) -> npt.NDArray[np.float32]:
        made: npt.NDArray[np.float32] = self._decoded(kernel.gather_dense, rows, how)
        return made

    def _decoded(self, decode: Callable[..., Any], rows: I64, how: Mapping[str, Any]) -> Any:
        """Decode cells. Bytes that are no frame may have come wrong: they are fetched once more before it is said."""
        try:
            return decode(*self.frames(rows), n_genes=self.n_genes, head=self.head, **how)
        except FrameError:
            self._with_shards(rows, self._remote_shards.forget)
        return decode(*self.frames(rows), n_genes=self.n_genes, head=self.head, **how)

    @property
    def cache_counts(self) -> tuple[int, int]:
        """Blocks of counts that reads of this object found in the cache, and that they fetched."""
        return self._remote_shards.hits, self._remote_shards.misses

    def prefetch(self, rows: npt.ArrayLike) -> None:
        """Fetch what a later `read` of these cells needs, as far as the cache has room; raises as `read` does."""
        self._with_shards(self._checked_rows(rows), self._remote_shards.fetch_missing)

    def _with_shards(self, rows: I64, work: Any) -> Any:
        """Return what `work` does with the shards of cells and where their frames lie in them."""
        shard_of = self._shard_of(rows)
        used = np.unique(shard_of).tolist()
        for last in (False, True):
            try:
                shards = self._opened(used)
                return work([
                    (shard, *shard.spans(rows[shard_of == index] - self._bases[index]))
                    for index, shard in zip(used, shards, strict=True)
                ])  # fmt: skip
            except RemoteChangedError:
                # remembered from another day: then the same file may have been put there anew, and has another ETag
                if last or not self._remote_shards.forget_unconfirmed(used):
                    raise
        return None

    def _opened(self, numbers: Sequence[int]) -> list[RemoteShard]:
        with self._unchanged.during():
            shards, were_fetched = self._remote_shards.opened(numbers, n_genes=self.n_genes)
        if were_fetched:
            self._unchanged.check()  # a replaced store has shards of the same names
        return shards

    def verify(self, sample: float = 1.0) -> VerifyReport:
        """Check every byte against its checksum, and decode every frame (or a share of them, 0 < sample <= 1).

        Everything is fetched anew, past the cache, one shard at a time, and removed again. Blocks in the cache that
        differ from what is proven are forgotten.
        """

        def compare(number: int, path: Path) -> None:
            forgotten = self._remote_shards.forget_unlike(number, path, n_genes=self.n_genes)
            if forgotten:
                words = f"{path.name}: {forgotten} blocks in the cache were not its bytes, and are forgotten"
                emit("verifying", message=words)

        return _verify(self._remote, self._cache, self.manifest, sample=sample, compare=compare)


class RemoteUnchanged(Unchanged):
    """A watch over a store at a URL. Asks the server only when a shard is opened, or something has gone wrong."""

    def __init__(self, remote: Remote, manifest: Manifest, tag: str) -> None:
        super().__init__(UrlPath(remote.url), manifest)
        self._remote = remote
        self._tag = tag

    def check(self) -> None:
        """Check that the manifest at the URL is still the one that was opened, or that one and more.

        Raises
        ------
        StoreError
            When another store, or none, lies there now.
        """
        try:
            tag = self._remote.read([Asked(MANIFEST_NAME, 0, 1)])[0].tag
            if tag and tag == self._tag:
                return
            answer = self._remote.read([Asked(MANIFEST_NAME)])[0]
        except NotFoundError:
            raise StoreError(
                f"{self._remote.url}: the store was moved or removed after it was opened; open it again"
            ) from None
        found = Manifest.from_json(answer.data, where=self._remote.place(MANIFEST_NAME))
        if found.digest != self._opened.digest and not found.extends(self._opened):
            raise StoreError(
                f"{self._remote.url}: the store was replaced after it was opened (its digest was "
                f"{self._opened.digest}, now it is {found.digest}); open it again. Rows and plans of the old store do "
                "not fit the new one."
            )
        self._tag = answer.tag

    @contextmanager
    def during(self) -> Iterator[None]:
        """Check when the enclosed read fails; what succeeds was proven by hash."""
        try:
            yield
        except CellmillError:
            self.check()
            raise


class RemoteFiles:
    """Whole files of a store at a URL, each fetched once and proven by the manifest's hash."""

    def __init__(self, remote: Remote, folder: StoreFolder, unchanged: RemoteUnchanged) -> None:
        self._remote = remote
        self._folder = folder
        self._unchanged = unchanged
        self._proven: set[str] = set()

    def bring(self, entries: Sequence[FileEntry]) -> list[Path]:
        """Return files on this machine; the missing ones are fetched side by side.

        Raises
        ------
        CorruptStoreError
            When a file is missing at the URL, or its bytes are not those that the manifest names.
        """
        missing = [entry for entry in entries if not self._is_here(entry)]
        if missing:
            with self._unchanged.during(), ThreadPoolExecutor(min(len(missing), _FILES_AT_ONCE)) as pool:
                for number, _ in enumerate(pool.map(self._fetch, missing)):
                    emit(f"fetching {self._remote.url}", done=number + 1, total=len(missing), unit="files")
        return [self._folder.path / entry.path for entry in entries]

    def _is_here(self, entry: FileEntry) -> bool:
        path = self._folder.path / entry.path
        try:
            if path.stat().st_size != entry.bytes:
                return False
            if entry.path not in self._proven and hash_file(path) != entry.xxh3:
                return False
        except OSError:
            return False
        self._proven.add(entry.path)
        return True

    def _fetch(self, entry: FileEntry) -> None:
        path = self._folder.path / entry.path
        try:
            self._folder.cache.claim(entry.bytes)
            temporary = self._folder.temporary(entry.path)
            try:
                _download_proven(self._remote, entry, temporary)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        except CellmillError:
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskSpaceError(
                    f"{path.parent}: no room for {entry.path} of {self._remote.url} ({entry.bytes} bytes). Free some, "
                    "or name another folder for the cache: CELLMILL_CACHE."
                ) from None
            raise CacheError(f"{path}: cannot be written ({error.strerror or error}); see CELLMILL_CACHE") from None
        self._proven.add(entry.path)


def _download_proven(remote: Remote, entry: FileEntry, to: Path) -> None:
    """Write a whole file of a store, and check that it is the one that the manifest names."""
    where = remote.place(entry.path)
    try:
        got = remote.download(entry.path, to)
    except NotFoundError:
        raise CorruptStoreError(
            f"{where}: missing, though the manifest names it. The store was not copied whole: copy it there again."
        ) from None
    if (got.n_bytes, got.xxh3) != (entry.bytes, entry.xxh3):
        raise CorruptStoreError(
            f"{where}: its {got.n_bytes} bytes are not those that the manifest names ({entry.bytes} bytes, xxh3 "
            f"{entry.xxh3}). The store was changed or not copied whole: copy it there again."
        )


class RemoteObs(ObsTable):
    """The metadata of a store at a URL: files are fetched before they are read."""

    def __init__(self, folder: Path, manifest: Manifest, fetched: RemoteFiles, *, unchanged: Unchanged) -> None:
        super().__init__(folder, manifest.shards, manifest.obs_schema, unchanged=unchanged)
        self._entries = tuple(shard.obs for shard in manifest.shards)
        self._fetched = fetched

    def to_arrow(self, columns: Sequence[str] | None = None, rows: npt.ArrayLike | None = None) -> pa.Table:
        """Return columns as an Arrow table, one row per cell; files are fetched when they are needed."""
        wanted = range(len(self._entries))
        self._wanted(columns)  # a column that is not there is no reason to fetch anything
        if rows is not None:
            rows = checked_rows(rows, n_cells=len(self), where="obs")
            wanted = np.unique(np.searchsorted(self._bases, rows, side="right") - 1).tolist()
        self._fetched.bring([self._entries[number] for number in wanted])
        return super().to_arrow(columns, rows)

    def query(self, sql: str) -> pa.Table:
        """Run one SELECT over the table `obs`; as `ObsTable.query`, after all files of obs were fetched."""
        self.check(sql)
        self._fetched.bring(self._entries)
        return super().query(sql)


# ---- verify ----------------------------------------------------------------------------------------------------


def _verify(
    remote: Remote, cache: Cache, manifest: Manifest, *, sample: float, compare: Callable[[int, Path], None]
) -> VerifyReport:
    """Verify a store at a URL as a local one, in pieces of one shard each."""
    largest = max((sum(file.bytes for file in shard.files) for shard in manifest.shards), default=0)
    require_free_bytes(cache.folder, largest, what="verifying one shard after the other")
    with tempfile.TemporaryDirectory(prefix=".verify-", dir=cache.folder) as name:
        folder = Path(name)
        whole = [*manifest.whole_files, *(source.report for source in manifest.sources)]
        reports = [_verify_part(remote, folder, replace(manifest, shards=Shards()), whole, sample=sample)]
        for number, shard in enumerate(manifest.shards):
            part = replace(manifest, shards=Shards([shard]), sources=Sources())
            reports.append(_verify_part(remote, folder, part, shard.files, sample=sample))
            if reports[-1].ok:
                compare(number, folder / shard.cells.path)
            for file in shard.files:
                (folder / file.path).unlink(missing_ok=True)
            emit("verifying", done=number + 1, total=len(manifest.shards), unit="shards")
    files = whole + [file for shard in manifest.shards for file in shard.files]
    problems = dict.fromkeys(line for report in reports for line in report.problems)  # genes are in every report
    return VerifyReport(
        n_cells=manifest.n_cells,
        n_cells_decoded=sum(report.n_cells_decoded for report in reports),
        n_files=len(files) + 1,  # and the manifest
        n_bytes=sum(disk_bytes(manifest).values()),
        problems=tuple(problems),
    )


def _verify_part(
    remote: Remote, folder: Path, part: Manifest, files: Sequence[FileEntry], *, sample: float
) -> VerifyReport:
    sealed = part.sealed()
    write_atomic(folder / MANIFEST_NAME, sealed.to_json())
    for file in files:
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        try:
            remote.download(file.path, folder / file.path)
        except NotFoundError:  # the report says so
            (folder / file.path).unlink(missing_ok=True)
    report = verify_store(Store(folder, sealed), sample=sample)
    return replace(report, problems=tuple(line.replace(str(folder), remote.url) for line in report.problems))
