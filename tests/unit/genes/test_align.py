from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from cellmill.errors import GeneMatchError
from cellmill.genes import GeneTable, Vocabulary, align, resolve, table_for, union_vocabulary

REPOSITORY = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
SHARED = Path(os.environ.get("CELLMILL_SHARED", REPOSITORY.parent / "shared"))
HUMAN = GeneTable.load("human")
SMALL = Vocabulary(["ENSG00000156738", "ENSG00000141510", "ENSG00000198851"], name="small")


def test_targets_are_positions_in_the_vocabulary() -> None:
    found = align(["TP53", "ENSG00000198851.9", "NOTAGENE", "MS4A1"], vocabulary=SMALL, table=HUMAN)
    assert found.target.tolist() == [1, 2, -1, 0]
    assert found.target.dtype == np.int64
    report = found.report
    assert (report.n_genes, report.matched, report.share_matched) == (4, 3, 0.75)
    assert report.outcomes == {"current_symbol": 2, "exact_id": 1, "unmatched": 1}
    assert report.unmatched == ("NOTAGENE",)
    assert report.species == "human"


def test_a_known_gene_outside_the_vocabulary_is_counted_as_that() -> None:
    report = align(["TP53", "CD3E", "LYZ"], vocabulary=SMALL, table=HUMAN).report
    assert report.outcomes == {"current_symbol": 2, "not_in_vocabulary": 1}


def test_columns_that_are_one_gene_are_listed() -> None:
    found = align(["TP53", "ENSG00000141510.2", "CD3E", "ENSG00000141510"], vocabulary=SMALL, table=HUMAN)
    assert found.target.tolist() == [1, 1, 2, 1]
    assert found.report.to_dict()["duplicates"] == [
        {"gene_id": "ENSG00000141510", "columns": [0, 1, 3], "names": ["TP53", "ENSG00000141510.2", "ENSG00000141510"]}
    ]


def test_without_a_table_ids_are_taken_as_they_are() -> None:
    vocabulary = Vocabulary(["ENSG00000141510", "geneX"])
    found = align(["geneX", "ENSG00000141510.3", "TP53"], vocabulary=vocabulary, table=None)
    assert found.target.tolist() == [1, 0, -1]


def test_a_vocabulary_of_symbols_is_matched_by_name_and_by_gene() -> None:
    vocabulary = Vocabulary.from_json({"SEPT2": 5, "TP53": 6, "<pad>": 0})
    found = align(["ENSG00000168385", "TP53", "ENSG00000141510"], vocabulary=vocabulary, table=HUMAN)
    assert found.target.tolist() == [0, 1, 1]
    with_symbols = align(["ENSG00000999998"], ["SEPT2"], vocabulary=vocabulary, table=HUMAN)
    assert with_symbols.target.tolist() == [0]


def test_in_a_vocabulary_of_symbols_the_letters_come_first() -> None:
    vocabulary = Vocabulary.from_json({"SEPT2": 5, "SEPTIN2": 6, "TP53": 7})
    found = align(["SEPTIN2", "SEPT2"], vocabulary=vocabulary, table=HUMAN)
    assert found.target.tolist() == [1, 0]


def test_too_few_genes_are_refused_with_what_would_match() -> None:
    mouse_names = ["Lypla1", "Tcea1", "Rgs20", "Atp6v1h", "Rb1cc1", "Xkr4"]
    with pytest.raises(GeneMatchError) as caught:
        align(mouse_names, vocabulary=Vocabulary.load("human"), table=HUMAN, where="neurons.h5ad")
    message = str(caught.value)
    for part in (
        "neurons.h5ad: 0 of 6 genes (0.0%)",
        "'human'",
        "60%",
        "gene symbols",
        "--vocabulary mouse",
        "'Rb1cc1'",
    ):
        assert part in message
    assert "'Xkr4'" not in message
    with pytest.raises(GeneMatchError, match=r"--vocabulary union"):
        align(["YAL001C", "YAL002W"], vocabulary=SMALL, table=HUMAN)
    with pytest.raises(GeneMatchError, match=r"has no genes.*expected at least one.*leave the file out"):
        align([], vocabulary=SMALL, table=HUMAN)


