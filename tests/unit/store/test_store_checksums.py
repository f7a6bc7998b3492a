"""With checksums on, damaged bytes never give other numbers: each flipped byte of frames or offsets is an error."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest

import cellmill as cm
from cellmill.errors import CorruptStoreError, InputError
from cellmill.simulate import write_atlas


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checksums")
    return cm.build(folder / "a.mill", write_atlas(folder / "files", n_cells=90, n_genes=800, seed=1))


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.985])
def test_a_flipped_byte_is_an_error_of_the_first_read(built, tmp_path, share):
    copy = tmp_path / "b.mill"
    shutil.copytree(built.path, copy)
    shard = copy / built.manifest.shards[0].cells.path
    data = bytearray(shard.read_bytes())
    data[int(share * len(data))] ^= 1
    shard.write_bytes(data)
    store = cm.open(copy, checksums=True)
    for one in (store, pickle.loads(pickle.dumps(store))):
        for _ in range(2):
            with pytest.raises(CorruptStoreError, match=r"00000\.cells"):
                one.read([0])
    last = store.n_cells - 1  # of another shard
    assert (store.read([last]) != built.read([last])).nnz == 0


def test_sound_stores_read_alike_with_checksums(built):
    rows = np.arange(built.n_cells)
    assert (cm.open(built.path, checksums=True).read(rows) != built.read(rows)).nnz == 0


def test_a_merge_does_not_replace_what_it_merges(built, tmp_path):
    copy = tmp_path / "b.mill"
    shutil.copytree(built.path, copy)
    with pytest.raises(InputError, match="Choose another name"):
        cm.merge(copy, [copy, built], overwrite=True)
