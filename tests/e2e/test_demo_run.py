"""`cellmill demo`: from cells to a report in one call, on a simulated atlas and on real files."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

pytest.importorskip("scvi")

import yaml

from cellmill.demo import DemoResult, run_demo
from cellmill.demo import experiment as demo_experiment
from cellmill.errors import NotRawCountsError


def real(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much training as shows that all parts fit together; accuracy is for `make demo`."""
    monkeypatch.setattr(demo_experiment, "STEPS", 60)


def check(result: DemoResult) -> None:
    assert result.report.exists()
    page = result.report.read_text()
    assert "<svg" in page or "data:image/png" in page
    assert 0.3 < result.bytes_per_count < 1.5
    assert result.cells_per_second > 100
    program, verb, experiment = shlex.split(result.next_command)
    assert shutil.which(program) or Path(program).is_file()
    assert (verb, Path(experiment).is_file()) == ("run", True)
    assert all(-1 <= one["pearson"]["mean"] <= 1 for one in result.accuracy)
    assert all("mean profile" in one["baselines"] for one in result.accuracy)
    assert str(result.report) in str(result)
    json.dumps(result.to_dict())


@pytest.mark.usefixtures("_short")
def test_the_simulated_demonstration_reaches_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_experiment, "SIMULATED_CELLS", 900)
    result = run_demo(tmp_path / "demo")
    check(result)
    assert {path.name for path in (tmp_path / "demo" / "simulated").iterdir()} >= {
        "blood-a.h5ad",
        "blood-b.h5",
        "gut-c",
    }
    again = run_demo(tmp_path / "demo")
    assert again.accuracy == result.accuracy


@pytest.mark.slow  # half a minute; one file without labels and the simulated demonstration run every time
@pytest.mark.usefixtures("_short")
def test_two_real_files_are_compared(tmp_path: Path, shared_data: Path) -> None:
    files = [real(shared_data, "pbmc_facs_zheng.h5ad"), real(shared_data, "gut_scp1884.h5ad")]
    result = run_demo(tmp_path / "demo", data=files)
    check(result)
    content = yaml.safe_load(result.experiment.read_text())
    assert content["data"]["rename"] == {"celltype": "cell_type", "Celltype": "cell_type"}
    assert content["split"]["by"] == "donor_id"
    page = result.report.read_text()
    assert "held-out donors" in page
    assert "held-out cells of the same donors" in page
    assert "celltype is called cell_type" in page


@pytest.mark.usefixtures("_short")
def test_a_file_without_labels_is_enough(tmp_path: Path, shared_data: Path) -> None:
    result = run_demo(tmp_path / "demo", data=[real(shared_data, "pbmc_1k_v2_10x.h5")])
    check(result)
    assert "held-out cells of the same donors" in result.report.read_text()


def test_values_that_are_not_raw_are_refused(tmp_path: Path, shared_data: Path) -> None:
    with pytest.raises(NotRawCountsError, match=r"notraw_sciplex3_lognorm\.h5ad"):
        run_demo(tmp_path / "demo", data=[real(shared_data, "notraw_sciplex3_lognorm.h5ad")])
    assert not (tmp_path / "demo" / "atlas.mill").exists()
