"""s3:// against a real S3 server (moto), gs:// against one that answers as Google does; both on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

import cellmill as cm
from cellmill.errors import NotFoundError, RemoteChangedError, RemoteDeniedError
from cellmill.events import listening
from cellmill.pipeline.config import load_experiment
from cellmill.sources.download import _BucketOrigin, download

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


@pytest.fixture
def endpoint(monkeypatch):
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_SESSION_TOKEN", "AWS_ALLOW_HTTP"):
        monkeypatch.delenv(name, raising=False)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint, local):
    """A bucket that holds a store."""
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket="atlases")
    for path in local.path.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "atlases", f"2026/s.mill/{path.relative_to(local.path)}")
    return client


def test_a_store_in_a_bucket_equals_the_one_in_the_folder(bucket, local):
    remote = cm.open("s3://atlases/2026/s.mill")
    rows = np.random.default_rng(1).integers(0, 250, 200)
    np.testing.assert_array_equal(remote.read(rows).toarray(), local.read(rows).toarray())
    np.testing.assert_array_equal(remote.uids(rows), local.uids(rows))
    np.testing.assert_array_equal(remote.select("donor_id = 'donor1'"), local.select("donor_id = 'donor1'"))
    assert remote.verify().ok
    assert str(remote.path) == remote.location == "s3://atlases/2026/s.mill"


def test_the_endpoint_and_keys_can_be_given_as_options(bucket, local, endpoint, monkeypatch):
    for name in (*KEYS, "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    options = {"endpoint": endpoint, "access_key_id": "key", "secret_access_key": "secret", "region": "us-east-1"}
    remote = cm.open("s3://atlases/2026/s.mill", storage_options=options)
    np.testing.assert_array_equal(remote.read([7]).toarray(), local.read([7]).toarray())
    assert "secret" not in repr(remote) + repr(remote._remote)


def test_a_shard_that_is_overwritten_in_the_bucket_is_noticed(bucket):
    remote = cm.open("s3://atlases/2026/s.mill")
    shard = "2026/s.mill/shards/00001.cells"
    remote._opened([1])
    data = bytearray(bucket.get_object(Bucket="atlases", Key=shard)["Body"].read())
    data[20] ^= 1
    bucket.put_object(Bucket="atlases", Key=shard, Body=bytes(data))
    with pytest.raises(cm.errors.RemoteChangedError, match=r"s3://atlases/2026/s\.mill/shards/00001\.cells"):
        remote.read([70])


def test_a_bucket_or_folder_that_is_not_there_is_told(bucket):
    for url in ("s3://atlases/nothing.mill", "s3://no-such-bucket/s.mill"):
        with pytest.raises(NotFoundError, match=f"{url}: there is no manifest"):
            cm.open(url, storage_options={"max_retries": 0})


def test_a_refusal_names_the_variables(tmp_path, serve, monkeypatch):
    served = serve(tmp_path)
    served.fail("403")
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": served.url}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RemoteDeniedError, match=r"s3://atlases/s\.mill/manifest\.json.*AWS_ACCESS_KEY_ID"):
        cm.open("s3://atlases/s.mill")


def test_the_command_line_reads_from_a_bucket(bucket, local):
    def told(*words: str) -> str:
        command = [sys.executable, "-m", "cellmill", *words, "--json"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    url = "s3://atlases/2026/s.mill"
    assert json.loads(told("query", url, "SELECT count(*) AS n FROM obs")) == [{"n": 250}]
    assert json.loads(told("info", url))["path"] == url
    assert told("genes", "report", url)


def test_gs_is_read_from_the_server_that_its_key_file_names(local, serve, tmp_path):
    served = serve(local.path, prefix="/atlases/2026/s.mill")
    base = served.url.removesuffix("/atlases/2026/s.mill")
    key = {"gcs_base_url": base, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    remote = cm.open("gs://atlases/2026/s.mill", storage_options={"service_account_key": json.dumps(key)})
    rows = np.random.default_rng(1).integers(0, 250, 60)
    np.testing.assert_array_equal(remote.read(rows).toarray(), local.read(rows).toarray())
    assert any(name == "shards/00000.cells" for name, _ in served.seen)
    served.fail("403")
    with pytest.raises(RemoteDeniedError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        cm.open("gs://atlases/2026/s.mill", storage_options={"service_account_key": json.dumps(key)})


def test_a_plan_and_an_experiment_name_stores_by_url(bucket, local, tmp_path):
    mix = tmp_path / "mix.yaml"
    mix.write_text("components:\n  - {name: all, store: 's3://atlases/2026/s.mill'}\n")
    plan = cm.Mixture.from_yaml(mix).plan()
    assert [store.location for store in plan.stores] == ["s3://atlases/2026/s.mill"]
    example = (Path(__file__).parents[2] / "examples" / "compare-arms.yaml").read_text()
    simulated = "data:\n  simulate: {n_cells: 6000, seed: 0}"
    assert simulated in example
    (tmp_path / "arms.yaml").write_text(example.replace(simulated, "data: {store: 's3://atlases/2026/s.mill'}"))
    config = load_experiment(tmp_path / "arms.yaml")
    assert str(config.data.store) == "s3://atlases/2026/s.mill"


def test_what_a_run_records_opens_the_store_again(bucket, local):
    remote = cm.open("s3://atlases/2026/s.mill")
    assert cm.open(remote.location).digest == local.digest
    assert cm.open(local.location).digest == local.digest


def test_files_in_a_bucket_are_inputs_and_a_part_goes_on(bucket, tmp_path, tiny_h5ad, monkeypatch):
    path = tiny_h5ad("blood", n_cells=400, n_genes=90).path
    bucket.upload_file(str(path), "atlases", "raw/blood.h5ad")
    url, to = "s3://atlases/raw/blood.h5ad", tmp_path / "downloads"
    monkeypatch.setattr(_BucketOrigin, "RANGE_BYTES", 5000)
    monkeypatch.setattr(_BucketOrigin, "AT_ONCE", 2)
    assert path.stat().st_size > 40_000

    def stop(event):
        if event.unit == "bytes" and event.done > 20_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(stop):
        download(url, to)
    (part,) = to.rglob("*.part")
    have, seen = part.stat().st_size, []
    assert have >= 20_000
    with listening(seen.append):
        store = cm.build(tmp_path / "b.mill", [url], vocabulary="union", downloads=to)
    assert min(event.done for event in seen if event.unit == "bytes") > have
    assert (store.manifest.sources[0].uri, store.n_cells) == (url, 400)
    assert next(to.rglob("blood.h5ad")).read_bytes() == path.read_bytes()
    with pytest.raises(NotFoundError, match=r"s3://atlases/raw/gut\.h5ad: there is no such object"):
        download("s3://atlases/raw/gut.h5ad", to)


def test_an_object_replaced_while_it_is_fetched_is_told_and_fetched_anew_next_time(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(_BucketOrigin, "RANGE_BYTES", 1000)
    monkeypatch.setattr(_BucketOrigin, "AT_ONCE", 1)
    bucket.put_object(Bucket="atlases", Key="a.bin", Body=b"a" * 5000)

    def replace(event):
        if event.unit == "bytes" and event.done == 2000:
            bucket.put_object(Bucket="atlases", Key="a.bin", Body=b"b" * 4000)

    with listening(replace), pytest.raises(RemoteChangedError, match="was replaced while it was fetched; run the same"):
        download("s3://atlases/a.bin", tmp_path)
    assert download("s3://atlases/a.bin", tmp_path).path.read_bytes() == b"b" * 4000
