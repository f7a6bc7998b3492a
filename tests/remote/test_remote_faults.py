"""What goes wrong between a reader and a server: passed over when it passes, else an error that helps."""

from __future__ import annotations

import socket

import numpy as np
import pytest

import cellmill as cm
from cellmill.errors import (
    CellmillError,
    CorruptStoreError,
    FrameError,
    NotFoundError,
    RemoteChangedError,
    RemoteDeniedError,
    RemoteError,
    RemoteTimeoutError,
)
from cellmill.events import listening

QUICK = {"max_retries": 2, "timeout_seconds": 0.5}
ROWS = np.arange(0, 200, 7)
SHARD = "shards/00000.cells"


@pytest.fixture
def opened(wide, serve):
    """A server and a store on it, of which the index of the shard is here, but no frames."""
    served = serve(wide.path)
    remote = cm.open(served.url, storage_options=QUICK)
    remote._opened([0])
    served.forget()
    return served, remote, wide


@pytest.mark.parametrize("kind", ["503", "500", "429", "cut", "fewer", "silent", "slow"])
def test_a_fault_that_passes_is_passed_over(kind, opened):
    served, remote, local = opened
    served.fail(kind, times=2, only=".cells")
    np.testing.assert_array_equal(remote.read(ROWS).toarray(), local.read(ROWS).toarray())
    assert kind == "slow" or len(served.seen) >= 3


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("503", RemoteError, r"3 times.*503"),
        ("cut", RemoteError, r"cut off.*3 times"),
        ("fewer", RemoteError, r"cut off or not what was asked for, 3 times"),
        ("silent", RemoteTimeoutError, r"no answer within 0\.5 s, 3 times"),
        ("no ranges", RemoteError, "ignores the header Range"),
        ("403", RemoteDeniedError, "only what is public"),
        ("401", RemoteDeniedError, "only what is public"),
        ("404", NotFoundError, "no such object"),
        ("416", RemoteError, "416"),
        ("longer object", RemoteError, r"\d+ bytes, the manifest says \d+"),
        ("no tags", RemoteChangedError, "now it is missing"),
    ],
)
def test_a_fault_that_stays_is_an_error_that_names_the_object(kind, error, said, opened):
    served, remote, local = opened
    served.fail(kind, only=".cells")
    with pytest.raises(error, match=said) as caught:
        remote.read(ROWS)
    assert f"{served.url}/{SHARD}" in str(caught.value)
    assert isinstance(caught.value, CellmillError)
    served.mend()
    np.testing.assert_array_equal(remote.read(ROWS).toarray(), local.read(ROWS).toarray())


def test_what_cannot_pass_is_not_tried_again(opened):
    served, remote, _ = opened
    served.fail("403", only=".cells")
    with pytest.raises(RemoteDeniedError):
        remote.read([0])
    assert len(served.seen) == 1


def test_an_object_that_was_replaced_is_an_error_with_both_etags(opened):
    served, remote, _ = opened
    remote.read([0])
    served.etags[SHARD] = '"other"'
    with pytest.raises(RemoteChangedError, match=r'its ETag was "[0-9a-f-]+", now it is "other"') as caught:
        remote.read([199])
    assert f"{served.url}/{SHARD}" in str(caught.value)


def test_objects_without_an_etag_are_told_apart_by_when_they_were_modified(wide, serve):
    served = serve(wide.path)
    served.etags[SHARD] = ""
    remote = cm.open(served.url, storage_options=QUICK)
    remote.read([0])
    assert remote._opened([0])[0].tag.startswith("modified 20")
    served.fail("no tags", only=".cells")
    with pytest.raises(RemoteChangedError, match="modified 20"):
        remote.read([199])


def test_a_server_that_says_nothing_of_its_objects_is_read(wide, serve):
    served = serve(wide.path)
    served.fail("no tags")
    remote = cm.open(served.url)
    np.testing.assert_array_equal(remote.read(ROWS).toarray(), wide.read(ROWS).toarray())


