"""What a state must have in common with the loader that loads it: the message names old and new."""

from __future__ import annotations

import pytest

from cellmill.errors import StateMismatchError
from cellmill.ingest import build
from cellmill.loader import Loader


def refused(state, loader):
    with pytest.raises(StateMismatchError) as caught:
        loader.load_state_dict(state)
    return str(caught.value)


def test_another_vocabulary_is_refused_by_both_names(tiny_h5ad, tmp_path):
    file = tiny_h5ad("one")
    ours = build(tmp_path / "a.mill", [file.path], vocabulary="union")
    # the same cells and genes, but tokens of another vocabulary: one more gene, which comes first
    more = tiny_h5ad("more", genes=[f"ENSG{i:011d}" for i in range(39)] + ["AAAG00000000000"])
    wider = build(tmp_path / "b.mill", [more.path], vocabulary="union")
    other = build(tmp_path / "c.mill", [file.path], vocabulary=wider.vocabulary)
    assert other.vocabulary_hash != ours.vocabulary_hash
    message = refused(Loader(ours).state_dict(), Loader(other))
    assert "the vocabulary of the stores or of the tokens changed" in message
    assert ours.vocabulary_hash in message
    assert other.vocabulary_hash in message


def test_another_store_is_refused_by_both_digests(tiny_h5ad, tmp_path):
    ours, other = (
        build(tmp_path / f"{seed}.mill", [tiny_h5ad("x", seed=seed).path], vocabulary="union") for seed in (0, 5)
    )
    assert other.vocabulary_hash == ours.vocabulary_hash
    message = refused(Loader(ours).state_dict(), Loader(other))
    assert "the stores changed" in message
    assert ours.digest in message
    assert other.digest in message


def test_a_state_of_one_worker_is_refused_by_a_loader(atlas):
    state = {**Loader(atlas).state_dict(), "given": 2, "workers": 2}
    assert "with 2 workers" in refused(state, Loader(atlas))
