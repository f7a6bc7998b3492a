"""A manifest that says what the format does not allow is refused when the store is opened, whoever sealed it."""

from __future__ import annotations

import json
import pickle
import re
import struct
from dataclasses import replace

import pytest

from cellmill.errors import CorruptStoreError, NotFoundError
from cellmill.ingest import build
from cellmill.storage import hash_bytes
from cellmill.store import FileEntry, Manifest, ShardEntry, Shards, Sources, open_store


def sealed(body):
    """A manifest with right hashes, as a hostile writer would make it, written from the page on the format."""
    content = {key: body.get(key) for key in ("format_version", "vocabulary_hash", "obs_schema")}
    content["genes"] = body["genes"]["xxh3"]
    content["head"] = body["head"]["xxh3"] if isinstance(body.get("head"), dict) else None
    content["shards"] = hash_bytes(columns_as_bytes(body["shards"]))
    body["digest"] = hash_bytes(json.dumps(content, sort_keys=True).encode())
    return with_own_hash(json.dumps({key: value for key, value in body.items() if key != "manifest_xxh3"}))


def with_own_hash(text):
    """The JSON of an object with the hash of all of it, at its beginning."""
    start = '{\n "manifest_xxh3": "'
    rest = '",\n' + text.lstrip()[1:]
    return (start + hash_bytes((start + "0" * 32 + rest).encode()) + rest).encode()


def columns_as_bytes(shards):
    """What the digest hashes of shards; no bytes where they are none, so that only the check of them refuses."""
    try:
        hashes = [bytes.fromhex(digits) for kind in ("cells", "obs", "uids") for digits in shards[kind]["xxh3"]]
        return b"".join([*hashes, *(struct.pack("<Q", n) for key in ("n_cells", "nnz") for n in shards[key])])
    except (KeyError, TypeError, ValueError, struct.error):
        return b""


@pytest.fixture
def store(tmp_path, tiny_h5ad):
    store = build(tmp_path / "s.mill", [tiny_h5ad().path], vocabulary="union", shard_cells=20, block_cells=20)
    assert len(store.manifest.shards) == 3
    return store


_RAW: list[bytes] = []


@pytest.fixture
def raw(request):
    """The manifest of such a store, which is built once for all tests."""
    if not _RAW:
        _RAW.append((request.getfixturevalue("store").path / "manifest.json").read_bytes())
    return _RAW[0]


def put(body, *place, value):
    """Put a value in place of the first of a column of shards."""
    column = body["shards"]
    for key in place:
        column = column[key]
    column[0] = value