def test_no_server_and_no_such_name_are_told(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(RemoteError, match=r"cannot be read, 3 times.*Check the URL"):
            cm.open(f"http://127.0.0.1:{unused.getsockname()[1]}/x.mill", storage_options=QUICK)
    with pytest.raises(
        RemoteError, match=r"https://no-such-host\.invalid/x\.mill/manifest\.json: no server of this name"
    ):
        cm.open("https://no-such-host.invalid/x.mill", storage_options=QUICK)


def test_a_manifest_that_was_cut_is_refused(local, serve):
    path = local.path / "manifest.json"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CorruptStoreError, match=r"http://127.*manifest\.json: not a cellmill manifest"):
        cm.open(serve(local.path).url)


@pytest.mark.parametrize("name", ["genes.parquet", "vocabulary.json.gz", "obs/00000.parquet", "obs/00000.uids"])
def test_a_whole_file_that_is_not_the_one_named_is_refused(name, local, serve):
    raw = bytearray((local.path / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (local.path / name).write_bytes(raw)
    served = serve(local.path)
    remote = cm.open(served.url)
    with pytest.raises(CorruptStoreError, match="are not those that the manifest names") as caught:
        _ = remote.genes, remote.vocabulary, remote.obs.to_arrow(), remote.uids()
    assert f"{served.url}/{name}" in str(caught.value)


def test_a_whole_file_that_is_missing_is_named(local, serve):
    (local.path / "obs" / "00003.parquet").unlink()
    served = serve(local.path)
    with pytest.raises(CorruptStoreError, match=f"{served.url}/obs/00003.parquet: missing, though"):
        cm.open(served.url).query("SELECT count(*) FROM obs")


@pytest.mark.parametrize("kind", ["cut", "503"])
def test_a_whole_file_is_asked_for_again(kind, local, serve):
    served = serve(local.path)
    remote = cm.open(served.url, storage_options=QUICK)
    served.fail(kind, times=2, only="genes")
    assert remote.genes.equals(local.genes)
    assert len(served.seen) == 4


@pytest.mark.parametrize("at", [-1, -60, -100])
def test_a_damaged_footer_or_offset_is_found_when_the_shard_is_opened(at, local, serve):
    path = local.path / SHARD
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0x10
    path.write_bytes(raw)
    served = serve(local.path)
    with pytest.raises(CorruptStoreError) as caught:
        cm.open(served.url).read([0])
    assert f"{served.url}/{SHARD}" in str(caught.value)
    assert "/cache/" not in str(caught.value)


def test_a_damaged_frame_names_shard_and_row(wide, serve):
    path = wide.path / SHARD
    raw = bytearray(path.read_bytes())
    raw[16:22] = b"\xff" * 6
    path.write_bytes(raw)
    served = serve(wide.path)
    with pytest.raises(CellmillError, match=f"{served.url}/{SHARD}: cell 0 of this shard"):
        cm.open(served.url).read([0])


def test_bytes_that_came_wrong_once_are_fetched_once_more(wide, serve):
    served = serve(wide.path)
    expected = wide.read(range(200)).toarray()
    remote = cm.open(served.url)
    remote.read([0])  # footer and offsets are here
    served.fail("zeros", times=1, only="cells")
    np.testing.assert_array_equal(remote.read(range(200)).toarray(), expected)
    np.testing.assert_array_equal(cm.open(served.url).read(range(200)).toarray(), expected)


def test_bytes_that_are_always_wrong_are_an_error(wide, serve):
    served = serve(wide.path)
    remote = cm.open(served.url)
    remote.read([0])
    served.fail("zeros", only="cells")
    with pytest.raises(FrameError, match="row 199"):
        remote.read([199])


def test_verify_forgets_blocks_of_the_cache_that_are_not_the_shards(wide, serve, cache_folder):
    served = serve(wide.path)
    expected = wide.read(range(200)).toarray()
    remote = cm.open(served.url)
    remote.read([0])
    served.fail("zeros", times=1, only="cells")
    remote.prefetch(range(150, 200))  # into the cache, undecoded
    told = []
    with listening(lambda event: told.append(event.message)):
        assert cm.open(served.url).verify().ok
    assert any("in the cache were not its bytes" in line for line in told)
    served.forget()
    np.testing.assert_array_equal(cm.open(served.url).read(range(200)).toarray(), expected)
    assert served.seen
