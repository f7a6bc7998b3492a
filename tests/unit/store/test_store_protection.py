"""A protected store is neither added to nor written over; its digest and its cells are as before."""

from __future__ import annotations

import shutil

import pytest

from cellmill.errors import ConfigError, InputError, StoreExistsError
from cellmill.ingest import append_inputs, build
from cellmill.store import merge_stores, open_store, protect_store, protection_of, release_store


@pytest.fixture
def files(tmp_path, tiny_h5ad):
    return [tiny_h5ad("a", seed=1).path, tiny_h5ad("b", seed=2).path]


@pytest.fixture
def store(tmp_path, files):
    return build(tmp_path / "eval.mill", files[:1], vocabulary="union")


def test_nothing_changes_a_protected_store_until_it_is_released(tmp_path, store, files):
    other = build(tmp_path / "other.mill", files[1:], vocabulary="union")
    made = protect_store(store.path, "galen")
    assert (made.name, made.digest, made.n_cells) == ("galen", store.digest, 60)
    ways = [
        lambda: append_inputs(store.path, files[1:]),
        lambda: build(store.path, files[1:], vocabulary="union", overwrite=True),
        lambda: merge_stores(store.path, [other], overwrite=True),
    ]
    for way in ways:
        with pytest.raises(StoreExistsError, match=r"protected as the evaluation set 'galen'.*--release"):
            way()
    again = open_store(store.path)
    assert again.digest == store.digest
    assert again.verify().ok
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert release_store(store.path)
    assert not release_store(store.path)
    ways[0]()
    assert open_store(store.path).n_cells == 120


def test_a_copy_is_protected_too_and_readable(tmp_path, store):
    protect_store(store.path)
    shutil.copytree(store.path, tmp_path / "copy.mill")
    assert protection_of(tmp_path / "copy.mill").name == "eval"
    assert open_store(tmp_path / "copy.mill").verify().ok


def test_names_do_not_change_by_themselves_and_damage_protects(store, tmp_path):
    first = protect_store(store.path, "one")
    assert protect_store(store.path, "one") == protect_store(store.path) == first
    with pytest.raises(InputError, match="protected as 'one'"):
        protect_store(store.path, "two")
    (store.path / "protected.json").write_text("{")
    with pytest.raises(ConfigError, match="--release"):
        append_inputs(store.path, [])
    with pytest.raises(InputError, match="no store here"):
        protect_store(tmp_path / "nothing.mill")
