"""Matrix Market folders: what SciPy reads, in any writing that the format allows, and errors that name the line."""

from __future__ import annotations

import gzip
import io
import re

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmill.errors import FormatError, NotFoundError
from cellmill.genes import GeneTable
from cellmill.sources import open_source
from cellmill.sources.mex import FEATURE_WORDS, is_header_line
from cellmill.sources.mex_text import read_header, stream_triplets


def folder_of(tmp_path, text, *, n_cells=3, n_genes=2, types=None):
    folder = tmp_path / "m"
    folder.mkdir(exist_ok=True)
    (folder / "matrix.mtx").write_bytes(text if isinstance(text, bytes) else text.encode())
    (folder / "barcodes.tsv").write_text("".join(f"C{i}\n" for i in range(n_cells)))
    kinds = types or [""] * n_genes
    (folder / "features.tsv").write_text("".join(f"G{i}\tS{i}{k and chr(9) + k}\n" for i, k in enumerate(kinds)))
    return folder


HEAD = "%%MatrixMarket matrix coordinate integer general\n"


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "2 3 3\n1 1 5\n2 2 1\n1 3 7\n",
        HEAD + "% a comment\n%\n\n2 3 3\n1 1 5\n2 2 1\n1 3 7",
        HEAD.lower() + "2   3\t3\n\t1  1 5 \n2\t2\t1\n\n1 3 7\n\n",
        (HEAD + "2 3 3\n1 1 5\n2 2 1\n1 3 7\n").replace("\n", "\r\n"),
        HEAD.replace("integer", "real") + "2 3 3\n1 1 5.0\n2 2 1e0\n1 3 +7\n",
        HEAD + "2 3 5\n1 1 2\n1 1 3\n2 2 1\n1 3 7\n2 3 0\n",
    ],
)
@pytest.mark.parametrize("budget", [64, 1 << 20])
def test_every_lawful_writing_is_read(text, budget, tmp_path, whole):
    with open_source(folder_of(tmp_path, text), memory_budget=budget) as source:
        np.testing.assert_array_equal(whole(source, block_cells=2).toarray(), [[5, 0], [0, 1], [7, 0]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"matrix\.mtx, line 1: found ''"),
        ("1 2 3\n", "line 1: found '1 2 3', expected '%%MatrixMarket"),
        (HEAD.replace("integer", "pattern") + "2 3 1\n1 1\n", "a matrix coordinate pattern general holds no counts"),
        (HEAD.replace("general", "symmetric") + "2 3 0\n", "symmetric holds no counts"),
        ("%%MatrixMarket matrix array integer general\n2 3\n", "array integer general holds no counts"),
        (HEAD, "ends before the line of sizes"),
        (HEAD + "2 3\n", "line 2: found '2 3', expected three sizes"),
        (HEAD + "2 -3 1\n", "expected three sizes"),
        (HEAD + "2 4 0\n", "header says 2 x 4, but features.tsv lists 2 features and barcodes.tsv 3 barcodes"),
        (HEAD + "2 3 3\n1 1 5\n2 2 1\n", "ends after 2 of the 3 entries"),
        (HEAD + "2 3 1\n1 1 5\n2 2 1\n", "more entries than the 1 that its header says"),
        (HEAD + "2 3 2\n1 1 5\n3 2 1\n", "line 4: found '3 2 1', but rows run from 1 to 2 and columns from 1 to 3"),
        (HEAD + "2 3 2\n1 1 5\n0 2 1\n", "line 4: found '0 2 1', but rows run from 1"),
        (HEAD + "2 3 2\n1 1 5\n\n2 4 1\n", "line 5: found '2 4 1', but rows"),
        (HEAD + "2 3 2\n1 1 5\n2 2\n", "line 4: found '2 2', expected row, column and a value of type integer"),
        (HEAD + "2 3 2\n1 1 5\n2 2 1 1\n", "line 4: found '2 2 1 1', expected"),
        (HEAD + "2 3 2\n1 1 5\n2 2 1.5\n", "line 4: found '2 2 1.5', expected row, column and a value of type integer"),
        (HEAD + "2 3 2\n1 1 5\n2 2 1\x00\n", "line 4: found"),
        (HEAD + "2 3 2\n1 1 5\n2 2 99999999999999999999\n", "line 4: found '2 2 999"),
        (HEAD + "2 3 1\n" + "1" * (3 << 20), "a line is longer than"),
    ],
)
@pytest.mark.parametrize("budget", [16, 1 << 20])
def test_errors_name_file_and_line(text, said, budget, tmp_path):
    folder = folder_of(tmp_path, text)
    with pytest.raises(FormatError, match=said) as caught, open_source(folder, memory_budget=budget) as source:
        list(source.blocks())
    assert "matrix.mtx" in str(caught.value)