def test_the_smallest_share_is_accepted() -> None:
    names = ["TP53", "CD3E", "MS4A1", "NOTAGENE", "NEITHER"]
    assert align(names, vocabulary=SMALL, table=HUMAN, min_match=0.6).report.matched == 3
    with pytest.raises(GeneMatchError):
        align(names, vocabulary=SMALL, table=HUMAN, min_match=0.61)


def test_the_report_weighs_outcomes_by_counts() -> None:
    report = align(["TP53", "CD3E", "NOTAGENE"], vocabulary=SMALL, table=HUMAN).report
    assert report.to_dict()["umi_shares"] is None
    assert report.with_umi_shares([6, 3, 1]).umi_shares == pytest.approx({"current_symbol": 0.9, "unmatched": 0.1})
    assert report.with_umi_shares([0, 0, 0]).umi_shares == {"current_symbol": 0.0, "unmatched": 0.0}
    with pytest.raises(ValueError, match="3 genes"):
        report.with_umi_shares([1, 2])


def test_union_holds_every_id_once() -> None:
    union = union_vocabulary([(["b", "a"], ["B", "A"]), (["c", "b"], None)])
    assert union.ids == ("a", "b", "c")
    assert union.symbols == ("A", "B", "c")


def test_the_table_of_a_vocabulary_follows_its_ids() -> None:
    assert table_for(SMALL) is HUMAN
    assert table_for(Vocabulary(["YAL001C"])) is None
    assert table_for(Vocabulary(["x", "y"], symbols=["TP53", "CD3E"])) is HUMAN


@pytest.mark.parametrize(
    ("name", "species", "floor"),
    [
        ("gut_scp1884.h5ad", "human", 0.999),
        # copies "made unique" of genes that overlap, such as PSMA2-1, stay ambiguous
        ("pbmc_zheng68k_165.h5ad", "human", 0.998),
        ("perturb_papalexi_eccite.h5ad", "human", 1.0),
        ("pbmc_facs_zheng.h5ad", "human", 1.0),
        ("pbmc_1k_v2_10x.h5", "human", 1.0),
        # no table of earlier mouse names is shipped: what is missing are clone names of 2016
        ("mouse_dentategyrus_100.h5ad", "mouse", 0.97),
    ],
)
def test_nearly_every_gene_of_a_real_file_is_found(name: str, species: str, floor: float) -> None:
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip(f"no real file at {path}")
    ids = read_gene_ids(path)
    table = GeneTable.load(species)
    report = align(ids, vocabulary=Vocabulary.load(species), table=table, where=name).report
    assert report.share_matched >= floor
    assert report.duplicates == ()
    assert report.outcomes.get("not_in_vocabulary", 0) == 0


def read_gene_ids(path: Path) -> list[str]:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path) as file:
        if "matrix" in file:
            names = file["matrix/features/id"][:]
        else:
            names = file["var"][file["var"].attrs["_index"]][:]
    return [name.decode() for name in names]


def test_old_mouse_names_mean_the_genes_their_authors_meant() -> None:
    """The 1,000 genes of 2018 come with both: of those found by symbol at least 99 % are the id that stands beside."""
    folder = SHARED / "data" / "mouse_neurons_10k_1000genes.zarr"
    if not folder.exists():
        pytest.skip(f"no real file at {folder}")
    zarr = pytest.importorskip("zarr")
    var = zarr.open(folder, mode="r")["var"][:]
    symbols = [row["index"].decode() for row in var]
    truth = [row["gene_ids"].decode() for row in var]
    found = resolve(symbols, None, GeneTable.load("mouse")).ids
    told = [(a, b) for a, b in zip(found, truth, strict=True) if a is not None]
    assert len(told) >= 0.93 * len(truth)
    assert sum(a == b for a, b in told) >= 0.99 * len(told)
