"""`import cellmill`: the documented names, and nothing heavy until it is asked for."""

from __future__ import annotations

import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import cellmill as cm

PUBLIC = {
    *("open", "build", "append", "merge", "Store", "Vocabulary", "build_vocabulary", "hvg", "card"),
    *("Mixture", "Balance", "Component", "Split", "Exclusion", "Plan"),
    *("Loader", "Dataset", "Batch", "Sets", "Pairs", "Chunks", "tokens", "lightning", "scvi", "accelerate"),
    *("train", "evaluate", "run", "export", "errors", "__version__"),
}


def test_public_names_are_these() -> None:
    assert set(cm.__all__) == PUBLIC
    assert len(cm.__all__) == len(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(cm, name) is not None
    assert name in dir(cm)


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_every_public_name_is_documented(name: str) -> None:
    value = getattr(cm, name)
    assert (inspect.getdoc(value) or "").strip()


def test_verbs_can_be_called() -> None:
    for name in ("open", "build", "append", "merge", "hvg", "card", "train", "evaluate", "run"):
        assert callable(getattr(cm, name)), name


def test_train_stays_callable_after_its_package_is_imported() -> None:
    code = (
        "import cellmill.train, cellmill.evaluate, cellmill.card.write, cellmill as cm;"
        " assert all(map(callable, (cm.train, cm.evaluate, cm.card)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_are_the_things_themselves() -> None:
    from cellmill.loader import lightning, scvi
    from cellmill.pipeline import run_experiment
    from cellmill.store import open_store

    assert cm.open is open_store
    assert cm.run is run_experiment
    assert cm.lightning is lightning
    assert cm.scvi is scvi
    assert isinstance(cm.errors, ModuleType)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        cm.opne  # noqa: B018


HEAVY = ("torch", "anndata", "pandas", "scvi", "lightning", "matplotlib", "scipy", "duckdb", "pyarrow", "h5py")


def loaded_by(code: str) -> set[str]:
    listing = f"{code}; import sys; print(' '.join(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", listing], check=True, capture_output=True, text=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_import_brings_nothing_heavy() -> None:
    assert not loaded_by("import cellmill") & set(HEAVY)


@pytest.mark.parametrize("name", ["open", "build", "Mixture", "hvg", "Vocabulary", "genes", "sources", "ingest"])
def test_data_floors_bring_neither_torch_nor_anndata(name: str) -> None:
    assert not loaded_by(f"import cellmill; cellmill.{name}") & {"torch", "anndata", "pandas", "scvi", "lightning"}


def test_command_line_starts_without_torch() -> None:
    assert not loaded_by("import cellmill.cli") & {"torch", "anndata", "pandas", "scvi", "lightning", "duckdb"}


def test_import_takes_less_than_300_ms() -> None:
    def seconds(code: str) -> float:
        script = f"{code}; import time; print(time.process_time())"  # other processes may slow this one down
        return float(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)

    bare = min(seconds("pass") for _ in range(2))
    assert min(seconds("import cellmill") for _ in range(3)) - bare < 0.3


def test_module_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "cellmill", "--version"], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == f"cellmill {cm.__version__}"
