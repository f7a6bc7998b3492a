"""What a build will do (floor 4), settled before a byte is written: files, matrices, genes and their order, obs, disk.

Reads descriptions and a few blocks of each file; writes nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cellmill.errors import (
    CellmillError,
    ConfigError,
    FormatError,
    GeneMatchError,
    InputError,
    VocabularyError,
    nearest,
)
from cellmill.events import emit
from cellmill.genes import Alignment, AlignmentReport, GeneTable, Vocabulary, align, recognise_species
from cellmill.ingest.audit import find_violation
from cellmill.ingest.base import Base, table_for
from cellmill.ingest.head import plan_head
from cellmill.ingest.refuse import refusal
from cellmill.sources import FORMATS, CountBlock, Source, expand_inputs, open_source
from cellmill.storage import hash_bytes
from cellmill.store.format import FORMAT_VERSION
from cellmill.store.obs import STANDARD_COLUMNS, type_name, unify_types
from cellmill.units import count_text, size_text

__all__ = ["BuildOptions", "BuildPlan", "Skipped", "SourcePlan", "input_stamp", "plan_build", "unified_schema"]

T = TypeVar("T")
_VOCABULARIES = ("human", "mouse", "union")
_WINDOW_CELLS = 1024
_WINDOWS = 3
_BYTES_PER_COUNT = 1.3  # frames are smaller; obs and offsets come on top
_BYTES_PER_CELL = 200


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
    obs_names : tuple of (file's column, store's column, type)
    """

    path: Path
    name: str
    kind: str
    matrix: str
    n_cells: int
    n_genes: int
    stored: int
    target: npt.NDArray[np.int64]
    report: AlignmentReport
    unmatched: tuple[str, ...]
    obs_names: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]
    stamp: tuple[int, int]


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
    def key(self) -> str:
        """xxh3-128 of all that decides the store's bytes; an interrupted build goes on only under the same key."""
        content = {
            "format": FORMAT_VERSION,
            "sources": [
                (
                    str(s.path.resolve()),
                    s.stamp,
                    s.name,
                    s.matrix,
                    s.n_cells,
                    s.obs_names,
                    hash_bytes(s.target.tobytes()),
                )
                for s in self.sources
            ],
            "base": self.base.manifest.digest if self.base else None,
            "vocabulary": self.vocabulary.hash,
            "order": hash_bytes(self.order.tobytes()),
            "head": hash_bytes(self.head) if self.head else None,
            "obs": self.obs_schema,
            "shards": (self.options.shard_cells, self.options.shard_bytes, self.options.block_cells),
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
            "sources": [
                {
                    "path": str(s.path), "name": s.name, "kind": s.kind, "matrix": s.matrix, "n_cells": s.n_cells,
                    "n_genes": s.n_genes, "genes": s.report.to_dict(), "notes": list(s.notes),
                }
                for s in self.sources
            ],
            "skipped": [skipped.to_dict() for skipped in self.skipped],
        }  # fmt: skip

    def __str__(self) -> str:
        what = f"{count_text(self.n_cells)} cells of {len(self.sources)} inputs, {count_text(len(self.order))} genes"
        lines = [f"{what}, vocabulary {self.vocabulary_name}, at most {size_text(self.estimated_bytes)} on disk"]
        lines += [
            f"  {s.name}: {s.kind}, {s.matrix}, {count_text(s.n_cells)} cells, "
            f"{s.report.share_matched:.1%} of {count_text(s.n_genes)} genes matched"
            for s in self.sources
        ]
        lines += [f"  skipped {skipped.path}: {skipped.reason}" for skipped in self.skipped]
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A source that could be opened, with the windows read of it."""

    source: Source
    matrix: str
    windows: tuple[CountBlock, ...]


def plan_build(
    inputs: Sequence[str | Path],
    *,
    vocabulary: str | Path | Vocabulary | None = None,
    options: BuildOptions | None = None,
    base: Base | None = None,
) -> BuildPlan:
    """Plan a build: open every input, choose matrices, align genes, order them, unify obs.

    With `base`, a store to add to, its vocabulary, genes, datasets and columns are given.

    Raises
    ------
    InputError
        For an input that cannot be used (unless `options.skip_bad`), naming it and the remedy.
    """
    options = options or BuildOptions()
    _check_policy(options, vocabulary)
    skipped: list[Skipped] = []
    guard = _Guard(skipped, skip=options.skip_bad)
    paths = expand_inputs(inputs, keep_unusable=options.skip_bad)
    found = [guard(path, partial(_candidate, path, options)) for path in paths]
    candidates = [candidate for candidate in found if candidate is not None]
    if base:
        chosen, chosen_name, table = base.vocabulary, base.manifest.vocabulary_name, base.table
    elif candidates:
        chosen, chosen_name, table = _vocabulary(vocabulary, candidates, skip_bad=options.skip_bad)
    else:
        chosen, chosen_name, table = Vocabulary([]), "", None
    aligned = [
        (candidate, alignment)
        for candidate in candidates
        if (alignment := guard(candidate.source.path, partial(_align, candidate, chosen, table, options, base)))
    ]
    names = _dataset_names([candidate.source for candidate, _ in aligned])
    if base:
        kept = [
            guard(candidate.source.path, partial(base.require_new, name, candidate.source.path))
            for (candidate, _), name in zip(aligned, names, strict=True)
        ]
        aligned = [pair for pair, name in zip(aligned, kept, strict=True) if name]
        names = [name for name in kept if name]
    if not aligned:
        raise InputError("no input is left to build from:\n" + "\n".join(f"  {s.path}: {s.reason}" for s in skipped))
    old_columns = base.obs_columns if base else ()
    spelling = {name.casefold(): name for name, _, _ in old_columns}
    obs_names = [_obs_names(candidate.source, dict(options.rename), spelling) for candidate, _ in aligned]
    _check_renames(options.rename, [candidate.source for candidate, _ in aligned])
    plans = tuple(
        _source_plan(candidate, alignment, name, columns)
        for (candidate, alignment), name, columns in zip(aligned, names, obs_names, strict=True)
    )
    order = _storage_order([(c, a.target) for c, a in aligned], n_vocabulary=len(chosen))
    if base:
        order = np.concatenate([base.order, order[~np.isin(order, base.order)]])
    head = base.head if base else _head(aligned, order, n_vocabulary=len(chosen))
    for candidate in candidates:
        candidate.source.close()
    schema = unified_schema([old_columns, *obs_names])
    return BuildPlan(plans, tuple(skipped), chosen, chosen_name, order, schema, options, base, head)


def _check_policy(options: BuildOptions, vocabulary: str | Path | Vocabulary | None) -> None:
    """Refuse what cannot be meant before a file is opened: files may be many and large.

    Raises
    ------
    ConfigError
        For a share outside 0..1, a format that is not known, or a column renamed to nothing.
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
    for old, new in options.rename:
        if not old or not new:
            raise ConfigError(f"rename (--rename): a column name is empty in {old!r} to {new!r}")
    if isinstance(vocabulary, str | Path) and vocabulary not in _VOCABULARIES and not Path(vocabulary).is_file():
        raise VocabularyError(
            f"vocabulary {str(vocabulary)!r} is neither {', '.join(map(repr, _VOCABULARIES))} nor a file."
            f"{nearest(str(vocabulary), _VOCABULARIES)}"
        )


