"""What a list of gene names looks like, in words, and what can be done about it (floor 2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from cellmill.genes.identifiers import IdKind, embedded_id, kind_of, kind_shares
from cellmill.genes.table import SPECIES, GeneTable

__all__ = ["advice_for", "describe_ids"]

_MAIN_SHARE = 0.6
_KNOWN_SHARE = 0.3
_OF_PREFIX: Mapping[str, str] = {
    "ENSBTAG": "cow", "ENSCAFG": "dog", "ENSCJAG": "marmoset", "ENSDARG": "zebrafish", "ENSECAG": "horse",
    "ENSGALG": "chicken", "ENSMFAG": "crab-eating macaque", "ENSMMUG": "rhesus macaque", "ENSOARG": "sheep",
    "ENSOCUG": "rabbit", "ENSPTRG": "chimpanzee", "ENSRNOG": "rat", "ENSSSCG": "pig", "ENSXETG": "frog",
}  # fmt: skip
_ADVICE = {
    IdKind.ENTREZ: "No table of Entrez numbers is shipped: give the genes Ensembl ids or symbols (a column gene_id of "
    "the file's gene table is enough) and build again.",
    IdKind.TRANSCRIPT: "Counts of transcripts are not counts of genes: sum them by gene first, for example with "
    "tximport, and write the file again with gene ids.",
    IdKind.REFSEQ: "Counts of transcripts are not counts of genes: sum them by gene first, and write the file again "
    "with gene ids.",
    IdKind.PROBE: "Microarray probes are not counted molecules; if the values are counts after all, write the file "
    "again with gene ids.",
    IdKind.BARCODE: "Cells seem to stand where genes are expected: the file is transposed. Write it again with its "
    "axes exchanged (an h5ad in Python: anndata.read_h5ad(path).T.write_h5ad(new_path)).",
    IdKind.ENSEMBL_OTHER: 'Tables of human and mouse are shipped. Keep the file\'s own ids with vocabulary="union" '
    "(--vocabulary union), or give a vocabulary file of that species.",
}


def describe_ids(names: Sequence[str]) -> str:
    """Return what a list of gene names looks like, as a clause with "they".

    Examples
    --------
    >>> describe_ids(["Lypla1", "Tcea1", "Rgs20"])
    'they look like mouse gene symbols'
    >>> describe_ids(["ENSRNOG00000014303.5"])
    'they look like Ensembl ids of rat'
    """
    if not names:
        return "there are none"
    shares = kind_shares(names)
    first, share = next(iter(shares.items()))
    if share >= _MAIN_SHARE:
        return f"they look like {_in_words(first, [name for name in names if kind_of(name) is first])}"
    return "they are a mix of " + ", ".join(f"{kind.value} ({part:.0%})" for kind, part in shares.items())


def advice_for(names: Sequence[str]) -> str | None:
    """Return what to do about names of a kind that no shipped table knows, None for all other kinds."""
    kind, share = next(iter(kind_shares(names).items()), (IdKind.UNKNOWN, 0.0))
    return _ADVICE.get(kind) if share >= _MAIN_SHARE else None


def _in_words(kind: IdKind, names: Sequence[str]) -> str:
    if kind is IdKind.SYMBOL:
        inside = Counter(kind_of(found) for found in map(embedded_id, names) if found is not None).most_common(1)
        if inside and inside[0][1] >= _MAIN_SHARE * len(names):
            return f"names with {inside[0][0].value} in them"
        known = {
            species: sum(name in GeneTable.load(species).known_names for name in names) / len(names)
            for species in SPECIES
        }
        best = max(known, key=known.__getitem__)
        return f"{best} {kind.value}" if known[best] >= _KNOWN_SHARE else f"{kind.value} of another species"
    if kind is IdKind.ENSEMBL_OTHER:
        prefix = Counter(name[: name.index("G0") + 1] for name in names if "G0" in name).most_common(1)
        species = _OF_PREFIX.get(prefix[0][0]) if prefix else None
        return kind.value if species is None else f"Ensembl ids of {species}"
    return kind.value
