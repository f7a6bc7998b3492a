"""A store behind a URL gives what the same store in a folder gives, with few requests."""

from __future__ import annotations

import itertools
import pickle
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cellmill as cm
from cellmill.errors import ConfigError, InputError, NotFoundError, QueryError, StoreError
from cellmill.ingest import build
from cellmill.storage.ranges import BLOCK_BYTES, GAP_BLOCKS, RANGE_BLOCKS, blocks_of, plan_ranges
from cellmill.storage.urls import UrlPath, checked_url, is_url


def frames_asked(served):
    """Requests for parts of shards."""
    return [one for one in served.seen if one[0].endswith(".cells")]


@pytest.mark.parametrize("which", ["local", "wide"])
def test_random_rows_equal_those_of_the_folder(which, request, serve):
    local = request.getfixturevalue(which)
    served = serve(local.path)
    remote = cm.open(served.url)
    rng = np.random.default_rng(5)
    for size in (0, 1, 7, 64, 400):
        rows = rng.integers(0, local.n_cells, size)
        got, expected = remote.read(rows), local.read(rows)
        for part in ("indptr", "indices", "data"):
            np.testing.assert_array_equal(getattr(got, part), getattr(expected, part))
    panel = list(local.gene_ids[5:25])
    np.testing.assert_array_equal(
        remote.read_dense([3, 199, 0], genes=panel, transform="log1p_cp10k"),
        local.read_dense([3, 199, 0], genes=panel, transform="log1p_cp10k"),
    )


def test_obs_uids_genes_vocabulary_and_anndata_equal_those_of_the_folder(local, serve):
    remote = cm.open(serve(local.path).url)
    assert (remote.n_cells, remote.nnz, remote.digest) == (local.n_cells, local.nnz, local.digest)
    assert remote.genes.equals(local.genes)
    assert remote.vocabulary.hash == local.vocabulary.hash
    rows = np.array([249, 3, 70, 3])
    np.testing.assert_array_equal(remote.uids(rows), local.uids(rows))
    np.testing.assert_array_equal(remote.uids(), local.uids())
    assert remote.obs.to_arrow(["cell", "donor_id"], rows).equals(local.obs.to_arrow(["cell", "donor_id"], rows))
    assert remote.obs.to_arrow().equals(local.obs.to_arrow())
    where = "tissue = 'blood' AND total_counts > 20"
    np.testing.assert_array_equal(remote.select(where), local.select(where))
    sql = "SELECT donor_id, count(*) AS n FROM obs GROUP BY 1 ORDER BY 1"
    assert remote.query(sql).equals(local.query(sql))
    np.testing.assert_array_equal(remote.to_anndata(rows).X.toarray(), local.to_anndata(rows).X.toarray())


def test_only_what_is_needed_is_fetched(local, serve):
    served = serve(local.path)
    remote = cm.open(served.url)
    assert [name for name, _ in served.seen] == ["manifest.json"]
    served.forget()
    remote.obs.to_arrow(["cell"], [0])
    assert [name for name, _ in served.seen] == ["obs/00000.parquet"]
    with pytest.raises(QueryError, match="nothing_like_it"):
        remote.obs.to_arrow(["nothing_like_it"])
    served.forget()
    remote.uids([70, 71])
    assert [name for name, _ in served.seen] == ["obs/00001.uids"]


def test_a_second_read_of_the_same_rows_asks_for_nothing(local, serve):
    served = serve(local.path)
    remote = cm.open(served.url)
    rows = np.random.default_rng(0).permutation(250)[:100]
    first = remote.read(rows)
    served.forget()
    np.testing.assert_array_equal(remote.read(rows).toarray(), first.toarray())
    assert served.seen == []
    again = cm.open(served.url)  # as another process does: the manifest, nothing else
    np.testing.assert_array_equal(again.read(rows).toarray(), first.toarray())
    assert [name for name, _ in served.seen] == ["manifest.json"]


def test_neighbouring_rows_are_one_request(wide, serve):
    served = serve(wide.path)
    remote = cm.open(served.url)
    remote.read([0])  # the index of the shard
    served.forget()
    np.testing.assert_array_equal(remote.read(range(60, 90)).toarray(), wide.read(range(60, 90)).toarray())
    assert len(served.seen) == 1
    first, last = (int(n) for n in served.seen[0][1].removeprefix("bytes=").split("-"))
    wanted = sum(
        np.diff([*wide._mapped([0])[0].spans(np.array([60]))[0], *wide._mapped([0])[0].spans(np.array([89]))[1]])
    )
    assert wanted <= last - first + 1 <= wanted + 2 * BLOCK_BYTES


