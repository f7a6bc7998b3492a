"""Which files of a folder make one Matrix Market input, by their names (floor 3, sources). Pure: names in, groups out.

Knows how Cell Ranger, STAR, kallisto, split-pipe of Parse Biosciences, the uploads at GEO and the Curated Cancer Cell
Atlas (3CA) name their files.
Must not know where the files lie: a folder and an archive are grouped alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cellmill.sources.side_table import SIDE_NAME

__all__ = ["MexNames", "group_3ca", "group_mex"]

MTX = re.compile(r"(?P<stem>.*)\.mtx(\.gz)?", re.IGNORECASE)
_ENDING = r"\.(tsv|txt|csv|tv)(\.gz)?"
BARCODES = re.compile(
    rf"(?P<before>(.*[._-])?)(?P<role>cell[._-]?barcodes?|barcodes?|cell[._-]?names|cell[._-]?ids|cells|colnames|cols)"
    rf"(?P<after>([._-].*?)?){_ENDING}",
    re.IGNORECASE,
)
FEATURES = re.compile(
    rf"(?P<before>(.*[._-])?)(?P<role>features?|gene[._-]?names|gene[._-]?ids|gene[._-]?symbols|genes?|rownames|rows)"
    rf"(?P<after>([._-].*?)?){_ENDING}",
    re.IGNORECASE,
)
# Words that say only that counts are meant: a matrix is called so where its companions are not.
COUNT_WORDS = frozenset(
    {
        "matrix", "mtx", "count", "counts", "umi", "umis", "raw", "filtered", "expression", "exp", "dge", "data",
        "feature", "bc", "gene", "sparse", "readcounts", "rawcounts", "umicounts", "mat",
    }
)  # fmt: skip
MATRIX_3CA = re.compile(r"exp_data.*\.mtx(\.gz)?", re.IGNORECASE)
CELLS_3CA = re.compile(r"cells(?P<after>([._-].*)?)\.csv(\.gz)?", re.IGNORECASE)
GENES_3CA = re.compile(r"genes(?P<after>([._-].*)?)\.txt(\.gz)?", re.IGNORECASE)
SAMPLES_3CA = re.compile(r"(samples|meta[._-]?data)\.csv(\.gz)?", re.IGNORECASE)
# As split-pipe of Parse Biosciences names them; DGE.mtx before version 1.
MATRIX_PARSE = re.compile(r"(?P<before>.*?)(count_matrix|dge)\.mtx(\.gz)?", re.IGNORECASE)
CELLS_PARSE = re.compile(r"(?P<before>.*?)cell_metadata\.csv(\.gz)?", re.IGNORECASE)
GENES_PARSE = re.compile(r"(?P<before>.*?)(all_)?genes\.csv(\.gz)?", re.IGNORECASE)
WORDS_3CA = frozenset({"exp", "data", "umicounts", "umi", "counts", "tpm"})

Words = tuple[str, ...]


@dataclass(frozen=True)
class MexNames:
    """Names of the files of one input; None where there is none.

    Attributes
    ----------
    barcodes, labels : str or None
        One file where the table of labels lists the cells, in the order of the matrix.
    is_sure : bool
        Whether the matrix is surely meant as an input: it is called matrix.mtx, with or without a prefix, or all of
        its companions are there.
    """

    matrix: str
    barcodes: str | None
    features: str | None
    labels: str | None
    is_sure: bool

    @property
    def all(self) -> list[str]:
        """The names of all files."""
        found = (self.matrix, self.barcodes, self.features, self.labels)
        return list(dict.fromkeys(name for name in found if name is not None))


def group_mex(names: Iterable[str]) -> list[MexNames]:
    """Return the Matrix Market inputs among the files of one folder, by name of their matrix.

    Notes
    -----
    A companion belongs to the matrix whose name has the same words, but for those of `COUNT_WORDS`; the only barcodes
    and features of a folder to its only matrix; and features whose words begin the name of several matrices to each.

    Examples
    --------
    >>> group_mex(["GSM1_a_counts.mtx.gz", "GSM1_a_barcodes.tsv.gz", "GSM1_a_genes.tsv.gz"])[0].features
    'GSM1_a_genes.tsv.gz'
    """
    names = sorted(names)
    matrices = [name for name in names if MTX.fullmatch(name)]
    barcodes, features = _companions(names)
    sides = {name: _words(match["stem"]) for name in names if (match := SIDE_NAME.fullmatch(name))}
    alone = len(matrices) == 1
    groups = []
    for matrix in matrices:
        keys = _keys(matrix)
        of_barcodes = _match(keys, barcodes, alone=alone, shared=False)
        of_features = _match(keys, features, alone=alone, shared=True)
        labels = _match(keys, sides, alone=False, shared=False)
        if of_barcodes is None and (of_parse := _of_parse(matrix, names)):
            of_barcodes, of_features = of_parse
            labels = of_barcodes
        complete = of_barcodes is not None and of_features is not None
        plain = re.sub(r"\.gz$", "", matrix, flags=re.IGNORECASE).casefold()
        is_sure = complete or plain.endswith("matrix.mtx") or (alone and bool(of_barcodes or of_features))
        groups.append(MexNames(matrix, of_barcodes, of_features, labels, is_sure))
    return groups


def _of_parse(matrix: str, names: list[str]) -> tuple[str, str] | None:
    """Return the table of cells and that of genes of a matrix that Parse's split-pipe wrote; None of any other."""
    match = MATRIX_PARSE.fullmatch(matrix)
    if match is None:
        return None
    cells, genes = (
        [name for name in names if (one := kind.fullmatch(name)) and one["before"] == match["before"]]
        for kind in (CELLS_PARSE, GENES_PARSE)
    )
    return (cells[-1], genes[0]) if cells and genes else None


