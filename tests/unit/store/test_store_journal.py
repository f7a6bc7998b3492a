"""The journal of unfinished work: entries come back as they were, and do not hold their arrays in memory."""

from __future__ import annotations

import numpy as np
import pytest

from cellmill.store.journal import JournalEntry, read_sound


def test_arrays_of_an_entry_are_read_when_they_are_asked_for(tmp_path):
    file = tmp_path / "a.npz"
    file.write_bytes(JournalEntry(None, {"stop": 3}, {"umi": np.arange(5.0)}).pack())
    entry = read_sound(file, tmp_path)
    assert entry.facts == {"stop": 3}
    assert dict(entry.arrays).keys() == {"umi"}
    assert np.array_equal(entry.arrays["umi"], np.arange(5.0))
    with pytest.raises(KeyError):
        entry.arrays["detected"]
    file.write_bytes(JournalEntry(None, {}, {"umi": np.zeros(2)}).pack())
    assert len(entry.arrays["umi"]) == 2


def test_an_entry_with_a_damaged_array_is_not_sound(tmp_path):
    file = tmp_path / "a.npz"
    packed = bytearray(JournalEntry(None, {}, {"umi": np.arange(500.0)}).pack())
    packed[packed.index(np.arange(200.0, 210.0).tobytes())] ^= 1
    file.write_bytes(packed)
    assert read_sound(file, tmp_path) is None