CHANGES = {
    "a path above the store": lambda b: b["genes"].update(path="../other.mill/genes.parquet"),
    "a path above, inside": lambda b: put(b, "obs", "path", value="obs/../../x.parquet"),
    "an absolute path": lambda b: put(b, "obs", "path", value="/secret.parquet"),
    "a path with a newline": lambda b: b["genes"].update(path="genes.parquet\n"),
    "a hidden file": lambda b: b["vocabulary"].update(path=".json.gz"),
    "a path that is a number": lambda b: put(b, "cells", "path", value=7),
    "uids above the store": lambda b: put(b, "uids", "path", value="obs/../../x.uids"),
    "a shard without uids": lambda b: b["shards"].pop("uids"),
    "a head above the store": lambda b: b.update(head={**b["genes"], "path": "../model.bin"}),
    "a head that is a text": lambda b: b.update(head="model.bin"),
    "a negative length": lambda b: b["genes"].update(bytes=-1),
    "a hash of other form": lambda b: b["genes"].update(xxh3="evil"),
    "fewer than no cells": lambda b: put(b, "n_cells", value=-5),
    "cells as text": lambda b: put(b, "n_cells", value="5"),
    "cells as a real number": lambda b: put(b, "n_cells", value=20.0),
    "cells as a truth value": lambda b: put(b, "n_cells", value=True),
    "more cells than can be": lambda b: put(b, "n_cells", value=2**70),
    "more counts than can be": lambda b: put(b, "nnz", value=2**70),
    "counts that are NaN": lambda b: put(b, "nnz", value=float("nan")),
    "counts that are missing": lambda b: put(b, "nnz", value=None),
    "a negative number of counts": lambda b: put(b, "nnz", value=-1),
    "a negative length of a shard": lambda b: put(b, "obs", "bytes", value=-1),
    "sizes that overflow together": lambda b: b["shards"]["cells"].update(bytes=[2**62] * 3),
    "a hash in capitals": lambda b: put(b, "obs", "xxh3", value="AB" * 16),
    "a hash with blanks": lambda b: put(b, "obs", "xxh3", value="ab" * 15 + " a"),
    "hashes of other lengths that fit together": lambda b: b["shards"]["obs"]["xxh3"].__setitem__(
        slice(0, 2), ["a" * 31, "a" * 33]
    ),
    "a hash that is a number": lambda b: put(b, "uids", "xxh3", value=5),
    "a path with a newline in a column": lambda b: put(b, "cells", "path", value="shards/0.cells\nshards/1.cells"),
    "a hidden file in a column": lambda b: put(b, "cells", "path", value="shards/.0.cells"),
    "a path of another kind": lambda b: put(b, "cells", "path", value="obs/00000.uids"),
    "a source that is a list": lambda b: put(b, "source", value=["x"]),
    "a path too many": lambda b: b["shards"]["obs"]["path"].append("obs/9.parquet"),
    "a source too few": lambda b: b["shards"]["source"].pop(),
    "a report too many": lambda b: b["sources"]["report"]["bytes"].append(3),
    "no paths": lambda b: b["shards"]["obs"].pop("path"),
    "a text for a column": lambda b: b["shards"].update(source="a" * len(b["shards"]["source"])),
    "a column for a number": lambda b: b["genes"].update(bytes=[3]),
    "an unknown column": lambda b: b["shards"].update(extra=[1] * len(b["shards"]["source"])),
    "an unknown key of files": lambda b: b["shards"]["obs"].update(extra=[]),
    "shards as objects": lambda b: b.update(shards=[{}]),
    "files as a list": lambda b: b["shards"].update(cells=[]),
    "no vocabulary": lambda b: b.pop("vocabulary"),
    "an unknown type": lambda b: b["obs_schema"].append(["z", "evil"]),
    "a type that readers do not see": lambda b: b["obs_schema"].append(["z", "null"]),
    "a column twice": lambda b: b["obs_schema"].append(["uid", "string"]),
    "columns that SQL cannot tell apart": lambda b: b["obs_schema"].append(["Tissue", "string"]),
    "a column named as the row id": lambda b: b["obs_schema"].append(["ROW", "string"]),
    "a column without type": lambda b: b["obs_schema"].append(["z"]),
    "other standard columns": lambda b: b.update(obs_schema=[["cell", "string"]]),
    "a number for a name": lambda b: b["sources"].update(name=[3]),
    "a source without report": lambda b: b["sources"].pop("report"),
    "a report that is a list": lambda b: b["sources"].update(report=[]),
    "an unknown key": lambda b: b.update(extra="x"),
    "sources that are no columns": lambda b: b.update(sources=[]),
    "a version that is no whole number": lambda b: b.update(format_version=2.0),
}


def test_the_unchanged_manifest_is_read(raw):
    assert Manifest.from_json(sealed(json.loads(raw)), where="m").to_json() == raw


def test_a_head_is_kept_and_part_of_the_digest(raw):
    plain = Manifest.from_json(raw, where="m")
    with_head = replace(plain, head=FileEntry("model.bin", 5, "ab" * 16)).sealed()
    again = Manifest.from_json(with_head.to_json(), where="m")
    assert again == with_head
    assert again.digest != plain.digest
    assert not again.extends(plain)


@pytest.mark.parametrize("change", CHANGES)
def test_a_hostile_manifest_is_refused(raw, change):
    body = json.loads(raw)
    CHANGES[change](body)
    # by the check of what was changed: the hashes all hold
    with pytest.raises(
        CorruptStoreError, match=r"^m: (not a cellmill manifest|not a manifest of version 2|format version)"
    ):
        Manifest.from_json(sealed(body), where="m")


@pytest.mark.parametrize("key", ["digest", "shards", "n_cells", "path"])
def test_a_key_that_stands_twice_is_refused(raw, key):
    text = re.sub(rb'"manifest_xxh3".*?\n', b"", raw, count=1).decode()
    twice = re.sub(rf'( *"{key}": )(?=[\["{{])', r"\g<1>[],\n\g<1>", text, count=1)
    assert twice != text
    with pytest.raises(CorruptStoreError, match=r"^m: not a cellmill manifest .*stands twice"):
        Manifest.from_json(with_own_hash(twice), where="m")


