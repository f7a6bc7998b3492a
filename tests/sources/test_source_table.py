"""Tables of counts as text: every way of writing them, which axis holds genes, and errors that name line and field."""

from __future__ import annotations

import csv
import gzip
import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmill.errors import FormatError, InputError
from cellmill.genes import GeneTable
from cellmill.sources import explain_guess, open_source
from cellmill.sources.not_genes import what_else
from cellmill.sources.table_axes import tell_orientation
from cellmill.sources.table_head import read_head
from cellmill.sources.table_text import stream_table

GENES = ["TP53", "CD3E", "MS4A1"]
TEXT = "gene,c1,c2\nTP53,1,0\nCD3E,0,20\nMS4A1,3,0\n"
COUNTS = [[1, 0, 3], [0, 20, 0]]


def written(tmp_path, text, name="study.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.replace("gene,", ""),
        TEXT.replace(",", "\t"),
        TEXT.replace(",", ";"),
        TEXT.replace(",", " "),
        TEXT.replace("gene,", "").replace(",", " ").replace("c1", '"c1"').replace("TP53", '"TP53"'),
        TEXT.replace("\n", "\r\n"),
        "\ufeff" + TEXT,
        "# made by hand\n#\n" + TEXT,
        TEXT + "\n\n",
        TEXT.rstrip("\n"),
        TEXT.replace(",1,", ",1.0,").replace("20", "2e1").replace(",3,", ",+3,"),
        TEXT.replace(",1,", ',"1",').replace("20", "0020").replace(",3,", ", 3 ,"),
        "cell,TP53,CD3E,MS4A1\nc1,1,0,3\nc2,0,20,0\n",
        "TP53,CD3E,MS4A1\nc1,1,0,3\nc2,0,20,0\n",
        ",TP53,CD3E,MS4A1\nc1,1,0,3\nc2,0,20,0\n",
        "gene_id,gene_name,length,c1,c2\nTP53,a,100,1,0\nCD3E,b,7,0,20\nMS4A1,c,9,3,0\n",
    ],
)
@pytest.mark.parametrize("budget", [1, 1 << 20])
def test_every_way_of_writing_is_read(text, budget, tmp_path, whole):
    for name, data in (("a.csv", text.encode()), ("b.txt.gz", gzip.compress(text.encode()))):
        with open_source(written(tmp_path, data, name), memory_budget=budget) as source:
            np.testing.assert_array_equal(whole(source).toarray(), COUNTS)
            assert source.genes.index == GENES and source.obs()["cell"].to_pylist() == ["c1", "c2"]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_numbers_cut_anywhere_are_read_exactly(data, tmp_path_factory):
    """Python's own csv and float are the truth; chunks from one byte on."""
    n_rows, n_columns = data.draw(st.integers(1, 6)), data.draw(st.integers(2, 6))
    number = st.one_of(
        st.integers(0, 2**53 - 1).map(str),
        st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15).map(repr),
        st.sampled_from(["0", "1", "", "NA", "1e3", "0.0", "-1", "inf", "007"]),
    )
    rows = [[data.draw(number) for _ in range(n_columns)] for _ in range(n_rows)]
    names = [data.draw(st.text('aB,"; é', min_size=1, max_size=5)) + str(i) for i in range(n_rows)]
    style = data.draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
    out = io.StringIO()
    writer = csv.writer(out, delimiter=data.draw(st.sampled_from(",\t;")), quoting=style, lineterminator="\n")
    writer.writerow(["", *(f"c{i}" for i in range(n_columns))])
    for name, row in zip(names, rows, strict=True):
        writer.writerow([name, *row])
    path = tmp_path_factory.mktemp("any") / "a.csv"
    path.write_text(out.getvalue(), encoding="utf-8", newline="")
    found, labels = np.zeros((n_rows, n_columns)), []
    for piece in stream_table(read_head(path), chunk_bytes=data.draw(st.integers(1, 60))):
        found[piece.rows, piece.columns] = piece.values
        labels += piece.labels
    expected = np.array([[float(item) if item not in ("", "NA") else np.nan for item in row] for row in rows])
    np.testing.assert_array_equal(found, expected)
    assert labels == [name.strip() for name in names]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TEXT.replace("CD3E,0,20", "CD3E,0"), r"line 3: found 2 fields \('CD3E,0'\.\.\.\), expected 3"),
        (TEXT.replace("CD3E,0,20", "CD3E,0,20,1"), r"line 3: found 4 fields \('CD3E,0,20,1'\.\.\.\), expected 3"),
        (TEXT.replace("CD3E,0,20\n", "\n"), r"line 3: found 1 fields \(''"),
        (TEXT + "CD4,1", "line 5: found 2 fields"),
        (TEXT.replace("20", "2O"), r"line 3, field 3 \('c2'\): a field is no number: found '2O'"),
        (
            TEXT.replace("20", "2,0").replace(",", ";").replace("2;0", "2,0"),
            r"line 3, field 3 .*no number: found '2,0'",
        ),
        (TEXT.replace("20", '"2'), r"line 3, field 3 \('c2'\): a quoted field is not closed"),
        (TEXT.replace("20", "9007199254740993"), r"line 3, field 3 .* from 2\^53 on .*found '9007199254740993'"),
        (TEXT.replace("20", "1e17"), r"from 2\^53 on"),
        (TEXT.encode().replace(b"CD3E", b"CD3\xe9"), r"line 3: .*is no UTF-8.*iconv"),
        (TEXT.encode("utf-16"), "the file is text in UTF-16"),
        (TEXT.replace("\n", "\r"), "carriage returns alone"),
        ("gene,c1,c1\nTP53,1,0\nCD3E,1,2\n", "the cell 'c1' stands in field 2 and field 3"),
        ("cell,TP53,CD3E\nc1,1,0\nc2,1,2\nc1,1,2\n", "the cell 'c1' stands in line 2 and line 4"),
        ("gene,c1,c2", "the file ends in its first line"),
        ("gene,c1,kind\nTP53,1,x\nCD3E,1,y\n", r"line 2, field 3 \('kind'\): a field is no number: found 'x'"),
        ("ENSG00000000003,ENSG00000000005\n1,2\n3,4\n", "numbers under the name of a gene"),
        ("TP53,CD3E,MS4A1\n3,1,0\n1,0,2\n", "'TP53', holds numbers under the name of a gene"),
        ("just one\nword a line\n", "which axis|no number|last field"),
        ("a\nb\n", "expected a header of several names"),
        ("gene,kind\nTP53,x\n", r"line 2: found 'x' in the last field \('kind'\)"),
        ("gene,symbol\n", "no numbers under them"),
    ],
)
def test_what_is_wrong_is_named_with_line_and_field(text, said, tmp_path):
    path = written(tmp_path, text)
    with pytest.raises(FormatError, match=said) as caught, open_source(path, format="csv"):
        pass
    assert "study.csv" in str(caught.value)


