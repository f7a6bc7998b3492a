"""A manifest that says what the format does not allow is refused when the store is opened, whoever sealed it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cellmill.errors import CorruptStoreError, NotFoundError
from cellmill.ingest import build
from cellmill.storage import hash_bytes
from cellmill.store import FileEntry, Manifest, open_store


def sealed(body):
    """The JSON of a manifest with right hashes, as a hostile writer would make it."""
    body.pop("manifest_xxh3", None)
    content = {key: body.get(key) for key in ("format_version", "vocabulary_hash", "obs_schema")}
    content["genes"] = body["genes"]["xxh3"]
    content["head"] = body["head"]["xxh3"] if isinstance(body.get("head"), dict) else None
    content["shards"] = [
        (*(s.get(file, {}).get("xxh3") for file in ("cells", "obs", "uids")), s["n_cells"], s["nnz"])
        for s in body["shards"]
    ]
    body["digest"] = hash_bytes(json.dumps(content, sort_keys=True).encode())
    body["manifest_xxh3"] = hash_bytes(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
    return json.dumps(body).encode()


@pytest.fixture
def raw(tmp_path, tiny_h5ad):
    return (build(tmp_path / "s.mill", [tiny_h5ad().path], vocabulary="union").path / "manifest.json").read_bytes()


CHANGES = {
    "a path above the store": lambda b: b["genes"].update(path="../other.mill/genes.parquet"),
    "a path above, inside": lambda b: b["shards"][0]["obs"].update(path="obs/../../x.parquet"),
    "an absolute path": lambda b: b["shards"][0]["obs"].update(path="/secret.parquet"),
    "a path with a newline": lambda b: b["genes"].update(path="genes.parquet\n"),
    "a hidden file": lambda b: b["vocabulary"].update(path=".json.gz"),
    "a path that is a number": lambda b: b["shards"][0]["cells"].update(path=7),
    "uids above the store": lambda b: b["shards"][0]["uids"].update(path="obs/../../x.uids"),
    "a shard without uids": lambda b: b["shards"][0].pop("uids"),
    "a head above the store": lambda b: b.update(head={**b["genes"], "path": "../model.bin"}),
    "a head that is a text": lambda b: b.update(head="model.bin"),
    "a negative length": lambda b: b["genes"].update(bytes=-1),
    "a hash of other form": lambda b: b["genes"].update(xxh3="evil"),
    "fewer than no cells": lambda b: b["shards"][0].update(n_cells=-5),
    "cells as text": lambda b: b["shards"][0].update(n_cells="5"),
    "cells as a real number": lambda b: b["shards"][0].update(n_cells=20.0),
    "cells as a truth value": lambda b: b["shards"][0].update(n_cells=True),
    "more cells than can be": lambda b: b["shards"][0].update(n_cells=2**70),
    "more counts than can be": lambda b: b["shards"][0].update(nnz=2**70),
    "an unknown type": lambda b: b["obs_schema"].append(["z", "evil"]),
    "a type that readers do not see": lambda b: b["obs_schema"].append(["z", "null"]),
    "a column twice": lambda b: b["obs_schema"].append(["uid", "string"]),
    "columns that SQL cannot tell apart": lambda b: b["obs_schema"].append(["Tissue", "string"]),
    "a column named as the row id": lambda b: b["obs_schema"].append(["ROW", "string"]),
    "a column without type": lambda b: b["obs_schema"].append(["z"]),
    "other standard columns": lambda b: b.update(obs_schema=[["cell", "string"]]),
    "a number for a name": lambda b: b["sources"][0].update(name=3),
    "a source without report": lambda b: b["sources"][0].pop("report"),
    "a report that is a list": lambda b: b["sources"][0].update(report=[]),
    "an unknown key": lambda b: b.update(extra="x"),
    "sources that are no list": lambda b: b.update(sources={}),
    "a version that is no whole number": lambda b: b.update(format_version=1.0),
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
    with pytest.raises(CorruptStoreError, match=r"^m: "):
        Manifest.from_json(sealed(body), where="m")


@pytest.mark.parametrize("raw", [b"[" * 100_000, b"\xff\xfe{}", b"[]", b"3", b'{"a":' * 100_000])
def test_what_is_no_object_is_refused(raw):
    with pytest.raises(CorruptStoreError, match="not a cellmill manifest"):
        Manifest.from_json(raw, where="m")


def test_a_store_of_format_1_says_what_to_do(raw):
    body = json.loads(raw)
    body["format_version"] = 1
    for shard in body["shards"]:
        shard.pop("uids")
    with pytest.raises(
        CorruptStoreError, match=r"m: written in format 1, by a cellmill that was never released.*again"
    ):
        Manifest.from_json(json.dumps({**body, "manifest_xxh3": "0" * 32}).encode(), where="m")


def test_a_folder_in_place_of_the_manifest_is_no_store(tmp_path):
    (tmp_path / "s.mill" / "manifest.json").mkdir(parents=True)
    with pytest.raises(NotFoundError):
        open_store(tmp_path / "s.mill")
