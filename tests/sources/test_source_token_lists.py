"""Parquet of token lists and scBank: markers, tables of tokens, labels, and what is refused with which words."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellmill.errors import FormatError
from cellmill.ingest import build, summary_line
from cellmill.sources import expand_inputs, guess_format, open_source

GENES = [f"ENSG{i:011d}" for i in range(5)]
TOKENS = [10, 3, 62_712, 7, 40]


def write_genes(path, *, ids=GENES, symbols=("A", "B", "C", "D", "E"), tokens=TOKENS):
    pq.write_table(pa.table({"gene_symbol": list(symbols), "ensembl_id": list(ids), "token_id": tokens}), path)


def write_shard(path, genes, expressions, *, value=None, **how):
    columns = {
        "genes": pa.array(genes, pa.list_(pa.int64())),
        "expressions": pa.array(expressions, pa.list_(value or pa.float32())),
    }
    obs = how.pop("obs", {})
    pq.write_table(pa.table(columns | obs), path, **how)
    return path


@pytest.fixture
def shard(tmp_path):
    """Write one shard with a gene table beside it."""

    def make(genes, expressions, name="train-0.parquet", **how):
        write_genes(tmp_path / "gene_metadata.parquet")
        return write_shard(tmp_path / name, genes, expressions, **how)

    return make


def dense(source, matrix=None):
    blocks = list(source.blocks(matrix))
    out = np.zeros((source.n_cells, source.n_genes))
    for block in blocks:
        for i in range(block.n_cells):
            at = slice(block.indptr[i], block.indptr[i + 1])
            out[block.start + i, block.indices[at]] = block.data[at]
    return out


# ---- markers ---------------------------------------------------------------------------------------------------


def test_a_marker_is_left_out_and_a_cell_without_one_keeps_its_first_gene(shard):
    path = shard([[1, 3, 10], [3, 10], [1], []], [[-2, 5, 6], [7, 8], [-2], []])
    with open_source(path) as source:
        np.testing.assert_array_equal(dense(source), [[6, 5, 0, 0, 0], [8, 7, 0, 0, 0], [0] * 5, [0] * 5])
        assert any("marker (token 1, value -2)" in note for note in source.notes)


def test_markers_are_counted_in_the_report_and_in_its_line(shard, tmp_path):
    path = shard([[1, 3, 10], [3, 10], [1], [1, 10]], [[-2, 5, 6], [7, 8], [-2], [-2, 4]])
    store = build(tmp_path / "a.mill", path, vocabulary="union", shard_cells=2, block_cells=3, min_counts=5)
    report = json.loads((store.path / store.manifest.sources[0].report.path).read_text())
    assert report["cells_read"] == 4 and report["n_cells"] == 2  # cells that are filtered out had theirs, too
    assert report["markers_left_out"] == 3
    assert "3 markers before lists left out" in summary_line(report)


def test_a_negative_value_of_a_gene_is_no_marker(shard):
    """It stays, so that the proof refuses it: left out, a normalised file could pass."""
    with open_source(shard([[3, 10]], [[-2, 5]])) as source:
        assert dense(source)[0, 1] == -2
        assert not any("marker" in note for note in source.notes)


def test_a_token_that_nobody_knows_is_a_marker_only_below_zero(shard):
    with (
        open_source(shard([[1, 3]], [[0, 5]])) as source,
        pytest.raises(FormatError, match=r"row 0 of the file: token 1 is not in"),
    ):
        list(source.blocks())


def test_a_marker_stands_first_or_is_refused(shard):
    with (
        open_source(shard([[3, 10], [3, 1]], [[1, 1], [4, -2]])) as source,
        pytest.raises(FormatError, match=r"row group 0, row 1 of the file: token 1 is not in .*gene_metadata"),
    ):
        list(source.blocks())


def test_a_known_mark_is_left_out_first_whatever_its_value_and_refused_elsewhere(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "<cls>": 60, "A": 4, "B": 9}))
    path = write_shard(tmp_path / "cls_prefix_data.parquet", [[60, 9], [60]], [[51, 3], [51]], value=pa.int64())
    with open_source(path) as source:
        assert source.genes.index == ["A", "B"]
        np.testing.assert_array_equal(dense(source), [[0, 3], [0, 0]])
    write_shard(path, [[60, 9, 0]], [[51, 3, 0]])
    with open_source(path) as source, pytest.raises(FormatError, match=r"row 0 .*token 0 is no gene but a mark by"):
        list(source.blocks())


# ---- tokens ----------------------------------------------------------------------------------------------------


def test_tokens_are_mapped_by_the_table_never_by_position(shard):
    with open_source(shard([[62_712, 40, 7]], [[1, 2, 3]])) as source:
        np.testing.assert_array_equal(dense(source), [[0, 0, 1, 3, 2]])
        assert source.genes.ids == GENES and source.genes.symbols == ["A", "B", "C", "D", "E"]


@pytest.mark.parametrize("token", [4, 62_713, -1, 2**40])
def test_an_unknown_token_is_named_with_file_row_group_row_and_table(shard, token):
    lists = [[3, 10]] * 7
    lists[5] = [3, token]
    path = shard(lists, [[1, 2]] * 7, row_group_size=3)
    with open_source(path) as source, pytest.raises(FormatError) as caught:
        list(source.blocks())
    said = str(caught.value)
    assert f"{path}, row group 1, row 5 of the file: token {token} is not in" in said
    assert "gene_metadata.parquet (5 genes, tokens 3 to 62712)" in said


def test_without_a_table_of_genes_it_is_said_what_to_bring(tmp_path):
    path = write_shard(tmp_path / "a.parquet", [[3]], [[1]])
    with pytest.raises(FormatError, match=r"no table says which gene.*gene_metadata\.parquet .*token_id, ensembl_id"):
        open_source(path)


@pytest.mark.parametrize("place", [".", "metadata", "../metadata", ".."])
def test_the_table_of_genes_is_found_where_copies_of_tahoe_have_it(tmp_path, place):
    folder = tmp_path / "top" / "data"
    (folder / place).resolve().mkdir(parents=True, exist_ok=True)
    folder.mkdir(exist_ok=True)
    write_genes(folder / place / "gene_metadata.parquet")
    with open_source(write_shard(folder / "a.parquet", [[3]], [[1]])) as source:
        assert source.genes.index == GENES


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokens": [1, 2, 3, 4, 4]}, "token 4 stands for more than one gene"),
        ({"tokens": [1, 2, 3, 4, -5]}, "token -5 is out of range"),
        ({"tokens": [1, 2, 3, 4, 2**30]}, "out of range; expected numbers from 0"),
        ({"tokens": [1, 2, 3, 4, None]}, "a row has no token_id"),
        ({"tokens": list("abcde")}, "expected a table of genes with the columns token_id"),
        ({"ids": [None] * 5, "symbols": ["A", "B", None, "D", "E"]}, r"row 2 \(token 62712\) names no gene"),
        ({"ids": [f"<junk{i}>" for i in range(5)]}, "there is no gene in this table of 5 tokens"),
    ],
)
def test_a_wrong_table_of_genes_is_refused(tmp_path, change, said):
    path = write_shard(tmp_path / "a.parquet", [[3]], [[1]])
    write_genes(tmp_path / "gene_metadata.parquet", **change)
    with pytest.raises(FormatError, match=rf"gene_metadata\.parquet: .*{said}"):
        open_source(path)


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"A": "x"}', '{"A": true}', '{"A": 1.5}', '{"A": 1', '{"A": 99999999999999999999}']
)
def test_a_wrong_vocabulary_is_refused(tmp_path, text):
    path = write_shard(tmp_path / "a.parquet", [[3]], [[1]])
    (tmp_path / "gene_vocab.json").write_text(text)
    with pytest.raises(FormatError, match=r"gene_vocab\.json"):
        open_source(path)


def test_a_gene_without_id_goes_by_its_symbol(tmp_path):
    path = write_shard(tmp_path / "a.parquet", [[3]], [[1]])
    write_genes(tmp_path / "gene_metadata.parquet", ids=[*GENES[:4], None])
    with open_source(path) as source:
        assert source.genes.ids == [*GENES[:4], "E"]


# ---- lists -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("genes", "expressions", "said"),
    [
        ([[3], [3, 10]], [[1], [1]], "row 1 of the file: 2 genes but 1 expressions"),
        ([[3], None], [[1], [1]], "row 1 of the file: genes is null"),
        ([[3], [3]], [[1], None], "row 1 of the file: expressions is null"),
        ([[3], [10, None]], [[1], [1, 2]], "row 1 of the file: an entry of genes is null"),
        ([[3, 7], [10]], [[1, None], [1]], "row 0 of the file: an entry of expressions is null"),
    ],
)
def test_lists_that_contradict_each_other_are_refused(shard, genes, expressions, said):
    path = shard(genes, expressions)
    with open_source(path) as source, pytest.raises(FormatError, match=rf"train-0\.parquet, row group 0, {said}"):
        list(source.blocks())


def test_a_gene_that_stands_twice_in_a_cell_is_summed_and_told(shard):
    with open_source(shard([[3, 3, 10]], [[1, 4, 2]])) as source:
        np.testing.assert_array_equal(dense(source), [[2, 5, 0, 0, 0]])
        assert any("1 entries repeated" in note for note in source.notes)


def test_a_cell_of_absurd_length_is_refused(shard):
    path = shard([[3] * 30, [3]], [[1] * 30, [1]])
    with open_source(path) as source:
        source._found["expressions"]._limits = type(source.limits)(max_block_entries=25)
        with pytest.raises(FormatError, match="row 0 of the file: 30 entries, but there are 5 genes"):
            list(source.blocks())


@pytest.mark.parametrize("kind", ["int8", "uint16", "int64", "uint64", "halffloat", "double"])
def test_values_keep_their_type(shard, kind):
    value = pa.type_for_alias(kind)
    numbers = np.array([5, 6], value.to_pandas_dtype()).tolist() if kind != "halffloat" else np.array([5, 6], "e")
    path = shard([[3, 10]], [numbers], value=value)
    with open_source(path) as source:
        (block,) = source.blocks()
        assert block.data.dtype == value.to_pandas_dtype() and sorted(block.data.tolist()) == [5, 6]


def test_large_lists_are_read_too(tmp_path):
    write_genes(tmp_path / "gene_metadata.parquet")
    columns = {
        "genes": pa.array([[3], [10, 7]], pa.large_list(pa.int32())),
        "expressions": pa.array([[1], [2, 3]], pa.large_list(pa.float64())),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with open_source(tmp_path / "a.parquet") as source:
        np.testing.assert_array_equal(dense(source), [[0, 1, 0, 0, 0], [2, 0, 0, 3, 0]])


def test_blocks_begin_at_the_same_cells_wherever_reading_begins(shard):
    """So that a build which goes on gives the bytes of one that was never stopped."""
    rng = np.random.default_rng(0)
    lists = [rng.choice(TOKENS, rng.integers(0, 5), replace=False).tolist() for _ in range(200)]
    path = shard(lists, [[1.0] * len(one) for one in lists], row_group_size=90)
    with open_source(path) as source:
        whole = [(block.start, block.stop) for block in source.blocks(block_cells=16)]
        for start, _ in whole:
            assert [(b.start, b.stop) for b in source.blocks(block_cells=16, start=start)] == [
                span for span in whole if span[0] >= start
            ]


# ---- folders ---------------------------------------------------------------------------------------------------


def test_shards_of_a_folder_are_one_input_in_the_order_of_their_numbers(truth, write, tmp_path):
    data = write("parquet-shards", truth, tmp_path)
    assert expand_inputs(tmp_path) == expand_inputs(data) == [data]
    assert guess_format(data)[0] == "parquet"
    with open_source(data) as source, open_source(data.parent) as root:
        assert source.name == "tahoe_data"
        assert source.obs()["cell"].to_pylist() == root.obs()["cell"].to_pylist() == truth.cells
    assert expand_inputs(f"{data}/*.parquet") == sorted(data.iterdir())


def test_shards_hide_nothing_else_in_their_folder(truth, write, tmp_path):
    data = write("parquet-shards", truth, tmp_path)
    beside = write("h5ad-csr", truth, data)
    assert expand_inputs(tmp_path) == [data, beside]


def test_tables_of_labels_are_no_input_and_a_shard_cut_off_is_one(truth, write, tmp_path):
    data = write("parquet-shards", truth, tmp_path)
    pq.write_table(pa.table({"drug": ["a"]}), data / "drugs.parquet")
    with open_source(data) as source:
        assert any("1 Parquet files without token lists are not read: drugs.parquet" in note for note in source.notes)
        assert source.n_cells == len(truth.cells)
    with pytest.raises(FormatError, match=r"drugs\.parquet is a Parquet file of another kind: its columns are drug"):
        open_source(data / "drugs.parquet")
    last = max(data.glob("train-*"), key=lambda path: path.stat().st_size)
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(FormatError, match=rf"{last.name}: cannot be read as Parquet"):
        open_source(data)


def test_the_second_copy_that_scgpt_makes_is_not_read_beside_the_first(tmp_path):
    (tmp_path / "gene_vocab.json").write_text(json.dumps({"<cls>": 0, "A": 1}))
    write_shard(tmp_path / "a.datatable.parquet", [[1]], [[1]])
    write_shard(tmp_path / "cls_prefix_data.parquet", [[0, 1]], [[-2, 1]])
    with open_source(tmp_path) as source:
        assert source.n_cells == 1
        assert any("cls_prefix_data.parquet holds the cells of the other files again" in note for note in source.notes)


# ---- obs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def labelled(tmp_path):
    """A copy of Tahoe-100M in small: shards, and tables of samples and cells."""
    (tmp_path / "data").mkdir()
    (tmp_path / "metadata").mkdir()
    write_genes(tmp_path / "metadata" / "gene_metadata.parquet")
    cells = [f"b{i}" for i in range(6)]
    for part in range(2):
        own = slice(part * 3, part * 3 + 3)
        obs = {
            "drug": ["x", "y", None],
            "sample": [f"s{part}"] * 3,
            "BARCODE_SUB_LIB_ID": cells[own],
            "pubchem_cid": ["1.0", "2.0", "3.0"],
            "plate": [f"plate{part}"] * 3,
            "when": pa.array([0, 1, 2], pa.timestamp("s")),
        }
        write_shard(tmp_path / "data" / f"t-{part}.parquet", [[3]] * 3, [[1]] * 3, obs=obs)
    samples = {"sample": ["s1", "s0", "s9"], "drugname_drugconc": ["[('y', 5.0, 'uM')]", "d0", "d9"], "drug": ["?"] * 3}
    pq.write_table(pa.table(samples), tmp_path / "metadata" / "sample_metadata.parquet")
    known = {
        "BARCODE_SUB_LIB_ID": ["b9", *reversed(cells[1:])],
        "plate": ["plate7", "plate1", "plate1", "plate1", "plate0", "plate0"],
        "S_score": pa.array([9, 5, 4, 3, 2, 1], pa.float32()),
        "phase": ["G1", "S", "S", "G2M", None, "G1"],
        "drug": ["?"] * 6,
    }
    pq.write_table(pa.table(known), tmp_path / "metadata" / "obs_metadata.parquet", row_group_size=2)
    return tmp_path


def test_labels_of_cells_and_samples_are_joined(labelled):
    with open_source(labelled / "data") as source:
        obs, notes = source.obs(), source.notes
    assert obs.column_names == [
        "cell", "drug", "sample", "pubchem_cid", "plate", "S_score", "phase", "drugname_drugconc",
    ]  # fmt: skip
    assert obs["cell"].to_pylist() == ["b0", "b1", "b2", "b3", "b4", "b5"]
    assert obs["drug"].to_pylist() == ["x", "y", None] * 2
    assert obs["S_score"].to_pylist() == [None, 1, 2, 3, 4, 5]
    assert obs["phase"].to_pylist() == [None, "G1", None, "G2M", "S", "S"]
    assert obs["drugname_drugconc"].to_pylist() == ["d0"] * 3 + ["[('y', 5.0, 'uM')]"] * 3
    assert obs.schema.field("phase").type == obs.schema.field("plate").type == pa.dictionary(pa.int32(), pa.string())
    assert any("obs_metadata.parquet: 1 of 6 cells have no row" in note for note in notes)
    assert sum("left out" in note and "'when' (timestamp[ms])" in note for note in notes) == 1
    assert any("cells are called by the column BARCODE_SUB_LIB_ID" in note for note in notes)


def test_labels_are_joined_without_warnings_of_other_libraries(labelled):
    with warnings.catch_warnings(), open_source(labelled / "data") as source:
        warnings.simplefilter("error")
        assert "phase" in source.obs().column_names


def test_one_shard_alone_gets_its_labels_too(labelled):
    with open_source(labelled / "data" / "t-1.parquet") as source:
        assert source.obs()["S_score"].to_pylist() == [3, 4, 5]
        assert source.name == "t-1"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"BARCODE_SUB_LIB_ID": ["z1", "z2"]},
            r"none of its rows has the BARCODE_SUB_LIB_ID of a cell here \(for example b0",
        ),
        ({"BARCODE_SUB_LIB_ID": ["b2", "b2"]}, "BARCODE_SUB_LIB_ID 'b2' stands in more than one row"),
    ],
)
def test_labels_of_other_cells_or_twice_are_refused(labelled, change, said):
    path = labelled / "metadata" / "obs_metadata.parquet"
    pq.write_table(pa.table({**change, "phase": ["G1", "S"]}), path)
    with open_source(labelled / "data") as source, pytest.raises(FormatError, match=rf"obs_metadata\.parquet: {said}"):
        source.obs()
    path.write_bytes(path.read_bytes()[:-9])
    with (
        open_source(labelled / "data") as source,
        pytest.raises(FormatError, match=r"obs_metadata\.parquet.*truncated"),
    ):
        source.obs()


def test_a_table_without_the_key_is_told_and_not_joined(labelled):
    pq.write_table(pa.table({"id": ["b0"], "phase": ["S"]}), labelled / "metadata" / "obs_metadata.parquet")
    with open_source(labelled / "data") as source:
        assert "phase" not in source.obs().column_names
        assert any("not joined: it has no column BARCODE_SUB_LIB_ID" in note for note in source.notes)


def test_cells_without_names_are_called_by_file_and_row_alone_and_together(tmp_path):
    write_genes(tmp_path / "gene_metadata.parquet")
    for part in (2, 10):
        write_shard(tmp_path / f"t-{part}.parquet", [[3]] * 2, [[1]] * 2)
    with open_source(tmp_path) as source, open_source(tmp_path / "t-10.parquet") as alone:
        assert source.obs()["cell"].to_pylist() == ["t-2_0", "t-2_1", "t-10_0", "t-10_1"]
        assert alone.obs()["cell"].to_pylist() == ["t-10_0", "t-10_1"]


def test_a_cell_with_a_null_name_is_refused(shard):
    path = shard([[3], [3]], [[1], [1]], obs={"BARCODE_SUB_LIB_ID": ["a", None]})
    with open_source(path) as source, pytest.raises(FormatError, match="1 cells have no BARCODE_SUB_LIB_ID"):
        source.obs()


# ---- scBank ----------------------------------------------------------------------------------------------------


@pytest.fixture
def bank(truth, write, tmp_path):
    return write("scbank", truth, tmp_path)


def test_the_main_table_comes_first_and_the_others_can_be_chosen(truth, bank):
    table = pq.read_table(bank / "counts.datatable.parquet")
    write_shard(bank / "A.datatable.parquet", table["genes"].to_pylist(), table["genes"].to_pylist())
    write_shard(bank / "short.datatable.parquet", [[3]], [[1]])
    with open_source(bank) as source:
        assert [info.name for info in source.matrices()] == ["counts", "A"]
        np.testing.assert_array_equal(dense(source), truth.X)
        np.testing.assert_array_equal(dense(source, "A") > 0, truth.X > 0)
        assert any("short.datatable.parquet is left out: 1 cells, the main table has 37" in n for n in source.notes)
        assert source.name == "study"


def test_studies_become_obs_where_a_bank_has_them(truth, bank):
    for studies, expected in ((["s"], ["s"] * 37), ([f"s{i % 2}" for i in range(37)], None), ([1, 2], []), ({}, [])):
        (bank / "studytable.json").write_text(json.dumps({"study_ids": studies}))
        with open_source(bank) as source:
            if expected == []:
                assert "study_id" not in source.obs().column_names
                assert any("studytable.json is not used" in note for note in source.notes)
            else:
                assert source.obs()["study_id"].to_pylist() == (expected or studies)


def test_what_is_missing_in_a_bank_is_named(bank):
    for name, said in (
        ("manifest.json", "manifest.json: missing"),
        ("gene_vocab.json", "gene_vocab.json is missing, without which nobody knows"),
        (
            "counts.datatable.parquet",
            "names the main table 'counts', but there is no counts.datatable.parquet; tables: none",
        ),
    ):
        content = (bank / name).read_bytes()
        (bank / name).unlink()
        with pytest.raises(FormatError, match=said):
            open_source(bank)
        (bank / name).write_bytes(content)
    for text, said in (("{", "not JSON"), ("[]", "expected a JSON object"), ("{}", "main_data is None"),
                       ('{"main_data": "../x"}', "main_data is '../x'")):  # fmt: skip
        (bank / "manifest.json").write_text(text)
        with pytest.raises(FormatError, match=said):
            open_source(bank)


def test_tables_as_json_are_refused_with_lines_that_convert_them(truth, bank):
    rows = pq.read_table(bank / "counts.datatable.parquet").to_pylist()
    (bank / "counts.datatable.parquet").unlink()
    (bank / "counts.datatable.json").write_text("\n".join(json.dumps(row) for row in rows))
    (bank / "manifest.json").write_text('{"on_disk_format": "json", "main_data": "counts"}')
    with pytest.raises(FormatError, match="its tables are JSON") as caught:
        open_source(bank)
    exec(compile("\n".join(line.strip() for line in str(caught.value).splitlines()[-2:]), "json", "exec"))
    with open_source(bank) as source:
        np.testing.assert_array_equal(dense(source), truth.X)


def test_banks_are_found_in_folders(truth, write, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    banks = [write("scbank", truth, tmp_path / name) for name in "ab"]
    assert expand_inputs(tmp_path) == banks
    assert guess_format(banks[0])[0] == "scbank"
    shutil.rmtree(banks[1])
    assert expand_inputs(tmp_path) == banks[:1]


# ---- memory ----------------------------------------------------------------------------------------------------


def test_memory_is_bounded_by_the_block_not_by_the_row_group(tmp_path):
    """One row group of 96 MiB when decoded; peaks of Arrow and NumPy together stay far below."""
    n_cells, per_cell = 8192, 1024
    tokens = np.arange(per_cell, dtype=np.int64)
    pq.write_table(
        pa.table({"ensembl_id": [f"ENSG{i:011d}" for i in range(per_cell)], "token_id": tokens}),
        tmp_path / "gene_metadata.parquet",
    )
    offsets = pa.array(np.arange(n_cells + 1) * per_cell, pa.int32())
    columns = {
        "genes": pa.ListArray.from_arrays(offsets, np.tile(tokens, n_cells)),
        "expressions": pa.ListArray.from_arrays(offsets, np.repeat(np.arange(n_cells) % 9 + 1.0, per_cell).astype("f")),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=n_cells, compression="zstd")
    assert pq.read_metadata(tmp_path / "a.parquet").num_row_groups == 1
    code = """
        import sys, tracemalloc
        import pyarrow as pa
        from cellmill.sources import open_source
        with open_source(sys.argv[1]) as source:
            tracemalloc.start()
            total = sum(float(block.data.sum()) for block in source.blocks(block_cells=512))
            print(int(total), tracemalloc.get_traced_memory()[1] + pa.default_memory_pool().max_memory())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), tmp_path / "a.parquet"],
        capture_output=True,
        text=True,
        check=True,
    )
    total, peak = map(int, done.stdout.split())
    assert total == int((np.arange(n_cells) % 9 + 1).sum()) * per_cell
    assert peak < 40 << 20, f"{peak >> 20} MiB"