def test_a_gzip_broken_off_is_named(tmp_path):
    text = gzip.compress((TEXT + "".join(f"G{i},{i},{i * 7}\n" for i in range(20_000))).encode())
    path = written(tmp_path, text[:-2000], "a.csv.gz")
    with pytest.raises(FormatError, match=r"a\.csv\.gz: the file breaks off or is damaged .EOFError"):
        open_source(path)


def test_numbers_that_are_no_counts_are_handed_on(tmp_path):
    with open_source(written(tmp_path, TEXT.replace("20", "NA").replace(",1,", ",-1.5,"))) as source:
        (block,) = source.blocks()
    np.testing.assert_array_equal(block.data, [-1.5, 3, np.nan])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (TEXT, r"genes in rows \(100% of their names are known genes, 0% of the columns'\)"),
        ("x,TP53,CD3E\nc1,1,0\n", r"genes in columns \(100%"),
        ("x,AAACCTGAGCAGCGTA-1,AAACCTGAGCGTAGTG-1\nfish1,1,0\nfish2,1,0\n", "cells in columns .100% .* cell barcodes"),
        ("barcode,fish1,fish2\na,1,0\nb,1,0\n", "cells in rows .the header calls them 'barcode'"),
        ("Gene ID,a,b\nfish1,1,0\nfish2,1,0\n", "genes in rows .the header calls them 'Gene ID'"),
    ],
)
def test_which_axis_holds_genes_is_told_and_explained(text, why, tmp_path):
    path = written(tmp_path, text)
    said = explain_guess(path)
    assert said.startswith(f"{path}: read as csv, since it is text of ")
    with open_source(path) as source:
        by_row = source.genes.index == [line.split(",")[0] for line in text.splitlines()[1:]]
    assert re.search(why, said)
    assert by_row == ("genes in rows" in why or "cells in columns" in why)