class _Guard:
    """Runs a step for one input; with `skip`, an input error becomes a `Skipped` instead of ending the plan."""

    def __init__(self, skipped: list[Skipped], *, skip: bool) -> None:
        self._skipped = skipped
        self._skip = skip

    def __call__(self, path: Path, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except (CellmillError, OSError) as error:
            if not self._skip:
                raise
            self._skipped.append(Skipped(path, str(error)))
            emit(f"skipped {path.name}", message=f"skipped {path}")  # why: in the report
            return None


def _candidate(path: Path, options: BuildOptions) -> _Candidate:
    emit(f"looking at {path.name}")
    source = open_source(path, format=options.format)
    matrix = _choose_matrix(source, options.counts)
    windows = _windows(source, matrix)
    for window in windows:
        violation = find_violation(window)
        if violation is not None:
            raise refusal(source, matrix, violation, skip_bad=options.skip_bad)
    return _Candidate(source, matrix, windows)


def _choose_matrix(source: Source, counts: str) -> str:
    names = [info.name for info in source.matrices()]
    if counts == "auto":
        return _auto_matrix(source, names)
    if counts == "X" and source.kind != "h5ad":
        return names[0]  # these formats hold one matrix
    if counts not in names:
        raise ConfigError(
            f"{source.path}: there is no matrix {counts!r} in this file.{nearest(counts, names)} "
            f"It has: {', '.join(names)}"
        )
    return counts


def _auto_matrix(source: Source, names: Sequence[str]) -> str:
    passing = []
    for name in names:
        windows = _windows(source, name)
        if all(find_violation(window) is None for window in windows):
            passing.append((name, windows))
    if not passing:
        return names[0]  # refused by the caller, which says what else was looked at
    first, reference = passing[0]
    for name, windows in passing[1:]:
        if not _same(reference, windows):
            raise ConfigError(
                f"{source.path}: {' and '.join(n for n, _ in passing)} both look like raw counts and differ "
                f"({first} from {name}, for one). Say which to take, for example --counts {first}"
            )
    return first


def _same(first: Sequence[CountBlock], second: Sequence[CountBlock]) -> bool:
    return all(
        np.array_equal(a.indptr, b.indptr) and np.array_equal(a.indices, b.indices) and np.array_equal(a.data, b.data)
        for a, b in zip(first, second, strict=False)
    )


def _windows(source: Source, matrix: str) -> tuple[CountBlock, ...]:
    """A few blocks of a matrix: spread over the file where rows can be read anywhere, else its first ones."""
    info = next(m for m in source.matrices() if m.name == matrix)
    n = info.n_cells
    starts = [0]
    if info.layout in ("csr", "dense") and n > _WINDOW_CELLS * _WINDOWS:
        starts = [round(i * (n - _WINDOW_CELLS) / (_WINDOWS - 1)) for i in range(_WINDOWS)]
    blocks: list[CountBlock] = []
    for start in starts:
        stop = min(n, start + _WINDOW_CELLS)
        blocks += source.blocks(matrix, block_cells=_WINDOW_CELLS, start=start, stop=stop)
    return tuple(blocks)


def _vocabulary(
    wanted: str | Path | Vocabulary | None, candidates: Sequence[_Candidate], *, skip_bad: bool
) -> tuple[Vocabulary, str, GeneTable | None]:
    """The vocabulary, a name for it, and the table that resolves symbols (None: ids are matched as they are)."""
    if isinstance(wanted, Vocabulary):
        return wanted, wanted.name or "given", table_for(wanted.ids)
    if wanted == "union":
        return _union(candidates), "union", None
    if wanted is None:
        wanted = _recognised(candidates, skip_bad=skip_bad)
    if wanted in ("human", "mouse"):
        return Vocabulary.load(str(wanted)), str(wanted), GeneTable.load(str(wanted))
    loaded = Vocabulary.from_json(Path(wanted))
    return loaded, Path(wanted).name, table_for(loaded.ids)


def _union(candidates: Sequence[_Candidate]) -> Vocabulary:
    symbols: dict[str, str] = {}
    for candidate in candidates:
        genes = candidate.source.genes_of(candidate.matrix)
        names = genes.symbols or genes.ids
        for gene_id, symbol in zip(genes.ids, names, strict=True):
            symbols.setdefault(gene_id, symbol)
    return Vocabulary(list(symbols), symbols=list(symbols.values()), name="union")


def _recognised(candidates: Sequence[_Candidate], *, skip_bad: bool) -> str:
    """The species of the inputs; with `skip_bad`, that of most cells: inputs of another one are then left out."""
    species: dict[str, list[str]] = {}
    n_cells: Counter[str] = Counter()
    unknown = []
    for candidate in candidates:
        genes = candidate.source.genes_of(candidate.matrix)
        found = recognise_species(genes.ids, genes.symbols)
        if found:
            species.setdefault(found, []).append(candidate.source.path.name)
            n_cells[found] += candidate.source.n_cells
        else:
            unknown.append(candidate)
    if len(species) > 1 and not skip_bad:
        listed = "; ".join(f"{name}: {', '.join(files[:3])}" for name, files in species.items())
        raise GeneMatchError(
            f"the inputs are of more than one species ({listed}). Build one store for each, or pass "
            "--vocabulary union to keep the files' own gene ids (in Python: vocabulary='union')."
        )
    if not species:
        genes = unknown[0].source.genes_of(unknown[0].matrix)
        if not genes.ids:
            raise FormatError(f"{unknown[0].source.path}: {unknown[0].matrix} has no genes; there is nothing to store")
        raise GeneMatchError(
            f"{unknown[0].source.path}: its genes look like neither human nor mouse (for example "
            f"{', '.join(genes.ids[:5])}). Pass --vocabulary human, mouse, a vocabulary file, or union to keep the "
            "files' own ids as they are."
        )
    return n_cells.most_common(1)[0][0]


def _align(
    candidate: _Candidate, vocabulary: Vocabulary, table: GeneTable | None, options: BuildOptions, base: Base | None
) -> Alignment:
    genes = candidate.source.genes_of(candidate.matrix)
    where = f"{candidate.source.path} ({candidate.matrix})"
    if base:
        base.require_known_genes(genes.ids, where)
    return align(genes.ids, genes.symbols, vocabulary=vocabulary, table=table, min_match=options.min_match, where=where)


def _dataset_names(sources: Sequence[Source]) -> list[str]:
    """A name for each dataset: its file's; with folders in front where names would be equal."""
    names = [source.name for source in sources]
    for depth in range(1, 16):
        repeated = {name for name, n in Counter(names).items() if n > 1}
        if not repeated:
            return names
        for i, source in enumerate(sources):
            if names[i] in repeated:
                parents = source.path.resolve().parent.parts[1:][-depth:]
                names[i] = "_".join([*parents, source.name])
    raise InputError(f"datasets need names of their own; {sorted(repeated)} stand for several inputs")


def _obs_names(source: Source, rename: dict[str, str], spelling: dict[str, str]) -> tuple[tuple[str, str, str], ...]:
    """File's column, store's column and type, for each column of a source's obs but the cells' names.

    SQL does not tell upper case from lower: a column is spelt as in the first source that has it (`spelling`), and one
    that differs from another of its own file in case alone gets a number.
    """
    table = source.obs()
    reserved = {name.casefold() for name in (*STANDARD_COLUMNS, "row")}
    taken: set[str] = set()
    result = []
    for name in table.column_names[1:]:
        new = rename.get(name, name)
        if new.casefold() in reserved:
            new = f"source_{new}"
        if new.casefold() in taken and name in rename:
            raise ConfigError(
                f"{source.path}: two columns of obs would both be called {new!r}; change the renaming of {name!r}"
            )
        stem, number = new, 2
        while new.casefold() in taken:
            new, number = f"{stem}_{number}", number + 1
        new = spelling.setdefault(new.casefold(), new)
        taken.add(new.casefold())
        result.append((name, new, type_name(table.schema.field(name).type)))
    return tuple(result)


def _check_renames(rename: Sequence[tuple[str, str]], sources: Sequence[Source]) -> None:
    columns = {name for source in sources for name in source.obs().column_names[1:]}
    for old, _ in rename:
        if old not in columns:
            raise ConfigError(
                f"no input has an obs column {old!r} to rename.{nearest(old, columns)} "
                f"Columns: {', '.join(sorted(columns))}"
            )


def unified_schema(obs_names: Sequence[tuple[tuple[str, str, str], ...]]) -> tuple[tuple[str, str], ...]:
    """Return the columns of a store, in order, and the type that holds the values of all sources."""
    schema = dict(STANDARD_COLUMNS)
    for columns in obs_names:
        for _, name, kind in columns:
            schema[name] = unify_types(schema[name], kind) if name in schema else kind
    return tuple((name, "string" if kind == "null" else kind) for name, kind in schema.items())


def _source_plan(
    candidate: _Candidate, alignment: Alignment, name: str, columns: tuple[tuple[str, str, str], ...]
) -> SourcePlan:
    source = candidate.source
    info = next(m for m in source.matrices() if m.name == candidate.matrix)
    ids = source.genes_of(candidate.matrix).ids
    renamed = [f"obs column {old!r} is called {new!r} here" for old, new, _ in columns if old != new]
    dropped = [f"{n} {what}" for what, n in source.dropped.items()]
    return SourcePlan(
        path=source.path,
        name=name,
        kind=source.kind,
        matrix=candidate.matrix,
        n_cells=info.n_cells,
        n_genes=info.n_genes,
        stored=info.stored,
        target=alignment.target,
        report=alignment.report,
        unmatched=tuple(ids[int(i)] for i in np.flatnonzero(alignment.target < 0)),
        obs_names=columns,
        notes=(*source.remarks, *renamed, *dropped),
        stamp=input_stamp(source.path),
    )


def input_stamp(path: Path) -> tuple[int, int]:
    """Return size and newest change (ns) of an input, with the files that may lie beside it and belong to it."""
    files = list(path.iterdir()) if path.is_dir() else [path, path.with_name(f"{path.stem}.obs.csv")]
    if ".mtx" in path.name and not path.is_dir():
        files = list(path.parent.iterdir())
    stats = [file.stat() for file in files if file.is_file()]
    return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)


