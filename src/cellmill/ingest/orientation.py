"""Whether cells and genes of an input stand where they belong (floor 4); a table of text tells its orientation itself.

Asked where genes are taken as they are: a vocabulary of genes refuses a transposed file, since it knows none of them.
"""

from __future__ import annotations

from cellmill.errors import FormatError
from cellmill.ingest.candidates import Candidate
from cellmill.sources.table_axes import LEAST_SHARE, TIMES_THE_OTHER, gene_share

__all__ = ["require_upright"]


def require_upright(candidate: Candidate) -> Candidate:
    """Return the candidate; its cells are read only where its genes are none that are known.

    Raises
    ------
    FormatError
        When its cells have the names of genes, and its genes have not.
    """
    source = candidate.source
    genes = source.genes_of(candidate.matrix).ids
    of_genes = gene_share(genes)
    if of_genes * TIMES_THE_OTHER > 1:
        return candidate
    cells = source.obs().column("cell").to_pylist()
    of_cells = gene_share(cells)
    source.release()
    if of_cells < LEAST_SHARE or of_cells < TIMES_THE_OTHER * of_genes:
        return candidate
    remedy = "write it again with its axes exchanged"
    if source.kind == "h5ad":
        remedy += " (in Python: anndata.read_h5ad(path).T.write_h5ad(new_path))"
    raise FormatError(
        f"{source.path}: {candidate.matrix} is transposed, with genes where cells are expected: {of_cells:.0%} of the "
        f"names of its cells are known genes (for example {', '.join(map(repr, cells[:3]))}), and {of_genes:.0%} of "
        f"those of its genes (for example {', '.join(map(repr, genes[:3]))}). Expected cells in rows (obs) and genes "
        f"in columns (var): {remedy}. If these are cells that were named after genes, give them other names."
    )
