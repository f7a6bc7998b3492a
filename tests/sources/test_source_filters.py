"""HDF5 that is compressed by plug-ins: read where they are installed, else the error says what to install."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest

from cellmill.errors import FormatError, MissingDependencyError
from cellmill.sources import open_source
from cellmill.sources.hdf5_filters import require_filters

UNKNOWN = 32_767  # a number that no filter has


def write_with_filter(path, number):
    """A dense h5ad whose X claims a filter; its chunks are written as they are, past the filter."""
    with h5py.File(path, "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((2, 3))
        properties.set_filter(number, h5py.h5z.FLAG_OPTIONAL, (3,))
        X = h5py.h5d.create(file.id, b"X", h5py.h5t.NATIVE_INT32, h5py.h5s.create_simple((2, 3)), properties)
        X.write_direct_chunk((0, 0), np.arange(6, dtype=np.int32).tobytes())
        for axis, n in (("obs", 2), ("var", 3)):
            file[f"{axis}/_index"] = np.array([f"{axis}{i}" for i in range(n)], "S")
    return path


@pytest.mark.parametrize("compression", ["Zstd", "Blosc", "LZ4", "Bitshuffle"])
@pytest.mark.parametrize("kind", ["h5ad-csr", "h5ad-csc", "h5ad-dense", "10x-v3", "loom-contiguous-dense"])
def test_counts_are_the_same_under_every_compression(compression, kind, truth, write, tmp_path):
    plugin = pytest.importorskip("hdf5plugin")
    path = write(kind, truth, tmp_path)
    with h5py.File(path, "r+") as file:
        names = []
        file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) and node.size else None)
        for name in [name for name in names if file[name].ndim and file[name].dtype.kind in "iuf"]:
            values, attributes = file[name][()], dict(file[name].attrs)
            del file[name]
            file.create_dataset(name, data=values, chunks=values.shape, **getattr(plugin, compression)())
            file[name].attrs.update(attributes)
    # in a process of its own: here, the plug-in is imported already
    code = """
        import sys
        import numpy as np
        from cellmill.sources import open_source
        assert "hdf5plugin" not in sys.modules
        with open_source(sys.argv[1]) as source:
            for block in source.blocks():
                cells = np.repeat(np.arange(block.start, block.stop), np.diff(block.indptr))
                keep = block.data != 0
                np.savetxt(sys.stdout, np.c_[cells, block.indices, block.data][keep], fmt="%d")
        assert "hdf5plugin" in sys.modules
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    got = np.zeros_like(truth.X)
    cells, genes, values = np.array([line.split() for line in done.stdout.splitlines()], int).T
    got[cells, genes] = values
    np.testing.assert_array_equal(got, truth.X)


def test_without_the_plugin_the_extra_is_named(tmp_path, monkeypatch):
    path = write_with_filter(tmp_path / "a.h5ad", UNKNOWN)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    said = rf"a\.h5ad, /X: its compression is an unknown one \(HDF5 filter {UNKNOWN}\).*hdf5plugin.*'\.\[filters\]'"
    with open_source(path) as source, pytest.raises(MissingDependencyError, match=said):
        list(source.blocks())


def test_a_filter_that_nobody_has_is_named(tmp_path):
    pytest.importorskip("hdf5plugin")
    path = write_with_filter(tmp_path / "a.h5ad", UNKNOWN)
    said = rf"a\.h5ad, /X: .*HDF5 filter {UNKNOWN}.*nor hdf5plugin.*gzip, lzf"
    with open_source(path) as source, pytest.raises(FormatError, match=said):
        list(source.blocks())


def test_damage_is_not_taken_for_a_missing_filter(truth, write, tmp_path):
    path = write("h5ad-dense-gzip", truth, tmp_path)
    with h5py.File(path) as file:
        assert require_filters(file["X"]) is False
        chunk = file["X"].id.get_chunk_info(0)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)
    with open_source(path) as source, pytest.raises(FormatError, match="damaged or incomplete"):
        list(source.blocks())
