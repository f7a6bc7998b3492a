"""Which files on the disk an input is made of (floor 3, sources), for stamps. Must not know what they hold."""

from __future__ import annotations

from pathlib import Path

from cellmill.errors import FormatError
from cellmill.sources.archive import file_behind
from cellmill.sources.side_table import TABLE_ENDING, find_side_table
from cellmill.sources.zarr_arrays import is_zarr

__all__ = ["files_of"]


def files_of(path: Path) -> list[Path]:
    """Return the files that decide what is read from an input: its own, and those beside it that belong to it.

    Notes
    -----
    More than those is no harm: a stamp over them changes too often rather than not at all.
    """
    if (archive := file_behind(path)) != path:
        return [archive]
    if path.is_dir() and is_zarr(path):
        return [file for file in path.rglob("*") if file.is_file()]  # chunks lie in folders of their own
    if path.is_dir():
        return [file for file in path.iterdir() if file.is_file()]
    if ".mtx" in path.name:
        return [file for file in path.parent.iterdir() if file.is_file()]
    files = [path, path.with_name(f"{path.stem}.obs.csv")]
    if TABLE_ENDING.search(path.name):
        try:
            side = find_side_table(path)
        except FormatError:
            side = None
        files += [side] if side is not None and side not in files else []
    return [file for file in files if file.is_file()]
