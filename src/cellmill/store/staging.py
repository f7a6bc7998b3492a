"""The folder in which a store is made or added to (floor 3): what is finished is journalled, so that work goes on.

The folder lies beside the store, `.NAME.building`; it holds what is new in `store/`, and in `journal/` one entry for
each finished shard. Shards that several processes write at a time wait in `pieces/` until one gives them numbers
(`cellmill.store.pieces`). A new store appears under its name only when all is there, by renaming `store/`. What is
added to a store is moved into it under names that its manifest does not have, and counts from the instant at which the
new manifest takes the place of the old one.
"""

from __future__ import annotations

import errno
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cellmill.errors import CellmillError, DiskSpaceError, InputError, StoreExistsError, StoreLockedError
from cellmill.storage import exchange_folders, exclusive_lock, hash_file, shared_lock, sync_folder, write_atomic
from cellmill.storage.local import NO_ROOM
from cellmill.store.journal import JournalEntry, read_sound
from cellmill.store.manifest import MANIFEST_NAME, Manifest
from cellmill.store.pieces import Pieces
from cellmill.store.protection import require_unprotected
from cellmill.units import size_text

__all__ = ["Staging", "check_target", "writing_told"]

_FOLDERS = ("shards", "obs", "reports")
_IN_PIECES = "pieces"  # instead of a key: each piece has its own
_JOINING_SECONDS = 60.0  # that a process waits for another one to make the place ready
_NUMBERED = re.compile(
    r"(?:shards/(?P<cells>\d+)\.cells|obs/(?P<obs>\d+)\.(?:parquet|uids)|reports/(?P<report>\d+)\.json"
    r"|reports/append-(?P<append>\d+)\.json|reports/duplicates-(?P<duplicates>\d+)\.(?:json|parquet)"
    r"|genes-(?P<genes>\d+)\.parquet)"
)


def check_target(target: Path, *, overwrite: bool) -> None:
    """Check that a new store may be made at `target`.

    Raises
    ------
    StoreExistsError
        When something lies there that must not be replaced.
    """
    if not target.exists():
        return
    if overwrite:
        require_unprotected(target)
    if overwrite and (target / MANIFEST_NAME).exists():
        return
    what = "a store" if (target / MANIFEST_NAME).exists() else "something that is not a store"
    remedy = "pass --overwrite (in Python: overwrite=True) to replace it, or" if what == "a store" else ""
    raise StoreExistsError(f"{target}: {what} lies here already; {remedy} choose another name".replace(";  ", "; "))