def test_cells_may_be_called_by_numbers_under_a_word_that_is_also_a_gene(tmp_path):
    for corner in ("", "CELL", "Ids", "id"):
        with open_source(written(tmp_path, f"{corner},TP53,CD3E,MS4A1\n7,3,1,0\n8,1,0,2\n")) as source:
            assert source.genes.index == GENES and source.obs()["cell"].to_pylist() == ["7", "8"]


def test_an_axis_that_nothing_tells_is_asked_for(tmp_path, whole):
    path = written(tmp_path, "x,a,b\nu,1,2\nv,3,4\nw,5,6\n")
    with pytest.raises(
        FormatError, match=r"Rows are called 'u', 'v', 'w', columns 'a', 'b'. Say it: --format csv-genes"
    ):
        open_source(path)
    with open_source(path, format="csv-genes-x-cells") as source:
        assert whole(source).toarray().tolist() == [[1, 3, 5], [2, 4, 6]] and source.kind == "csv"
    with open_source(path, format="csv-cells-x-genes") as source:
        assert whole(source).toarray().tolist() == [[1, 2], [3, 4], [5, 6]] and source.genes.index == ["a", "b"]
    with pytest.raises(InputError, match="Did you mean 'csv-cells-x-genes'"):
        open_source(path, format="csv-cells-x-gene")


def test_genes_of_both_species_and_all_ages_are_known():
    for species, column in (("human", "tenx_hg19"), ("mouse", "symbol")):
        names = [name for name in GeneTable.load(species).arrow[column].to_pylist() if name][:500]
        assert tell_orientation(names, ["a", "b"], corner="")[0] == "genes-x-cells"
        assert tell_orientation(["a", "b"], names, corner="gene")[0] == "cells-x-genes"


@pytest.mark.parametrize(
    ("counts", "labels"),
    [
        ("study.count.csv", "study.metadata.csv"),
        ("study_counts.tsv", "study_cell_metadata.txt.gz"),
        ("study.csv", "study.obs.csv"),
        ("counts.csv", "metadata.csv"),
        ("GSE1_umi_counts.txt", "GSE1_annotation.tsv"),
    ],
)
def test_labels_come_from_the_table_beside(counts, labels, tmp_path):
    path = written(tmp_path, TEXT, counts)
    mark = "," if ".csv" in labels else "\t"
    text = mark.join(['"donor"', '"cell_type"']) + "\n" + mark.join(['"c2"', "7", '"B, T"']) + "\n"
    text += mark.join(['"c1"', "8", '"NK"']) + "\n"
    written(tmp_path, gzip.compress(text.encode()) if labels.endswith("gz") else text, labels)
    with open_source(path) as source:
        assert source.obs().to_pydict() == {"cell": ["c1", "c2"], "donor": [8, 7], "cell_type": ["NK", "B, T"]}
        assert source.name == {"counts.csv": f"{tmp_path.name}_counts", "GSE1_umi_counts.txt": "GSE1_umi"}.get(
            counts, "study"
        )
    assert f"labels from {labels}" in explain_guess(path)


def test_cells_are_told_by_the_table_beside(tmp_path):
    path = written(tmp_path, "x,a,b\nu,1,2\nv,3,4\nw,5,6\n")
    written(tmp_path, "cell,kind\na,T\nb,B\n", "study.obs.csv")
    assert "cells in columns (100% of their names are in the table of labels beside it)" in explain_guess(path)
    with open_source(path) as source:
        assert source.obs()["kind"].to_pylist() == ["T", "B"]


def test_a_table_beside_that_is_about_something_else_is_told_and_left_out(tmp_path):
    path = written(tmp_path, TEXT, "study.count.csv")
    for text, said in (
        ("sample,age\ns1,30\n", "none of its barcodes"),
        ("a,a\n1,2\n", "its header names a column twice"),
    ):
        written(tmp_path, text, "study.metadata.csv")
        with open_source(path) as source:
            assert source.obs().column_names == ["cell"]
            assert f"study.metadata.csv: {said}" in source.notes[0] and "It was left out." in source.notes[0]
            assert source.cautions == source.notes[:1]  # labels that are missed: a build warns of it
    (tmp_path / "study.metadata.csv").rename(tmp_path / "study.count.obs.csv")
    with open_source(path) as source, pytest.raises(FormatError, match=r"study\.count\.obs\.csv: its header names"):
        source.obs()


