"""Studies in the layout of the Curated Cancer Cell Atlas: matrix, Genes.txt, Cells.csv, Samples.csv."""

from __future__ import annotations

import numpy as np
import pytest

from cellmill.errors import FormatError
from cellmill.sources import expand_inputs, explain_guess, open_source


@pytest.fixture
def study(truth, write, tmp_path):
    return write("3ca", truth, tmp_path)


def test_cells_become_obs_and_samples_are_joined(study, truth, whole):
    (study / "Samples.csv").write_text('"sample","patient","cell_type"\n"S1","P7","x"\n"S0","P8","y"\n')
    assert explain_guess(study) == (
        f"{study}: read as 3ca, since the folder holds Exp_data_UMIcounts.mtx, Genes.txt and Cells.csv, as 3CA has them"
    )
    with open_source(study) as source:
        np.testing.assert_array_equal(whole(source).toarray(), truth.X)
        assert source.name == "Data_Study2020_Blood" and source.genes.symbols is None
        obs = source.obs()
        assert obs.column_names == ["cell", "sample", "cell_type", "complexity", "patient"]
        assert obs["cell"].to_pylist() == truth.cells
        assert obs["sample"].to_pylist()[:3] == ["S0", "S1", "S0"] and obs["patient"].to_pylist()[:2] == ["P8", "P7"]
        assert obs["complexity"].to_pylist()[:2] == [100, 101] and source.notes == []


def test_counts_of_molecules_come_before_tpm_and_tpm_alone_is_refused(study):
    (study / "Exp_data_TPM.mtx").write_bytes((study / "Exp_data_UMIcounts.mtx").read_bytes())
    with open_source(study) as source:
        assert source.n_cells == 37
    (study / "Exp_data_UMIcounts.mtx").unlink()
    with pytest.raises(FormatError, match=r"Exp_data_TPM\.mtx: transcripts per million, by its name, are no counts"):
        open_source(study)


def test_matrices_of_two_techniques_are_two_inputs(study, truth, whole):
    for name in ("Exp_data_UMIcounts.mtx", "Genes.txt", "Cells.csv"):
        stem, ending = name.split(".")
        (study / f"{stem}_10X.{ending}").write_bytes((study / name).read_bytes())
    (study / "Cells_10X.csv").write_text((study / "Cells.csv").read_text().replace("CELL", "OTHER"))
    found = expand_inputs(study)
    assert [path.name for path in found] == ["Exp_data_UMIcounts.mtx", "Exp_data_UMIcounts_10X.mtx"]
    names = []
    for path in found:
        with open_source(path) as source:
            names.append((source.name, source.obs()["cell"][0].as_py()))
            np.testing.assert_array_equal(whole(source).toarray(), truth.X)
    assert names == [("Data_Study2020_Blood", "CELL000-1"), ("Data_Study2020_Blood_10X", "OTHER000-1")]


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            "Cells.csv",
            lambda text: text.rsplit("\n", 2)[0] + "\n",
            "header says 23 x 37, but Genes.txt lists 23 .* 36 bar",
        ),
        ("Genes.txt", lambda text: text + "ENSG1\n", "Genes.txt lists 24 features"),
        ("Cells.csv", lambda text: text.replace("CELL003-1", "", 1), r"Cells\.csv, line 5: the cell has no name"),
        ("Cells.csv", lambda text: text.replace("S1,", "S1,,,", 1), r"Cells\.csv: not a CSV of labels"),
        ("Exp_data_UMIcounts.mtx", lambda text: text[: len(text) // 2], "Exp_data_UMIcounts.mtx"),
    ],
)
def test_what_does_not_fit_is_named(name, change, said, study):
    (study / name).write_text(change((study / name).read_text()))
    with pytest.raises(FormatError, match=said), open_source(study) as source:
        list(source.blocks())
