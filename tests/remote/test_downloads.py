"""Files behind URLs as inputs, from a real server on this machine that can be told to fail."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from cellmill.errors import (
    ConfigError,
    DiskSpaceError,
    InputError,
    NotFoundError,
    RemoteChangedError,
    RemoteDeniedError,
    RemoteError,
    RemoteTimeoutError,
)
from cellmill.events import listening
from cellmill.ingest import append_inputs, build, fetched_inputs, plan_build
from cellmill.sources import download as download_module
from cellmill.sources import download_http
from cellmill.sources.download import download, look_at_url, recorded_url, remove_download

MIB = 1 << 20


@pytest.fixture
def remote(tmp_path, serve, monkeypatch):
    """A server with a file of 3 MiB and some; pauses are short."""
    monkeypatch.setattr(download_module, "LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(download_http, "CHUNK_BYTES", 100_000)
    folder = tmp_path / "served"
    (folder / "study").mkdir(parents=True)
    (folder / "study" / "cells.bin").write_bytes(np.random.default_rng(0).bytes(3 * MIB + 17))
    return serve(folder)


@pytest.fixture
def to(tmp_path):
    return tmp_path / "downloads"


def content(remote):
    return (remote.folder / "study" / "cells.bin").read_bytes()


def ranges(remote):
    return [wanted for _, wanted in remote.seen]


def told(call):
    seen = []
    with listening(seen.append):
        result = call()
    return result, seen


# ---- one file --------------------------------------------------------------------------------------------------


def test_a_file_comes_whole_with_its_size_and_etag_noted(remote, to):
    url = f"{remote.url}/study/cells.bin"
    got, events = told(lambda: download(url, to))
    assert got.path.read_bytes() == content(remote)
    assert (got.url, got.n_bytes, got.path.parent.name) == (url, 3 * MIB + 17, "study")
    assert str(got) == f"fetched from {url}: {got.n_bytes} bytes, ETag {got.tag}" and got.tag.startswith('"')
    moves = [event for event in events if event.unit == "bytes"]
    assert moves[-1].done == moves[-1].total == got.n_bytes and len(moves) > 20
    assert not list(to.rglob("*.part"))


def test_a_file_that_is_here_is_not_fetched_again(remote, to):
    url = f"{remote.url}/study/cells.bin"
    first = download(url, to)
    remote.forget()
    assert download(url, to) == first and ranges(remote) == ["bytes=0-0"]
    assert look_at_url(url, to).done
    remote.fail("500")
    again, events = told(lambda: download_with_few_tries(url, to))
    assert again == first
    assert any("the copy here is used, since the server is silent" in event.message for event in events)


def download_with_few_tries(url, to, **how):
    return download(url, to, **{"max_retries": 2, "timeout_seconds": 2, **how})


def test_a_file_that_was_replaced_or_lost_here_is_fetched_again(remote, to):
    url = f"{remote.url}/study/cells.bin"
    first = download(url, to)
    (remote.folder / "study" / "cells.bin").write_bytes(b"other" * 1000)
    second, events = told(lambda: download(url, to))
    assert second.path.read_bytes() == b"other" * 1000 and second.tag != first.tag
    assert any("was replaced since it was fetched" in event.message for event in events)
    second.path.write_bytes(b"cut")
    assert download(url, to).path.read_bytes() == b"other" * 1000
    (second.path.parents[1] / "receipt.json").write_text("{")
    assert download(url, to).path.read_bytes() == b"other" * 1000


@pytest.mark.parametrize("fault", ["cut", "503", "429", "fewer"])
def test_faults_that_pass_are_overcome_and_no_byte_is_fetched_twice(remote, to, fault):
    remote.fail(fault, times=3)
    assert download(f"{remote.url}/study/cells.bin", to).path.read_bytes() == content(remote)
    if fault == "cut":
        starts = [int(wanted[6:-1]) for wanted in ranges(remote) if wanted and wanted.endswith("-")]
        # the first cut hits the look at the file
        assert starts == [(3 * MIB + 17) // 2, (3 * MIB + 17) // 2 + (3 * MIB + 18) // 2 // 2]


def test_a_server_that_always_cuts_is_an_error_that_says_what_is_here(remote, to):
    (remote.folder / "study" / "small.bin").write_bytes(b"x" * 9)
    remote.fail("cut")
    with pytest.raises(RemoteError, match=r"small\.bin: the answer is cut off again and again; 8 of 9 bytes are here"):
        download_with_few_tries(f"{remote.url}/study/small.bin", to)
    remote.mend()
    remote.forget()
    assert download(f"{remote.url}/study/small.bin", to).path.read_bytes() == b"x" * 9
    assert ranges(remote) == ["bytes=0-0", "bytes=8-"]


def test_without_ranges_a_file_comes_whole_or_from_its_beginning_again(remote, to):
    remote.fail("no ranges")
    assert download(f"{remote.url}/study/cells.bin", to).path.read_bytes() == content(remote)
    remote.mend()
    shutil.rmtree(to)
    real, cuts = remote.take_fault, iter(["no ranges", "cut", "no ranges"])
    remote.take_fault = lambda path: next(cuts, "") or real(path)
    assert download(f"{remote.url}/study/cells.bin", to).path.read_bytes() == content(remote)


def test_without_ranges_and_always_cut_it_ends(remote, to):
    """Each time the same half comes: no progress, though bytes come."""
    remote.fail("no ranges, cut")
    with pytest.raises(RemoteError, match="cut off again and again"):
        download_with_few_tries(f"{remote.url}/study/cells.bin", to)
    assert len(remote.seen) < 12


def test_without_a_validator_nothing_is_added_to_a_part(remote, to):
    """Nobody knows whether it is the same file."""
    url = f"{remote.url}/study/cells.bin"
    remote.fail("no tags")
    got = download(url, to)
    assert got.tag == "" and str(got).endswith("no ETag") and got.path.read_bytes() == content(remote)
    part = got.path.with_name("cells.bin.part")
    part.write_bytes(b"begun")
    receipt = got.path.parents[1] / "receipt.json"
    receipt.write_text(json.dumps(json.loads(receipt.read_text()) | {"complete": False}))
    remote.forget()
    assert download(url, to).path.read_bytes() == content(remote)
    assert ranges(remote) == ["bytes=0-0", None]


def test_a_file_replaced_between_two_parts_is_begun_anew(remote, to):
    url, path = f"{remote.url}/study/cells.bin", remote.folder / "study" / "cells.bin"
    new = np.random.default_rng(1).bytes(2 * MIB)
    real, seen = remote.take_fault, []

    def replace_after_a_cut(name):
        seen.append(name)
        if len(seen) == 3:
            path.write_bytes(new)
        return "cut" if len(seen) == 2 else real(name)

    remote.take_fault = replace_after_a_cut
    got, events = told(lambda: download(url, to))
    assert got.path.read_bytes() == new and got.n_bytes == 2 * MIB
    assert any("was replaced; fetched from its beginning" in event.message for event in events)


def test_another_file_of_a_server_that_knows_no_if_range_is_noticed(remote, to):
    """A weak ETag is not for ranges: the server gives the part that was asked for, of whatever it has."""
    path, tags = remote.folder / "study" / "cells.bin", remote.etags
    new = np.random.default_rng(1).bytes(3 * MIB + 17)
    tags["study/cells.bin"] = 'W/"one"'
    real, seen = remote.take_fault, []

    def replace_after_a_cut(name):
        seen.append(name)
        if len(seen) == 3:
            path.write_bytes(new)
            tags[name] = 'W/"two"'
        return "cut" if len(seen) == 2 else real(name)

    remote.take_fault = replace_after_a_cut
    got = download(f"{remote.url}/study/cells.bin", to)
    assert got.path.read_bytes() == new and got.tag == 'W/"two"'


def test_a_file_replaced_all_the_time_is_an_error(remote, to):
    path, number = remote.folder / "study" / "cells.bin", iter(range(1000))
    real = remote.take_fault

    def replace_always(name):
        path.write_bytes(b"x" * (1000 + next(number)))
        return real(name)

    remote.take_fault = replace_always
    remote.fail("cut")
    with pytest.raises(RemoteChangedError, match="is replaced again and again"):
        download_with_few_tries(f"{remote.url}/study/cells.bin", to)


def test_a_process_that_was_killed_goes_on_where_it_stopped(remote, to):
    url = f"{remote.url}/study/cells.bin"
    real, seen = remote.take_fault, []

    def stall(name):
        seen.append(name)
        return "cut" if len(seen) == 2 else "silent" if len(seen) == 3 else real(name)

    remote.take_fault = stall
    code = "import sys; from pathlib import Path; from cellmill.sources.download import download; "
    code += "download(sys.argv[1], Path(sys.argv[2]))"
    process = subprocess.Popen([sys.executable, "-c", code, url, to])
    until = time.monotonic() + 60
    while len(seen) < 3 and time.monotonic() < until:
        time.sleep(0.05)
    process.kill()
    process.wait()
    (part,) = to.rglob("*.part")
    have = part.stat().st_size
    assert have > MIB
    remote.take_fault = real
    remote.forget()
    got, events = told(lambda: download(url, to))
    assert got.path.read_bytes() == content(remote)
    assert ranges(remote) == ["bytes=0-0", f"bytes={have}-"]
    assert any("going on after" in event.message for event in events)


def test_a_part_that_was_complete_is_only_renamed(remote, to):
    got = download(f"{remote.url}/study/cells.bin", to)
    receipt = got.path.parents[1] / "receipt.json"
    receipt.write_text(json.dumps(json.loads(receipt.read_text()) | {"complete": False}))
    got.path.rename(got.path.with_name("cells.bin.part"))
    remote.forget()
    assert download(got.url, to).path.read_bytes() == content(remote)
    assert ranges(remote) == ["bytes=0-0"]


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ("404", NotFoundError, "there is no such file"),
        ("403", RemoteDeniedError, "the server refuses to give it"),
        ("400", RemoteError, "the server answers 400"),
        ("500", RemoteError, "cannot be fetched, however often it is tried: the server answers 500"),
        ("silent", RemoteTimeoutError, "no answer within 0.2 s, again and again"),
    ],
)
def test_what_a_server_refuses_is_a_typed_error(remote, to, fault, error, said):
    remote.fail(fault)
    with pytest.raises(error, match=rf"{remote.url}/study/cells\.bin: {said}"):
        download(f"{remote.url}/study/cells.bin", to, timeout_seconds=0.2, max_retries=1)
    assert len(remote.seen) == (2 if fault in ("500", "silent") else 1)


def test_no_server_is_a_typed_error(to):
    with pytest.raises(RemoteError, match="Connection refused"):
        download("http://127.0.0.1:9/a.h5ad", to, max_retries=1)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/a.h5ad", "from https, s3 and gs, not from ftp"),
        ("http://example.org/a.h5ad", "http is not encrypted"),
        ("https://user:secret@example.org/a.h5ad", "no password in a URL"),
        ("https://example.org/folder/", "names no file"),
        ("https://example.org", "names no file"),
        ("s3://bucket/*.h5ad", "patterns do not work behind a URL"),
        ("s3://bucket/a.h5ad?versionId=3", r"no \? or # in its URL"),
        ("s3://bucket/atlas.mill", "is no input; copy it to a folder"),
    ],
)
def test_urls_that_name_no_file_are_refused_before_anything_is_asked(url, said, to, tmp_path):
    with pytest.raises(ConfigError, match=said) as caught:
        download(url, to)
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match=said):
        build(tmp_path / "s.mill", [url])


def test_a_redirect_is_followed_on_this_machine_and_never_to_plain_http(remote, to):
    remote.elsewhere = remote.url
    assert download(f"{remote.url}/moved/study/cells.bin", to).path.read_bytes() == content(remote)
    remote.elsewhere = "http://example.org"
    with pytest.raises(RemoteError, match="leads to http://, which is not encrypted; not followed"):
        download(f"{remote.url}/moved/study/other.bin", to)


def test_a_query_belongs_to_the_url_and_the_server_may_name_the_file(remote, to):
    remote.headers = {"Content-Disposition": 'attachment; filename="../../GSM1 cells.h5ad"'}
    got = download(f"{remote.url}/study/cells.bin?acc=GSM1&format=file", to)
    assert got.path.name == "GSM1 cells.h5ad" and got.path.is_relative_to(to)
    assert download(f"{remote.url}/study/cells.bin?acc=GSM2&format=file", to).path != got.path
    masked = "https://h/a?x=1&X-Amz-Signature=***&api_key=***"
    assert recorded_url("https://h/a?x=1&X-Amz-Signature=ab%2Fc&api_key=k") == masked


def test_an_md5_that_the_server_gives_is_held_against_the_file(remote, to):
    sound = base64.b64encode(hashlib.md5(content(remote)).digest()).decode()
    remote.headers = {"x-goog-hash": f"crc32c=AAAAAA==,md5={sound}"}
    assert download(f"{remote.url}/study/cells.bin", to).path.read_bytes() == content(remote)
    remote.headers = {"Content-MD5": base64.b64encode(b"0" * 16).decode()}
    shutil.rmtree(to)
    with pytest.raises(RemoteError, match="what came has the MD5"):
        download(f"{remote.url}/study/cells.bin", to)
    assert not list(to.rglob("cells.bin*"))


def test_room_is_looked_for_before_anything_is_fetched(remote, to, monkeypatch):
    from cellmill.storage import local

    monkeypatch.setattr(local, "free_bytes", lambda path: MIB)
    with pytest.raises(DiskSpaceError, match=r"needs about 3\.0 MiB, but only 1\.0 MiB are free"):
        download(f"{remote.url}/study/cells.bin", to)
    assert ranges(remote) == ["bytes=0-0"]


def test_what_was_fetched_can_be_removed(remote, to):
    got = download(f"{remote.url}/study/cells.bin", to)
    remove_download(got, to)
    assert not list(to.iterdir())


def test_paths_and_names_stay_in_their_folder(remote, to):
    (remote.folder / "a b").mkdir()
    (remote.folder / "a b" / "ü%.bin").write_bytes(b"1234")
    got = download(f"{remote.url}/a%20b/%C3%BC%25.bin", to)
    assert got.path.read_bytes() == b"1234" and got.path.is_relative_to(to)
    assert (got.path.parent.name, got.path.name) == ("a b", "ü_.bin")


# ---- inputs of a build -----------------------------------------------------------------------------------------


@pytest.fixture
def studies(tmp_path, serve, tiny_h5ad, monkeypatch):
    monkeypatch.setattr(download_module, "LONGEST_PAUSE_SECONDS", 0.01)
    served = serve(tmp_path / "served")
    served.folder.mkdir()
    for i, name in enumerate(("blood", "gut")):
        tiny_h5ad(name, n_cells=30, seed=i).path.rename(served.folder / f"{name}.h5ad")
    return served


def test_urls_are_inputs_and_stand_in_the_reports(studies, tmp_path, tiny_h5ad, cache_folder):
    local = tiny_h5ad("liver", n_cells=10, seed=9).path
    urls = [f"{studies.url}/{name}.h5ad?token=secret" for name in ("blood", "gut")]
    store, events = told(lambda: build(tmp_path / "s.mill", [urls[0], local, urls[1]], vocabulary="union"))
    assert [source.name for source in store.manifest.sources] == ["blood", "liver", "gut"]
    uri = f"{studies.url}/gut.h5ad?token=***"
    assert [source.uri for source in store.manifest.sources][1:] == [str(local), uri]
    report = json.loads((store.path / "reports" / "00002.json").read_text())
    assert report["uri"] == uri and report["notes"][0].startswith(f"fetched from {uri}: ")
    assert not any(b"secret" in path.read_bytes() for path in store.path.rglob("*.json"))
    assert any(f"are kept in {cache_folder / 'inputs'}" in event.message for event in events)
    same = [studies.folder / "blood.h5ad", local, studies.folder / "gut.h5ad"]
    assert build(tmp_path / "t.mill", same, vocabulary="union").digest == store.digest


def test_what_was_fetched_is_removed_on_request_and_only_when_the_store_is_there(studies, tmp_path, to):
    url = f"{studies.url}/blood.h5ad"
    how = {"vocabulary": "union", "downloads": to, "keep_downloads": False}
    with pytest.raises(InputError, match="layers/x"):
        build(tmp_path / "s.mill", [url], counts="layers/x", **how)
    assert list(to.rglob("blood.h5ad"))
    studies.forget()
    build(tmp_path / "s.mill", [url], **how)
    assert ranges(studies) == ["bytes=0-0"] and not list(to.iterdir())


def test_all_urls_are_looked_at_before_one_is_fetched(studies, tmp_path):
    urls = [f"{studies.url}/blood.h5ad", f"{studies.url}/gutt.h5ad"]
    with pytest.raises(NotFoundError, match=r"gutt\.h5ad: there is no such file"):
        build(tmp_path / "s.mill", urls, vocabulary="union")
    assert ranges(studies) == ["bytes=0-0"] * 2
    store = build(tmp_path / "s.mill", urls, vocabulary="union", skip_bad=True)
    skipped = json.loads((store.path / "reports" / "build.json").read_text())["skipped"]
    assert [one["path"] for one in skipped] == [urls[1]] and store.n_cells == 30
    with pytest.raises(InputError, match=r"no input is left to build from:\n .*gutt\.h5ad"):
        build(tmp_path / "t.mill", urls[1:], vocabulary="union", skip_bad=True)


def test_an_error_about_a_fetched_file_names_its_url(studies, tmp_path):
    (studies.folder / "page.h5ad").write_text("<html>please log in</html>")
    with pytest.raises(InputError, match="web page") as caught:
        build(tmp_path / "s.mill", [f"{studies.url}/page.h5ad"], vocabulary="union")
    assert any(f"page.h5ad was fetched from {studies.url}/page.h5ad" in note for note in caught.value.__notes__)


def test_a_plan_fetches_nothing_and_says_what_would_be(studies, tmp_path, tiny_h5ad, cache_folder):
    url, local = f"{studies.url}/blood.h5ad", tiny_h5ad("liver", n_cells=10, seed=9).path
    here = fetched_inputs([url, local])
    plan = plan_build(here.inputs, vocabulary="union", fetched=here)
    assert plan.n_cells == 10 and str(plan.skipped[0].path) == url
    assert plan.skipped[0].reason.startswith("not fetched yet (") and not cache_folder.exists()
    with pytest.raises(InputError, match="nothing can be planned before it is fetched"):
        fetched_inputs([url])
    build(tmp_path / "s.mill", [url], vocabulary="union")
    here = fetched_inputs([url, local])
    assert plan_build(here.inputs, vocabulary="union", fetched=here).n_cells == 40


def test_urls_can_be_added_to_a_store(studies, tmp_path):
    build(tmp_path / "s.mill", [f"{studies.url}/blood.h5ad"], vocabulary="union")
    grown = append_inputs(tmp_path / "s.mill", [f"{studies.url}/gut.h5ad"])
    assert grown.n_cells == 60 and grown.manifest.sources[1].uri == f"{studies.url}/gut.h5ad"


def test_a_wrong_policy_is_refused_before_anything_is_fetched(studies, tmp_path):
    with pytest.raises(ConfigError, match="format"):
        build(tmp_path / "s.mill", [f"{studies.url}/blood.h5ad"], format="h5add")
    assert studies.seen == []