@pytest.mark.parametrize(
    ("header", "labels"),
    [
        ("9-AA.1,c 2", ",kind\nc 2,B\n9-AA.1,T\n"),
        ("X9.AA.1,c.2", "cell,kind\nc 2,B\n9-AA-1,T\n"),
        ("9-AA-1,c-2", "cell,kind\nc.2,B\nX9.AA.1,T\n"),
        ("c1,c2", ",barcode,kind\n0,c2,B\n1,c1,T\n"),
        ("c1,c2", "Unnamed: 0,kind,barcode\n0,B,c2\n1,T,c1\n2,T,c3\n"),
        ("X1.c,X2.c", ",kind,barcode\n0,B,2-c\n1,T,1-c\n"),
    ],
)
def test_labels_are_joined_by_names_as_r_writes_them_and_by_another_column(header, labels, tmp_path):
    path = written(tmp_path, TEXT.replace("c1,c2", header), "study.count.csv")
    written(tmp_path, labels, "study.metadata.csv")
    with open_source(path) as source:
        assert source.obs().column_names == ["cell", "kind"] and source.obs()["kind"].to_pylist() == ["T", "B"]
        assert source.cautions == []


@pytest.mark.parametrize(
    "labels",
    [
        "cell,kind\nc-1,B\nc 1,T\n",  # one to one they are not
        "sample,barcode,kind\ns1,c1,B\ns2,c1,T\n",
        "cell,a,kind\nx,c1,B\ny,,T\nz,u,T\nw,v,T\n",
    ],
)
def test_labels_that_match_by_chance_or_not_one_to_one_are_not_joined(labels, tmp_path):
    names = ",".join(["c1", "c.1", *"abcd"])
    path = written(tmp_path, f"gene,{names}\nTP53,1,0,1,1,1,1\nCD3E,0,2,1,1,1,1\n", "study.count.csv")
    written(tmp_path, labels, "study.metadata.csv")
    with open_source(path) as source:
        assert source.obs().column_names == ["cell"] and len(source.cautions) == 1


def test_two_tables_of_labels_are_asked_about(tmp_path):
    path = written(tmp_path, TEXT, "study.count.csv")
    for name in ("study.metadata.csv", "study.annotation.csv"):
        written(tmp_path, "cell,kind\nc1,T\nc2,B\n", name)
    with pytest.raises(FormatError, match=r"labels could come from study\.annotation\.csv, study\.metadata\.csv"):
        open_source(path)
    written(tmp_path, "cell,kind\nc1,x\nc2,y\n", "study.count.obs.csv")
    with open_source(path) as source:
        assert source.obs()["kind"].to_pylist() == ["x", "y"]


def test_columns_of_text_beside_the_counts_are_labels_or_names_of_genes(tmp_path):
    text = "cell,cell_type,donor,TP53,CD3E\nc1,T,x7,1,0\nc2,,x8,0,2\n"
    with open_source(written(tmp_path, text)) as source:
        assert source.obs().to_pydict() == {"cell": ["c1", "c2"], "cell_type": ["T", None], "donor": ["x7", "x8"]}
    text = "id,symbol,c1,c2\nENSG00000141510,TP53,1,0\nENSG00000198851,CD3E,0,2\n"
    with open_source(written(tmp_path, text)) as source:
        assert source.genes.ids[0] == "ENSG00000141510" and source.genes.symbols == ["TP53", "CD3E"]


