"""The column that names a file's genes is the first that matches; what matches nothing is described."""

from __future__ import annotations

import json

import h5py
import pytest

import cellmill as cm
from cellmill.errors import GeneMatchError
from cellmill.genes import Vocabulary
from cellmill.ingest.aligning import GeneAligner
from cellmill.ingest.gene_columns import align_columns, names_of, species_of, unknown_species
from cellmill.sources import GeneColumns

IDS = ["ENSG00000141510", "ENSG00000198851", "ENSG00000156738", "ENSG00000090382", "ENSG00000153563"]
SYMBOLS = ["TP53", "CD3E", "MS4A1", "LYZ", "CD8A"]
NO_GENES = [f"no gene {i}" for i in range(5)]
PROBES = ["1007_s_at", "1053_at", "117_at", "121_at", "1255_g_at"]
HUMAN = Vocabulary.load("human")
TABLE = cm.genes.GeneTable.load("human")


def placed(genes: GeneColumns, **options: object):
    return align_columns(genes, vocabulary=HUMAN, table=TABLE, min_match=0.6, where="f.h5ad", **options)


@pytest.mark.parametrize(
    "column", ["gene_id", "ensembl_id", "ensemble_id", "ensembl_gene_id", "feature_id", "gene_ids"]
)
@pytest.mark.parametrize("names", [IDS, SYMBOLS], ids=["ids", "symbols"])
def test_every_usual_column_of_ids_is_found(column: str, names: list[str]) -> None:
    found = placed(GeneColumns(PROBES, {column: names}))
    assert [HUMAN.ids[i] for i in found.target] == IDS


def test_the_first_column_that_passes_is_taken() -> None:
    numbers = ["7157", "916", "931", "4069", "925"]
    genes = GeneColumns(
        PROBES,
        {
            "gene_id": numbers,
            "feature_id": SYMBOLS,
            "gene_name": NO_GENES,
        },
    )
    found = placed(genes)
    assert [HUMAN.ids[i] for i in found.target] == IDS
    assert found.report.names_from == "the column 'feature_id' of the gene table"
    assert found.report.to_dict()["names_from"] == found.report.names_from
    assert [names.place for names in names_of(genes)] == [
        "",
        "the column 'gene_id' of the gene table",
        "the column 'feature_id' of the gene table",
    ]
    assert placed(GeneColumns(IDS, {})).report.names_from == ""
    assert species_of(genes) == "human"


def test_an_index_is_tried_where_a_column_of_ids_does_not_pass() -> None:
    rat = [f"ENSRNOG{i:011d}" for i in range(5)]
    found = placed(GeneColumns(SYMBOLS, {"gene_id": rat, "gene_name": NO_GENES}))
    assert [HUMAN.ids[i] for i in found.target] == IDS
    assert found.report.names_from == "the index of the gene table"


def test_what_was_tried_is_told() -> None:
    genes = GeneColumns(PROBES, {"gene_id": ["7157", "916", "931", "4069", "925"]})
    with pytest.raises(GeneMatchError) as caught:
        placed(genes)
    said = str(caught.value)
    for part in (
        "f.h5ad: 0 of 5 genes (0.0%)",
        "they look like ids of microarray probes",
        "No better: the column 'gene_id' of the gene table (they look like whole numbers (Entrez ids or row numbers))",
        *map(repr, PROBES),
    ):
        assert part in said
    assert species_of(genes) is None
    unknown = str(unknown_species(genes, path="f.h5ad", matrix="X"))
    assert "microarray probes" in unknown and "Entrez" in unknown and "'1007_s_at'" in unknown


@pytest.mark.parametrize(
    ("ids", "kind", "remedy"),
    [
        ([f"ENST{i:011d}.2" for i in range(5)], "Ensembl ids of transcripts or proteins", "sum them by gene"),
        (["NM_000546.6", "NR_176326.1", "XM_011524000"], "RefSeq accessions", "sum them by gene"),
        (["7157", "916", "931"], "whole numbers (Entrez ids or row numbers)", "Ensembl ids or symbols"),
        (PROBES, "microarray probes", "write the file again with gene ids"),
        ([f"ENSRNOG{i:011d}" for i in range(5)], "Ensembl ids of rat", "--vocabulary union"),
        (["Trp53", "Cd3e", "Ms4a1", "Lyz2"], "mouse gene symbols", "--vocabulary mouse"),
        ([f"ENSMUSG000000{i}" for i in (51951, 59552, 32093)], "mouse Ensembl ids", "--vocabulary mouse"),
        (["YAL001C", "YAL002W", "YBR010W"], "gene symbols of another species", "--vocabulary union"),
        ([f"Trp53_ENSMUSG000000{i}" for i in (51951, 59552)], "names with mouse Ensembl ids in them", "--vocabulary"),
        (["AAACCTGAGAAACCAT-1", "s2_AAACCTGAGAAACCGC"], "cell barcodes", "the file is transposed"),
    ],
)
def test_ids_are_described_with_what_to_do(ids: list[str], kind: str, remedy: str) -> None:
    with pytest.raises(GeneMatchError) as caught:
        placed(GeneColumns(ids, {}))
    assert kind in str(caught.value) and remedy in str(caught.value) and repr(ids[0]) in str(caught.value)


