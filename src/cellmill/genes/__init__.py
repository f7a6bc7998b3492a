"""Genes: identifiers, annotation tables, vocabularies, alignment (floor 2).

Knows gene names and what they mean. Must not know of files, counts, stores or torch.
"""

from __future__ import annotations

from cellmill.genes.align import Alignment, AlignmentReport, Duplicate, align, table_for, union_vocabulary
from cellmill.genes.describe import advice_for, describe_ids
from cellmill.genes.hints import genes_behind_a_date, genes_of_name
from cellmill.genes.identifiers import (
    IdKind,
    embedded_id,
    keyed_by_ensembl,
    kind_of,
    kind_shares,
    looks_like,
    strip_version,
    strip_versions,
)
from cellmill.genes.layout import LAYOUTS, Layout
from cellmill.genes.overlap import Overlap, compare_vocabularies
from cellmill.genes.resolve import Outcome, Resolution, find_reference, recognise_species, resolve
from cellmill.genes.table import REFERENCES, SPECIES, GeneTable
from cellmill.genes.token_map import FORMS
from cellmill.genes.vocabulary import DEFAULT_SPECIALS, Vocabulary

__all__ = [
    "DEFAULT_SPECIALS",
    "FORMS",
    "LAYOUTS",
    "REFERENCES",
    "SPECIES",
    "Alignment",
    "AlignmentReport",
    "Duplicate",
    "GeneTable",
    "IdKind",
    "Layout",
    "Outcome",
    "Overlap",
    "Resolution",
    "Vocabulary",
    "advice_for",
    "align",
    "compare_vocabularies",
    "describe_ids",
    "embedded_id",
    "find_reference",
    "genes_behind_a_date",
    "genes_of_name",
    "keyed_by_ensembl",
    "kind_of",
    "kind_shares",
    "looks_like",
    "recognise_species",
    "resolve",
    "strip_version",
    "strip_versions",
    "table_for",
    "union_vocabulary",
]