def test_every_changed_byte_is_found(raw):
    for at in range(0, len(raw), 7):
        changed = bytearray(raw)
        changed[at] ^= 1
        with pytest.raises(CorruptStoreError):
            Manifest.from_json(bytes(changed), where="m")
    with pytest.raises(CorruptStoreError, match="checksum"):
        Manifest.from_json(raw + b"\n", where="m")


def test_the_digest_depends_on_what_is_read_and_on_nothing_else(raw):
    manifest = Manifest.from_json(raw, where="m")

    def changed(**values):
        shards = [manifest.shards[0], replace(manifest.shards[1], **values), manifest.shards[2]]
        return replace(manifest, shards=Shards(shards)).sealed().digest

    shard = manifest.shards[1]
    assert changed() == manifest.digest == changed(source="other")
    assert changed(obs=replace(shard.obs, path="obs/x.parquet", bytes=1)) == manifest.digest
    others = [{kind: replace(getattr(shard, kind), xxh3="cd" * 16)} for kind in ("cells", "obs", "uids")]
    others += [{"n_cells": shard.n_cells + 1}, {"nnz": shard.nnz + 1}]
    swapped = replace(manifest, shards=Shards(reversed(manifest.shards))).sealed().digest
    assert len({manifest.digest, swapped, *(changed(**values) for values in others)}) == len(others) + 2


def test_opening_makes_no_entry(store, monkeypatch):
    raw = (store.path / "manifest.json").read_bytes()
    monkeypatch.setattr(Shards, "_made", None)
    monkeypatch.setattr(Sources, "_made", None)
    store = open_store(store.path)
    assert (store.n_cells, len(store.manifest.shards), len(store.manifest.sources)) == (60, 3, 1)
    assert store.nnz > 0 and store.n_bytes > 0
    assert store.manifest.extends(Manifest.from_json(raw, where="m"))
    assert pickle.loads(pickle.dumps(store)).manifest == store.manifest
    with pytest.raises(TypeError):
        store.manifest.shards[0]


def test_shards_are_a_sequence_of_what_they_were_made_of(raw):
    shards = Manifest.from_json(raw, where="m").shards
    listed = list(shards)
    assert [type(entry) for entry in listed] == [ShardEntry] * 3
    assert (shards[0], shards[-1], shards[1:].nnz.tolist()) == (
        listed[0], listed[2], [entry.nnz for entry in listed[1:]],
    )  # fmt: skip
    assert all(type(value) is int for entry in listed for value in (entry.nnz, entry.n_cells, entry.obs.bytes))
    assert Shards(listed) == shards and hash(Shards(listed)) == hash(shards)
    assert Shards(listed[:2]) == shards[:2] != shards
    assert Shards([*listed[:2], replace(listed[2], nnz=1)]) != shards
    assert Shards([*listed[:2], replace(listed[2], source="other")]) != shards
    assert len(Shards()) == 0 and list(Shards()) == []
    with pytest.raises(IndexError):
        shards[3]


def test_a_manifest_that_grew_extends_only_what_it_begins_with(raw):
    whole = Manifest.from_json(raw, where="m")
    part = replace(whole, shards=whole.shards[:2]).sealed()
    assert whole.extends(part) and whole.extends(whole)
    assert not part.extends(whole)
    assert not whole.extends(replace(whole, shards=whole.shards[1:]).sealed())


@pytest.mark.parametrize("raw", [b"[" * 100_000, b"\xff\xfe{}", b"[]", b"3", b'{"a":' * 100_000])
def test_what_is_no_object_is_refused(raw):
    with pytest.raises(CorruptStoreError, match="not a cellmill manifest"):
        Manifest.from_json(raw, where="m")


def test_a_store_of_format_1_says_what_to_do(raw):
    body = json.loads(raw)
    body["format_version"] = 1
    body["shards"] = [{"n_cells": 20, "nnz": 3, "source": "x"}]
    with pytest.raises(
        CorruptStoreError, match=r"m: written in format 1, by a cellmill that was never released.*again"
    ):
        Manifest.from_json(json.dumps({**body, "manifest_xxh3": "0" * 32}).encode(), where="m")


def test_a_folder_in_place_of_the_manifest_is_no_store(tmp_path):
    (tmp_path / "s.mill" / "manifest.json").mkdir(parents=True)
    with pytest.raises(NotFoundError):
        open_store(tmp_path / "s.mill")