def test_an_opened_shard_costs_one_request_with_short_offsets_and_two_with_long_ones(local, wide, serve):
    for store, expected in ((local, 1), (wide, 2)):
        served = serve(store.path)
        remote = cm.open(served.url)
        _ = remote.n_genes
        served.forget()
        remote._opened([0])
        assert store._mapped([0])[0].offset_bits == (16 if expected == 1 else 32)
        assert len(frames_asked(served)) == expected
        assert [name for name, _ in served.seen if name == "manifest.json"] == ["manifest.json"]


def test_what_was_prefetched_is_not_asked_for_again(wide, serve):
    served = serve(wide.path)
    remote = cm.open(served.url)
    rows = np.arange(0, 200, 3)
    remote.prefetch(rows)
    assert frames_asked(served)
    served.forget()
    remote.read(rows)
    assert served.seen == []
    remote.prefetch(rows)
    assert served.seen == []


def test_a_store_at_a_url_can_be_pickled(local, serve):
    remote = cm.open(serve(local.path).url)
    copy = pickle.loads(pickle.dumps(remote))
    np.testing.assert_array_equal(copy.read([5, 100]).toarray(), local.read([5, 100]).toarray())


def test_verify_finds_nothing_in_a_sound_store_and_names_the_url_of_a_damaged_file(local, serve):
    served = serve(local.path)
    report = cm.open(served.url).verify()
    expected = local.verify()
    assert report == expected
    assert report.ok and report.n_cells_decoded == 250
    path = local.path / "shards" / "00001.cells"
    raw = bytearray(path.read_bytes())
    raw[40] ^= 4
    path.write_bytes(raw)
    (local.path / "obs" / "00002.uids").unlink()
    problems = cm.open(served.url).verify().problems
    assert any(line.startswith(f"{served.url}/shards/00001.cells: its checksum") for line in problems)
    assert any(line.startswith(f"{served.url}/obs/00002.uids: missing") for line in problems)


def test_verify_leaves_nothing_behind(local, serve, cache_folder):
    cm.open(serve(local.path).url).verify(sample=0.1)
    assert not list(cache_folder.glob(".verify-*"))


def test_the_loader_reads_from_a_url(local, serve):
    served = serve(local.path)

    def epoch(store):
        loader = cm.Loader(cm.Mixture([cm.Component("all", store)]).plan(), batch_size=32)
        return [(batch.rows.tolist(), batch.totals.tolist(), batch.values.tolist()) for batch in loader]

    assert epoch(cm.open(served.url)) == epoch(local)


def test_the_loader_says_what_came_from_the_cache(local, serve):
    remote = cm.open(serve(local.path).url)
    loader = cm.Loader(remote, batch_size=50)
    assert loader.report()["cache_misses"] == 0
    list(loader)
    first = loader.report()
    assert first["cache_misses"] > 0
    list(loader)
    second = loader.report()
    assert second["cache_misses"] == first["cache_misses"]
    assert second["cache_hits"] > first["cache_hits"]
    again = cm.Loader(remote, batch_size=50)  # what was read before it began is none of its own
    list(again)
    assert again.report()["cache_misses"] == 0


def test_a_store_that_was_replaced_is_noticed(local, serve, tmp_path, tiny_h5ad):
    served = serve(local.path)
    remote = cm.open(served.url)
    remote.read([0])
    file = tiny_h5ad("other", n_cells=250, n_genes=90, seed=9)
    other = build(tmp_path / "other.mill", [file.path], vocabulary="union", shard_cells=64, block_cells=32)
    shutil.rmtree(local.path)
    other.path.rename(local.path)
    with pytest.raises(StoreError, match="replaced after it was opened"):
        remote.read([70])


def test_a_store_put_there_anew_is_read_with_what_an_earlier_process_remembered(wide, serve):
    served = serve(wide.path)
    cm.open(served.url).read([0])
    path = wide.path / "shards" / "00000.cells"
    served.etags["shards/00000.cells"] = '"another upload of the same bytes"'
    assert path.is_file()
    np.testing.assert_array_equal(cm.open(served.url).read(range(200)).toarray(), wide.read(range(200)).toarray())


