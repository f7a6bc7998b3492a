from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cellmill.genes import GeneTable, Vocabulary, align, resolve, strip_version

HUMAN = GeneTable.load("human")
GENES = st.integers(0, len(HUMAN) - 1)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)
FILE_NAMES = st.one_of(
    GENES.map(lambda g: HUMAN.ids[g]),
    st.tuples(GENES, st.integers(1, 99)).map(lambda pair: f"{HUMAN.ids[pair[0]]}.{pair[1]}"),
    GENES.map(lambda g: HUMAN.symbols[g]),
    GENES.map(lambda g: f"{HUMAN.symbols[g]}_{HUMAN.ids[g]}"),
    NAMES,
)


@st.composite
def vocabularies(draw: st.DrawFn) -> Vocabulary:
    ids = draw(st.lists(NAMES, unique=True, max_size=20))
    specials = [f"<{i}>" for i in range(draw(st.integers(0, 3)))]
    specials = [name for name in specials if name not in ids]
    tokens = draw(
        st.lists(
            st.integers(0, 2**40), unique=True, min_size=len(ids) + len(specials), max_size=len(ids) + len(specials)
        )
    )
    return Vocabulary(ids, tokens=tokens[: len(ids)], specials=dict(zip(specials, tokens[len(ids) :], strict=True)))


@given(vocabularies())
def test_a_vocabulary_survives_json(vocabulary: Vocabulary) -> None:
    again = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_dict())))
    assert again == vocabulary
    assert again.ids == vocabulary.ids
    assert np.array_equal(again.tokens, vocabulary.tokens)


@given(vocabularies(), vocabularies())
def test_equal_hashes_mean_equal_tokens(one: Vocabulary, other: Vocabulary) -> None:
    def content(words: Vocabulary) -> tuple[object, ...]:
        return words.ids, words.tokens.tolist(), dict(words.specials)

    assert (one.hash == other.hash) == (content(one) == content(other))
    again = Vocabulary(
        one.ids, tokens=one.tokens.tolist(), specials=dict(reversed(one.specials.items())), symbols=one.ids[::-1]
    )
    assert again.hash == one.hash  # neither symbols nor the order of special tokens enter


@given(vocabularies(), st.lists(NAMES, max_size=10), st.integers(1, 9))
def test_what_is_made_of_a_vocabulary_keeps_its_tokens(vocabulary: Vocabulary, ids: list[str], multiple: int) -> None:
    old = dict(zip(vocabulary.ids, vocabulary.tokens.tolist(), strict=True))
    ids = [gene_id for gene_id in ids if gene_id not in vocabulary.specials]
    more = vocabulary.extended(ids).padded(multiple)
    new = dict(zip(more.ids, more.tokens.tolist(), strict=True))
    assert {gene_id: new[gene_id] for gene_id in old} == old
    assert set(new) == {*old, *ids}
    assert more.n_tokens % multiple == 0
    fewer = vocabulary.restricted(ids)
    assert dict(zip(fewer.ids, fewer.tokens.tolist(), strict=True)) == {g: t for g, t in old.items() if g in set(ids)}
    assert dict(fewer.specials) == dict(vocabulary.specials)


@given(vocabularies(), st.sampled_from(["scgpt", "mosaicfm"]))
def test_a_plain_map_gives_back_every_token(tmp_path_factory: object, vocabulary: Vocabulary, form: str) -> None:
    if any(name.startswith("<") and name.endswith(">") for name in vocabulary.ids):
        return  # read back as a special token
    path = tmp_path_factory.mktemp("maps") / "v.json"  # type: ignore[attr-defined]
    vocabulary.to_json(path, form=form)
    again = Vocabulary.from_json(path)
    assert dict(zip(again.ids, again.tokens.tolist(), strict=True)) == dict(
        zip(vocabulary.ids, vocabulary.tokens.tolist(), strict=True)
    )
    assert dict(again.specials) == dict(vocabulary.specials)
    assert again.tokens.tolist() == sorted(vocabulary.tokens.tolist())


@given(vocabularies(), st.lists(NAMES, max_size=20))
def test_index_of_finds_just_what_is_there(vocabulary: Vocabulary, names: list[str]) -> None:
    for name, position in zip(names, vocabulary.index_of(names).tolist(), strict=True):
        assert (position >= 0) == (name in vocabulary)
        assert position < 0 or vocabulary.ids[position] == name
    assert vocabulary.index_of(vocabulary.ids).tolist() == list(range(len(vocabulary)))


@given(st.text(max_size=30))
def test_stripping_twice_is_stripping_once(name: str) -> None:
    assert strip_version(strip_version(name)) == strip_version(name)


@settings(deadline=None, max_examples=50)
@given(st.lists(FILE_NAMES, min_size=1, max_size=30, unique=True), st.randoms(use_true_random=False))
def test_the_order_of_a_file_does_not_change_what_its_names_mean(names: list[str], shuffler: object) -> None:
    order = list(range(len(names)))
    shuffler.shuffle(order)  # type: ignore[attr-defined]
    straight, shuffled = resolve(names, None, HUMAN), resolve([names[i] for i in order], None, HUMAN)
    assert shuffled.ids == tuple(straight.ids[i] for i in order)
    assert shuffled.outcomes == tuple(straight.outcomes[i] for i in order)


@settings(deadline=None, max_examples=50)
@given(st.lists(FILE_NAMES, min_size=1, max_size=30))
def test_the_report_accounts_for_every_gene(names: list[str]) -> None:
    found = align(names, vocabulary=Vocabulary.load("human"), table=HUMAN, min_match=0.0)
    report = found.report
    assert sum(report.outcomes.values()) == report.n_genes == len(names) == found.target.size
    assert report.matched == int((found.target >= 0).sum())
    assert len(report.unmatched) == min(10, report.n_genes - report.matched)
    extra = sum(len(double.columns) - 1 for double in report.duplicates)
    assert report.matched - extra == len(set(found.target[found.target >= 0].tolist()))
    assert sum(report.with_umi_shares(np.ones(len(names))).umi_shares.values()) > 0.999