def _companions(names: list[str]) -> tuple[dict[str, Words], dict[str, Words]]:
    """Return the files of barcodes and of features, with the other words of their names; the last word decides."""
    barcodes: dict[str, Words] = {}
    features: dict[str, Words] = {}
    for name in names:
        found = [(kind.fullmatch(name), into) for kind, into in ((BARCODES, barcodes), (FEATURES, features))]
        matches = [(match.start("role"), match, into) for match, into in found if match]
        if matches:
            _, match, into = max(matches, key=lambda one: one[0])
            into[name] = _words_around(match)
    return barcodes, features


def group_3ca(names: Iterable[str]) -> list[MexNames]:
    """Return the inputs in the layout of 3CA among the files of one folder: `labels` are its samples.

    Notes
    -----
    Where there are counts of molecules, matrices in transcripts per million are none.
    """
    names = sorted(names)
    cells = {name: _words(match["after"]) for name in names if (match := CELLS_3CA.fullmatch(name))}
    genes = {name: _words(match["after"]) for name in names if (match := GENES_3CA.fullmatch(name))}
    samples = [name for name in names if SAMPLES_3CA.fullmatch(name)]
    matrices = [name for name in names if MATRIX_3CA.fullmatch(name)]
    counted = [name for name in matrices if "tpm" not in name.casefold()]
    groups = []
    for matrix in counted or matrices:
        words = tuple(word for word in _words(_stem(matrix)) if word not in WORDS_3CA)
        of_cells, of_genes = (_of_3ca(words, companions) for companions in (cells, genes))
        if of_cells is not None and of_genes is not None:
            groups.append(MexNames(matrix, of_cells, of_genes, samples[0] if len(samples) == 1 else None, True))
    return groups


def _stem(matrix: str) -> str:
    match = MTX.fullmatch(matrix)
    assert match is not None
    return match["stem"]


def _words(text: str) -> Words:
    return tuple(word for word in re.split(r"[._\s-]+", text.casefold()) if word)


def _words_around(match: re.Match[str]) -> Words:
    return _words(f"{match['before']}.{match['after']}")


def _keys(matrix: str) -> list[Words]:
    """Return the words of a matrix's name, and what is left without words for counts: the last first, then all."""
    words = _words(_stem(matrix))
    keys = [words]
    while words and words[-1] in COUNT_WORDS:
        words = words[:-1]
        keys.append(words)
    keys.append(tuple(word for word in keys[0] if word != "matrix"))
    keys.append(tuple(word for word in keys[0] if word not in COUNT_WORDS))
    return keys


def _match(keys: list[Words], companions: dict[str, Words], *, alone: bool, shared: bool) -> str | None:
    for key in keys:
        # Of two files of one name, the packed one is Cell Ranger's.
        found = [name for name, words in companions.items() if words == key]
        if found:
            return max(found, key=lambda name: (name.casefold().startswith("feature"), name.endswith(".gz"), name))
    bare = keys[-1]
    found = [name for name, words in companions.items() if _without_counts(words) == bare]
    if len(found) == 1:
        return found[0]
    if alone and len(companions) == 1:
        return next(iter(companions))
    begins = [name for name, words in companions.items() if keys[0][: len(words)] == words]
    return begins[0] if shared and len(companions) == 1 and begins else None


def _without_counts(words: Words) -> Words:
    return tuple(word for word in words if word not in COUNT_WORDS)


def _of_3ca(words: Words, companions: dict[str, Words]) -> str | None:
    found = [name for name, own in companions.items() if own == words] or [
        name for name, own in companions.items() if not own
    ]
    return found[0] if found else None
