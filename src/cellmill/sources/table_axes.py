"""Which axis of a table holds genes (floor 3, sources). Pure: names in, an answer and its reason out.

Knows what names of genes and of cells look like. Must not know files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Literal

from cellmill.genes import SPECIES, GeneTable
from cellmill.genes.identifiers import BARCODE
from cellmill.sources.base import ensembl_share

__all__ = ["BARCODE_SHARE", "CELL_WORDS", "Orientation", "barcode_share", "gene_share", "is_gene", "tell_orientation"]

Orientation = Literal["genes-x-cells", "cells-x-genes"]

NAMES_LOOKED_AT = 2000
LEAST_SHARE = 0.2
"""Of the names of the gene axis that must be known genes; panels hold tags, and old files names long gone."""
TIMES_THE_OTHER = 4.0
BARCODE_SHARE = 0.8
GENE_WORDS = frozenset(
    {
        "gene", "genes", "geneid", "genename", "genesymbol", "symbol", "symbols", "ensembl", "ensemblid", "feature",
        "features", "featureid", "hgnc", "ensemblgeneid", "hgncsymbol", "geneidentifier",
    }
)  # fmt: skip
CELL_WORDS = frozenset(
    {"cell", "cells", "cellid", "cellname", "cellnames", "cellbarcode", "barcode", "barcodes", "cellbarcodes"}
)
# What stands over names of any kind; CELL and Ids are genes too.
NAME_WORDS = CELL_WORDS | GENE_WORDS | {"id", "ids", "index", "name", "names", "sample", "samples"}


def gene_share(names: Sequence[str]) -> float:
    """Return the share of names that are Ensembl gene ids, or symbols of human or mouse genes, whichever is more."""
    sample = names[:: max(1, len(names) // NAMES_LOOKED_AT)]
    if not sample:
        return 0.0
    ensembl = ensembl_share(sample)
    if ensembl > 0.5:
        return ensembl
    # Mice have genes called a and w, and so have many tables columns.
    bare = [name.strip() if len(name) > 1 else "" for name in sample]
    tables = (GeneTable.load(species).known_names for species in SPECIES)
    return max(ensembl, *(sum(name in known for name in bare) / len(bare) for known in tables))


def is_gene(name: str) -> bool:
    """Whether a name over a column is that of a gene, and no word for what the column holds.

    Examples
    --------
    >>> is_gene("TP53"), is_gene("ENSG00000141510"), is_gene("CELL"), is_gene("a")
    (True, True, False, False)
    """
    return _word(name) not in NAME_WORDS and gene_share([name.strip()]) == 1.0


def tell_orientation(
    rows: Sequence[str], columns: Sequence[str], *, corner: str, cells: frozenset[str] = frozenset()
) -> tuple[Orientation | None, str]:
    """Return which axis holds genes, and why; None where neither names nor header tell.

    Parameters
    ----------
    rows, columns : sequence of str
        Names of the two axes, or some of them.
    corner : str
        What the header says over the names of rows.
    cells : frozenset of str
        Names of cells known from a table of labels beside the file.

    Examples
    --------
    >>> tell_orientation(["TP53", "CD3E"], ["c1", "c2"], corner="")
    ('genes-x-cells', 'genes in rows (100% of their names are known genes, 0% of the columns')')
    """
    of_rows, of_columns = gene_share(rows), gene_share(columns)
    if of_rows >= LEAST_SHARE and of_rows >= TIMES_THE_OTHER * of_columns:
        reason = f"genes in rows ({of_rows:.0%} of their names are known genes, {of_columns:.0%} of the columns')"
        return "genes-x-cells", reason
    if of_columns >= LEAST_SHARE and of_columns >= TIMES_THE_OTHER * of_rows:
        reason = f"genes in columns ({of_columns:.0%} of their names are known genes, {of_rows:.0%} of the rows')"
        return "cells-x-genes", reason
    for share, what in (
        (partial(_share_in, cells), "in the table of labels beside it"),
        (barcode_share, "cell barcodes"),
    ):
        in_rows, in_columns = share(rows), share(columns)
        if max(in_rows, in_columns) >= BARCODE_SHARE and min(in_rows, in_columns) < 0.5:
            if in_columns > in_rows:
                return "genes-x-cells", f"cells in columns ({in_columns:.0%} of their names are {what})"
            return "cells-x-genes", f"cells in rows ({in_rows:.0%} of their names are {what})"
    word = _word(corner)
    if word in GENE_WORDS:
        return "genes-x-cells", f"genes in rows (the header calls them {corner!r})"
    if word in CELL_WORDS:
        return "cells-x-genes", f"cells in rows (the header calls them {corner!r})"
    return None, "neither the names of rows nor those of columns are known genes or barcodes"


def _word(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.casefold())


def barcode_share(names: Sequence[str]) -> float:
    """Return the share of names that look like barcodes of cells."""
    sample = names[:: max(1, len(names) // NAMES_LOOKED_AT)]
    return sum(BARCODE.fullmatch(name) is not None for name in sample) / len(sample) if sample else 0.0


def _share_in(cells: frozenset[str], names: Sequence[str]) -> float:
    return sum(name in cells for name in names) / len(names) if names and cells else 0.0
