"""The shipped annotation of human and mouse genes (floor 2).

Knows gene ids and every name under which a gene has gone. Must not know of files, cells or vocabularies. The tables are
built by ``scripts/build_gene_tables.py``; where they come from stands in the Parquet metadata (`GeneTable.sources`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from cellmill.errors import NotFoundError, nearest

__all__ = ["REFERENCES", "SPECIES", "GeneTable"]

SPECIES = ("human", "mouse")
REFERENCES = ("tenx_2020a", "tenx_grch38_3_0", "tenx_grch38_1_2", "tenx_hg19")
_CHROMOSOMES = {f"chr{name}": rank for rank, name in enumerate([*range(1, 23), "X", "Y", "M"])}

NameIndex = Mapping[str, Sequence[int]]


@dataclass(frozen=True, eq=False)
class GeneTable:
    """Genes of one species, ordered by gene id.

    Attributes
    ----------
    species : str
        ``human`` or ``mouse``.
    arrow : pyarrow.Table
        One row per gene: gene_id, symbol, biotype, chromosome, start, end, length, mitochondrial, ribosomal, retired,
        hgnc_id, previous, alias, orthologue (``|`` between names), successor, and the name each 10x Genomics reference
        gave.
    """

    species: str
    arrow: pa.Table

    @classmethod
    def load(cls, species: str) -> GeneTable:
        """Return the shipped table of a species; read once per process.

        Raises
        ------
        NotFoundError
            For a species that is not shipped.

        Examples
        --------
        >>> table = GeneTable.load("human")
        >>> table.symbols[table.positions["ENSG00000141510"]]
        'TP53'
        """
        return _load(species)

    def __len__(self) -> int:
        return int(self.arrow.num_rows)

    @property
    def sources(self) -> str:
        """Where the table comes from, in words."""
        return str((self.arrow.schema.metadata or {}).get(b"sources", b"").decode())

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Ensembl gene ids without version, ascending."""
        return tuple(self.arrow["gene_id"].to_pylist())

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Current symbol of each gene; the gene id itself where it has none."""
        return tuple(self.arrow["symbol"].to_pylist())

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Position of each gene id in the table."""
        return {gene_id: position for position, gene_id in enumerate(self.ids)}

    @cached_property
    def current(self) -> NameIndex:
        """Positions of the genes that bear a current symbol, in genome order; most symbols have one."""
        return self._index(enumerate(self.symbols))

    @cached_property
    def references(self) -> Mapping[str, NameIndex]:
        """For each 10x Genomics reference, newest first: positions of the genes under a name, in genome order."""
        return {name: self._index(self._single(name)) for name in REFERENCES}

    @cached_property
    def previous(self) -> NameIndex:
        """Positions of the genes that once bore a symbol, according to HGNC."""
        return self._index(self._several("previous"))

    @cached_property
    def alias(self) -> NameIndex:
        """Positions of the genes for which a symbol is an alias, according to HGNC."""
        return self._index(self._several("alias"))

    @cached_property
    def orthologue(self) -> NameIndex:
        """Positions of mouse genes by the earlier name of the human gene of the same symbol, in mouse spelling."""
        return self._index(self._several("orthologue"))

    @cached_property
    def known_names(self) -> frozenset[str]:
        """Every name under which a gene of this table is found, aliases aside."""
        names = set(self.current) | set(self.previous) | set(self.orthologue)
        return frozenset(names.union(*self.references.values()))

    @cached_property
    def spans(self) -> Sequence[tuple[str, int, int] | None]:
        """Chromosome, first and last base of each gene, 1-based; None where its place on the genome is unknown."""
        columns = (self.arrow[name].to_pylist() for name in ("chromosome", "start", "end"))
        return [
            None if chromosome is None or start is None or end is None else (chromosome, start, end)
            for chromosome, start, end in zip(*columns, strict=True)
        ]

    def in_certain_order(self, positions: Sequence[int]) -> bool:
        """Whether these genes, in genome order, come in this order in every reference: one chromosome, no overlap.

        Notes
        -----
        Overlapping genes change places from one release to the next, and references order chromosomes differently (X
        after 7, 11 before 10).
        """
        known = [span for span in map(self.spans.__getitem__, positions) if span is not None]
        if len(known) < len(positions):
            return False
        return all(before[0] == after[0] and before[2] < after[1] for before, after in pairwise(known))

    @cached_property
    def retired(self) -> Sequence[bool]:
        """Whether a gene's id is no longer in the annotation; its symbol is then the last that it bore."""
        return tuple(self.arrow["retired"].to_pylist())

    @cached_property
    def successors(self) -> Mapping[int, int]:
        """Position of the living gene that each retired id went over to, where that is certain."""
        heirs = enumerate(self.arrow["successor"].to_pylist())
        return {position: self.positions[heir] for position, heir in heirs if heir is not None}

    @cached_property
    def standing(self) -> Sequence[tuple[bool, bool, bool, int]]:
        """How well established each gene is; the best of genes that share a name is what the name means."""
        columns = [self.arrow[name].to_pylist() for name in ("hgnc_id", "retired", "biotype")]
        named = [self.arrow[name].to_pylist() for name in REFERENCES]
        in_references = [sum(name is not None for name in names) for names in zip(*named, strict=True)]
        return [
            (hgnc_id is not None, not retired, biotype == "protein_coding", count)
            for hgnc_id, retired, biotype, count in zip(*columns, in_references, strict=True)
        ]

    @cached_property
    def _genome_rank(self) -> Sequence[tuple[int, int]]:
        chromosomes, starts = self.arrow["chromosome"].to_pylist(), self.arrow["start"].to_pylist()
        last = len(_CHROMOSOMES)
        return [
            (_CHROMOSOMES.get(chromosome, last) if start is not None else last + 1, start or 0)
            for chromosome, start in zip(chromosomes, starts, strict=True)
        ]

    def _single(self, column: str) -> Iterable[tuple[int, str]]:
        return ((position, name) for position, name in enumerate(self.arrow[column].to_pylist()) if name)

    def _several(self, column: str) -> Iterable[tuple[int, str]]:
        return ((position, name) for position, text in self._single(column) for name in text.split("|"))

    def _index(self, pairs: Iterable[tuple[int, str]]) -> NameIndex:
        index: dict[str, list[int]] = defaultdict(list)
        for position, name in pairs:
            index[name].append(position)
        for positions in index.values():
            if len(positions) > 1:
                positions.sort(key=self._genome_rank.__getitem__)
        return dict(index)


@lru_cache(maxsize=len(SPECIES))
def _load(species: str) -> GeneTable:
    if species not in SPECIES:
        raise NotFoundError(
            f"There is no gene table for {species!r}; cellmill ships {' and '.join(SPECIES)}."
            f"{nearest(species, SPECIES)} "
            'For another species use vocabulary="union" or a vocabulary file of your own.'
        )
    resource = files("cellmill.genes") / "tables" / f"{species}.parquet"
    with resource.open("rb") as stream:
        table = cast(pa.Table, pq.ParquetFile(pa.BufferReader(stream.read())).read(use_threads=False))
    return GeneTable(species=species, arrow=table)
