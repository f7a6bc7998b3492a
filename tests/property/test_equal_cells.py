"""Equal cells are those that a dictionary finds, whatever the memory, the order and the sources."""

from __future__ import annotations

import tracemalloc
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmill.store.equal_cells import FEW_COUNTS, EqualCells, equals_known, repeats_earlier

MIN_COUNTS = 10
ROOMY, TIGHT = 512 << 20, 256  # bytes: all in memory, or buckets of a few records on disk

# fingerprints from few values, spread over 64 bits, so that equal ones and chance collisions are frequent
FINGERPRINTS = [int(i * 0x9E3779B97F4A7C15) % 2**64 for i in range(6)]
CELL = st.tuples(
    st.sampled_from(FINGERPRINTS),
    st.sampled_from([1, 2]),
    st.sampled_from([0, 1, 9, 10, 50]),
    st.integers(0, 3),  # source
)
BLOCKS = st.lists(st.lists(CELL, max_size=12), max_size=8)


def search(blocks, *, memory_bytes, folder):
    """All blocks through the finder; a block is cut where its source changes, as shards are."""
    n_cells = sum(map(len, blocks))
    uids = [cell[0] % 5 for block in blocks for cell in block]
    with EqualCells(
        n_cells=n_cells, n_sources=4, min_counts=MIN_COUNTS, memory_bytes=memory_bytes, folder=folder
    ) as finder:
        row = 0
        for block in blocks:
            cells = sorted(block, key=lambda cell: cell[3])
            for source in range(4):
                own = [cell for cell in cells if cell[3] == source]
                fingerprints, detected, totals = (
                    np.array([cell[i] for cell in own], dtype=kind)
                    for i, kind in enumerate((np.uint64, np.int32, np.int64))
                )
                finder.add(
                    fingerprints=fingerprints,
                    detected=detected,
                    totals=totals,
                    first_row=row,
                    source=source,
                    uids=np.array(uids[row : row + len(own)], dtype=np.uint64),
                )
                row += len(own)
        marks = [part.copy() for part in finder.marks()]
        spilled = finder.spilled
    found = finder.found
    return found, [tuple(map(int, mark)) for part in marks for mark in part], spilled, uids


def by_dictionary(blocks):
    """The same by the plainest means."""
    rows = [cell for block in blocks for cell in sorted(block, key=lambda cell: cell[3])]
    groups, few, totals_of = defaultdict(list), defaultdict(int), defaultdict(set)
    for row, (fingerprint, detected, total, _) in enumerate(rows):
        if total >= MIN_COUNTS:
            groups[fingerprint, detected, total].append(row)
            totals_of[fingerprint].add((detected, total))
        elif total:
            few[fingerprint, detected, total] += 1
    groups = [members for members in groups.values() if len(members) > 1]
    marks = sorted((row, members[0], len(members)) for members in groups for row in members)
    table, by_source = defaultdict(int), [0] * 4
    for members in groups:
        for row in members:
            for other in range(4):
                if any(rows[m][3] == other for m in members if m != row):
                    table[rows[row][3], other] += 1
            by_source[rows[row][3]] += row != members[0]
    return {
        "marks": marks,
        "repeats": sum(len(members) - 1 for members in groups),
        "groups": len(groups),
        "table": dict(table),
        "by_source": by_source,
        "collisions": sum(len(kinds) > 1 for kinds in totals_of.values()),
        "empty": sum(total == 0 for _, _, total, _ in rows),
        "few": sum(few.values()),
        "few_repeats": sum(n - 1 for n in few.values()),
        "few_groups": sum(n > 1 for n in few.values()),
        "cells": len(rows),
    }


@settings(max_examples=100, deadline=None)
@given(blocks=BLOCKS, memory_bytes=st.sampled_from([ROOMY, TIGHT]))
def test_equal_cells_are_those_of_a_dictionary(tmp_path_factory, blocks, memory_bytes):
    folder = tmp_path_factory.mktemp("buckets")
    found, marks, _, uids = search(blocks, memory_bytes=memory_bytes, folder=folder)
    expected = by_dictionary(blocks)
    assert marks == expected["marks"]
    assert (found.cells, found.repeats, found.groups) == (expected["cells"], expected["repeats"], expected["groups"])
    assert found.table == expected["table"]
    assert found.by_source.tolist() == expected["by_source"]
    assert found.collisions == expected["collisions"]
    few = found.few
    assert (few.empty, few.cells, few.repeats, few.groups) == (
        expected["empty"], expected["few"], expected["few_repeats"], expected["few_groups"],
    )  # fmt: skip
    assert found.uid_repeats == len(uids) - len(set(uids))
    assert sorted(found.uids) == sorted(
        (uid, [row for row, other in enumerate(uids) if other == uid]) for uid in set(uids) if uids.count(uid) > 1
    )
    assert list(folder.iterdir()) == []


