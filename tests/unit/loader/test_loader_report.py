"""What a loader says of itself, and a queue that is bounded in bytes."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest

from cellmill.errors import ConfigError
from cellmill.loader import Loader
from cellmill.loader.diagnostics import Meter, entropy_bits, random_entropy_bits
from cellmill.loader.prefetch import Ahead, prefetched
from cellmill.tokens import Dense


def test_a_slow_consumer_is_the_bottleneck(atlas):
    loader = Loader(atlas, batch_size=30, prefetch=2)
    for _ in loader:
        time.sleep(0.03)
    report = loader.report()
    assert report["readers_wait_share"] > 0.3
    assert report["readers_wait_seconds"] <= report["seconds"]
    assert ["the model is the bottleneck" in said for said in report["advice"]] == [True]


def test_a_slow_reader_is_the_bottleneck(atlas):
    loader = Loader(atlas, batch_size=30, prefetch=2)
    read = loader.reader.read_several
    loader.reader.read_several = lambda *a, **kw: (time.sleep(0.03), read(*a, **kw))[1]
    list(loader)
    report = loader.report()
    assert report["wait_share"] > 0.5
    assert report["readers_wait_share"] < 0.2
    assert "Try a larger `prefetch` (now 2)" in report["advice"][0]


def test_labels_that_are_not_mixed_are_spoken_of(atlas):
    for order, is_said in (("stored", True), ("exact", False)):
        loader = Loader(atlas, batch_size=30, obs=["study"], order=order)
        list(loader)
        assert any("mix 'study' less" in said for said in loader.report()["advice"]) == is_said


def test_a_column_with_a_category_for_each_cell_costs_no_more_than_its_batches(atlas):
    batch = next(iter(Loader(atlas, batch_size=64, obs=["study"])))
    wide = replace(batch, categories={"study": range(3_000_000)})
    meter = Meter()
    meter.add(wide, waited=0.0)
    began = time.process_time()
    for _ in range(100):
        meter.add(wide, waited=0.0)
    assert time.process_time() - began < 0.3
    assert meter.to_dict()["label_entropy"]["study"]["all_bits"] == pytest.approx(
        entropy_bits(np.bincount(batch.obs["study"].numpy()))
    )


def test_the_entropy_of_random_batches_is_that_of_all_draws():
    counts = np.array([3, 2, 1])
    labels = np.repeat(np.arange(3), counts)
    entropies = []
    for batch in itertools.combinations(range(6), 3):
        shares = np.bincount(labels[list(batch)]) / 3
        entropies.append(-sum(p * np.log2(p) for p in shares if p))
    assert random_entropy_bits(counts, 3) == pytest.approx(np.mean(entropies), abs=1e-9)
    assert random_entropy_bits(counts, 6) == pytest.approx(-(np.log2(counts / 6) * counts / 6).sum())


def test_a_loader_keeps_to_its_bytes_with_large_batches(atlas):
    batch_bytes = 100 * 400 * 4
    options = {"batch_size": 100, "tokens": Dense(), "epochs": 4, "prefetch": 50}
    most = {}
    for limit in (1, 3 * batch_bytes, 1 << 30):
        loader = Loader(atlas, **options, prefetch_bytes=limit)
        for _ in loader:
            time.sleep(0.02)
        most[limit] = loader.report()["most_bytes_ahead"]
    assert batch_bytes < most[1] < 2 * batch_bytes  # one batch, whatever the limit
    assert batch_bytes < most[3 * batch_bytes] <= 3 * batch_bytes
    assert most[1 << 30] > 5 * batch_bytes
    with pytest.raises(ConfigError, match="prefetch_bytes"):
        Loader(atlas, prefetch_bytes=0)


@pytest.mark.parametrize(("sizes", "most"), [([60, 10, 50, 30, 5, 5, 60, 40], 120), ([200, 10, 60, 30, 5], 200)])
def test_results_of_any_size_stay_within_the_bytes(sizes, most):
    seen = Ahead()
    got = []
    for size in prefetched(list, sizes, depth=100, limit_bytes=120, size=lambda n: n, seen=seen):
        time.sleep(0.01)
        got.append(size)
    assert got == sizes
    assert max(sizes) <= seen.most_bytes <= most  # one that is larger than the limit lies alone
    assert seen.full_seconds > 0


def test_labels_of_many_epochs_are_not_those_of_their_last_batches(atlas):
    """Eight steps an epoch, of which the last is short: every eighth batch would always be that one."""
    loader = Loader(atlas, batch_size=42, obs=["donor_id"], order="exact", epochs=100, tokens=Dense())
    assert loader.steps_per_epoch == 8
    for _ in loader:
        pass
    report = loader.report()
    bits = report["label_entropy"]["donor_id"]
    assert bits["batch_bits"] == pytest.approx(
        bits["random_bits"], abs=0.25
    )  # of which a short batch in eight takes 0.16
    assert not any("donor_id" in said for said in report["advice"])


def test_nothing_is_said_of_the_first_batch_alone(atlas):
    loader = Loader(atlas, batch_size=30)
    next(iter(loader))
    assert loader.report()["wait_share"] > 0.5
    assert loader.report()["advice"] == []
