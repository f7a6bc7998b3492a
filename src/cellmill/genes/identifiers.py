"""What a gene's name looks like (floor 2): patterns only, no tables.

Knows the shapes of identifiers. Must not know which genes exist, nor where names came from. Pure.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

__all__ = [
    "BARCODE",
    "IdKind",
    "embedded_id",
    "keyed_by_ensembl",
    "kind_of",
    "kind_shares",
    "looks_like",
    "strip_version",
    "strip_versions",
]

_ENSEMBL = re.compile(r"(ENS[A-Z]{0,6}G\d{11})(\.\d+)?(_PAR_Y)?")
_EMBEDDED = re.compile(r"(?<![A-Za-z0-9])(ENS(?:MUS)?G\d{11})(?:\.\d+)?(?![A-Za-z0-9])")
_SYMBOL = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9.\-_/@()|':]{0,59}")
_SPIKE_IN = re.compile(r"ERCC-\d{5}")
_TRANSCRIPT = re.compile(r"ENS[A-Z]{0,6}[TP]\d{11}(\.\d+)?")
_REFSEQ = re.compile(r"[NX][MRP]_\d{6,9}(\.\d+)?")
# Affymetrix, Illumina, Agilent
# of a cell, with what samples are told apart by before or after it
BARCODE = re.compile(r"(.*[^A-Za-z])?[ACGTN]{8,}([^A-Za-z].*)?")
_PROBE = re.compile(r"(\d+|AFFX-[\w-]+?)(_[a-z]{1,2})?_(at|st)|ILMN_\d+|A_\d\d_P\d+")


class IdKind(StrEnum):
    """What a list of gene names is made of."""

    ENSEMBL_HUMAN = "human Ensembl ids"
    ENSEMBL_MOUSE = "mouse Ensembl ids"
    ENSEMBL_OTHER = "Ensembl ids of another species"
    SYMBOL = "gene symbols"
    ENTREZ = "whole numbers (Entrez ids or row numbers)"
    TRANSCRIPT = "Ensembl ids of transcripts or proteins"
    REFSEQ = "RefSeq accessions of transcripts or proteins"
    PROBE = "ids of microarray probes"
    SPIKE_IN = "ERCC spike-ins"
    BARCODE = "cell barcodes"
    UNKNOWN = "no known kind of gene name"


def strip_version(name: str) -> str:
    """Return an Ensembl gene id without its version; any other name unchanged.

    Parameters
    ----------
    name : str
        An identifier such as ``ENSG00000141510.17``.

    Returns
    -------
    str
        The id without version. GENCODE's mark of the Y copy of a pseudoautosomal gene is kept
        (``ENSG00000182378.15_PAR_Y`` gives ``ENSG00000182378_PAR_Y``): it is another locus, and only
        `cellmill.genes.resolve` decides that both are counted as one gene.

    Examples
    --------
    >>> strip_version("ENSG00000141510.17")
    'ENSG00000141510'
    >>> strip_version("AC004797.1")
    'AC004797.1'
    """
    match = _ENSEMBL.fullmatch(name)
    return match.group(1) + (match.group(3) or "") if match else name


def strip_versions(names: Sequence[str]) -> list[str]:
    """Return `strip_version` of each name, in order.

    Examples
    --------
    >>> strip_versions(["ENSG00000141510.17", "TP53"])
    ['ENSG00000141510', 'TP53']
    """
    return [strip_version(name) for name in names]


def embedded_id(name: str) -> str | None:
    """Return the one human or mouse Ensembl id written inside a longer name, or None.

    Names such as ``TAP2_ENSG00000204267`` or ``ENSG00000204267.15|TAP2`` carry both. Two different ids in
    one name give None.

    Examples
    --------
    >>> embedded_id("TAP2_ENSG00000204267")
    'ENSG00000204267'
    """
    if "ENS" not in name:
        return None
    found = set(_EMBEDDED.findall(name.replace("_", " ")))
    return found.pop() if len(found) == 1 else None


def kind_of(name: str) -> IdKind:
    """Return the kind of one name by its shape alone.

    Examples
    --------
    >>> kind_of("ENSMUSG00000051951").name
    'ENSEMBL_MOUSE'
    """
    match = _ENSEMBL.fullmatch(name)
    if match:
        prefix = match.group(1)[:-11]
        return {"ENSG": IdKind.ENSEMBL_HUMAN, "ENSMUSG": IdKind.ENSEMBL_MOUSE}.get(prefix, IdKind.ENSEMBL_OTHER)
    if name.isascii() and name.isdigit():
        return IdKind.ENTREZ
    for shape, kind in (
        (_SPIKE_IN, IdKind.SPIKE_IN),
        (_TRANSCRIPT, IdKind.TRANSCRIPT),
        (_REFSEQ, IdKind.REFSEQ),
        (_PROBE, IdKind.PROBE),
        (BARCODE, IdKind.BARCODE),
    ):
        if shape.fullmatch(name):
            return kind
    return IdKind.SYMBOL if _SYMBOL.fullmatch(name) else IdKind.UNKNOWN


def kind_shares(names: Sequence[str]) -> dict[IdKind, float]:
    """Return the share of each kind among `names`, largest first; empty for no names.

    Examples
    --------
    >>> kind_shares(["TP53", "MS4A1", "7157", "CD3E"])[IdKind.SYMBOL]
    0.75
    """
    counts = Counter(kind_of(name) for name in names)
    return {kind: count / len(names) for kind, count in counts.most_common()}


def keyed_by_ensembl(names: Sequence[str]) -> bool:
    """Whether more than half of the names are Ensembl gene ids, of whatever species.

    Examples
    --------
    >>> keyed_by_ensembl(["ENSG00000141510", "ENSDARG00000035559", "TP53"])
    True
    """
    ensembl = (IdKind.ENSEMBL_HUMAN, IdKind.ENSEMBL_MOUSE, IdKind.ENSEMBL_OTHER)
    shares = kind_shares(names)
    return sum(shares.get(kind, 0.0) for kind in ensembl) > 0.5


def looks_like(names: Sequence[str]) -> IdKind:
    """Return the kind that at least 60 % of `names` have, `IdKind.UNKNOWN` when there is none.

    Examples
    --------
    >>> looks_like(["TP53", "MS4A1", "CD3E"]).value
    'gene symbols'
    """
    for kind, share in kind_shares(names).items():
        return kind if share >= 0.6 else IdKind.UNKNOWN
    return IdKind.UNKNOWN