@contextmanager
def writing_told(target: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn what the system refuses while a store is written into errors that say what to do.

    Raises
    ------
    DiskSpaceError
        When no room was left.
    InputError
        When writing is not allowed.
    """
    try:
        yield
    except PermissionError as error:
        raise InputError(
            f"{error.filename or target}: not allowed ({error.strerror}). Choose a place where you may write, or have "
            "the permissions of this one changed."
        ) from error
    except CellmillError:
        raise
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        wanted = "some room" if needed_bytes is None else f"about {size_text(needed_bytes)}"
        raise DiskSpaceError(
            f"{target}: no room was left while the store was written ({error.strerror}). Finished work is kept in "
            f"{Staging.folder_of(target)}: free {wanted} and run the same command again."
        ) from error


class Staging:
    """The place where the store `target` is being made; use as `with Staging.locked(target) as staging`."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.place = self.folder_of(target)
        self.folder = self.place / "store"
        self._journal = self.place / "journal"
        self._key = self.place / "key"
        self._lock = self.place / "lock"
        self._retired = self.place / "retired"
        self._finished = self.place / "finished"
        self._publishing = self.place / "publishing"
        self._call = self.place / "call.json"

    @staticmethod
    def folder_of(target: Path) -> Path:
        """Return where the store `target` is made."""
        return target.with_name(f".{target.name}.building")

    @classmethod
    @contextmanager
    def locked(cls, target: Path) -> Iterator[Staging]:
        """Hold the place for this process; another one gets StoreLockedError."""
        require_unprotected(target)
        staging = cls(target)
        with exclusive_lock(staging._lock, what=f"the store {target}"):
            staging._recover()
            try:
                yield staging
            finally:
                # published, or left by an error before any work was finished: nothing worth keeping
                if not any(staging._journal.glob("*.npz")) and not staging._call.exists():
                    staging._leave()

    @classmethod
    @contextmanager
    def joined(cls, target: Path, prepare: Callable[[Staging], None]) -> Iterator[Staging]:
        """Share the place with other processes that write pieces of the same store; others get StoreLockedError.

        Whoever finds it with nobody at work makes it ready by `prepare`, which is not called where others are.
        """
        require_unprotected(target)
        staging, deadline = cls(target), time.monotonic() + _JOINING_SECONDS
        with ExitStack() as held:
            while True:
                try:
                    with exclusive_lock(staging._lock, what=f"the store {target}"):
                        staging._recover()
                        prepare(staging)
                except StoreLockedError:
                    pass  # by one who joined as well, or by one who will not share: told apart below
                try:
                    held.enter_context(shared_lock(staging._lock, what=f"the store {target}"))
                except StoreLockedError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
                    continue
                if staging._call.exists():
                    break
                held.pop_all().close()  # another writer has finished between our locks
            yield staging

    def _recover(self) -> None:
        """Find out how far a publishing came that was interrupted, and undo what was not its last step."""
        if self._retired.exists():
            if self.target.exists():
                shutil.rmtree(self._retired)
            else:
                self._retired.replace(self.target)
        if self._finished.exists():
            if self._is_announced(self._finished):
                self._finished.replace(self.folder)
            else:  # the old store, after the exchange
                shutil.rmtree(self._finished)
        self._take_back()
        if self._is_published():
            self._clear()

    def _is_published(self) -> bool:
        """Whether what was finished here is what lies at the target: only the tidying up was interrupted."""
        return self._is_announced(self.target)

    def _is_announced(self, folder: Path) -> bool:
        """Whether the store in `folder` is the one that was about to be published."""
        manifest = folder / MANIFEST_NAME
        return self._publishing.exists() and manifest.exists() and hash_file(manifest) == self._publishing.read_text()

    def _take_back(self) -> None:
        """Take back what an interrupted `add` moved into the store, whose manifest does not name it."""
        try:
            manifest = Manifest.from_json((self.target / MANIFEST_NAME).read_bytes(), where=str(self.target))
        except (OSError, CellmillError):
            return  # there is no store, or one that cannot be added to
        kept = any(self._entry_files())
        for file in _unnamed_files(self.target, manifest):
            if not kept:
                file.unlink()
                continue
            back = self.folder / file.relative_to(self.target)
            back.parent.mkdir(parents=True, exist_ok=True)
            file.replace(back)

    @property
    def call(self) -> bytes | None:
        """What the processes that joined work on, as `remember_call` was told; None where none did."""
        return self._call.read_bytes() if self._call.exists() else None

    def remember_call(self, call: bytes) -> None:
        """Keep what the processes that join work on, for who puts the pieces together."""
        write_atomic(self._call, call)

    def prepare_pieces(self, keys: Collection[str]) -> Pieces:
        """Make the place ready for pieces of the tasks `keys`; what was finished of them before is kept."""
        if not self._key.exists() or self._key.read_text() != _IN_PIECES:
            self._clear()
            write_atomic(self._key, _IN_PIECES.encode())
        pieces = Pieces(self.place)
        pieces.tidy(keys)
        return pieces

    def prepare(self, key: str) -> list[JournalEntry]:
        """Make the place ready for the build `key`; returns what an interrupted build of the same key had finished."""
        if not self._key.exists() or self._key.read_text() != key:
            self._clear()
            write_atomic(self._key, key.encode())
        self._journal.mkdir(exist_ok=True)
        for name in _FOLDERS:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._keep_sound_entries()
        entries = self.entries()
        known = {self.folder / file.path for entry in entries for file in entry.files}
        for file in [path for path in self.folder.rglob("*") if path.is_file()]:
            if file not in known:
                file.unlink()  # half a file, a shard whose journal entry was not written, or what the end writes anew
        return entries

    def _keep_sound_entries(self) -> None:
        """Forget the first entry that is not what was written, or whose files are not, and all that follow it."""
        sound = True
        for number, file in enumerate(self._entry_files()):
            sound = sound and file.stem == f"{number:05d}" and read_sound(file, self.folder) is not None
            if not sound:
                file.unlink()

    def _entry_files(self) -> list[Path]:
        return sorted(file for file in self._journal.glob("*.npz") if not file.name.startswith("."))

    @property
    def n_entries(self) -> int:
        """Finished shards so far."""
        return len(self._entry_files())

    def entries(self) -> list[JournalEntry]:
        """Return the journal, in order."""
        return [JournalEntry.unpack(file) for file in self._entry_files()]

    def record(self, number: int, entry: JournalEntry) -> None:
        """Write the journal entry of shard `number`: from now on it counts as finished."""
        write_atomic(self._journal / f"{number:05d}.npz", entry.pack())

    def publish(self) -> None:
        """Give the finished store its name, in the place of a store that lies there.

        Until the rename everything is kept, so that a process killed anywhere in here leaves the old store or the new
        one, and the next call concludes.
        """
        sync_folder(self.folder)
        write_atomic(self._publishing, hash_file(self.folder / MANIFEST_NAME).encode())
        if self.target.exists():
            self.folder.replace(self._finished)
            exchange_folders(self._finished, self.target, by_way_of=self._retired)
        else:
            self.folder.replace(self.target)
        sync_folder(self.target.parent)
        self._clear()

    def add(self) -> None:
        """Put the finished files into the store that lies at the target, and its new manifest in place of the old one.

        Until that last step the store is what it was; files that its manifest does not name are taken back by the next
        call. Readers that have it open go on with the files they know, which stay.
        """
        write_atomic(self._publishing, hash_file(self.folder / MANIFEST_NAME).encode())
        for name in _FOLDERS:
            for file in sorted((self.folder / name).iterdir()):
                file.replace(self.target / name / file.name)
            sync_folder(self.target / name)
        for file in sorted(self.folder.glob("genes*.parquet")):
            file.replace(self.target / file.name)
        sync_folder(self.target)
        (self.folder / MANIFEST_NAME).replace(self.target / MANIFEST_NAME)
        sync_folder(self.target)
        self._clear()

    def forget(self) -> None:
        """Forget finished work of which nothing can become."""
        self._clear()

    def _clear(self) -> None:
        """Remove all but the lock.

        The journal goes first: what it names must not be missed. What tells whether `finished` is the old store or the
        new one goes last.
        """
        order = {self._journal: 0, self._publishing: 2}
        for entry in sorted(self.place.iterdir(), key=lambda path: order.get(path, 1)):
            if entry == self._lock:
                continue
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def _leave(self) -> None:
        """Remove the place, the lock after all else: from then on it is another's, who may be in it already."""
        self._clear()
        self._lock.unlink(missing_ok=True)
        try:
            self.place.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                raise


def _unnamed_files(folder: Path, manifest: Manifest) -> list[Path]:
    """Files of a store with numbers that are still to come: an interrupted `add` left them.

    Tables of genes that an older manifest named are not among them: readers that opened that one still want them.
    """
    first = {
        "cells": manifest.next_shard, "obs": manifest.next_shard, "report": manifest.next_report,
        "append": manifest.generation + 1, "duplicates": manifest.generation + 1, "genes": manifest.generation + 1,
    }  # fmt: skip
    found = []
    for file in [*folder.iterdir(), *(file for name in _FOLDERS for file in (folder / name).glob("*"))]:
        match = _NUMBERED.fullmatch(file.relative_to(folder).as_posix())
        if match and match.lastgroup and int(match[match.lastgroup]) >= first[match.lastgroup]:
            found.append(file)
    return found