def test_nan_negative_and_fractions_are_handed_on(tmp_path):
    text = HEAD.replace("integer", "real") + "2 3 5\n1 1 nan\n2 1 -1\n1 2 0.5\n2 2 inf\n1 3 -1e-3\n"
    with open_source(folder_of(tmp_path, text)) as source:
        (block,) = source.blocks()
        np.testing.assert_array_equal(block.data, [np.nan, -1, 0.5, np.inf, -0.001])


@st.composite
def random_matrix(draw):
    n_cells, n_genes = draw(st.integers(1, 12)), draw(st.integers(1, 9))
    n = draw(st.integers(0, 40))
    entry = st.tuples(st.integers(0, n_cells - 1), st.integers(0, n_genes - 1), st.integers(0, 10**12))
    entries = draw(st.lists(entry, min_size=n, max_size=n))
    return n_cells, n_genes, sorted(entries) if draw(st.booleans()) else entries


@given(random_matrix(), st.integers(1, 13), st.sampled_from([16, 256, 1 << 20]))
@settings(max_examples=60, deadline=None)
def test_any_order_and_repetition_equals_scipy(tmp_path_factory, case, block_cells, budget):
    n_cells, n_genes, entries = case
    text = HEAD + f"{n_genes} {n_cells} {len(entries)}\n" + "".join(f"{g + 1} {c + 1} {v}\n" for c, g, v in entries)
    folder = folder_of(tmp_path_factory.mktemp("mex"), text, n_cells=n_cells, n_genes=n_genes)
    wanted = sp.csr_array(scipy.io.mmread(io.BytesIO(text.encode())).T).toarray()
    if n_cells == n_genes == 1:
        wanted = wanted.reshape(1, 1)
    with open_source(folder, memory_budget=budget) as source:
        blocks = [
            sp.csr_array((b.data, b.indices, b.indptr), shape=(b.n_cells, n_genes)).toarray()
            for b in source.blocks(block_cells=block_cells)
        ]
    np.testing.assert_array_equal(np.vstack(blocks), wanted)


@pytest.mark.parametrize("chunk_bytes", [5, 13, 64, 1 << 20])
def test_chunk_borders_do_not_matter(chunk_bytes, tmp_path):
    rows = np.arange(1, 200)
    text = HEAD + "200 300 199\n" + "".join(f"{r} {r + 7} {r * r}\n" for r in rows)
    (tmp_path / "matrix.mtx.gz").write_bytes(gzip.compress(text.encode()))
    header = read_header(tmp_path / "matrix.mtx.gz")
    parts = list(stream_triplets(tmp_path / "matrix.mtx.gz", header, chunk_bytes=chunk_bytes))
    assert np.concatenate([p.rows for p in parts]).tolist() == (rows - 1).tolist()
    assert np.concatenate([p.columns for p in parts]).tolist() == (rows + 6).tolist()
    assert np.concatenate([p.values for p in parts]).tolist() == (rows**2).tolist()


def test_symbols_in_both_columns_and_labels_in_the_folder(tmp_path):
    folder = folder_of(tmp_path, HEAD + "2 3 0\n")
    (folder / "features.tsv").write_text("GAPDH\tGAPDH\tGene Expression\nACTB\tACTB\tGene Expression\n")
    (folder / "obs.csv").write_text("barcode,cell_type\nC2,T\nC0,B\nC1,NK\n")
    with open_source(folder) as source:
        assert source.genes.ids == source.genes.symbols == ["GAPDH", "ACTB"]
        assert source.obs()["cell_type"].to_pylist() == ["B", "NK", "T"] and source.notes == []


def test_a_third_column_of_something_else_drops_nothing(tmp_path):
    text = HEAD + "2 3 1\n2 1 4\n"
    with open_source(folder_of(tmp_path, text, types=["protein_coding", "lncRNA"])) as source:
        assert source.n_genes == 2 and source.dropped == {}
    with open_source(folder_of(tmp_path, text, types=["antibody_capture", "lncRNA"])) as source:
        assert source.genes.index == ["G1"] and source.dropped == {"features not Gene Expression": 1}
    with pytest.raises(
        FormatError, match=r"features\.tsv: none of its 2 features is a gene; .* Antibody Capture, Custom"
    ):
        open_source(folder_of(tmp_path, text, types=["Antibody Capture", "Custom"]))


