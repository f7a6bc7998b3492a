"""Tar archives: each input in them by itself, nothing left behind, nothing outside, nothing beyond measure."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections import namedtuple

import numpy as np
import pytest

import cellmill as cm
from cellmill.errors import DiskSpaceError, FormatError, NotFoundError
from cellmill.events import listening
from cellmill.sources import archive as archives
from cellmill.sources import expand_inputs, explain_guess, open_source
from cellmill.sources.archive import is_archive, size_of


def pack(path, files):
    """`files`: name in the archive to file, bytes, or TarInfo."""
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for name, item in files.items():
            if isinstance(item, bytes):
                info = tarfile.TarInfo(name)
                info.size = len(item)
                tar.addfile(info, io.BytesIO(item))
            elif isinstance(item, tarfile.TarInfo):
                tar.addfile(item)
            else:
                tar.add(item, name)
    return path


@pytest.fixture(params=["GSE1_RAW.tar", "GSE1_RAW.tar.gz"])
def raw(request, truth, write, tmp_path):
    """Two samples of Matrix Market, a table and an HDF5 file, as GEO packs them."""
    made = tmp_path / "made"
    made.mkdir()
    mex, table = write("mex-v3", truth, made), write("csv-genes-x-cells", truth, made)
    hdf5 = write("10x-v3", truth, made)
    files = {f"{gsm}_{file.name}": file for gsm in ("GSM1_a", "GSM2_b") for file in sorted(mex.iterdir())}
    files |= {"GSM3_c_counts.csv": table, "./below/GSM4_d.h5": hdf5, "readme.pdf": b"x"}
    return pack(tmp_path / request.param, files)


def test_every_input_of_an_archive_is_found_and_read(raw, truth, whole, tmp_path):
    spill = tmp_path / "spill"
    spill.mkdir()
    told = []
    with listening(told.append):
        found = expand_inputs(raw)
    assert [event.message for event in told if event.message] == [f"{raw}: passed over 1 that are no input: readme.pdf"]
    names = ["GSM1_a_matrix.mtx.gz", "GSM2_b_matrix.mtx.gz", "GSM3_c_counts.csv", "below/GSM4_d.h5"]
    assert found == [raw / name for name in names] and expand_inputs([*found, tmp_path / "*.tar*"]) == found
    kinds = []
    for path in found:
        with open_source(path, spill_dir=spill) as source:
            kinds.append((source.kind, source.name))
            for _ in range(2):
                np.testing.assert_array_equal(whole(source, block_cells=9).toarray(), truth.X)
                source.release()
                assert list(spill.iterdir()) == []
            assert source.obs()["cell"].to_pylist() == truth.cells and source.genes.index == truth.genes
            assert len(list(source.blocks(stop=5))) == 1 and len(list(spill.iterdir())) == 1
            assert explain_guess(path).startswith(f"{path}: read as {source.kind}, since ")
        assert list(spill.iterdir()) == []
    assert kinds == [("mex", "GSM1_a"), ("mex", "GSM2_b"), ("csv", "GSM3_c"), ("10x-h5", "GSM4_d")]


def test_an_archive_builds_to_the_store_of_its_files(raw, tmp_path):
    folder = tmp_path / "unpacked"
    with tarfile.open(raw) as tar:
        tar.extractall(folder, filter="data")
    stores = [cm.build(tmp_path / f"{i}.mill", [path], vocabulary="union") for i, path in enumerate((raw, folder))]
    tables = [store.obs.to_arrow(columns=["cell", "uid", "fingerprint", "dataset"]) for store in stores]
    assert tables[0].sort_by("uid").equals(tables[1].sort_by("uid")) and stores[0].n_cells == 4 * 37
    first, second = stores[0].manifest.sources, stores[1].manifest.sources
    assert sorted(one.bytes for one in first) == sorted(
        sum(size_of(other) for other in folder.glob(f"{gsm}*")) for gsm in ("GSM1", "GSM2", "GSM3", "below/GSM4")
    )
    assert {one.uri for one in first} == {str(path) for path in expand_inputs(raw)} and len(second) == 4


def test_messages_name_the_place_in_the_archive(truth, write, tmp_path):
    mex = write("mex-v2", truth, tmp_path)
    text = (mex / "matrix.mtx").read_text().splitlines()
    text[10] = "1 1 x"
    (mex / "matrix.mtx").write_text("\n".join(text) + "\n")
    path = pack(tmp_path / "a.tar", {f"s/{file.name}": file for file in mex.iterdir()}) / "s/matrix.mtx"
    with open_source(path) as source, pytest.raises(FormatError) as caught:
        list(source.blocks())
    assert str(caught.value).startswith(f"{path}, line 11: found '1 1 x'")
    (mex / "barcodes.tsv").unlink()
    path = pack(tmp_path / "b.tar", {file.name: file for file in mex.iterdir()}) / "matrix.mtx"
    with pytest.raises(FormatError) as caught:
        open_source(path)
    assert str(caught.value).startswith(f"{path}: barcodes.tsv")


def member(name, **facts):
    info = tarfile.TarInfo(name)
    for key, value in facts.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize("name", ["../evil.csv", "/etc/evil.csv", "a/../../evil.csv"])
def test_members_that_would_lie_outside_are_refused(name, tmp_path):
    path = pack(tmp_path / "a.tar", {"counts.csv": b"gene,c1\nTP53,1\n", name: b"gene,c1\nTP53,1\n"})
    for ask in (expand_inputs, lambda path: open_source(path / "counts.csv")):
        with pytest.raises(FormatError, match=r"a\.tar: the member .*evil\.csv' would lie outside the archive"):
            ask(path)
    assert not list(tmp_path.rglob("evil.csv"))


def test_links_in_an_archive_are_not_followed(tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("gene,c1\nTP53,1\n")
    link = member("counts.csv", type=tarfile.SYMTYPE, linkname=str(secret))
    path = pack(tmp_path / "a.tar", {"counts.csv": link, "other.csv": b"gene,c1\nTP53,1\n"})
    assert expand_inputs(path) == [path / "other.csv"]
    with pytest.raises(NotFoundError, match=r"no input 'counts\.csv' in this archive; it holds other\.csv"):
        open_source(path / "counts.csv")


def test_archives_that_unpack_beyond_measure_are_refused_before_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "SMALL_BYTES", 1 << 16)
    path = pack(tmp_path / "bomb.tar.gz", {"a_counts.csv": bytes(50 << 20)})
    assert path.stat().st_size * 300 < 50 << 20
    with pytest.raises(FormatError, match=r"bomb\.tar\.gz: its 1 members up to 'a_counts\.csv' claim 50\.0 MiB"):
        expand_inputs(path)


def test_no_room_is_said_before_anything_is_unpacked(raw, tmp_path, monkeypatch):
    path, spill = expand_inputs(raw)[0], tmp_path / "spill"
    spill.mkdir()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 9))
    with pytest.raises(DiskSpaceError, match=r"Unpacking .*GSM1_a_matrix\.mtx\.gz needs .* where 9 B are free"):
        open_source(path, spill_dir=spill)
    assert list(spill.iterdir()) == []


def test_every_truncation_of_an_archive_is_told(raw):
    good = raw.read_bytes()
    assert is_archive(raw)
    end = len(good.rstrip(b"\x00")) if raw.suffix == ".tar" else len(good)
    for size in sorted({600, end // 4, end // 2, end * 3 // 4, end - 40}):
        raw.write_bytes(good[:size])
        with pytest.raises(FormatError, match=r"GSE1_RAW\.tar.*(breaks off|damaged)"):
            open_source(expand_inputs(raw)[0])


def test_a_failed_opening_leaves_nothing(tmp_path, truth, write):
    path = pack(tmp_path / "a.tar", {"x_counts.csv": b"gene,c1,c2\nTP53,1\nCD3E,1,2\n"})
    spill = tmp_path / "spill"
    spill.mkdir()
    with pytest.raises(FormatError, match=r"a\.tar/x_counts\.csv"):
        open_source(path / "x_counts.csv", spill_dir=spill)
    assert list(spill.iterdir()) == []
    with pytest.raises(FormatError, match=r"a\.tar is a tar archive of 2 inputs"):
        open_source(pack(tmp_path / "a.tar", {"x.csv": b"x", "y.csv": b"y"}))
