"""Inputs in tar archives, packed or not, as GEO hands out its RAW.tar (floor 3, sources).

A path may go on into an archive: `GSE1_RAW.tar/GSM1_matrix.mtx.gz`. The files of one input at a time are unpacked into
the temporary folder, under names of their own folder alone, and removed when they are let go. Knows archives; must not
know what their members hold.
"""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO

from cellmill.errors import DiskSpaceError, FormatError, InputError, NotFoundError, nearest
from cellmill.events import emit
from cellmill.sources.mex_names import group_3ca, group_mex
from cellmill.sources.mex_text import open_text
from cellmill.sources.side_table import SIDE_NAME, table_stem
from cellmill.storage import room_told
from cellmill.units import size_text

__all__ = ["file_behind", "inputs_of_archive", "is_archive", "passed_over", "size_of", "unpacked"]

_REMEDY = "Make room, or name another folder with --scratch (scratch= or spill_dir= in Python, or TMPDIR)."
BLOCK_BYTES = 512
COPY_BYTES = 1 << 20
LONGEST_PADDING = 1 << 24
MOST_MEMBERS = 1_000_000
MOST_TIMES_ITS_SIZE = 300
"""Counts as text pack to a twentieth; what claims to unpack to more than this is made to fill disks."""
SMALL_BYTES = 1 << 30
WHOLE_INPUT = re.compile(r".*\.(h5ad|h5|hdf5|loom|parquet|(csv|tsv|txt|tab)(\.gz)?)", re.IGNORECASE)
LIST_NAME = re.compile(r"(.*[._-])?(barcodes?|features?|genes?|readme|filelist|md5.*)[._-]?.*", re.IGNORECASE)


@dataclass(frozen=True)
class _Contents:
    """Files of an archive and their sizes in bytes, and for each input in it the files that belong to it."""

    sizes: dict[str, int]
    inputs: dict[str, tuple[str, ...]]


def is_archive(path: Path) -> bool:
    """Whether a file is a tar archive by content, gzipped or not."""
    if not path.is_file():
        return False
    try:
        with open_text(path) as file:
            return file.read(BLOCK_BYTES)[257:262] == b"ustar"
    except (OSError, EOFError, zlib.error):
        return False


def file_behind(path: Path) -> Path:
    """Return the archive that a path goes into; the path itself where it goes into none."""
    inside = _split(path)
    return path if inside is None else inside[0]


def size_of(path: Path) -> int:
    """Return the bytes of an input: a file, all files of a folder, or its files in an archive."""
    inside = _split(path)
    if inside is not None:
        contents = _contents(inside[0])
        return sum(contents.sizes[name] for name in _members(contents, inside))
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def inputs_of_archive(path: Path) -> list[Path]:
    """Return the inputs in an archive, as paths that go into it.

    Raises
    ------
    FormatError
        The archive is truncated or damaged, names places outside itself, or claims to be beyond all measure.
    """
    return [path / name for name in _contents(path).inputs]


def passed_over(path: Path) -> list[str]:
    """Return the members of an archive that belong to no input."""
    contents = _contents(path)
    used = {name for names in contents.inputs.values() for name in names}
    return [name for name in contents.sizes if name not in used]


