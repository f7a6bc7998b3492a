"""Files with the same genes are aligned once, and each file is named in its own error."""

from __future__ import annotations

import numpy as np
import pytest

from cellmill.errors import GeneMatchError
from cellmill.genes import Vocabulary
from cellmill.ingest import aligning
from cellmill.ingest.aligning import GeneAligner
from cellmill.sources import GeneColumns

VOCABULARY = Vocabulary(["ENSG00000141510", "ENSG00000156738", "ENSG00000198888"])


def counted_align(monkeypatch):
    calls = []
    made = aligning.align_columns
    monkeypatch.setattr(
        aligning, "align_columns", lambda genes, **how: calls.append(list(genes.ids)) or made(genes, **how)
    )
    return calls


def test_the_same_genes_are_looked_up_once(monkeypatch):
    calls = counted_align(monkeypatch)
    aligner = GeneAligner(VOCABULARY, None, min_match=0.1)
    genes = ["ENSG00000156738", "ENSG00000141510", "x"]
    first = aligner.align(GeneColumns(genes), "a")
    assert aligner.align(GeneColumns(list(genes)), "b") is first
    assert first.alignment.target.tolist() == [1, 0, -1]
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (GeneColumns(["ab", "c"]), GeneColumns(["a", "bc"])),
        (GeneColumns(["a", "b"]), GeneColumns(["b", "a"])),
        (GeneColumns(["a"]), GeneColumns(["a"], {"symbol": ["MT-ND1"]})),
        (GeneColumns(["a"], {"symbol": ["b"]}), GeneColumns(["a", "b"])),
    ],
)
def test_other_genes_are_others(one, other):
    assert one.key != other.key


def test_classes_follow_ids_and_symbols():
    aligner = GeneAligner(VOCABULARY, None, min_match=0.1)
    found = aligner.align(GeneColumns(["ENSG00000198888", "ENSG00000141510"]), "a")
    assert found.classes.tolist() == [1, 0] and found.classes.dtype == np.uint8


def test_each_file_is_named_in_its_error():
    aligner = GeneAligner(VOCABULARY, None, min_match=0.9)
    for name in ("first.h5ad", "second.h5ad"):
        with pytest.raises(GeneMatchError, match=name):
            aligner.align(GeneColumns(["x", "y"]), name)