def test_urls_are_told_from_paths(tmp_path):
    assert is_url("s3://b/x.mill") and is_url("s3:/b/x.mill") and is_url("https://e.org/x")
    assert not is_url("x.mill") and not is_url(tmp_path) and not is_url("c:/x.mill")
    path = UrlPath("s3://bucket/a/x.mill")
    assert str(path / "shards" / "0.cells") == "s3://bucket/a/x.mill/shards/0.cells"
    assert str(path.absolute()) == "s3://bucket/a/x.mill" and path.name == "x.mill"
    assert str(pickle.loads(pickle.dumps(path))) == str(path)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.org/x.mill", "use https"),
        ("ftp://example.org/x.mill", "cannot read from ftp"),
        ("s3:///x.mill", "no bucket"),
        ("https://e.org/x.mill?sig=1", "names one file"),
        ("https://me:secret@e.org/x.mill", "no password"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_before_anything_is_asked(url, said):
    with pytest.raises(ConfigError, match=said) as caught:
        checked_url(url)
    assert "secret" not in str(caught.value)


def test_options_that_have_no_meaning_are_refused(local, serve):
    url = serve(local.path).url
    with pytest.raises(ConfigError, match="region have no meaning here"):
        cm.open(url, storage_options={"region": "eu-west-1"})
    with pytest.raises(ConfigError, match="timeout_seconds must be"):
        cm.open(url, storage_options={"timeout_seconds": "long"})
    with pytest.raises(ConfigError, match="not_a_key"):
        cm.open("s3://bucket/x.mill", storage_options={"not_a_key": "1"})
    with pytest.raises(ConfigError, match="this is a path"):
        cm.open(local.path, storage_options={"region": "eu-west-1"})


def test_no_store_at_a_url_says_so(tmp_path, serve):
    served = serve(tmp_path)
    with pytest.raises(NotFoundError, match=r"/nothing\.mill: there is no manifest\.json here"):
        cm.open(f"{served.url}/nothing.mill")


def test_rows_are_checked_as_in_a_folder(local, serve):
    remote = cm.open(serve(local.path).url)
    with pytest.raises(IndexError, match="row 250"):
        remote.read([250])
    with pytest.raises(InputError, match="whole numbers"):
        remote.prefetch([0.5])


spans = st.lists(st.tuples(st.integers(0, 40 * BLOCK_BYTES), st.integers(0, 3 * BLOCK_BYTES)), max_size=20)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spans)
def test_blocks_cover_spans_and_nothing_else(given_spans):
    start = np.array([first for first, _ in given_spans], dtype=np.uint64)
    stop = start + np.array([length for _, length in given_spans], dtype=np.uint64)
    expected = {
        block
        for first, length in given_spans
        if length
        for block in range(first // BLOCK_BYTES, (first + length - 1) // BLOCK_BYTES + 1)
    }
    assert blocks_of(start, stop).tolist() == sorted(expected)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(0, 2000), max_size=300))
def test_ranges_cover_blocks_in_order_with_small_gaps_and_bounded_length(blocks):
    plan = plan_ranges(np.array(sorted(blocks), dtype=np.int64))
    covered = [number for first, stop in plan for number in range(first, stop)]
    assert covered == sorted(set(covered)) and blocks <= set(covered)
    assert all(0 < stop - first <= RANGE_BLOCKS for first, stop in plan)
    ordered = sorted(blocks)
    far = sum(1 for a, b in itertools.pairwise(ordered) if b - a > GAP_BLOCKS + 1)
    longest = len(range(ordered[0], ordered[-1] + 1, RANGE_BLOCKS)) if ordered else 0
    assert len(plan) <= far + 1 + longest
    unwanted = set(covered) - blocks
    assert all(min(abs(number - block) for block in blocks) <= GAP_BLOCKS for number in unwanted)


def test_what_writes_refuses_a_url(local, serve, tmp_path):
    url = serve(local.path).url
    for work in (
        lambda: cm.append(url, [tmp_path / "tiny.h5ad"]),
        lambda: cm.build(url, [tmp_path / "tiny.h5ad"]),
        lambda: cm.merge(tmp_path / "new.mill", [local.path, url]),
        lambda: cm.merge(url, [local.path]),
    ):
        with pytest.raises(ConfigError, match=f"{url}: .* on a disk of this machine"):
            work()
    assert not (tmp_path / "new.mill").exists()


def test_a_store_that_was_appended_to_goes_on_as_it_was_opened(local, serve, tmp_path, tiny_h5ad):
    served = serve(local.path)
    remote = cm.open(served.url)
    remote.read([0])
    expected = local.read(range(250)).toarray()
    cm.append(local.path, [tiny_h5ad("more", n_cells=40, n_genes=90, seed=4).path])
    np.testing.assert_array_equal(remote.read(range(250)).toarray(), expected)
    assert len(remote) == 250 and len(cm.open(served.url)) == 290
    np.testing.assert_array_equal(cm.open(served.url).read([289]).toarray(), cm.open(local.path).read([289]).toarray())


def test_a_store_that_was_replaced_by_one_with_equal_shards_is_noticed(local, serve, tmp_path, tiny_h5ad):
    served = serve(local.path)
    remote = cm.open(served.url)
    remote.read([0])
    shard = (local.path / "shards" / "00001.cells").read_bytes()
    file = tiny_h5ad("other", n_cells=250, n_genes=90, obs={"donor_id": ["another"] * 250})
    other = build(tmp_path / "other.mill", [file.path], vocabulary="union", shard_cells=64, block_cells=32)
    shutil.rmtree(local.path)
    other.path.rename(local.path)
    assert (local.path / "shards" / "00001.cells").read_bytes() == shard
    with pytest.raises(StoreError, match="replaced after it was opened"):
        remote.read([70])
