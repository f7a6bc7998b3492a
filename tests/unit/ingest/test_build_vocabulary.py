"""Vocabularies built from files, stores, lists and other vocabularies."""

from __future__ import annotations

import gzip

import pytest

import cellmill as cm
from cellmill.errors import ConfigError, GeneMatchError, InputError, NotFoundError
from cellmill.genes import Vocabulary
from cellmill.ingest import build_vocabulary

TP53, CD3E, MS4A1, LYZ = "ENSG00000141510", "ENSG00000198851", "ENSG00000156738", "ENSG00000090382"


def test_files_stores_lists_and_vocabularies_name_genes_in_their_ways(tmp_path, tiny_h5ad):
    by_symbol = tiny_h5ad("symbols", genes=["TP53", "MS4A1", "no gene"], n_genes=3).path
    store = cm.build(tmp_path / "s.mill", [tiny_h5ad("ids", genes=[f"{CD3E}.4", TP53], n_genes=2).path])
    (tmp_path / "list.txt").write_text("# mine\nLYZ\n\nTP53\n")
    Vocabulary(["CD3E"]).to_json(tmp_path / "v.json")
    built = build_vocabulary([by_symbol, store.path, tmp_path / "list.txt", tmp_path / "v.json", [MS4A1]])
    assert built.vocabulary.ids == tuple(sorted([TP53, CD3E, MS4A1, LYZ]))
    assert built.vocabulary.symbols == ("LYZ", "TP53", "MS4A1", "CD3E")
    assert built.vocabulary.tokens.tolist() == [4, 5, 6, 7]
    assert [(part.name, part.n_genes, part.left_out, part.examples) for part in built.parts] == [
        ("symbols", 3, 1, ("no gene",)),
        ("s.mill", 2, 0, ()),
        ("list.txt", 2, 0, ()),
        ("v", 1, 0, ()),
        ("the given list", 1, 0, ()),
    ]
    assert built.parts[0].outcomes == {"current_symbol": 2, "unmatched": 1}
    assert {part.in_base for part in built.parts} == {None}


def test_patterns_and_folders_stand_for_their_files(tmp_path, tiny_h5ad):
    for name, genes in (("a", [TP53, CD3E]), ("b", [TP53, LYZ])):
        tiny_h5ad(name, genes=genes, n_genes=2)
    found = build_vocabulary([str(tmp_path / "*.h5ad")], order="frequency")
    assert [part.name for part in found.parts] == ["a", "b"]
    assert found.vocabulary.ids == (TP53, LYZ, CD3E)  # in most inputs first, then ascending
    assert build_vocabulary([tmp_path], order="given").vocabulary.ids == (TP53, CD3E, LYZ)


def test_a_base_keeps_its_tokens_and_says_what_it_lacks():
    """As MosaicFM does: Tahoe-100M's genes are the base, and CELLxGENE's are restricted to them."""
    tahoe = Vocabulary([LYZ, TP53, CD3E], name="tahoe").laid_out("mosaicfm", pad_to=8)
    census = [f"{TP53}.3", MS4A1, "CD3E", "no gene"]
    found = build_vocabulary([census], base=tahoe)
    assert found.vocabulary == tahoe
    part = found.parts[0]
    assert (part.n_genes, part.in_base, part.left_out, part.examples) == (4, 2, 2, (MS4A1, "no gene"))
    assert part.outcomes == {"exact_id": 1, "not_in_vocabulary": 1, "current_symbol": 1, "unmatched": 1}
    shared = build_vocabulary([census], base=tahoe, keep="shared").vocabulary
    assert dict(zip(shared.ids, shared.tokens.tolist(), strict=True)) == {TP53: 4, CD3E: 5}
    assert dict(shared.specials) == dict(tahoe.specials)
    every = build_vocabulary([census], base=tahoe, keep="all")
    assert dict(zip(every.vocabulary.ids, every.vocabulary.tokens.tolist(), strict=True)) == {
        LYZ: 3, TP53: 4, CD3E: 5, MS4A1: 8,
    }  # fmt: skip
    assert every.vocabulary.symbols[-1] == "MS4A1"
    assert every.parts[0].examples == ("no gene",)
    anew = build_vocabulary([census], base=tahoe, keep="shared", layout="scgpt").vocabulary
    assert anew.tokens.tolist() == [0, 1] and anew.specials["<pad>"] == 2


def test_a_base_of_symbols_is_extended_by_the_names_that_files_use():
    base = Vocabulary.from_json({"TP53": 0, "SEPT2": 1, "<pad>": 2})
    found = build_vocabulary([["SEPTIN2", TP53, "LYZ"]], base=base, keep="all")
    assert dict(zip(found.vocabulary.ids, found.vocabulary.tokens.tolist(), strict=True)) == {
        "TP53": 0, "SEPT2": 1, "LYZ": 3,
    }  # fmt: skip
    assert found.parts[0].in_base == 2


def test_own_ids_are_taken_as_they_are_but_for_versions():
    found = build_vocabulary([["YAL001C", "TP53", f"{CD3E}.7"]], own_ids=True, layout="scgpt", pad_to=4)
    assert found.vocabulary.ids == tuple(sorted(["YAL001C", "TP53", CD3E]))
    assert found.parts[0].outcomes == {"own_id": 3}
    assert found.vocabulary.n_tokens == 8


def test_the_same_inputs_give_the_same_hash_in_any_order():
    one = build_vocabulary([["TP53", "CD3E"], ["LYZ"]]).vocabulary
    assert build_vocabulary([["LYZ"], ["CD3E", "TP53"]]).vocabulary.hash == one.hash


def test_what_cannot_be_meant_is_refused(tmp_path):
    with pytest.raises(GeneMatchError, match=r"neither human nor mouse; .*zebrafish.*--own-ids"):
        build_vocabulary([[f"ENSDARG{i:011d}" for i in range(5)]])
    with pytest.raises(GeneMatchError, match=r"human: the given list; mouse: the given list"):
        build_vocabulary([["TP53", "CD3E"], ["Trp53", "Cd3e"]])
    with pytest.raises(InputError, match="at least one input"):
        build_vocabulary([])
    with pytest.raises(InputError, match="no genes in it"):
        build_vocabulary([[]])
    with pytest.raises(ConfigError, match=r"keep 'some'.*base, shared, all"):
        build_vocabulary([["TP53"]], keep="some")  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        build_vocabulary([tmp_path / "none.h5ad"])
    (tmp_path / "empty.txt").write_text("\n# nothing\n")
    with pytest.raises(InputError, match="no id in this file"):
        build_vocabulary([tmp_path / "empty.txt"])


def test_a_compressed_vocabulary_is_an_input(tmp_path):
    Vocabulary([TP53, LYZ]).to_json(tmp_path / "v.json.gz")
    assert gzip.decompress((tmp_path / "v.json.gz").read_bytes()).startswith(b"{")
    assert build_vocabulary([tmp_path / "v.json.gz"]).vocabulary.ids == (LYZ, TP53)


def test_the_public_name_is_this_function():
    assert cm.build_vocabulary is build_vocabulary
