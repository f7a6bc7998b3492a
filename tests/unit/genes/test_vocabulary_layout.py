"""Vocabularies in the forms and layouts of scGPT and MosaicFM, and made of one another."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from cellmill.errors import VocabularyError
from cellmill.genes import LAYOUTS, GeneTable, Vocabulary, compare_vocabularies, resolve

REPOSITORY = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
SHARED = Path(os.environ.get("CELLMILL_SHARED", REPOSITORY.parent / "shared"))
PUBLISHED = ["scgpt_default_census", "scgpt_default_gene", "mosaicfm_default_census", "mosaicfm_default_gene"]
HUMAN = GeneTable.load("human")


def as_map(vocabulary: Vocabulary) -> dict[str, int]:
    return dict(zip(vocabulary.ids, vocabulary.tokens.tolist(), strict=True)) | dict(vocabulary.specials)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_vocabularies_go_out_as_they_came_in(name: str, tmp_path: Path) -> None:
    path = SHARED / "vocab" / f"{name}_vocab.json"
    if not path.exists():
        pytest.skip(f"no published vocabulary at {path}")
    vocabulary = Vocabulary.from_json(path)
    form = name.partition("_")[0]
    vocabulary.to_json(tmp_path / "again.json", form=form)
    text, published = (tmp_path / "again.json").read_text(), path.read_text()
    assert json.loads(text) == json.loads(published)
    assert sorted(line.strip(",") for line in text.splitlines()) == sorted(
        line.strip(",") for line in published.splitlines()
    )
    assert text.endswith("\n") == published.endswith("\n")
    again = Vocabulary.from_json(tmp_path / "again.json")
    assert (again.hash, again.ids, dict(again.specials)) == (vocabulary.hash, vocabulary.ids, dict(vocabulary.specials))


@pytest.mark.parametrize("form", ["scgpt", "mosaicfm"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["vocab.json", "vocab.json.gz"])
def test_specials_and_padding_come_back_from_plain_maps(form: str, layout: str, name: str, tmp_path: Path) -> None:
    vocabulary = Vocabulary(["g", "f", "h"]).laid_out(layout, pad_to=8)
    assert vocabulary.n_tokens == 8
    vocabulary.to_json(tmp_path / name, form=form)
    again = Vocabulary.from_json(tmp_path / name)
    assert again.hash == vocabulary.hash
    assert again.ids == ("g", "f", "h")
    assert again.n_padding == vocabulary.n_padding == 5 - len(LAYOUTS[layout].specials)
    assert not list(tmp_path.glob("*.part"))


def test_layouts_are_those_of_the_families() -> None:
    genes = Vocabulary([f"ENSG{i:011d}" for i in range(5)])
    scgpt = genes.laid_out("scgpt")
    assert scgpt.tokens.tolist() == [0, 1, 2, 3, 4]
    assert dict(scgpt.specials) == {"<pad>": 5, "<cls>": 6, "<eoc>": 7}
    mosaicfm = genes.laid_out("mosaicfm")  # 5 genes and 3 special tokens take 56 to 64
    assert mosaicfm.tokens.tolist() == [3, 4, 5, 6, 7]
    assert dict(list(mosaicfm.specials.items())[:4]) == {"<pad>": 0, "<cls>": 1, "<eoc>": 2, "<junk0>": 8}
    assert (mosaicfm.n_padding, mosaicfm.n_tokens, mosaicfm.specials["<junk55>"]) == (56, 64, 63)
    assert genes.laid_out("cellmill").tokens.tolist() == [4, 5, 6, 7, 8]
    assert mosaicfm.laid_out("scgpt") == scgpt  # anew, without what stood there


def test_the_size_of_tahoes_vocabulary_comes_out() -> None:
    """62,710 genes: tokens 3 to 62,712, seven of padding after them, 62,720 in all; <drug> makes it 62,721."""
    vocabulary = Vocabulary([f"ENSG{i:011d}" for i in range(62_710)]).laid_out("mosaicfm")
    assert (vocabulary.tokens[0], vocabulary.tokens[-1]) == (3, 62_712)
    assert (vocabulary.specials["<junk0>"], vocabulary.specials["<junk6>"]) == (62_713, 62_719)
    assert (vocabulary.n_padding, vocabulary.n_tokens) == (7, 62_720)


def test_padding_goes_on_after_what_is_there() -> None:
    padded = Vocabulary(["a"], specials={"<junk0>": 1}).padded(4)
    assert dict(padded.specials) == {"<junk0>": 1, "<junk1>": 2, "<junk2>": 3}
    assert padded.padded(4) == padded == padded.padded(2)
    with pytest.raises(VocabularyError, match="not of 0"):
        padded.padded(0)


def test_an_unknown_layout_or_form_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"'scGPT'.*Did you mean 'scgpt'"):
        Vocabulary(["a"]).laid_out("scGPT")
    with pytest.raises(VocabularyError, match=r"'mosaic'.*cellmill, scgpt, mosaicfm"):
        Vocabulary(["a"]).to_json(tmp_path / "v.json", form="mosaic")
    assert not list(tmp_path.iterdir())


def test_restricted_and_extended_leave_every_token_where_it_was() -> None:
    base = Vocabulary(["a", "b", "c"], symbols=["A", "B", "C"]).laid_out("mosaicfm", pad_to=8)
    part = base.restricted(["c", "x", "a"])
    assert as_map(part) == {name: token for name, token in as_map(base).items() if name != "b"}
    assert part.symbols == ("A", "C")
    more = base.extended(["b", "y", "z", "y"], symbols=["other", "Y", "Z", "again"])
    assert as_map(more) == as_map(base) | {"y": 8, "z": 9}
    assert more.symbols == ("A", "B", "C", "Y", "Z")
    assert len({base.hash, part.hash, more.hash}) == 3
    with pytest.raises(VocabularyError, match="1 gene ids but 2 symbols"):
        base.extended(["q"], symbols=["Q", "R"])


def test_genes_that_share_a_symbol_are_told_apart_in_a_map_of_symbols(tmp_path: Path) -> None:
    """The one that the symbol means keeps it: scGPT looks symbols up letter for letter."""
    vocabulary = Vocabulary.load("human")
    vocabulary.to_json(tmp_path / "v.json", form="scgpt")
    written = json.loads((tmp_path / "v.json").read_text())
    assert len(written) == len(vocabulary) + len(vocabulary.specials)
    assert sorted(written.values()) == sorted(as_map(vocabulary).values())
    token_of = dict(zip(vocabulary.ids, vocabulary.tokens.tolist(), strict=True))
    symbols = dict(zip(vocabulary.ids, vocabulary.symbols, strict=True))
    assert written["GGNBP2"] == token_of["ENSG00000278311"]  # the living one of two
    assert written["GGNBP2_ENSG00000005955"] == token_of["ENSG00000005955"]
    id_of = {token: gene_id for gene_id, token in token_of.items()}
    for name, token in written.items():
        if token in id_of and name != symbols[id_of[token]]:
            # and is found again under that name, or its successor, as its id is
            assert resolve([name], None, HUMAN).ids == resolve([id_of[token]], None, HUMAN).ids, name


def test_names_that_cannot_be_unique_are_refused(tmp_path: Path) -> None:
    vocabulary = Vocabulary(["x", "A_x", "y"], symbols=["A", "A_x", "A"])
    with pytest.raises(VocabularyError, match=r"both be called 'A_x'.*mosaicfm"):
        vocabulary.to_json(tmp_path / "v.json", form="scgpt")
    clash = Vocabulary(["x", "y"], symbols=["y", "x"])
    clash.to_json(tmp_path / "v.json", form="scgpt")  # a symbol that is another gene's id is told apart
    assert json.loads((tmp_path / "v.json").read_text()) == {"y_x": 0, "x_y": 1}


def test_two_vocabularies_are_compared_by_name_token_and_gene() -> None:
    here = Vocabulary(["a", "b", "c"], specials={"<pad>": 9, "<cls>": 3})
    there = Vocabulary(["b", "c", "d", "e"], tokens=[1, 7, 8, 9], specials={"<pad>": 0, "<cls>": 3, "<junk0>": 4})
    found = compare_vocabularies(here, there)
    assert (found.shared, found.only_here, found.only_there, found.same_token) == (2, 1, 2, 1)
    assert (found.examples_here, found.examples_there) == (("a",), ("d", "e"))
    assert found.specials == {"<pad>": (9, 0)}
    assert found.same_genes is None
    assert (found.share_here, found.share_there) == (2 / 3, 0.5)
    assert compare_vocabularies(Vocabulary([]), there).share_here == 0.0


def test_genes_are_the_same_whatever_the_vocabularies_are_keyed_by() -> None:
    by_id = Vocabulary(["ENSG00000141510", "ENSG00000168385", "ENSG00000156738"])
    by_symbol = Vocabulary(["TP53", "SEPT2", "CD3E"])
    found = compare_vocabularies(by_id, by_symbol)
    assert (found.shared, found.same_genes) == (0, 2)
    assert (found.species_here, found.species_there) == ("human", "human")
    assert compare_vocabularies(by_id, by_id).same_genes is None
    assert compare_vocabularies(Vocabulary.load("mouse"), by_symbol).same_genes is None


def test_tokens_of_a_hash_never_change() -> None:
    """Which token a gene has follows from the hash: fixed here for each way of making a vocabulary."""
    base = Vocabulary([f"ENSG{i:011d}" for i in range(4)])
    found = {
        "plain": base.hash,
        "scgpt": base.laid_out("scgpt").hash,
        "mosaicfm": base.laid_out("mosaicfm", pad_to=5).hash,
        "restricted": base.restricted(base.ids[1:3]).hash,
        "extended": base.extended(["new"]).hash,
    }
    assert found == HASHES
    assert np.array_equal(base.tokens, [0, 1, 2, 3])


HASHES = {
    "plain": "814017472ecc6b468b793c37c77b75bd",
    "scgpt": "c9cb7b523aecf25ef524dc3545c18e30",
    "mosaicfm": "bcd9fed2e8d88dade16fd75fefd6c8ea",
    "restricted": "a9f59a24e56cf32c7e372c028ad10769",
    "extended": "3cf22ef97688173a0a296b5f296a3a26",
}
