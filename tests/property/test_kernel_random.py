"""Keyed randomness: a function of its key alone, the same in both kernels, and random enough."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmill import kernel
from cellmill.kernel import reference
from cellmill.kernel.keys import mix64_int

try:
    from cellmill.kernel import _native as native
except ImportError:
    native = None

needs_native = pytest.mark.skipif(native is None, reason="the native kernel is not built here")

u64 = st.integers(0, 2**64 - 1)
u64_arrays = st.lists(u64, max_size=50).map(lambda x: np.array(x, np.uint64))


@needs_native
@given(n=st.integers(1, 2**62), key=u64, data=st.data())
def test_native_permutes_as_the_reference_does(n, key, data):
    positions = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=30)), np.uint64)
    assert np.array_equal(native.permute(positions, n, key), reference.permute(positions, n, key))


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 3000), key=u64)
def test_a_permutation_hits_everything_once(n, key):
    image = kernel.permute(np.arange(n), n, key)
    assert np.array_equal(np.sort(image), np.arange(n, dtype=np.uint64))
    assert np.array_equal(image, reference.permute(np.arange(n, dtype=np.uint64), n, key))


@given(n=st.integers(2**40, 2**62), key=u64)
def test_images_of_a_vast_set_stay_inside_and_apart(n, key):
    image = kernel.permute(np.arange(200), n, key)
    assert image.max() < n and len(set(image.tolist())) == 200


@pytest.mark.parametrize("n", [3, 4, 5])
def test_all_orders_of_a_small_set_are_about_equally_likely(n):
    draws = 6000
    seen = dict.fromkeys(itertools.permutations(range(n)), 0)
    for key in range(draws):
        seen[tuple(kernel.permute(np.arange(n), n, mix64_int(key)).tolist())] += 1
    expected = draws / len(seen)
    chi_square = sum((count - expected) ** 2 / expected for count in seen.values())
    assert chi_square < len(seen) + 6 * (2 * len(seen)) ** 0.5


def test_neighbours_scatter():
    n = 100_000
    image = kernel.permute(np.arange(n), n, 7).astype(np.float64)
    assert abs(np.corrcoef(image[:-1], image[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(image, np.arange(n))[0, 1]) < 0.02


@needs_native
@given(x=u64_arrays, key=u64, counter=u64)
def test_native_mixes_as_the_reference_does(x, key, counter):
    assert np.array_equal(native.mix64(x), reference.mix64(x))
    assert native.mix64(x).tolist() == [mix64_int(int(v)) for v in x]
    assert np.array_equal(native.keyed_u64(key, x, counter), reference.keyed_u64(key, x, counter))


def test_mix64_is_splitmix64():
    # The first three outputs of the published generator (splitmix64.c by Sebastiano Vigna) from the state 0.
    states = np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert kernel.mix64(states).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_keyed_numbers_belong_to_the_cell_not_to_its_place():
    uids = np.arange(1000, dtype=np.uint64)
    numbers = kernel.keyed_u64(5, uids)
    order = np.random.default_rng(0).permutation(1000)
    assert np.array_equal(kernel.keyed_u64(5, uids[order]), numbers[order])
    streams = [numbers, kernel.keyed_u64(5, uids, 1), kernel.keyed_u64(6, uids), kernel.keyed_u64(6, uids, 1)]
    assert len(set(np.concatenate(streams).tolist())) == 4000


def test_uniform_numbers_fill_the_interval_evenly():
    numbers = kernel.keyed_uniform(kernel.derive_key(0, "split"), np.arange(200_000))
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = np.histogram(numbers, 100, (0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 100 + 6 * 200**0.5


def test_keys_depend_on_every_part_and_its_place():
    keys = [
        kernel.derive_key(seed, purpose, *parts)
        for seed in (0, 1, 2**64 - 1)
        for purpose in ("", "order", "split")
        for parts in ((), (0,), (1,), (0, 0), (0, 1), (1, 0), (2**64 - 1,))
    ]
    assert len(set(keys)) == len(keys)
    assert kernel.derive_key(0, "order", 1) == 4815341867387438944  # Frozen: saved plans depend on it.


@pytest.mark.parametrize(("seed", "part"), [(-1, 0), (2**64, 0), (0, -1), (0, 2**64)])
def test_numbers_beyond_64_bits_are_refused(seed, part):
    with pytest.raises(ValueError, match=r"0\.\.2"):
        kernel.derive_key(seed, "order", part)


def test_positions_out_of_range_are_refused():
    with pytest.raises(ValueError, match="positions"):
        kernel.permute(np.array([3]), 3, 0)
    with pytest.raises(ValueError, match="negative"):
        kernel.permute(np.array([-1]), 3, 0)
    with pytest.raises(ValueError, match="n must lie"):
        kernel.permute(np.array([0]), 2**62 + 1, 0)
