"""Batches: both kernels agree on panels, dense rows and fingerprints, whatever the threads, also after a fork."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmill import kernel
from cellmill.errors import FrameError, InputError
from cellmill.kernel import reference
from kernels import IMPLEMENTATIONS, native, needs_native

LARGEST_STEP_F32 = 2.0**-23
WORTH_A_THREAD = 100_000  # Nonzeros; kLeastDecoded of native/gather.cpp. Smaller batches are decoded by one thread.


class Shards(NamedTuple):
    """Cells in shards, as dense counts (the truth) and as frames."""

    dense: npt.NDArray[np.int64]
    shards: list[npt.NDArray[np.uint8]]
    shard_of: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    stop: npt.NDArray[np.int64]

    def rows(self, rows):
        return self.shards, self.shard_of[rows], self.start[rows], self.stop[rows]


def make_shards(seed: int, n_cells: int, n_genes: int, n_shards: int) -> Shards:
    rng = np.random.default_rng(seed)
    dense = rng.poisson(rng.gamma(0.3, 4.0, (n_cells, n_genes)) * rng.choice([0, 1], (n_cells, 1), p=[0.1, 0.9]))
    shards, of, start, stop = [], [], [], []
    for number, part in enumerate(np.array_split(dense, n_shards)):
        row, column = np.nonzero(part)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(part)))])
        frames, offsets = kernel.encode(indptr, column, part[row, column], n_genes=n_genes)
        prefix = rng.integers(0, 256, 5, dtype=np.uint8)
        shards.append(np.concatenate([prefix, frames, prefix]))
        of += [number] * len(part)
        start += (offsets[:-1].astype(int) + 5).tolist()
        stop += (offsets[1:].astype(int) + 5).tolist()
    return Shards(dense, shards, *(np.array(x, np.int64) for x in (of, start, stop)))


def make_panel(seed: int, n_genes: int, share: float, ascending: bool) -> npt.NDArray[np.int32]:
    rng = np.random.default_rng(seed)
    kept = np.flatnonzero(rng.random(n_genes) < share)
    panel = np.full(n_genes, -1, np.int32)
    panel[kept] = np.arange(len(kept)) if ascending else rng.permutation(len(kept))
    return panel


def through(panel, dense, n_columns):
    out = np.zeros((len(dense), n_columns), dense.dtype)
    out[:, panel[panel >= 0]] = dense[:, panel >= 0]
    return out


batches = st.builds(
    make_shards, st.integers(0, 2**32), st.integers(1, 12), st.sampled_from([1, 40, 700]), st.integers(1, 3)
)
panels = st.tuples(st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 1.0]), st.booleans(), st.integers(0, 9))


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
@settings(max_examples=50, deadline=None)
@given(batch=batches, chosen=panels, data=st.data())
def test_a_panel_keeps_its_columns_in_order(module, batch, chosen, data):
    n_genes = batch.dense.shape[1]
    rows = np.array(data.draw(st.lists(st.integers(0, len(batch.dense) - 1), max_size=20)), np.int64)
    seed, share, ascending, extra = chosen
    panel = make_panel(seed, n_genes, share, ascending)
    n_columns = int(panel.max()) + 1 + extra
    made = module.Panel(panel, n_columns)
    fault, indptr, indices, values, totals = module.gather(*batch.rows(rows), n_genes, None, made, 0, True, 2)
    assert fault is None
    assert np.array_equal(totals, batch.dense[rows].sum(axis=1))
    wanted = through(panel, batch.dense[rows], n_columns)
    row, column = np.nonzero(wanted)
    assert np.array_equal(indptr, np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(rows)))]))
    assert np.array_equal(indices, column) and np.array_equal(values, wanted[row, column])
    assert (indptr.dtype, indices.dtype, values.dtype) == (np.int64, np.int32, np.uint32)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
@pytest.mark.parametrize("transform", kernel.TRANSFORMS)
@settings(max_examples=40, deadline=None)
@given(batch=batches, chosen=panels, own_totals=st.booleans())
def test_dense_rows_are_the_transformed_counts(module, transform, batch, chosen, own_totals):
    n_genes = batch.dense.shape[1]
    seed, share, ascending, extra = chosen
    panel = make_panel(seed, n_genes, share, ascending)
    n_columns = int(panel.max()) + 1 + extra
    totals = None if own_totals else (np.arange(len(batch.dense)) % 3 * 1000).astype(np.uint64)
    out = np.full((len(batch.dense), n_columns), np.nan, np.float32)
    rows = batch.rows(slice(None))
    made = module.Panel(panel, n_columns)
    sums = np.zeros(len(out), np.uint64)
    kind = kernel.TRANSFORMS.index(transform)
    assert module.gather_dense(*rows, n_genes, None, made, kind, totals, out, sums, 3) is None
    assert np.array_equal(sums, batch.dense.sum(axis=1))

    x = through(panel, batch.dense, n_columns).astype(np.float64)
    if transform != "raw":
        total = (batch.dense.sum(axis=1) if totals is None else totals).astype(np.float64)[:, None]
        x = np.divide(1e4 * x, total, out=np.zeros_like(x), where=total > 0)
    if transform == "log1p_cp10k":
        x = np.log1p(x)
    np.testing.assert_allclose(out, x, rtol=LARGEST_STEP_F32)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
@pytest.mark.parametrize("group", [0, 16], ids=["flat offsets", "grouped offsets"])
@settings(max_examples=40, deadline=None)
@given(batch=batches, data=st.data())
def test_rows_of_a_table_are_the_rows_of_its_shards(module, group, batch, data):
    """Shards of any size, put in any order, offsets flat or in groups of 16."""
    n_cells, n_genes = batch.dense.shape
    firsts = np.searchsorted(batch.shard_of, np.arange(len(batch.shards) + 1))
    table = module.RowTable(firsts.astype(np.int64))
    rows = np.array(data.draw(st.lists(st.integers(0, n_cells - 1), max_size=20)), np.int64)
    assert table.missing(rows) == sorted({int(batch.shard_of[row]) for row in rows})
    for number in data.draw(st.permutations(range(len(batch.shards)))):
        starts = batch.start[firsts[number] : firsts[number + 1]]
        ends = np.append(starts, batch.stop[firsts[number + 1] - 1] if len(starts) else 0)
        bases = ends[::16] if group else ends
        steps = ends - np.repeat(bases, 16)[: len(ends)] if group else np.empty(0)
        table.put(number, batch.shards[number], bases.astype(np.uint32), steps.astype(np.uint16))
    assert table.missing(rows) == []
    table.will_need(rows)
    wanted = module.gather(*batch.rows(rows), n_genes, None, None, 0, True, 1)
    found = module.gather_rows(table, rows, n_genes, None, None, 0, True, 2)
    assert found[0] is None and wanted[0] is None
    assert all(np.array_equal(a, b) for a, b in zip(found[1:], wanted[1:], strict=True))
    out = np.empty((len(rows), n_genes), np.float32)
    assert module.gather_rows_dense(table, rows, n_genes, None, None, 0, None, out, None, 2) is None
    assert np.array_equal(out, batch.dense[rows])


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6), data=st.data())
def test_numbers_of_rows_are_those_of_their_shards(module, sizes, data):
    firsts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    numbers = np.arange(firsts[-1], dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    table = module.RowTable(firsts)
    rows = np.array(
        data.draw(st.lists(st.integers(0, int(firsts[-1]) - 1), max_size=20)) if firsts[-1] else [], np.int64
    )
    shards = sorted({int(s) for s in np.searchsorted(firsts, rows, side="right") - 1})
    assert table.missing_numbers(rows) == shards
    if len(rows):
        with pytest.raises(ValueError, match="not put in"):
            table.numbers(rows)
    for shard in data.draw(st.permutations(shards)):
        table.put_numbers(shard, numbers[firsts[shard] : firsts[shard + 1]])
    assert table.missing_numbers(rows) == []
    assert np.array_equal(table.numbers(rows), numbers[rows])
    for wrong in (
        lambda: table.put_numbers(len(sizes), numbers[:0]),
        lambda: table.put_numbers(0, np.zeros(6, np.uint64)),
    ):
        with pytest.raises(ValueError):
            wrong()
    for row in (-1, int(firsts[-1])):
        with pytest.raises(IndexError):
            table.numbers(np.array([row]))


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_a_table_refuses_what_does_not_fit(module):
    with pytest.raises(ValueError):
        module.RowTable(np.array([0, 5, 3]))
    table = module.RowTable(np.array([0, 20, 20, 21]))
    frames, none = np.zeros(30, np.uint8), np.empty(0, np.uint16)
    for starts, steps in [
        (np.zeros(20), none),
        (np.zeros(22), none),
        (np.zeros(1), np.zeros(21)),
        (np.zeros(2), np.zeros(20)),
    ]:
        with pytest.raises(ValueError):
            table.put(0, frames, starts.astype(np.uint32), steps.astype(np.uint16))
    with pytest.raises(ValueError):
        table.put(3, frames, np.zeros(2, np.uint32), none)
    for row in (-1, 21):
        with pytest.raises(IndexError):
            table.missing(np.array([row]))
        with pytest.raises(IndexError):
            module.gather_rows(table, np.array([row]), 3, None, None, 0, False, 1)
    with pytest.raises(ValueError):
        module.gather_rows(table, np.array([3]), 3, None, None, 0, False, 1)  # its shard was not put in
    table.put(2, frames, np.array([7, 2], np.uint32), none)  # offsets that fall
    assert module.gather_rows(table, np.array([20]), 3, None, None, 0, False, 1)[0] == (0, 1)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
@pytest.mark.parametrize(("kind", "dtype", "largest"), [(1, np.int32, 2**31 - 1), (2, np.float32, 2**24)])
def test_counts_come_as_the_type_asked_for_or_not_at_all(module, kind, dtype, largest):
    for n_ones in (0, 150):
        counts = np.array([1] * n_ones + [3, largest], np.uint32)
        genes, indptr = np.arange(len(counts)), np.array([0, len(counts)])
        for panel in (None, module.Panel(np.arange(200, dtype=np.int32), 200)):
            for extra in (0, 1):
                counts[-1] = largest + extra
                frames, offsets = module.encode(indptr, genes, counts, 200, None, 1)
                place = [frames], np.zeros(1, np.int64), offsets[:1].astype(np.int64), offsets[1:].astype(np.int64)
                fault, _, _, values, _ = module.gather(*place, 200, None, panel, kind, False, 1)
                assert fault == ((0, 20) if extra else None)
                if not extra:
                    assert values.dtype == dtype and np.array_equal(values.astype(np.int64), counts)


def test_a_count_that_the_type_does_not_hold_is_named():
    frames, offsets = kernel.encode(np.array([0, 1, 2]), np.array([0, 0]), np.array([1, 2**24 + 1]), n_genes=1)
    table = kernel.RowTable(np.array([0, 2]))
    table.put(0, frames, offsets.astype(np.uint32), np.empty(0, np.uint16))
    with pytest.raises(InputError, match=r"row 1 .*above what float32 holds"):
        kernel.gather_rows(table, np.array([0, 1]), n_genes=1, dtype="float32")
    assert kernel.gather_rows(table, np.array([0, 1]), n_genes=1).values.tolist() == [1, 2**24 + 1]


@needs_native
@settings(max_examples=60, deadline=None)
@given(batch=batches, seed=st.integers(0, 2**32))
def test_fingerprints_agree_and_do_not_depend_on_the_order_of_genes(batch, seed):
    rng = np.random.default_rng(seed)
    n_genes = batch.dense.shape[1]
    hashes = rng.integers(0, 2**64, n_genes, dtype=np.uint64)
    row, column = np.nonzero(batch.dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(batch.dense)))]).astype(np.int64)
    values = batch.dense[row, column].astype(np.uint32)
    column = np.ascontiguousarray(column)
    wanted = reference.fingerprint(indptr, column, values, hashes, 1)
    assert np.array_equal(native.fingerprint(indptr, column, values, hashes, 2), wanted)
    assert np.array_equal(native.fingerprint(indptr, column.astype(np.int32), values, hashes, 1), wanted)

    order = rng.permutation(n_genes)
    shuffled = batch.dense[:, order]
    row, column = np.nonzero(shuffled)
    again = kernel.fingerprint(indptr, column, shuffled[row, column], hashes[order])
    assert np.array_equal(again, wanted)


def test_fingerprints_tell_cells_apart():
    hashes = np.arange(1, 51, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    pairs = [(g, v) for g in range(50) for v in range(1, 41)]
    prints = kernel.fingerprint(
        np.arange(len(pairs) + 2) - (np.arange(len(pairs) + 2) > len(pairs)),
        np.array([g for g, _ in pairs]),
        np.array([v for _, v in pairs]),
        hashes,
    )
    assert len(set(prints.tolist())) == len(pairs) + 1


@needs_native
def test_threads_change_no_number():
    batch = make_shards(3, 300, 700, 4)
    rows = np.random.default_rng(0).integers(0, 300, 6000)
    assert np.count_nonzero(batch.dense[rows]) > WORTH_A_THREAD * 5
    panel = make_panel(1, 700, 0.5, False)
    calls = [
        lambda threads: kernel.gather(*batch.rows(rows), n_genes=700, threads=threads),
        lambda threads: kernel.gather(*batch.rows(rows), n_genes=700, panel=panel, threads=threads),
        lambda threads: (
            kernel.gather_dense(*batch.rows(rows), n_genes=700, transform="log1p_cp10k", threads=threads),
        ),
    ]
    for call in calls:
        alone = call(1)
        for threads in (2, 5, 32):
            assert all(np.array_equal(a, b) for a, b in zip(alone, call(threads), strict=True))


@pytest.mark.parametrize("threads", [1, 4])
def test_the_first_bad_row_is_named(threads):
    batch = make_shards(4, 2400, 700, 2)
    assert np.count_nonzero(batch.dense) > WORTH_A_THREAD * 4
    start, stop = batch.start.copy(), batch.stop.copy()
    stop[[120, 290, 2350]] -= 1
    with pytest.raises(FrameError, match="row 120") as caught:
        kernel.gather(batch.shards, batch.shard_of, start, stop, n_genes=700, threads=threads)
    assert caught.value.position == 120
    start[77], stop[77] = 0, 10**9
    with pytest.raises(FrameError, match="row 77") as caught:
        kernel.gather_dense(batch.shards, batch.shard_of, start, stop, n_genes=700, threads=threads)
    assert caught.value.position == 77


def test_results_keep_their_numbers_while_others_are_made():
    batch = make_shards(8, 200, 700, 1)
    first = kernel.gather(*batch.rows(slice(None)), n_genes=700)
    copies = [x.copy() for x in first]
    for rows in (slice(0, 100), slice(100, 200), slice(None)):
        kernel.gather(*batch.rows(rows), n_genes=700)
    assert all(np.array_equal(a, b) for a, b in zip(first, copies, strict=True))


def test_read_only_maps_are_read(tmp_path):
    batch = make_shards(9, 20, 40, 1)
    path = tmp_path / "shard"
    path.write_bytes(batch.shards[0].tobytes())
    mapped = np.memmap(path, np.uint8, "r")
    from_map = kernel.gather([mapped], batch.shard_of, batch.start, batch.stop, n_genes=40)
    from_memory = kernel.gather(*batch.rows(slice(None)), n_genes=40)
    assert all(np.array_equal(a, b) for a, b in zip(from_map, from_memory, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"panel": np.array([0, 0, 1])}, "two genes"),
        ({"panel": np.array([0, 1])}, "one entry per gene"),
        ({"panel": np.array([0, 1, 5]), "n_columns": 5}, "panel entries"),
        ({"panel": np.array([0, 1, -2])}, "panel entries"),
        ({"n_columns": 2}, "without a panel"),
        ({"shard_of": np.array([1])}, "shard_of"),
        ({"start": np.array([0, 0])}, "one length"),
        ({"start": np.array([0.5])}, "integers"),
        ({"threads": -1}, "threads"),
        ({"n_genes": 2**31}, "n_genes"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    frames, offsets = kernel.encode(np.array([0, 1]), np.array([2]), np.array([7]), n_genes=3)
    rows = {"shard_of": np.zeros(1, np.int64), "start": offsets[:1], "stop": offsets[1:], "n_genes": 3} | change
    with pytest.raises(ValueError, match=message):
        kernel.gather([frames], **rows)


def test_dense_arguments_are_checked():
    frames, offsets = kernel.encode(np.array([0, 1]), np.array([2]), np.array([7]), n_genes=3)
    rows = [frames], np.zeros(1, np.int64), offsets[:1], offsets[1:]
    with pytest.raises(ValueError, match="transform"):
        kernel.gather_dense(*rows, n_genes=3, transform="log2")
    with pytest.raises(ValueError, match="out must be"):
        kernel.gather_dense(*rows, n_genes=3, out=np.zeros((1, 4), np.float32))
    with pytest.raises(ValueError, match="totals"):
        kernel.gather_dense(*rows, n_genes=3, totals=np.array([1, 2]))
    out = np.zeros((1, 3), np.float32)
    assert kernel.gather_dense(*rows, n_genes=3, out=out) is out
    assert out.tolist() == [[0, 0, 7]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_gathers_with_threads():
    batch = make_shards(10, 2400, 700, 2)
    assert np.count_nonzero(batch.dense) > WORTH_A_THREAD * 4
    wanted = kernel.gather(*batch.rows(slice(None)), n_genes=700, threads=4)
    child = os.fork()
    if child == 0:
        found = kernel.gather(*batch.rows(slice(None)), n_genes=700, threads=4)
        os._exit(0 if all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_environment_forces_the_reference():
    script = "from cellmill import kernel; print(kernel.IMPLEMENTATION, kernel.native_error())"
    source = str(Path(kernel.__file__).parents[2])
    environment = os.environ | {"CELLMILL_KERNEL": "reference", "PYTHONPATH": source}
    said = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.startswith("reference the environment variable CELLMILL_KERNEL")


def test_the_number_of_threads_is_chosen_by_call_setting_and_environment(monkeypatch):
    monkeypatch.setenv("CELLMILL_THREADS", "3")
    assert kernel.default_threads() == 3
    kernel.set_threads(5)
    assert kernel.default_threads() == 5
    kernel.set_threads(0)
    monkeypatch.setenv("CELLMILL_THREADS", "many")
    with pytest.raises(ValueError, match="CELLMILL_THREADS"):
        kernel.default_threads()
    monkeypatch.delenv("CELLMILL_THREADS")
    assert kernel.default_threads() >= 1
    with pytest.raises(ValueError, match="threads"):
        kernel.set_threads(-1)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_sizes_are_told_without_decoding(module):
    rng = np.random.default_rng(4)
    counts = rng.integers(0, 3, (60, 50)) * (rng.random((60, 1)) < 0.8)
    indptr = np.concatenate([[0], np.cumsum(np.count_nonzero(counts, axis=1))])
    frames, offsets = kernel.encode(indptr, np.nonzero(counts)[1], counts[counts > 0], n_genes=50)
    rows = rng.integers(0, 60, 200)
    where = np.zeros(200, np.int64), offsets[rows].astype(np.int64), offsets[rows + 1].astype(np.int64)
    fault, sizes = module.frame_sizes([frames], *where, 50, None)
    assert fault is None
    np.testing.assert_array_equal(sizes, np.diff(indptr)[rows])
    where[2][100] = len(frames) + 1
    fault, sizes = module.frame_sizes([frames], *where, 50, None)
    assert fault[0] == 100
    np.testing.assert_array_equal(sizes[:100], np.diff(indptr)[rows[:100]])