def test_no_name_of_a_gene_is_ever_taken_for_something_else():
    for species in ("human", "mouse"):
        table = GeneTable.load(species)
        aliases = table.arrow["alias"].drop_null().to_pylist()
        names = table.known_names.union(*(alias.split("|") for alias in aliases))
        assert len(names) > 50_000 and [name for name in names if what_else(name)] == []


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_facts_of_cells_among_the_counts_are_labels(at, tmp_path, whole):
    rows = [["cell", *GENES], ["c1", "1", "0", "3"], ["c2", "0", "20", "0"]]
    facts = [["nCount_RNA", "percent.mt", "leiden"], ["4", "0.5", "1"], ["20", "NA", "0"]]
    text = "".join(",".join([*row[:at], *fact, *row[at:]]) + "\n" for row, fact in zip(rows, facts, strict=True))
    with open_source(written(tmp_path, text)) as source:
        np.testing.assert_array_equal(whole(source).toarray(), COUNTS)
        assert source.genes.index == GENES and source.n_genes == 3 and source.dropped == {}
        obs = source.obs().to_pydict()
        assert obs == {"cell": ["c1", "c2"], "nCount_RNA": [4, 20], "percent.mt": [0.5, None], "leiden": [1, 0]}


def test_cells_may_be_called_as_facts_are(tmp_path, whole):
    with open_source(written(tmp_path, TEXT.replace("c1,c2", "leiden,UMAP_1"))) as source:
        np.testing.assert_array_equal(whole(source).toarray(), COUNTS)
        assert source.obs().to_pydict() == {"cell": ["leiden", "UMAP_1"]} and len(source.cautions) == 1


def test_text_behind_facts_of_cells_is_a_label(tmp_path):
    text = "cell,nCount_RNA,kind,TP53,CD3E\nc1,1,T,1,0\nc2,2,B,0,2\n"
    with open_source(written(tmp_path, text)) as source:
        assert source.obs().to_pydict() == {"cell": ["c1", "c2"], "nCount_RNA": [1, 2], "kind": ["T", "B"]}


@pytest.mark.parametrize("by_gene", [True, False])
@pytest.mark.parametrize("budget", [1, 1 << 20])
def test_tallies_and_sums_among_genes_are_left_out_and_counted(by_gene, budget, tmp_path, whole):
    names = ["__no_feature", "TP53", "N_multimapping", "CD3E", "ambiguous", "MS4A1", "Unassigned_NoFeatures", "Total"]
    counts = np.array([[7, 1, 8, 0, 9, 3, 5, 4], [1, 0, 2, 20, 3, 0, 5, 20]])
    rows = [[name, *map(str, column)] for name, column in zip(names, counts.T, strict=True)]
    rows = [["", "c1", "c2"], *rows]
    rows = rows if by_gene else [list(row) for row in zip(*rows, strict=True)]
    path = written(tmp_path, "\n".join(",".join(row) for row in rows) + "\n")
    with open_source(path, memory_budget=budget) as source:
        np.testing.assert_array_equal(whole(source).toarray(), COUNTS)
        assert source.genes.index == GENES and source.obs().column_names == ["cell"]
        assert source.dropped == {"tallies of reads without a gene": 4, "sums over genes": 1}
        assert any("__no_feature" in note for note in source.notes)


def test_facts_of_cells_in_a_row_are_no_gene_and_a_sum_among_cells_is_warned_of(tmp_path):
    text = TEXT.replace("gene,c1,c2", "gene,c1,Total") + "nCount_RNA,4,20\n"
    with open_source(written(tmp_path, text)) as source:
        assert source.genes.index == GENES and source.dropped == {"facts of cells": 1}
        assert len(source.cautions) == 1 and "'Total' stands among the cells" in source.cautions[0]


@pytest.mark.parametrize("cells_in_rows", [True, False])
def test_a_damaged_field_in_the_first_column_of_counts_is_no_label(tmp_path, cells_in_rows):
    """It is among the rows that tell labels from counts: a gene, or a cell, would be missing from what is read."""
    genes, cells = [f"ENSG{i:011d}" for i in range(6)], [f"AAACCTGAGA{a}{b}-1" for a in "ACGT" for b in "ACG"]
    rows, columns = (cells, genes) if cells_in_rows else (genes, cells)
    lines = [[name, *(str((i + j) % 3) for j in range(len(columns)))] for i, name in enumerate(rows)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(",".join(line) for line in [["", *columns], *lines]) + "\n")
    with open_source(path) as source:
        assert (source.n_cells, len(source.genes)) == (len(cells), len(genes))
    lines[3][1] = "x1"
    path.write_text("\n".join(",".join(line) for line in [["", *columns], *lines]) + "\n")
    with pytest.raises(FormatError, match=rf"line 5, field 2 \('{columns[0]}'\): a field is no number: found 'x1'"):
        open_source(path)