def _head(
    aligned: Sequence[tuple[_Candidate, Alignment]], order: npt.NDArray[np.int64], *, n_vocabulary: int
) -> bytes | None:
    storage_of = np.full(n_vocabulary + 1, -1, dtype=np.int64)
    storage_of[order] = np.arange(len(order))
    windows = [(window, storage_of[a.target]) for candidate, a in aligned for window in candidate.windows]
    n_cells = sum(candidate.source.n_cells for candidate, _ in aligned)
    return plan_head(windows, n_genes=len(order), n_cells=n_cells)


def _storage_order(
    aligned: Sequence[tuple[_Candidate, npt.NDArray[np.int64]]], *, n_vocabulary: int
) -> npt.NDArray[np.int64]:
    """Vocabulary positions of the genes that any source measured, those detected most often in the windows first."""
    detected = np.zeros(n_vocabulary)
    measured = np.zeros(n_vocabulary, dtype=bool)
    for candidate, target in aligned:
        measured[target[target >= 0]] = True
        sampled = max(1, sum(len(window.indptr) - 1 for window in candidate.windows))
        weight = candidate.source.n_cells / sampled
        for window in candidate.windows:
            positions = target[window.indices[window.data != 0]]
            detected += weight * np.bincount(positions[positions >= 0], minlength=n_vocabulary)
    genes = np.flatnonzero(measured)
    return genes[np.argsort(-detected[genes], kind="stable")].astype(np.int64)