@contextmanager
def unpacked(path: Path, *, into: Path | None) -> Iterator[Path]:
    """Give the file of an input in an archive, unpacked with those that belong to it; removed at the end.

    Parameters
    ----------
    path : Path
        It goes into an archive; see `inputs_of_archive`.
    into : Path or None
        Folder for the files; the system's temporary folder when None.

    Raises
    ------
    NotFoundError
        The archive has no such input.
    DiskSpaceError
        There is no room for the files.
    FormatError
        The archive is truncated or damaged.
    """
    folder = unpack(path, into=into)
    try:
        yield folder / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def unpack(path: Path, *, into: Path | None) -> Path:
    """Return a new folder with the files of an input in an archive; the caller removes it."""
    inside = _split(path)
    if inside is None:
        raise InputError(f"{path} goes into no archive.")
    archive, _ = inside
    contents = _contents(archive)
    wanted = _members(contents, inside)
    needed = sum(contents.sizes[name] for name in wanted)
    _require_room(path, needed, into)
    emit(f"unpacking {path.name}", done=0, total=needed, unit="bytes")
    folder = Path(tempfile.mkdtemp(prefix="cellmill-unpacked-", dir=into))
    try:
        with _reading(archive), tarfile.open(archive, "r:*") as tar:
            left = set(wanted)
            for member in tar:
                name = _plain(member.name)
                if name in left and member.isreg():
                    with room_told(folder.parent, needed, what=f"Unpacking {path}", remedy=_REMEDY):
                        _copy(tar, member, folder / PurePosixPath(name).name)
                    left.discard(name)
                    if not left:
                        break
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _require_room(path: Path, needed: int, into: Path | None) -> None:
    place = into or Path(tempfile.gettempdir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise DiskSpaceError(
            f"Unpacking {path} needs {size_text(needed)} in {place}, where {size_text(free)} are free. {_REMEDY}"
        )


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = tar.extractfile(member)
    assert source is not None
    with target.open("xb") as file:
        n_bytes = _copy_bytes(source, file)
    if n_bytes != member.size:
        raise EOFError(f"{member.name} has {n_bytes} of {member.size} bytes")


def _copy_bytes(source: IO[bytes], target: IO[bytes]) -> int:
    n_bytes = 0
    while block := source.read(COPY_BYTES):
        target.write(block)
        n_bytes += len(block)
    return n_bytes


def _split(path: Path) -> tuple[Path, str] | None:
    """Return the archive that a path goes into, and the rest of the path."""
    for parent in path.parents:
        if parent.is_dir():
            return None
        if parent.is_file():
            return (parent, path.relative_to(parent).as_posix()) if is_archive(parent) else None
    return None


def _members(contents: _Contents, inside: tuple[Path, str]) -> tuple[str, ...]:
    archive, name = inside
    if name not in contents.inputs:
        listed = ", ".join(list(contents.inputs)[:6]) or "none"
        raise NotFoundError(
            f"{archive}: no input {name!r} in this archive; it holds {listed}.{nearest(name, contents.inputs)}"
        )
    return contents.inputs[name]


def _contents(archive: Path) -> _Contents:
    stat = archive.stat()
    return _listed(archive, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _listed(archive: Path, size: int, changed_ns: int) -> _Contents:
    """Read the names and sizes of all members, and prove that the archive is whole and means no harm."""
    del changed_ns  # part of the key
    sizes: dict[str, int] = {}
    total, limit = 0, max(SMALL_BYTES, size * MOST_TIMES_ITS_SIZE)
    with _reading(archive), tarfile.open(archive, "r:*") as tar:
        for n, member in enumerate(tar):
            total += member.size
            if total > limit or n >= MOST_MEMBERS:
                raise FormatError(
                    f"{archive}: its {n + 1} members up to {member.name!r} claim {size_text(total)}, more than "
                    f"{MOST_TIMES_ITS_SIZE} times its size, or are too many; it is not unpacked. Get it again from a "
                    "place that you trust."
                )
            name = _plain(member.name)
            if name.startswith("/") or ".." in PurePosixPath(name).parts or "\\" in name:
                raise FormatError(
                    f"{archive}: the member {member.name!r} would lie outside the archive; it is not unpacked. Get it "
                    "again from a place that you trust."
                )
            if member.isreg() and not member.issparse():
                sizes[name] = member.size
        _require_end(archive, tar)
    return _Contents(sizes, _inputs_in(sizes))


def _require_end(archive: Path, tar: tarfile.TarFile) -> None:
    """Refuse an archive without the blocks of zeros at its end: members may be missing."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    ending, n_bytes = tar.fileobj.read(BLOCK_BYTES), 0
    # To the very end: only there is the checksum of what was packed.
    while n_bytes <= LONGEST_PADDING and (block := tar.fileobj.read(COPY_BYTES)):
        n_bytes += len(block)
    if ending != b"\x00" * BLOCK_BYTES or n_bytes > LONGEST_PADDING:
        raise FormatError(
            f"{archive}: the archive breaks off after {tar.offset} bytes, or goes on with something else; most likely "
            "an unfinished download or copy. Get it again."
        )


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    try:
        yield
    except DiskSpaceError:
        raise  # the archive is not to blame
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, FileExistsError):
            error = EOFError("it holds two files of one name")
        raise FormatError(
            f"{archive}: the archive breaks off or is damaged ({type(error).__name__}: {error}); most likely an "
            "unfinished download or copy. Get it again."
        ) from error


def _plain(name: str) -> str:
    return name.removeprefix("./")


def _inputs_in(sizes: dict[str, int]) -> dict[str, tuple[str, ...]]:
    """Return for each input of an archive the files that belong to it, by their names alone."""
    folders: defaultdict[str, list[str]] = defaultdict(list)
    for name in sizes:
        path = PurePosixPath(name)
        if not path.name.startswith("."):
            folders[path.parent.as_posix()].append(path.name)
    inputs: dict[str, tuple[str, ...]] = {}
    for folder, names in sorted(folders.items()):
        for main, files in _inputs_of_folder(sorted(names)).items():
            inputs[_joined(folder, main)] = tuple(_joined(folder, name) for name in files)
    return inputs


def _inputs_of_folder(names: list[str]) -> dict[str, list[str]]:
    groups = group_3ca(names) or [group for group in group_mex(names) if group.is_sure]
    found = {group.matrix: group.all for group in groups}
    used = {name for files in found.values() for name in files}
    sides = {name: match["stem"].casefold() for name in names if (match := SIDE_NAME.fullmatch(name))}
    for name in names:
        if name in used or name in sides or not WHOLE_INPUT.fullmatch(name) or LIST_NAME.fullmatch(name):
            continue
        stems = table_stem(Path(name))
        found[name] = [name, *(side for side, stem in sides.items() if stem in stems)]
    return found


def _joined(folder: str, name: str) -> str:
    return name if folder in (".", "") else f"{folder}/{name}"