def test_header_lines_of_r_exports_are_told_by_the_sizes(tmp_path, whole):
    folder = folder_of(tmp_path, HEAD + "2 3 1\n2 1 4\n")
    for name in ("barcodes.tsv", "features.tsv"):
        (folder / name).write_text('"x"\n' + (folder / name).read_text())
    with open_source(folder) as source:
        assert source.obs()["cell"].to_pylist() == ["C0", "C1", "C2"] and source.genes.index == ["G0", "G1"]
        assert len(source.notes) == 2
        assert whole(source).toarray().tolist() == [[0, 4], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("barcodes.tsv", "barcode"),
        ("barcodes.tsv", "CellID\tcell_type"),
        ("barcodes.tsv", "0"),
        ("barcodes.tsv", ""),
        ("features.tsv", "V1\tV2\tV3"),
        ("features.tsv", '"gene_id"\t"gene_name"'),
        ("features.tsv", "ensembl_gene_id\thgnc_symbol\tfeature_type"),
        ("features.tsv", "Gene"),
        ("features.tsv", "Unnamed: 0\tgene"),
    ],
)
def test_a_line_that_names_columns_is_left_out(name, header, tmp_path):
    folder = folder_of(tmp_path, HEAD + "2 3 1\n2 1 4\n")
    (folder / name).write_text(f"{header}\n" + (folder / name).read_text())
    with open_source(folder) as source:
        assert source.obs()["cell"].to_pylist() == ["C0", "C1", "C2"] and source.genes.index == ["G0", "G1"]
        assert source.notes == [f"{name}: its first line was taken for a header"]


IDS = ["ENSG00000000003\tTSPAN6", "ENSG00000000005\tTNMD"]


@pytest.mark.parametrize(
    ("name", "surplus", "lines"),
    [
        ("features.tsv", "ENSG00000000001\tA\tGene Expression", [f"{line}\tGene Expression" for line in IDS]),
        ("features.tsv", "ENSG00000000001.3\tA", IDS),
        ("features.tsv", "GFP\tGFP", IDS),
        ("features.tsv", "IDS", ["TSPAN6", "TNMD"]),
        ("features.tsv", "A1BG", ["TSPAN6", "TNMD"]),
        ("features.tsv", "ID1\tID1", ["TSPAN6\tTSPAN6", "TNMD\tTNMD"]),
        ("features.tsv", "gene\tgene\tAntibody Capture", [f"{line}\tGene Expression" for line in IDS]),
        ("barcodes.tsv", "AAACCTGAGCAGCGTA-1", ["AAACCTGAGCGTAGTG-1", "AAACCTGAGTGGTAGC-1", "AAACCTGCATATACGC-1"]),
        ("barcodes.tsv", "0", ["1", "2", "3"]),
        ("barcodes.tsv", "V1", ["V2", "V3", "V4"]),
        ("barcodes.tsv", "cell_0", ["cell_1", "cell_2", "cell_3"]),
    ],
)
def test_a_line_too_many_that_may_be_data_is_refused_and_nothing_shifts(name, surplus, lines, tmp_path):
    folder = folder_of(tmp_path, HEAD + "2 3 1\n2 1 4\n")
    (folder / name).write_text("".join(f"{line}\n" for line in lines))
    with open_source(folder) as source:
        assert (source.n_cells, source.n_genes + sum(source.dropped.values())) == (3, 2)
    (folder / name).write_text("".join(f"{line}\n" for line in [surplus, *lines]))
    first = re.escape(repr(surplus)[:20])
    with pytest.raises(FormatError, match=f"The first line of {name}, {first}.*is no header"):
        open_source(folder)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("barcodes.tsv", '"x"\n"1"\t"AAACCTGAGA-1"\n"2"\t"CCACCTGAGA-1"\n"3"\t"GGACCTGAGA-1"\n'),
        ("barcodes.csv", ",barcode\n0,AAACCTGAGA-1\n1,CCACCTGAGA-1\n2,GGACCTGAGA-1\n"),
        ("barcodes.csv", ",sample,barcode\n0,a,AAACCTGAGA-1\n1,b,CCACCTGAGA-1\n2,c,GGACCTGAGA-1\n"),
        ("barcodes.tsv", "1\tAAACCTGAGA-1\n2\tCCACCTGAGA-1\n3\tGGACCTGAGA-1\n"),
    ],
)
def test_numbers_of_rows_are_no_names_of_cells(name, text, tmp_path, whole):
    folder = folder_of(tmp_path, HEAD + "2 3 3\n1 1 5\n2 2 1\n1 3 7\n")
    (folder / "barcodes.tsv").unlink()
    (folder / name).write_text(text)
    with open_source(folder) as source:
        assert source.obs()["cell"].to_pylist() == ["AAACCTGAGA-1", "CCACCTGAGA-1", "GGACCTGAGA-1"]
        assert any("its first column numbers the rows" in note for note in source.notes)
        np.testing.assert_array_equal(whole(source).toarray(), [[5, 0], [0, 1], [7, 0]])


