"""Steps as arithmetic: every position once, equal steps on all ranks, and resumption on any number of ranks."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cellmill.errors import ConfigError
from cellmill.loader.schedule import Schedule


def schedules(n, batch_size, last, world_size):
    try:
        return [Schedule(n, batch_size, last, rank, world_size) for rank in range(world_size)]
    except ConfigError:
        assume(False)


sizes = {
    "n": st.integers(1, 200),
    "batch_size": st.integers(1, 40),
    "last": st.sampled_from(["keep", "drop", "pad"]),
    "world_size": st.integers(1, 5),
}


@given(**sizes, epochs=st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_every_position_once_over_ranks(n, batch_size, last, world_size, epochs):
    ranks = schedules(n, batch_size, last, world_size)
    n_steps = ranks[0].steps_to(epochs, start=0)
    taken, seen_after = [], 0
    for index in range(n_steps):
        steps = [schedule.step(index, start=0) for schedule in ranks]
        assert len({(s.epoch, s.number, s.after) for s in steps}) == 1
        assert all(len(s.positions) for s in steps)
        assert steps[0].after > seen_after
        seen_after = steps[0].after
        whole = np.concatenate([s.positions for s in steps])
        padding = np.concatenate([np.zeros(len(s.positions), bool) if s.padding is None else s.padding for s in steps])
        if last == "pad":
            assert len(whole) == batch_size
        assert (whole // n == steps[0].epoch).all()
        taken.append(whole[~padding])
    assert seen_after == epochs * n
    together = np.concatenate(taken)
    full = n - n % batch_size if last == "drop" else n
    assert np.array_equal(together, np.concatenate([e * n + np.arange(full) for e in range(epochs)]))


@given(**sizes, other=st.integers(1, 5), data=st.data())
@settings(max_examples=150, deadline=None)
def test_going_on_from_a_step_is_the_rest_on_any_number_of_ranks(n, batch_size, last, world_size, other, data):
    before, after = schedules(n, batch_size, last, world_size), schedules(n, batch_size, last, other)
    n_steps = before[0].steps_to(3, start=0)
    k = data.draw(st.integers(0, n_steps - 1))
    start = before[0].step(k - 1, start=0).after if k else 0
    assert after[0].steps_to(3, start=start) == n_steps - k
    for index in range(n_steps - k):
        one = np.concatenate([s.step(k + index, start=0).positions for s in before])
        rest = np.concatenate([s.step(index, start=start).positions for s in after])
        assert np.array_equal(one, rest)
        assert before[0].step(k + index, start=0).after == after[0].step(index, start=start).after


@given(**sizes, new_size=st.integers(1, 40), data=st.data())
@settings(max_examples=100, deadline=None)
def test_another_batch_size_goes_on_without_losing_or_repeating(n, batch_size, last, world_size, new_size, data):
    del world_size
    one, other = schedules(n, batch_size, last, 1)[0], schedules(n, new_size, "keep", 1)[0]
    k = data.draw(st.integers(0, one.steps_per_epoch))
    start = one.step(k - 1, start=0).after if k else 0
    rest = [other.step(i, start=start).positions for i in range(other.steps_to(2, start=start))]
    assert np.array_equal(np.concatenate(rest), np.arange(start, 2 * n))
