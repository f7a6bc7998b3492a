"""What in a folder is no input, and why (floor 3, sources). Knows names of files. Must not open them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cellmill.sources.side_table import is_side_name

__all__ = ["PassedOver", "listed_names", "passed_over_file", "why_unread"]

# Files that may hold counts, by name, but are not read from a folder.
UNREAD = re.compile(
    r"\.(h5mu|h5seurat|rds|rdata|mtx|mtx\.gz|[ct]sv|[ct]sv\.gz|(h5ad|h5|hdf5|loom|csv|tsv|txt)\.(gz|bz2|xz|zip))$",
    re.IGNORECASE,
)
_TEXT = re.compile(r"\.(csv|tsv|txt|tab)(\.gz)?$", re.IGNORECASE)
_REASONS = (
    (re.compile(r"\.(rds|rdata)$", re.IGNORECASE), "an R data file; save its counts as h5ad"),
    (re.compile(r"\.mtx(\.gz)?$", re.IGNORECASE), "a matrix without barcodes and features of its own"),
    (re.compile(r"\.(gz|bz2|xz|zip)$", re.IGNORECASE), "packed; unpack it first"),
)
_LISTED = 8


@dataclass(frozen=True)
class PassedOver:
    """A file that lies in a folder or an archive of inputs and is none.

    Attributes
    ----------
    path : Path
    why : str
    likely : bool
        Whether it may hold counts by its name, so that a person should know of it unasked.
    """

    path: Path
    why: str
    likely: bool = True

    def to_dict(self) -> dict[str, str]:
        """Return it as plain data."""
        return {"path": str(self.path), "reason": self.why}


def why_unread(path: Path) -> str:
    """Return why a file that may hold counts by its name is not read from a folder.

    Examples
    --------
    >>> why_unread(Path("a.rds"))
    'an R data file; save its counts as h5ad'
    """
    if is_side_name(path):
        return "called as a table of labels, and beside no table of counts of its name"
    if _TEXT.search(path.name):
        return "a table of which no axis begins with known genes; name it, if it holds counts"
    return next((why for names, why in _REASONS if names.search(path.name)), "of a kind that cellmill does not read")


def passed_over_file(path: Path) -> PassedOver:
    """Return a file as passed over, by its name alone."""
    if path.suffix.lower() == ".parquet":
        return PassedOver(path, "Parquet without lists of tokens", likely=False)
    likely = UNREAD.search(path.name) is not None
    text = _TEXT.search(path.name) is not None
    return PassedOver(path, why_unread(path) if likely or text else "of a kind that holds no counts", likely=likely)


def listed_names(passed: Sequence[PassedOver], *, below: Path) -> str:
    """Return the first names of what was passed over, as they lie below a folder."""
    names = ", ".join(str(one.path.relative_to(below)) for one in passed[:_LISTED])
    return names + (", ..." if len(passed) > _LISTED else "")