@pytest.mark.parametrize(
    "form", ["{id}_{symbol}", "{id}.3|{symbol}", "{symbol}_{id}", "GRCh38_{id}", "GRCh38___{id}.2"]
)
@pytest.mark.parametrize("beside", [False, True])
def test_an_id_inside_a_name_says_the_species(form: str, beside: bool, tmp_path, tiny_h5ad) -> None:
    names = [form.format(id=gene_id, symbol=symbol) for gene_id, symbol in zip(IDS, SYMBOLS, strict=True)]
    genes = GeneColumns(PROBES, {"gene_name": names}) if beside else GeneColumns(names)
    assert species_of(genes) == "human"
    store = cm.build(tmp_path / "s.mill", [tiny_h5ad("a", genes=names, n_genes=5, n_cells=10).path])
    assert set(store.gene_ids) == set(IDS)


def test_an_id_of_another_species_counts_before_one_in_the_name_beside_it() -> None:
    rat = [f"ENSRNOG{i:011d}" for i in range(5)]
    assert cm.genes.recognise_species(rat, IDS) is None
    assert cm.genes.recognise_species([f"x_{i}" for i in IDS[:2]] + ["a", "b", "c"]) is None


def test_a_transposed_file_is_told_so(tmp_path, tiny_h5ad) -> None:
    barcodes = [f"AAACCTGAGAAACC{a}{b}-1" for a in "ACGT" for b in "ACGT"][:10]
    file = tiny_h5ad("t", n_cells=5, n_genes=10, cells=SYMBOLS, genes=barcodes)
    for vocabulary in (None, "human"):
        with pytest.raises(GeneMatchError, match=r"cell barcodes.*the file is transposed.*\.T\.write_h5ad"):
            cm.build(tmp_path / "s.mill", [file.path], vocabulary=vocabulary)


def test_a_build_takes_the_column_and_reports_it(tmp_path, tiny_h5ad):
    file = tiny_h5ad("a", genes=PROBES, n_genes=5, n_cells=10)
    with h5py.File(file.path, "r+") as h5:
        text = h5py.string_dtype()
        data = h5["var"].create_dataset("feature_id", data=SYMBOLS, dtype=text)
        data.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
        h5["var"].attrs.create("column-order", ["feature_id"], dtype=text)
    store = cm.build(tmp_path / "s.mill", [file.path])
    assert set(store.gene_ids) == set(IDS)
    report = json.loads((store.path / "reports/00000.json").read_text())
    assert report["genes"]["share_matched"] == 1.0
    assert report["genes"]["umi_shares"] == {"current_symbol": pytest.approx(1.0)}


def test_columns_of_one_gene_are_summed_and_listed_by_name(tmp_path, tiny_h5ad):
    genes = ["TP53", "ENSG00000141510", "CD3E", "MS4A1", "LYZ"]
    file = tiny_h5ad("a", genes=genes, n_genes=5, n_cells=10)
    store = cm.build(tmp_path / "s.mill", [file.path])
    counts = file.counts.toarray()
    assert store.read(range(10), genes=[IDS[0]]).toarray().ravel().tolist() == counts[:, :2].sum(axis=1).tolist()
    report = json.loads((store.path / "reports/00000.json").read_text())["genes"]
    assert report["duplicates"] == [{"gene_id": IDS[0], "columns": [0, 1], "names": genes[:2]}]


def test_files_of_one_index_and_other_columns_are_not_taken_for_each_other() -> None:
    aligner = GeneAligner(HUMAN, TABLE, min_match=0.6)
    one = aligner.align(GeneColumns(PROBES, {"feature_id": SYMBOLS, "gene_name": NO_GENES}), "one")
    other = aligner.align(GeneColumns(PROBES, {"feature_id": SYMBOLS[::-1], "gene_name": NO_GENES}), "other")
    assert one.alignment.report.names_from
    assert other.alignment.target.tolist() == one.alignment.target.tolist()[::-1]
    with pytest.raises(GeneMatchError, match="third"):
        aligner.align(GeneColumns(PROBES, {"gene_name": NO_GENES}), "third")
