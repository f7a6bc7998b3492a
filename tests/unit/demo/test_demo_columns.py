"""Columns of strangers' files are recognised by their usual names, and never two become one."""

from __future__ import annotations

import pyarrow as pa
import pytest

from cellmill.demo.columns import choose_renames, find_columns

LABELS = pa.dictionary(pa.int32(), pa.string())


def obs(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([("cell", pa.string()), *columns.items()])


@pytest.mark.parametrize(
    "name", ["celltype", "Celltype", "CellType", "cell_type", "Cell Type", "cell.type", "CELL-TYPE", "annotation"]
)
def test_cell_types_are_found_however_they_are_written(name: str) -> None:
    assert find_columns(obs(**{name: LABELS})) == {"cell_type": name}


@pytest.mark.parametrize("name", ["donor_id", "donor", "Patient", "individual", "sample", "orig.ident", "Sample ID"])
def test_donors_are_found_however_they_are_written(name: str) -> None:
    assert find_columns(obs(**{name: LABELS})) == {"donor_id": name}
    assert find_columns(obs(**{name: pa.int64()})) == {"donor_id": name}


def test_the_surest_name_wins() -> None:
    assert find_columns(obs(sample=LABELS, patient=LABELS)) == {"donor_id": "patient"}
    assert find_columns(obs(annotation=LABELS, celltype=LABELS)) == {"cell_type": "celltype"}


def test_numbers_are_no_cell_types() -> None:
    assert find_columns(obs(annotation=pa.float64(), tissue=pa.int32(), donor=pa.float32())) == {}


def test_all_files_end_with_the_same_name() -> None:
    files = [obs(celltype=LABELS, subpop=LABELS), obs(Celltype=LABELS, donor_id=LABELS), obs()]
    assert choose_renames(files) == {"celltype": "cell_type", "Celltype": "cell_type"}


def test_no_file_gets_a_name_twice() -> None:
    with_both = obs(celltype=LABELS, cell_type=LABELS)
    assert choose_renames([with_both]) == {}
    assert choose_renames([with_both, obs(celltype=LABELS)]) == {}
    assert choose_renames([obs(celltype=LABELS), obs(celltype=LABELS, Celltype=LABELS)]) == {"celltype": "cell_type"}
