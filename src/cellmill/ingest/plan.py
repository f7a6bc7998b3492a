"""What a build will do (floor 4, pure): files, matrices, genes and their order, obs, disk; and the key that names it.

Knows nothing of how it was found out; `cellmill.ingest.planning` does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.genes import AlignmentReport, Vocabulary
from cellmill.ingest.base import Base
from cellmill.ingest.failures import Refused
from cellmill.ingest.obs_mapping import ColumnRecord
from cellmill.ingest.options import BuildOptions
from cellmill.ingest.schema import unified_schema
from cellmill.sources import PassedOver
from cellmill.sources.files import files_of
from cellmill.storage import hash_bytes
from cellmill.store.format import FORMAT_VERSION
from cellmill.store.writer import own_version
from cellmill.units import count_text, plural, share_text, size_text

__all__ = ["BuildPlan", "Skipped", "SourcePlan", "input_stamp"]

# options that do not decide the bytes of a shard by themselves: what came of most is in the facts of each input
_SETTLED = (
    "counts", "min_match", "rename", "skip_bad", "format", "duplicates", "block_cells", "obs_map", "dataset_name",
    "about", "memory_bytes", "scratch",
)  # fmt: skip
_BYTES_PER_COUNT = 1.3  # frames are smaller; obs and offsets come on top
_BYTES_PER_CELL = 200
_LISTED = 8


@dataclass(frozen=True)
class Skipped:
    """An input left out on request, and why."""

    path: Path
    reason: str

    def to_dict(self) -> dict[str, str]:
        """Return it as plain data."""
        return {"path": str(self.path), "reason": self.reason}


@dataclass(frozen=True, eq=False)
class SourcePlan:
    """One input of a build.

    Attributes
    ----------
    target : int64, shape (n_source_genes,)
        Position of each gene in the vocabulary, -1 for none.
    unmatched : tuple of str
        Ids of the file's genes that are not in the vocabulary, in the file's order.
    classes : uint8, shape (n_source_genes,)
        What each gene counts for in the facts of whole cells, see `cellmill.ingest.facts`.
    obs_names : tuple of (column after the mapping, store's column, type)
    obs_records : tuple of ColumnRecord
        What the mapping file did.
    obs_origin : dict
        Column after the mapping -> the file's own, where that is called otherwise.
    warnings : tuple of str
        What a user should know of this input, which is taken all the same.
    starts_anywhere : bool
        Whether reading from the middle of it costs no more than what is read.
    spill_bytes : int
        Bytes of temporary files while it is read, at most.
    dropped : dict of str to int
        What is left out of its matrix as no genes, counted.
    uri : str
        Where it comes from, for the reports: its path, or the URL that it was fetched from.
    """

    path: Path
    name: str
    kind: str
    matrix: str
    n_cells: int
    n_genes: int
    stored: int
    target: npt.NDArray[np.int64]
    classes: npt.NDArray[np.uint8]
    report: AlignmentReport
    unmatched: tuple[str, ...]
    obs_names: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]
    stamp: tuple[int, int]
    starts_anywhere: bool = True
    spill_bytes: int = 0
    warnings: tuple[str, ...] = ()
    obs_records: tuple[ColumnRecord, ...] = ()
    obs_origin: Mapping[str, str] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    uri: str = ""


@dataclass(frozen=True, eq=False)
class BuildPlan:
    """Everything that decides the store's bytes; `key` names it.

    Attributes
    ----------
    order : int64, shape (n_store_genes,)
        Vocabulary positions in storage order.
    base : Base or None
        The store that is added to; None for a new one.
    head : bytes or None
        Model of the head genes; None where there are none.
    refused : tuple of Refused
        Inputs that cannot be used and are not to be left out: the others are worked on, and the end is an error.
    n_rare_genes : int
        Genes of the inputs that too few of the taken cells have a count of.
    passed_over : tuple of PassedOver
        What else lies in the folders and archives that were named.
    """

    sources: tuple[SourcePlan, ...]
    skipped: tuple[Skipped, ...]
    vocabulary: Vocabulary
    vocabulary_name: str
    order: npt.NDArray[np.int64]
    obs_schema: tuple[tuple[str, str], ...]
    options: BuildOptions
    base: Base | None = None
    head: bytes | None = None
    refused: tuple[Refused, ...] = ()
    n_rare_genes: int = 0
    passed_over: tuple[PassedOver, ...] = ()

    @property
    def gene_ids(self) -> list[str]:
        """Ids of the store's genes, in storage order."""
        return [self.vocabulary.ids[i] for i in self.order]

    @property
    def first_shard(self) -> int:
        """Number of the first new shard."""
        return self.base.manifest.next_shard if self.base else 0

    @property
    def first_report(self) -> int:
        """Number of the first new report."""
        return self.base.manifest.next_report if self.base else 0

    @property
    def generation(self) -> int:
        """How often the store has been added to, this time included."""
        return self.base.manifest.generation + 1 if self.base else 0

    def schema_of(self, used: Sequence[tuple[int, SourcePlan]]) -> tuple[tuple[str, str], ...]:
        """Return the columns of the store when, of its (numbered) inputs, these are used."""
        old = [self.base.obs_columns] if self.base else []
        return unified_schema([*old, *(source.obs_names for _, source in used)])

    @property
    def n_cells(self) -> int:
        """Cells of all inputs."""
        return sum(source.n_cells for source in self.sources)

    @property
    def estimated_bytes(self) -> int:
        """Bytes that the store will need at most, roughly."""
        counts = sum(source.stored for source in self.sources)
        return int(counts * _BYTES_PER_COUNT + self.n_cells * _BYTES_PER_CELL) + (4 << 20)

    @property
    def setting(self) -> dict[str, Any]:
        """What decides the bytes of every shard, whatever input it is of."""
        return {
            "format": FORMAT_VERSION,
            "cellmill": own_version(),
            "genes": hash_bytes("\n".join(self.gene_ids).encode()),
            "head": hash_bytes(self.head) if self.head else None,
            "options": {name: value for name, value in vars(self.options).items() if name not in _SETTLED},
        }

    def facts_of(self, source: SourcePlan) -> dict[str, Any]:
        """Return what decides the bytes of an input's shards besides: the input as it is, and its columns."""
        kinds, storage_of = dict(self.obs_schema), np.full(len(self.vocabulary) + 1, -1, dtype=np.int64)
        storage_of[self.order] = np.arange(len(self.order))
        rules = self.options.obs_map.rules_for(source.path) if self.options.obs_map else {}
        return {
            "input": (str(source.path.resolve()), source.stamp, source.name, source.matrix, source.n_cells),
            "obs": [(old, new, kinds[new]) for old, new, _ in source.obs_names],
            "obs_rules": {name: rule.model_dump() for name, rule in rules.items()},
            "positions": hash_bytes(storage_of[source.target].tobytes()),
            "classes": hash_bytes(source.classes.tobytes()),
        }

    @property
    def key(self) -> str:
        """xxh3-128 of all that decides the store's bytes."""
        content = {
            "setting": self.setting,
            "sources": [self.facts_of(source) for source in self.sources],
            "base": self.base.manifest.digest if self.base else None,
            "vocabulary": self.vocabulary.hash,
            "obs": self.obs_schema,
        }
        return hash_bytes(json.dumps(content, sort_keys=True).encode())

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return {
            "key": self.key,
            "n_cells": self.n_cells,
            "n_genes": len(self.order),
            "vocabulary": {"name": self.vocabulary_name, "hash": self.vocabulary.hash, "n_genes": len(self.vocabulary)},
            "estimated_bytes": self.estimated_bytes,
            "obs": dict(self.obs_schema),
            "filters": self.options.filters.to_dict(),
            "genes_too_rare": self.n_rare_genes,
            "sources": [
                {
                    "path": str(s.path), "name": s.name, "kind": s.kind, "matrix": s.matrix, "n_cells": s.n_cells,
                    "n_genes": s.n_genes, "genes": s.report.to_dict(), "notes": list(s.notes),
                    "warnings": list(s.warnings),
                    "obs_mapping": [record.to_dict() for record in s.obs_records],
                }
                for s in self.sources
            ],
            "skipped": [skipped.to_dict() for skipped in self.skipped],
            "refused": [refused.to_dict() for refused in self.refused],
            "passed_over": [passed.to_dict() for passed in self.passed_over],
        }  # fmt: skip

    def __str__(self) -> str:
        what = (
            f"{plural(self.n_cells, 'cell')} of {plural(len(self.sources), 'input')}, {plural(len(self.order), 'gene')}"
        )
        lines = [f"{what}, vocabulary {self.vocabulary_name}, at most {size_text(self.estimated_bytes)} on disk"]
        lines += [f"  only {filters}" for filters in [self.options.filters.told()] if filters]
        if self.n_rare_genes:
            least = self.options.min_cells_per_gene
            lines.append(
                f"  {count_text(self.n_rare_genes)} genes are detected in fewer than {least} cells and left out"
            )
        for s in self.sources:
            lines.append(
                f"  {s.name}: {s.kind}, {s.matrix}, {count_text(s.n_cells)} cells, "
                f"{share_text(s.report.share_matched)} of {count_text(s.n_genes)} genes matched"
            )
            lines += [f"    warning: {warning}" for warning in s.warnings]
            lines += [f"    {record}" for record in s.obs_records]
        lines += [f"  skipped {skipped.path}: {skipped.reason}" for skipped in self.skipped]
        lines += [f"  passed over {one.path}: {one.why}" for one in self.passed_over[:_LISTED]]
        if len(self.passed_over) > _LISTED:
            lines.append(f"  passed over {plural(len(self.passed_over) - _LISTED, 'more file')}; -v names all of them")
        return "\n".join(lines)


def input_stamp(path: Path) -> tuple[int, int]:
    """Return size and newest change (ns) of an input, with the files that may lie beside it and belong to it."""
    stats = [file.stat() for file in files_of(path)]
    return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)
