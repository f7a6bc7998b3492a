"""The policy of a build (floor 4, pure): what the caller asked for, refused where it cannot be meant."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cellmill.errors import ConfigError, VocabularyError, nearest
from cellmill.genes import Vocabulary
from cellmill.ingest.about import About
from cellmill.ingest.filters import CellFilters, check_filters
from cellmill.ingest.obs_map import RESERVED_COLUMNS, ObsMap
from cellmill.ingest.rounding import LARGEST_ROUNDING
from cellmill.sources import FORMATS, Limits
from cellmill.sources.base import DEFAULT_MEMORY_BUDGET
from cellmill.storage.cache import parse_size
from cellmill.units import size_text

__all__ = ["BuildOptions", "check_policy", "memory_bytes_of", "scratch_of"]

_LEAST_MEMORY = 1 << 20
_VOCABULARIES = ("human", "mouse", "union")


@dataclass(frozen=True)
class BuildOptions:
    """The policy of a build, as the caller gave it; see `cellmill.build`."""

    counts: str = "X"
    min_match: float = 0.6
    rename: tuple[tuple[str, str], ...] = ()
    skip_bad: bool = False
    format: str | None = None
    shard_cells: int = 200_000
    shard_bytes: int = 256 << 20
    block_cells: int = 4096
    allow_rounding: float = 0.0
    min_counts: int = 0
    min_genes: int = 0
    max_mito: float | None = None
    where: str | None = None
    min_cells_per_gene: int = 0
    duplicates: bool = True
    obs_map: ObsMap | None = None
    dataset_name: str | None = None
    about: About | None = None
    memory_bytes: int = DEFAULT_MEMORY_BUDGET
    scratch: str | None = None

    @property
    def limits(self) -> Limits:
        """What a source may take of memory for sorting, and where it may put what does not fit."""
        return Limits(memory_budget=self.memory_bytes, spill_dir=Path(self.scratch) if self.scratch else None)

    @property
    def filters(self) -> CellFilters:
        """What a cell and a gene need to be taken."""
        return CellFilters(self.min_counts, self.min_genes, self.max_mito, self.where, self.min_cells_per_gene)


def memory_bytes_of(memory: str | int | None) -> int:
    """Return the bytes that a text such as "2 GiB" means, or a number; None: the default.

    Raises
    ------
    ConfigError
        For a text that is no size, and for less than 1 MiB, of which sorting would make files without number.
    """
    if memory is None:
        return DEFAULT_MEMORY_BUDGET
    n_bytes = parse_size(str(memory), where="memory (--memory)")
    if n_bytes < _LEAST_MEMORY:
        raise ConfigError(
            f"memory (--memory) must be {size_text(_LEAST_MEMORY)} at least, found {str(memory)!r}; for example 2GiB"
        )
    return n_bytes


def scratch_of(scratch: str | Path | None) -> str | None:
    """Return the folder for temporary files as an absolute path, which other processes understand.

    Raises
    ------
    ConfigError
        Where it is no folder that can be written to.
    """
    if scratch is None:
        return None
    folder = Path(scratch).expanduser().absolute()
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        what = "a folder that cannot be written to" if folder.is_dir() else "no folder"
        raise ConfigError(f"scratch (--scratch) {folder}: {what}; make it first, or name another")
    return str(folder)


def check_policy(options: BuildOptions, vocabulary: str | Path | Vocabulary | None) -> None:
    """Refuse what cannot be meant before a file is opened: files may be many and large.

    Raises
    ------
    ConfigError
        For a share outside 0..1, a format that is not known, a column renamed to nothing or to one of cellmill's own, a
        distance of rounding that would make counts of anything, or a filter that cannot be meant.
    QueryError
        For a condition that DuckDB refuses, or that does not look at one cell at a time.
    VocabularyError
        For a vocabulary that is neither known nor a file.
    """
    if not 0.0 <= options.min_match <= 1.0:
        percent = f"; for {options.min_match:g} % give {options.min_match / 100:g}" if options.min_match <= 100 else ""
        raise ConfigError(
            f"min_match (--min-match) is the share of a file's genes that must match, from 0 to 1; found "
            f"{options.min_match:g}{percent if options.min_match > 1 else ''}"
        )
    if options.format is not None and options.format not in FORMATS:
        raise ConfigError(
            f"format (--format) {options.format!r} is not known; supported are {', '.join(FORMATS)}."
            f"{nearest(options.format, FORMATS)}"
        )
    if not 0.0 <= options.allow_rounding <= LARGEST_ROUNDING:
        raise ConfigError(
            f"allow_rounding (--allow-rounding) is the largest distance from a whole number, from 0 to "
            f"{LARGEST_ROUNDING:g}, for example 0.001; found {options.allow_rounding:g}"
        )
    check_filters(options.filters)
    for old, new in options.rename:
        if not old or not new:
            raise ConfigError(f"rename (--rename): a column name is empty in {old!r} to {new!r}")
        if new.casefold() in RESERVED_COLUMNS:
            raise ConfigError(
                f"rename (--rename): {old!r} cannot be called {new!r}, a column of obs that cellmill makes itself (as "
                f"are {', '.join(sorted(RESERVED_COLUMNS - {new.casefold()}))}). Take another name, such as "
                f"{f'source_{new}'!r}"
            )
    if options.dataset_name is not None and not options.dataset_name.strip():
        raise ConfigError("dataset_name (--dataset-name) is empty; for example GSE132044, or GSE132044/{name}")
    if isinstance(vocabulary, str | Path) and vocabulary not in _VOCABULARIES and not Path(vocabulary).is_file():
        raise VocabularyError(
            f"vocabulary {str(vocabulary)!r} is neither {', '.join(map(repr, _VOCABULARIES))} nor a file."
            f"{nearest(str(vocabulary), _VOCABULARIES)}"
        )