@settings(max_examples=100, deadline=None)
@given(cells=st.lists(CELL, max_size=60))
def test_what_repeats_an_earlier_cell_is_what_a_set_has_seen(cells):
    seen, expected = set(), []
    for cell in cells:
        expected.append(cell[:3] in seen)
        seen.add(cell[:3])
    columns = (np.array([cell[i] for cell in cells], dtype=d) for i, d in enumerate((np.uint64, np.int32, np.int64)))
    assert repeats_earlier(*columns).tolist() == expected


@settings(max_examples=100, deadline=None)
@given(known=st.lists(CELL, max_size=30), asked=st.lists(CELL, max_size=30))
def test_a_cell_equals_a_known_one_by_fingerprint_genes_and_total_and_never_with_few_counts(known, asked):
    asked = [(*cell[:2], cell[2] + 45 * (i % 2)) for i, cell in enumerate(asked)] + [cell[:3] for cell in known]
    facts = [
        tuple(np.array([cell[i] for cell in cells], dtype=d) for i, d in enumerate((np.uint64, np.int32, np.int64)))
        for cells in (known, asked)
    ]
    held = {cell[:3] for cell in known}
    expected = [cell in held and cell[2] >= FEW_COUNTS for cell in asked]
    assert equals_known(*facts).tolist() == expected


def test_little_memory_means_many_buckets_and_the_same_answer(tmp_path):
    rng = np.random.default_rng(0)
    blocks = [
        [(int(f), 1, int(t), int(s)) for f, t, s in zip(
            rng.integers(0, 4000, 2000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15),
            rng.integers(5, 15, 2000),
            rng.integers(0, 4, 2000),
            strict=True,
        )]
        for _ in range(4)
    ]  # fmt: skip
    roomy = search(blocks, memory_bytes=ROOMY, folder=tmp_path)
    tight = search(blocks, memory_bytes=1 << 16, folder=tmp_path)
    assert (roomy[2], tight[2]) == (False, True)
    assert tight[1] == roomy[1] and len(roomy[1]) > 500
    assert tight[0].table == roomy[0].table


@pytest.mark.parametrize("n_sources", [250, 300])
def test_a_set_from_very_many_sources_is_counted_and_not_tabulated(n_sources):
    with EqualCells(n_cells=n_sources, n_sources=n_sources) as finder:
        for source in range(n_sources):
            one = np.array([7], dtype=np.uint64)
            finder.add(fingerprints=one, detected=one, totals=one * np.uint64(200), first_row=source, source=source)
        (marks,) = finder.marks()
    assert len(marks) == n_sources and set(marks["n_copies"].tolist()) == {n_sources}
    assert finder.found.wide_groups == (n_sources > 256)
    assert len(finder.found.table) == (n_sources * (n_sources - 1) if n_sources <= 256 else 0)


def test_memory_is_that_of_a_bucket(tmp_path):
    """A million cells with a budget of 8 MiB: what Python and NumPy take at most stays below twice that."""
    n_cells, budget, block = 1_000_000, 8 << 20, 50_000
    rng = np.random.default_rng(1)
    tracemalloc.start()
    with EqualCells(n_cells=n_cells, n_sources=1, memory_bytes=budget, folder=tmp_path) as finder:
        for first in range(0, n_cells, block):
            # every fifth cell comes in pairs
            fingerprints = rng.integers(0, 2**64, block, dtype=np.uint64)
            fingerprints[: block // 10] = fingerprints[block // 10 : block // 5]
            finder.add(
                fingerprints=fingerprints,
                detected=np.full(block, 50, np.int32),
                totals=np.full(block, 500, np.int64),
                first_row=first,
                source=0,
                uids=fingerprints,
            )
        n_marks = sum(len(part) for part in finder.marks())
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_marks == n_cells // 5 and finder.found.repeats == n_cells // 10
    assert finder.spilled
    assert peak < 2 * budget + 10 * 40 * block, peak