@pytest.mark.parametrize("text", ["1\n2\n3\n", "1\tT cell\n2\tB cell\n3\tT cell\n", "2\ta\n1\tb\n3\tc\n"])
def test_cells_that_have_numbers_for_names_keep_them(text, tmp_path):
    folder = folder_of(tmp_path, HEAD + "2 3 1\n1 1 5\n")
    (folder / "barcodes.tsv").write_text(text)
    with open_source(folder) as source:
        assert sorted(source.obs()["cell"].to_pylist()) == ["1", "2", "3"] and source.notes == []


def test_no_name_of_a_gene_is_ever_taken_for_a_header():
    for species in ("human", "mouse"):
        table = GeneTable.load(species)
        names = set(table.ids) | table.known_names | set(table.alias)
        assert [name for name in names if is_header_line([name, "ENSG00000000003"], FEATURE_WORDS)] == []


def test_tallies_of_htseq_and_star_are_no_genes(tmp_path, whole):
    folder = folder_of(tmp_path, HEAD + "4 3 5\n1 1 5\n2 2 9\n3 3 7\n2 3 1\n4 1 8\n")
    for types in ("\tGene Expression", ""):
        names = ("G0", "__no_feature", "G2", "N_unmapped")
        (folder / "features.tsv").write_text("".join(f"{name}\t{name}{types}\n" for name in names))
        with open_source(folder) as source:
            assert source.genes.index == ["G0", "G2"] and source.dropped == {"tallies of reads without a gene": 2}
            np.testing.assert_array_equal(whole(source).toarray(), [[5, 0], [0, 0], [0, 7]])
    (folder / "features.tsv").write_text("".join(f"{name}\t{name}\t{kind}\n" for name, kind in (
        ("G0", "Gene Expression"), ("CD3", "Antibody Capture"), ("G2", "Gene Expression"), ("__x", "Gene Expression"),
    )))  # fmt: skip
    with open_source(folder) as source:
        np.testing.assert_array_equal(whole(source).toarray(), [[5, 0], [0, 0], [0, 7]])
        assert source.dropped == {"features not Gene Expression": 1, "tallies of reads without a gene": 1}


SQUARE = HEAD + "3 3 2\n1 2 5\n3 1 7\n"


def test_a_square_matrix_is_warned_of_and_its_orientation_can_be_said(tmp_path, whole):
    folder, by_gene = folder_of(tmp_path, SQUARE, n_genes=3), np.array([[0, 0, 7], [5, 0, 0], [0, 0, 0]])
    with open_source(folder) as source:
        np.testing.assert_array_equal(whole(source).toarray(), by_gene)
        (caution,) = source.cautions
        assert "matrix.mtx is square (3 genes and 3 cells)" in caution and "--format mex-cells-x-genes" in caution
        assert caution in source.notes
    for kind, expected in (("mex-genes-x-cells", by_gene), ("mex-cells-x-genes", by_gene.T)):
        with open_source(folder, format=kind) as source:
            np.testing.assert_array_equal(whole(source).toarray(), expected)
            assert source.cautions == [] and source.kind == "mex"


def test_an_orientation_that_the_sizes_contradict_is_refused(tmp_path):
    folder = folder_of(tmp_path, HEAD + "2 3 1\n1 1 5\n")
    with open_source(folder, format="mex-genes-x-cells") as source:
        assert source.cautions == []
    with pytest.raises(FormatError, match=r"read as cells x genes its header says 2 x 3, but features\.tsv lists 2"):
        open_source(folder, format="mex-cells-x-genes")


def test_missing_companions_are_named(tmp_path):
    for name, said in (("barcodes.tsv", "barcodes.tsv, plain"), ("features.tsv", r"features.tsv \(or genes.tsv\)")):
        folder = folder_of(tmp_path, HEAD + "2 3 0\n")
        (folder / name).unlink()
        with pytest.raises(FormatError, match=said):
            open_source(folder)
    with pytest.raises(NotFoundError):
        open_source(tmp_path / "none", format="mex")


def test_a_gzip_broken_off_in_the_companions_is_named(tmp_path):
    folder = folder_of(tmp_path, HEAD + "2 3 0\n")
    (folder / "barcodes.tsv").write_bytes(gzip.compress(b"C0\nC1\nC2\n")[:-9])
    with pytest.raises(FormatError, match=r"barcodes\.tsv: the file breaks off"):
        open_source(folder)
