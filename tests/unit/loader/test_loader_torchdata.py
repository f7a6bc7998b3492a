"""Inside torchdata's StatefulDataLoader: its state, in this process and in workers, gives exactly the rest."""

from __future__ import annotations

import json

import pytest
import torch

from cellmill.loader import Loader

StatefulDataLoader = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader


def contents(batches):
    return [{name: tensor.tolist() for name, tensor in batch.tensors()} | {"step": batch.step} for batch in batches]


def stateful(store, workers, **options):
    loader = Loader(store, batch_size=40, obs=["cell_type"], seed=3, downsample=400, **options)
    return loader, StatefulDataLoader(loader, batch_size=None, num_workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("k", [0, 5, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 8, 15))])
def test_the_rest_after_a_state(atlas, workers, k):
    whole = contents(Loader(atlas, batch_size=40, obs=["cell_type"], seed=3, downsample=400, epochs=2))
    assert len(whole) == 16
    _, first = stateful(atlas, workers, epochs=2)
    stream = iter(first)
    assert contents(next(stream) for _ in range(k)) == whole[:k]
    state = json.loads(json.dumps(first.state_dict()))
    del stream, first
    _, second = stateful(atlas, workers, epochs=2)
    second.load_state_dict(state)
    assert contents(second) == whole[k:]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_finished_epoch_is_followed_by_the_next(atlas, workers):
    loader, first = stateful(atlas, workers)
    assert len(contents(first)) == 8
    state = first.state_dict()
    loader.set_epoch(1)
    second_epoch = contents(first)
    loader, again = stateful(atlas, workers)
    again.load_state_dict(state)
    loader.set_epoch(1)  # as the loop of a training does, before each epoch
    assert contents(again) == second_epoch
    loader.set_epoch(0)
    assert contents(again) == contents(stateful(atlas, 0)[1])


def test_a_state_goes_from_two_ranks_to_one(atlas):
    _, first = stateful(atlas, 1, rank=0, world_size=2)
    stream = iter(first)
    for _ in range(3):
        next(stream)
    _, alone = stateful(atlas, 1)
    alone.load_state_dict(first.state_dict())
    rest = torch.cat([batch.cells for batch in alone])
    assert rest.tolist() == torch.cat([batch.cells for batch in list(stateful(atlas, 0)[1])[3:]]).tolist()
