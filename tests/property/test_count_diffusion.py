"""Count tokens: both kernels agree, masks follow the schedule, what a gene becomes depends on cell and gene alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from cellmill.errors import ConfigError, InputError
from cellmill.kernel import CountTokenOut, CountTokenPlan, reference
from cellmill.tokens import CountDiffusion
from cellmill.tokens.count_diffusion import noise_of
from kernels import native, needs_native
from token_cells import rows_of, some_cells, some_counts, some_keys

N_SLOTS = 22


def made_by(kernel, cells, plan, length, threads=1) -> CountTokenOut:
    size = len(cells) * length
    out = CountTokenOut(
        starts=np.arange(len(cells) + 1) * length,
        genes=np.zeros(size, np.int64),
        values=np.zeros(size, np.int64),
        target=np.zeros(size, np.int64),
        mask=np.zeros(size, np.uint8),
        lengths=np.zeros(len(cells), np.int64),
    )
    kernel.tokenise_counts(cells, plan, out, threads)
    return out


def some_plan(rng, cells, *, panel: bool, given_numbers: bool = False) -> CountTokenPlan:
    slot_of, column_of = np.full(50, -1, np.int32), np.full(N_SLOTS, -1, np.int32)
    columns, slots = rng.permutation(50)[:20], rng.permutation(N_SLOTS)[:20]
    slot_of[columns], column_of[slots] = slots, columns
    size = len(cells) * N_SLOTS if panel else len(cells.counts)
    return CountTokenPlan(
        edges=np.unique(rng.integers(1, 30, 8)).astype(np.uint32),
        mask_token=40,
        pad_token=41,
        pad_gene=500,
        ratio=rng.random(len(cells)),
        panel=column_of if panel else None,
        slot_of=slot_of if panel else None,
        room=None if panel else np.minimum(cells.sizes, N_SLOTS - 2),
        largest=bool(rng.integers(2)),
        mask=rng.integers(0, 2**63, size).astype(np.uint64) * 2 if given_numbers else None,
    )


@needs_native
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.booleans())
def test_both_kernels_give_the_same_tokens(seed, panel, given_numbers):
    rng = np.random.default_rng(seed)
    cells = some_cells(rng)
    plan = some_plan(rng, cells, panel=panel, given_numbers=given_numbers)
    left, right = (
        made_by(native, cells, plan, N_SLOTS, int(rng.integers(1, 4))),
        made_by(reference, cells, plan, N_SLOTS),
    )
    for name in ("genes", "values", "target", "mask", "lengths"):
        assert np.array_equal(getattr(left, name), getattr(right, name)), name


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_order_of_axis_and_of_cells_changes_no_gene(seed, panel):
    rng = np.random.default_rng(seed)
    counts, tokens, keys = some_counts(rng), rng.permutation(90)[:50], some_keys(rng, 6)
    recipe = CountDiffusion(rng.permutation(90)[:30].tolist()) if panel else CountDiffusion(max_length=9)
    columns, rows = rng.permutation(50), rng.permutation(6)
    batch = recipe.encode(counts, tokens, keys)
    turned = recipe.encode(sparse.csr_array(counts[rows][:, columns]), tokens[columns], keys[rows])
    expected, found = rows_of(batch), rows_of(turned)
    for there, here in enumerate(rows):
        assert sorted(zip(*found[there], strict=True)) == sorted(zip(*expected[here], strict=True))
    for name in ("time", "weight"):
        assert torch.equal(turned.extra[name], batch.extra[name][rows])


def test_padding_never_changes_tokens():
    rng = np.random.default_rng(0)
    counts, keys = some_counts(rng), some_keys(rng, 6)
    flat = CountDiffusion(max_length=20, pad="none").encode(counts, np.arange(50), keys)
    for pad, multiple in (("longest", 1), ("longest", 8), ("max", 1)):
        padded = CountDiffusion(max_length=20, pad=pad, multiple=multiple).encode(counts, np.arange(50), keys)
        real = ~padded.padding_mask()
        for name in ("genes", "values", "target", "mask"):
            assert torch.equal(getattr(padded, name)[real], getattr(flat, name)), name
        assert not padded.mask[~real].any()
        assert (padded.values[~real] == CountDiffusion().pad_token).all()


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_weight_is_what_the_schedule_loses_over_what_it_has_masked(schedule):
    times = np.linspace(0.05, 0.95, 19)
    hidden, weight = noise_of(schedule, times)
    step = 1e-6
    lost = (noise_of(schedule, times + step)[0] - noise_of(schedule, times - step)[0]) / (2 * step)
    assert np.allclose(weight, lost / hidden, rtol=1e-5)
    ends = noise_of(schedule, np.array([0.0, 1.0]))[0]
    assert np.allclose(ends, [0, 1])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_masks_and_times_have_the_promised_rates(schedule):
    n, p = 4000, 50
    counts = sparse.csr_array(np.ones((n, p), np.uint32))
    keys = some_keys(np.random.default_rng(2), n)
    batch = CountDiffusion(range(p), schedule=schedule).encode(counts, np.arange(p), keys)
    times = batch.extra["time"].numpy()
    assert times.min() >= 1e-3 and times.max() <= 1
    tenths = np.histogram(times, bins=10, range=(1e-3, 1))[0]
    assert ((tenths - n / 10) ** 2 / (n / 10)).sum() < 35  # chi-square of 9 degrees: 1 in 10,000
    hidden, _ = noise_of(schedule, times.astype(np.float64))
    off = (batch.mask.sum(1).numpy() - p * hidden).sum()
    assert abs(off) < 5 * np.sqrt((p * hidden * (1 - hidden)).sum())
    per_gene = batch.mask.sum(0).numpy()
    assert (np.abs(per_gene - hidden.sum()) < 5 * np.sqrt((hidden * (1 - hidden)).sum())).all()


def test_samples_of_a_long_cell_are_uniform():
    n, p, room = 3000, 40, 10
    counts = sparse.csr_array(np.ones((n, p), np.uint32))
    batch = CountDiffusion(max_length=room).encode(counts, np.arange(p), some_keys(np.random.default_rng(3), n))
    often = np.bincount(batch.genes.numpy().ravel(), minlength=p)
    expected = n * room / p
    assert ((often - expected) ** 2 / (expected * (1 - room / p))).sum() < 85  # chi-square of 39 degrees: 1 in 10,000


def test_counts_become_tokens_and_a_gene_that_the_data_lacks_is_no_zero():
    counts = sparse.csr_array(np.array([[5, 0, 200, 1]], dtype=np.uint32))
    keys = np.ones(1, np.uint64)
    shown = CountDiffusion([2, 9, 0, 1], n_counts=64, time=1.0)
    batch = shown.encode(counts, np.arange(4), keys)
    assert batch.target.tolist() == [[63, shown.pad_token, 5, 0]]
    assert batch.mask.tolist() == [[True, False, True, True]]
    coarse = CountDiffusion(range(4), edges=[1, 4, 200], time=0.0).encode(counts, np.arange(4), keys)
    assert coarse.values.tolist() == coarse.target.tolist() == [[2, 0, 3, 1]]
    assert not coarse.mask.any() and coarse.extra["weight"].tolist() == [0]
    empty = CountDiffusion().encode(sparse.csr_array((1, 4), dtype=np.uint32), np.arange(4), keys)
    assert empty.lengths.tolist() == [0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"panel": [1], "max_length": 5}, "max_length"),
        ({"max_length": 0}, "max_length"),
        ({"n_counts": 1}, "n_counts"),
        ({"edges": [3, 3]}, "edges"),
        ({"schedule": "sine"}, "schedule"),
        ({"min_time": 0.0}, "min_time"),
        ({"time": 1.5}, "time"),
        ({"keep": "first"}, "keep"),
        ({"edges": 5}, "edges must be a list"),
        ({"edges": [1, 2**32]}, "edges"),
        ({"edges": "12"}, "edges"),
        ({"edges": []}, "edges"),
        ({"panel": 5}, "panel must be a list"),
        ({"n_counts": 2**30}, "n_counts must be at most 1,048,576"),
        ({"n_counts": 64, "edges": [1, 2]}, "n_counts=64 does nothing beside edges"),
        ({"min_time": 0.1, "time": 0.5}, "min_time .* time"),
        ({"panel": [1], "pad": "none"}, "pad .* beside a panel"),
        ({"panel": [1], "pad": "max"}, "pad .* beside a panel"),
        ({"panel": [1], "multiple": 8}, "multiple .* beside a panel"),
        ({"panel": [1], "keep": "largest"}, "keep .* beside a panel"),
    ],
)
def test_arguments_are_refused_by_name(arguments, said):
    with pytest.raises(ConfigError, match=said):
        CountDiffusion(**arguments)


def test_two_columns_of_one_gene_are_refused():
    with pytest.raises(InputError, match="token 0 twice"):
        CountDiffusion([0]).encode(sparse.csr_array(np.eye(2, dtype=int)), np.zeros(2, np.int64), np.ones(2, np.uint64))


@needs_native
@pytest.mark.parametrize("name", ["slot_of", "panel", "ratio", "edges", "starts"])
def test_arrays_that_contradict_each_other_are_refused(name):
    rng = np.random.default_rng(1)
    cells = some_cells(rng)
    plan = some_plan(rng, cells, panel=True)
    out = made_by(native, cells, plan, N_SLOTS)
    if name == "starts":
        out.starts[1] = 3
    elif name == "ratio":
        object.__setattr__(plan, "ratio", np.ones(2))
    else:
        getattr(plan, name)[0] = 60
    with pytest.raises(ValueError, match=name):
        native.tokenise_counts(cells, plan, out, 1)
