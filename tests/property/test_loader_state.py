"""States over random topologies: what comes after one is exactly the rest, with the same contents."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from cellmill.errors import ConfigError
from cellmill.ingest import build
from cellmill.loader import Loader
from cellmill.mixture import Balance, Component, Mixture
from cellmill.simulate import write_atlas
from cellmill.tokens import CSR, TokenBatch

KINDS = ("repeat", "choose", "proportion", "balance", "weights")


class Randomly:
    """A recipe that shuffles each cell's genes and masks some, by the cell's key alone."""

    genes = None

    def encode(self, counts, genes, keys, *, totals=None):
        del totals
        values, columns = [], []
        for cell, key in enumerate(keys):
            inside = slice(counts.indptr[cell], counts.indptr[cell + 1])
            generator = np.random.default_rng(int(key))
            chosen = generator.permutation(np.arange(inside.start, inside.stop))[:20]
            values.append(counts.data[chosen] * (generator.random(len(chosen)) < 0.6))
            columns.append(genes[counts.indices[chosen]])
        indptr = np.concatenate([[0], np.cumsum([len(v) for v in values])])
        return TokenBatch(
            values=torch.from_numpy(np.concatenate(values).astype(np.int64)),
            genes=torch.from_numpy(np.concatenate(columns).astype(np.int64)),
            indptr=torch.from_numpy(indptr.astype(np.int64)),
            n_columns=len(genes),
        )

    def to_dict(self):
        return {"recipe": "randomly"}


@pytest.fixture(scope="module")
def atlas():
    with tempfile.TemporaryDirectory() as folder:
        files = write_atlas(Path(folder) / "inputs", n_cells=120, n_genes=60, seed=1)
        yield build(Path(folder) / "atlas.mill", files)


@pytest.fixture(scope="module")
def mixtures(atlas):
    parts = {"blood": "tissue = 'blood'", "rest": "tissue <> 'blood'"}

    def made(*amounts, **more):
        pairs = zip(parts.items(), amounts, strict=True)
        return Mixture([Component(name, atlas, where=where, **how) for (name, where), how in pairs], **more).plan()

    return {
        "repeat": made({"repeat": 1.5}, {"repeat": 1}),
        "choose": made({"choose": 20}, {"choose": 15}),
        "proportion": made({"proportion": 0.7}, {"proportion": 0.3}),
        "balance": made({}, {}, balance=Balance(column="cell_type", temperature=2.0)),
        "weights": made({}, {}, balance=Balance(cell_weights="total_counts")),
    }


def world(plan, size, options, state=None):
    """One loader for each rank; topologies that a loader refuses are no examples."""
    try:
        loaders = [Loader(plan, **options, rank=rank, world_size=size) for rank in range(size)]
        for loader in loaders if state else ():
            loader.load_state_dict(json.loads(json.dumps(state)))
    except ConfigError:
        assume(False)
    return loaders


def cells(batch):
    """What each cell of a batch came with: uid, padding, obs, totals, and what the recipe made of it."""
    upto = batch.indptr.tolist()
    padding = [False] * len(batch) if batch.padding is None else batch.padding.tolist()
    return [
        (
            batch.cells[i].item(), padding[i], batch.totals[i].item(), batch.component[i].item(),
            *(column[i].item() for column in batch.obs.values()),
            tuple(batch.genes[upto[i] : upto[i + 1]].tolist()), tuple(batch.values[upto[i] : upto[i + 1]].tolist()),
        )
        for i in range(len(batch))
    ]  # fmt: skip


def steps(iterables):
    """Global steps: what all ranks together got, in the order of ranks."""
    return [
        (parts[0].epoch, parts[0].step, [cell for part in parts for cell in cells(part)])
        for parts in zip(*iterables, strict=True)
    ]


topologies = {
    "kind": st.sampled_from(KINDS),
    "before": st.integers(1, 5),
    "after": st.integers(1, 5),
    "batch_size": st.integers(5, 60),
    "epochs": st.integers(1, 3),
    "last": st.sampled_from(["keep", "drop", "pad"]),
    "order": st.sampled_from(["exact", "blocked", "stored"]),
    "downsample": st.sampled_from([None, 10]),
    "recipe": st.sampled_from([CSR(), Randomly()]),
    "data": st.data(),
}


def check(mixtures, kind, before, after, data, workers=0, **options):
    plan = mixtures[kind]
    options = {"tokens": options.pop("recipe"), "obs": ["cell_type", "total_counts"], "seed": 7, **options}
    whole = steps(world(plan, 1, options))
    first = world(plan, before, options)
    k = data.draw(st.integers(0, len(whole)))
    streams = [iter(loader) for loader in first]
    consumed = [[next(stream) for _ in range(k)] for stream in streams]
    states = [loader.state_dict() for loader in first]
    for stream in streams:
        stream.close()
    assert steps(consumed) == whole[:k]
    assert all(state == states[0] for state in states)
    assert first[0].state_at(k) == states[0]
    second = world(plan, after, options, states[0])
    assert {len(loader) for loader in second} == {len(whole) - k}
    if workers:
        second = [DataLoader(loader, batch_size=None, num_workers=workers) for loader in second]
    assert steps(second) == whole[k:]


@given(**topologies)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_what_comes_after_a_state_is_exactly_the_rest(mixtures, **topology):
    check(mixtures, **topology)


@given(**{**topologies, "before": st.integers(1, 2), "after": st.integers(1, 2)}, workers=st.integers(1, 2))
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_and_with_worker_processes(mixtures, **topology):
    check(mixtures, **topology)
