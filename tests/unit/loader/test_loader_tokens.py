"""Recipes of tokens in the loader: what `encode` gives, whatever the batch, with the right vocabulary and obs."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pytest
import torch
from scipy import sparse

from cellmill import kernel
from cellmill.errors import (
    ConfigError,
    InputError,
    NotRawCountsError,
    StateMismatchError,
    StoreError,
    VocabularyError,
)
from cellmill.genes import Vocabulary
from cellmill.ingest import build
from cellmill.loader import Loader
from cellmill.simulate import write_atlas
from cellmill.store import measured
from cellmill.tokens import CSR, Context, CountDiffusion, ScFoundation, ScGPT, Tahoe

RECIPES = [
    ScGPT(max_length=40, mask=0.4),
    ScGPT(max_length=40, mask=(0.25, 0.5, 0.75), style="both"),
    Tahoe(max_length=60, mask=0.5, masking="bernoulli", pad="max", multiple=64),
    ScGPT(max_length=30, fill="unexpressed", pad="none"),
    ScGPT(max_length=380, mask=0.4, fill="unexpressed"),
]


def rows_of(loader: Loader) -> dict[int, dict[str, list]]:
    """Tokens of each cell without its padding, by uid."""
    found = {}
    for batch in loader:
        ends = batch.lengths.cumsum(0) if batch.cu_seqlens is None else None
        for i, uid in enumerate(batch.cells.tolist()):
            own = {"length": int(batch.lengths[i]), "epoch": batch.epoch}
            here = slice(*batch.cu_seqlens[i : i + 2].tolist()) if ends is None else None
            for name in ("genes", "values", "target", "mask"):
                tensor = getattr(batch, name)
                if tensor is not None:
                    own[name] = (tensor[here] if ends is None else tensor[i, : own["length"]]).tolist()
            for name in ("gen_genes", "gen_target"):
                if name in batch.extra:
                    own[name] = batch.extra[name][i, : int(batch.extra["gen_lengths"][i])].tolist()
            found[uid] = own
    return found


@pytest.mark.parametrize("recipe", RECIPES, ids=["scgpt", "parts", "tahoe", "flat", "filled"])
def test_a_cell_has_the_same_tokens_whatever_its_batch(atlas, recipe):
    whole = rows_of(Loader(atlas, batch_size=64, tokens=recipe, seed=3))
    assert len(whole) == atlas.n_cells
    assert rows_of(Loader(atlas, batch_size=7, tokens=recipe, seed=3, threads=1)) == whole
    ranks = [rows_of(Loader(atlas, batch_size=16, tokens=recipe, seed=3, rank=r, world_size=3)) for r in range(3)]
    assert {uid: row for rank in ranks for uid, row in rank.items()} == whole
    assert rows_of(Loader(atlas, batch_size=64, tokens=recipe, seed=4)) != whole


@pytest.mark.parametrize("recipe", RECIPES[:3], ids=["scgpt", "parts", "tahoe"])
def test_the_loader_gives_what_encode_gives(atlas, recipe):
    loader = Loader(atlas, batch_size=50, tokens=recipe, seed=5)
    bound = loader.reader.tokens
    for batch in loader:
        key = kernel.derive_key(5, "tokens", batch.epoch)
        keys = kernel.keyed_u64(key, batch.cells.numpy().view(np.uint64))
        counts, tokens = atlas.read(batch.rows.numpy()), atlas.genes["token"].to_numpy()
        made = bound.encode(counts, tokens, keys)
        for name, tensor in made.__dict__.items():
            if isinstance(tensor, torch.Tensor):
                assert torch.equal(tensor, getattr(batch, name)), name
        assert made.extra.keys() == batch.extra.keys()
        for name, tensor in made.extra.items():
            assert torch.equal(tensor, batch.extra[name]), name


def test_masks_differ_between_epochs_and_are_as_many(atlas):
    epochs = [{}, {}]
    for batch in Loader(atlas, batch_size=64, tokens=ScGPT(max_length=1000, mask=0.4), epochs=2):
        for uid, mask, n in zip(batch.cells.tolist(), batch.mask, batch.lengths.tolist(), strict=True):
            epochs[batch.epoch][uid] = mask[:n].tolist()
            assert int(mask.sum()) == int((n - 1) * 0.4)
    assert epochs[0].keys() == epochs[1].keys()
    assert epochs[0] != epochs[1]


def test_tokens_of_another_vocabulary_by_id_or_by_symbol(atlas):
    ids, symbols = atlas.genes["gene_id"].to_pylist(), atlas.genes["symbol"].to_pylist()
    for names in (ids, symbols):
        other = Vocabulary(names[::-1][:300], specials={"<pad>": 900, "<cls>": 901}, tokens=range(300))
        recipe = ScGPT(max_length=1000, mask=None, n_bins=None, vocabulary=other)
        token_of = dict(zip(names[::-1][:300], range(300), strict=True))
        for batch in Loader(atlas, batch_size=100, tokens=recipe):
            counts = atlas.read(batch.rows.numpy()).toarray()
            for i, n in enumerate(batch.lengths.tolist()):
                expected = {token_of[names[g]]: counts[i, g] for g in np.flatnonzero(counts[i]) if names[g] in token_of}
                mine = dict(zip(batch.genes[i, 1:n].tolist(), batch.values[i, 1:n].tolist(), strict=True))
                assert mine == expected
                assert batch.genes[i, 0] == 901
                assert (batch.genes[i, n:] == 900).all()


def test_a_vocabulary_that_knows_no_gene_or_lacks_specials_is_refused(atlas):
    with pytest.raises(VocabularyError, match="none of the genes of the stores"):
        Loader(atlas, tokens=ScGPT(vocabulary=Vocabulary(["X1"], specials={"<pad>": 1, "<cls>": 2})))
    with pytest.raises(VocabularyError, match="no special token <cls>"):
        ScGPT(vocabulary=Vocabulary(["X1"], specials={"<pad>": 1}))


def test_state_of_tokens_of_another_vocabulary_is_refused(atlas):
    ids = atlas.genes["gene_id"].to_pylist()
    specials = {"<pad>": 900, "<cls>": 901}
    one, other = Vocabulary(ids, specials=specials), Vocabulary(ids[::-1], specials=specials)
    state = Loader(atlas, tokens=ScGPT(vocabulary=one)).state_dict()
    Loader(atlas, tokens=ScGPT(vocabulary=one)).load_state_dict(state)
    with pytest.raises(StateMismatchError, match=f"{one.hash}.*{other.hash}"):
        Loader(atlas, tokens=ScGPT(vocabulary=other)).load_state_dict(state)


def test_context_comes_from_obs(atlas):
    tissues = sorted(set(atlas.column("tissue").to_pylist()))
    tokens = {name: 90_000 + i for i, name in enumerate(tissues)}
    recipe = ScGPT(max_length=50, context=(Context("tissue", tokens),))
    loader = Loader(atlas, batch_size=64, tokens=recipe, obs=["tissue"])
    for batch in loader:
        labels = [batch.categories["tissue"][code] for code in batch.obs["tissue"].tolist()]
        assert batch.genes[:, 1].tolist() == [tokens[label] for label in labels]
        assert not batch.mask[:, :2].any()
    missing = ScGPT(context=(Context("tissue", {"nowhere": 90_000}),))
    with pytest.raises(Exception, match=r"context 'tissue': cell 0 .* has no token"):
        next(iter(Loader(atlas, tokens=missing)))


def test_fillers_are_measured_and_not_expressed(atlas):
    recipe = ScGPT(max_length=380, mask=0.4, fill="unexpressed", pad="max")
    measured, of_row = atlas.measured(), atlas.source_of()
    tokens = atlas.genes["token"].to_numpy()
    for batch in Loader(atlas, batch_size=64, tokens=recipe):
        counts = atlas.read(batch.rows.numpy()).toarray()
        for i, row in enumerate(batch.rows.tolist()):
            genes = batch.genes[i, 1 : int(batch.lengths[i])].numpy()
            fillers = genes[batch.target[i, 1 : int(batch.lengths[i])].numpy() == 0]
            columns = np.searchsorted(np.sort(tokens), fillers)
            columns = np.argsort(tokens)[columns]
            assert len(set(genes.tolist())) == len(genes)
            assert not counts[i, columns].any()
            assert measured[of_row[row], columns].all()
            assert len(genes) == min(379, int(measured[of_row[row]].sum()))


def test_a_panel_holds_padding_where_the_source_of_a_cell_did_not_look(atlas, tmp_path):
    inputs = write_atlas(tmp_path / "inputs", n_cells=90, n_genes=120, seed=2)
    first = anndata.read_h5ad(inputs[0])
    first[:, 30:].copy().write_h5ad(inputs[0])  # a study that measured fewer genes
    store = build(tmp_path / "s.mill", inputs)
    measured, of_row = store.measured(), store.source_of()
    assert len({tuple(row) for row in measured}) > 1
    panel = list(store.gene_ids)[::2]
    recipe = CountDiffusion(panel=panel, vocabulary=store.vocabulary, n_counts=16, time=0.5)
    for batch in Loader(store, batch_size=40, tokens=recipe, seed=1):
        for i, row in enumerate(batch.rows.tolist()):
            looked = measured[of_row[row]][::2].astype(bool)
            lacks = torch.from_numpy(~looked)
            assert (batch.target[i] == recipe.pad_token).equal(lacks)
            assert (batch.values[i] == recipe.pad_token).equal(lacks)
            assert not batch.mask[i][lacks].any()
        assert batch.mask.any()
    keys = np.zeros(3, np.uint64)
    counts, genes = sparse.csr_array((3, 4), dtype=np.uint32), np.arange(4)
    with pytest.raises(InputError, match="measured must begin with one row for each source and 4 columns"):
        CountDiffusion(panel=[1, 2]).encode(counts, genes, keys, measured=(np.ones((1, 3)), np.zeros(3, int)))


def test_padding_is_that_of_the_store(atlas, tmp_path):
    ids = list(atlas.gene_ids)
    Vocabulary.from_json({"<pad>": 5000, **{gene: i for i, gene in enumerate(ids)}}).to_json(tmp_path / "v.json")
    inputs = write_atlas(tmp_path / "inputs", n_cells=300, n_genes=400, seed=1)
    store = build(tmp_path / "s.mill", inputs, vocabulary=tmp_path / "v.json")
    loader = Loader(store, batch_size=300, tokens=CountDiffusion(max_length=390, n_counts=16))
    (batch,) = loader
    assert (batch.genes == 5000).equal(batch.padding_mask()) and batch.padding_mask().any()
    assert loader.reader.tokens.vocabulary_hash == store.vocabulary.hash
    assert loader.state_dict()["vocabulary"] == [store.vocabulary.hash]


def test_a_store_that_does_not_say_what_was_measured_is_read_with_a_warning(atlas, monkeypatch):
    recipe = CountDiffusion(panel=list(atlas.gene_ids)[:20], vocabulary=atlas.vocabulary, n_counts=16)
    expected = next(iter(Loader(atlas, batch_size=50, tokens=recipe)))
    monkeypatch.setattr(measured, "read_record", lambda *args, **how: None)
    with pytest.warns(UserWarning, match="written before that was kept.*count as measured"):
        loader = Loader(atlas, batch_size=50, tokens=recipe)
    batch = next(iter(loader))
    assert (batch.target != recipe.pad_token).all()
    there = expected.target != recipe.pad_token
    assert batch.target[there].equal(expected.target[there])
    with pytest.raises(StoreError, match="written before that was kept"):
        Loader(atlas, tokens=ScGPT(fill="unexpressed"))


@pytest.mark.parametrize(
    ("recipe", "few"),
    [
        (lambda ids: ScGPT(vocabulary=Vocabulary(ids[:9], specials={"<pad>": 900, "<cls>": 901})), True),
        (lambda ids: ScFoundation(token_of=dict.fromkeys(ids[:1], 7), vocabulary=Vocabulary(ids)), True),
        (lambda ids: ScGPT(vocabulary=Vocabulary(ids[:90], specials={"<pad>": 900, "<cls>": 901})), False),
        (lambda ids: ScGPT(genes=ids[:5]), False),
        (lambda ids: CountDiffusion(panel=ids[:5], vocabulary=Vocabulary(ids, specials={"<pad>": 900})), False),
    ],
)
def test_of_a_store_of_which_hardly_a_gene_is_known_it_is_said(atlas, recipe, few):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        Loader(atlas, tokens=recipe(list(atlas.gene_ids)))
    told = [str(one.message) for one in said if "are known to" in str(one.message)]
    assert len(told) == few
    if few:
        assert "of 400 genes" in told[0] and "atlas.mill" in told[0]


def test_numbers_are_no_labels(atlas):
    with pytest.raises(InputError, match="the column holds numbers, not labels"):
        next(iter(Loader(atlas, tokens=ScGPT(context=(Context("total_counts", {"1": 90_000}, missing=90_001),)))))


def test_what_cannot_be_meant_names_the_parameter():
    for arguments, told in (
        ({"max_length": 1}, "max_length"),
        ({"mask": 1.5}, "mask"),
        ({"mask": []}, "mask"),
        ({"pad": "shortest"}, "pad must be one of longest, max, none"),
        ({"n_bins": 2}, "n_bins"),
        ({"style": "botth"}, "style must be"),
        ({"genes": "ENSG1"}, "genes must be a list"),
        ({"multiple": 0}, "multiple"),
        ({"max_length": 3, "keep": 3}, "max_length"),
        ({"faithful": "yes"}, "faithful"),
    ):
        with pytest.raises(ConfigError, match=told):
            ScGPT(**arguments)


class Spy:
    """A recipe that notes how many threads its kernels would take."""

    genes = None

    def __init__(self):
        self.threads = set()

    def encode(self, counts, genes, keys, *, totals=None):
        self.threads.add(kernel.default_threads())
        return CSR().encode(counts, genes, keys, totals=totals)


def test_recipes_take_no_more_threads_than_the_loader(atlas):
    for threads in (1, 3):
        spy = Spy()
        list(Loader(atlas, batch_size=64, tokens=spy, threads=threads))
        assert max(spy.threads) == threads  # all for the first batch; then each of the two readers has its share
    before = kernel.default_threads()
    with kernel.using_threads(before + 5):
        assert kernel.default_threads() == before + 5
    assert kernel.default_threads() == before


class Halved:
    """A recipe as somebody writes one: it does with counts what scipy offers, and hands them to one of ours."""

    genes = None
    inner = ScGPT(max_length=1000, mask=None, n_bins=None)

    def __init__(self, how):
        self.how = how

    def encode(self, counts, genes, keys, *, totals=None):
        half = counts.astype(np.float32)
        half.data //= 2
        assert half[:, : half.shape[1] // 2].shape == (len(keys), len(genes) // 2)
        fresh = sparse.csr_array(half)
        if self.how == "in place":
            counts.data //= 2
        else:
            counts.data = half.data if self.how == "replaced" else counts.data * 0.5
        made = self.inner.encode(counts, genes, keys)
        assert torch.equal(made.genes, self.inner.encode(fresh, genes, keys).genes)
        return made


def test_recipes_of_others_may_do_anything_with_counts(atlas):
    for how in ("in place", "replaced"):
        batches = list(Loader(atlas, batch_size=64, tokens=Halved(how)))
        assert sum(int((batch.values > 0).sum()) for batch in batches) > 100
        assert not any((batch.values == 0).any() for batch in batches)  # a count of 1 is none any more
    with pytest.raises(NotRawCountsError, match="cell 0"):
        list(Loader(atlas, batch_size=64, tokens=Halved("fractions")))


def test_genes_that_no_column_has_are_refused(atlas):
    with pytest.raises(VocabularyError, match="none of the 400 columns"):
        ScGPT().encode(atlas.read([0, 1]), np.full(400, -1), np.zeros(2, np.uint64))
