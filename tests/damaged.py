"""A hundred ways in which an input can be wrong, each written from one sound file."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
import zarr

N_CELLS, N_GENES = 24, 16
GENES = [f"ENSG{i:011d}" for i in range(N_GENES)]
CELLS = [f"CELL{i:03d}" for i in range(N_CELLS)]
Writer = Callable[[Path], Path]


def counts(seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).poisson(1.2, (N_CELLS, N_GENES))
    made[:, 0] += 1  # no cell is empty
    return made


def write_h5ad(path: Path, x: Any) -> Path:
    obs = pd.DataFrame({"donor": pd.Categorical(["a", "b"] * (N_CELLS // 2))}, index=CELLS)
    ad.AnnData(x, obs=obs, var=pd.DataFrame(index=GENES)).write_h5ad(path)
    return path


LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "csr": lambda x: sp.csr_matrix(x.astype(np.float64)),
    "csc": lambda x: sp.csc_matrix(x.astype(np.float64)),
    "dense": lambda x: x.astype(np.float64),
}
VALUES = {
    "negative": -1.0, "nan": np.nan, "infinite": np.inf, "minus infinite": -np.inf, "half": 0.5,
    "nearly whole": 1.0001, "above 32 bit": 2.0**32, "huge": 1e300,
}  # fmt: skip


def bad_values() -> Iterator[tuple[str, Writer]]:
    for layout, make in LAYOUTS.items():
        for what, value in VALUES.items():

            def write(folder: Path, make: Any = make, value: float = value) -> Path:
                path = write_h5ad(folder / "values.h5ad", make(counts()))
                with h5py.File(path, "r+") as file:
                    x = file["X"] if isinstance(file["X"], h5py.Dataset) else file["X/data"]
                    x[(x.shape[0] // 2, 0) if x.ndim == 2 else x.shape[0] // 2] = value
                return path

            yield f"h5ad {layout}: {what}", write


def edited(change: Callable[[h5py.File], None], layout: str = "csr") -> Writer:
    def write(folder: Path) -> Path:
        path = write_h5ad(folder / "edited.h5ad", LAYOUTS[layout](counts()))
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    return write


def replaced(place: str, values: Callable[[np.ndarray], Any]) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        old, attributes = file[place][()], dict(file[place].attrs)
        del file[place]
        file[place] = values(old)
        file[place].attrs.update(attributes)

    return change


def put(at: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def values(old: np.ndarray) -> np.ndarray:
        new = old.astype(np.int64)
        new[at] = value
        return new

    return values


def removed(place: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[place]

    return change


def broken_structures() -> Iterator[tuple[str, Writer]]:
    for layout in ("csr", "csc"):
        for what, change in {
            "an index beyond the axis": replaced("X/indices", put(5, 1000)),
            "a negative index": replaced("X/indices", put(5, -1)),
            "an index of 2^40": replaced("X/indices", put(5, 2**40)),
            "indices cut short": replaced("X/indices", lambda old: old[:-3]),
            "data cut short": replaced("X/data", lambda old: old[:-3]),
            "data as text": replaced("X/data", lambda old: [b"x"] * len(old)),
            "data in two dimensions": replaced("X/data", lambda old: np.stack([old, old])),
            "indptr that falls": replaced("X/indptr", put(3, 0)),
            "indptr that starts at 1": replaced("X/indptr", put(0, 1)),
            "indptr beyond the data": replaced("X/indptr", put(-1, 10**6)),
            "indptr cut short": replaced("X/indptr", lambda old: old[:-2]),
            "indptr too long": replaced("X/indptr", lambda old: np.append(old, old[-1])),
            "indptr below zero": replaced("X/indptr", put(2, -5)),
            "no data": removed("X/data"),
            "no indices": removed("X/indices"),
            "no indptr": removed("X/indptr"),
            "a shape of more cells": lambda file: file["X"].attrs.update(shape=(N_CELLS + 1, N_GENES)),
            "a shape of more genes": lambda file: file["X"].attrs.update(shape=(N_CELLS, N_GENES + 1)),
            "an encoding nobody knows": lambda file: file["X"].attrs.update({"encoding-type": "csr5_matrix"}),
        }.items():
            yield f"h5ad {layout}: {what}", edited(change, layout)
    for what, change in {
        "no X": removed("X"),
        "no obs": removed("obs"),
        "no var": removed("var"),
        "no gene names": removed("var/_index"),
        "obs too short": replaced("obs/_index", lambda old: old[:-1]),
        "a column of obs too short": replaced("obs/donor/codes", lambda old: old[:-1]),
        "genes too few": replaced("var/_index", lambda old: old[:-1]),
        "genes nobody knows": replaced("var/_index", lambda old: [f"gene {i}" for i in range(len(old))]),
        "a link to another file": lambda file: file.__setitem__("obs/more", h5py.ExternalLink("other.h5", "/")),
    }.items():
        yield f"h5ad: {what}", edited(change)
    yield "h5ad dense: of another shape", edited(replaced("X", lambda old: old[:, :-1]), "dense")
    yield "h5ad dense: of one dimension", edited(replaced("X", lambda old: old.ravel()), "dense")
    yield "h5ad dense: of text", edited(replaced("X", lambda old: old.astype("S4")), "dense")


def cut(share: float) -> Writer:
    def write(folder: Path) -> Path:
        path = write_h5ad(folder / "cut.h5ad", LAYOUTS["csr"](counts()))
        os.truncate(path, int(path.stat().st_size * share))
        return path

    return write


def raw(name: str, data: bytes) -> Writer:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return write


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.h5ad")
    return folder / "pipe.h5ad"


def dangling(folder: Path) -> Path:
    (folder / "link.h5ad").symlink_to(folder / "gone.h5ad")
    return folder / "link.h5ad"


def foreign_files() -> Iterator[tuple[str, Writer]]:
    for share in (0.02, 0.25, 0.5, 0.75, 0.9, 0.999):
        yield f"h5ad cut at {share:.1%}", cut(share)
    yield "h5ad: empty", raw("empty.h5ad", b"")
    yield "h5ad: text", raw("text.h5ad", b"not an archive\n" * 50)
    yield "h5ad: a web page", raw("page.h5ad", b"<!DOCTYPE html><html><body>404</body></html>")
    yield "h5ad: noise", raw("noise.h5ad", np.random.default_rng(0).bytes(5000))
    yield "an ending nobody knows", raw("cells.xyz", b"1234")
    yield "nothing there", lambda folder: folder / "gone.h5ad"
    yield "an empty folder", lambda folder: folder
    yield "a pipe", fifo
    yield "a link to nothing", dangling


def table_text(x: np.ndarray | None = None) -> list[str]:
    x = counts() if x is None else x
    return [",".join(["", *GENES]), *(",".join([c, *map(str, row)]) for c, row in zip(CELLS, x, strict=True))]


def table(change: Callable[[list[str]], Any], name: str = "table.csv") -> Writer:
    def write(folder: Path) -> Path:
        lines = table_text()
        changed = change(lines)
        data = changed if isinstance(changed, bytes) else "\n".join(changed or lines).encode() + b"\n"
        (folder / name).write_bytes(data)
        return folder / name

    return write


def line(number: int, change: Callable[[str], str]) -> Callable[[list[str]], list[str]]:
    return lambda lines: [change(text) if i == number else text for i, text in enumerate(lines)]


def field(value: str) -> Callable[[list[str]], list[str]]:
    return line(9, lambda text: ",".join([*text.split(",")[:-1], value]))


def bad_tables() -> Iterator[tuple[str, Writer]]:
    for what, change in {
        "a field too few": line(9, lambda text: text.rsplit(",", 1)[0]),
        "a field too many": line(9, lambda text: text + ",7"),
        "a word": field("many"), "a word in the first column": line(9, lambda text: text.replace(",", ",x", 1)),
        "a missing value": field("NA"), "an empty field": field(""),
        "a negative": field("-3"), "a fraction": field("0.25"), "nan": field("nan"), "infinite": field("1e999"),
        "above 32 bit": field("4294967296"), "an open quote": line(9, lambda text: '"' + text),
        "a zero byte": line(9, lambda text: text.replace(",", ",\0", 1)),
        "nothing": lambda lines: b"",
        "UTF-16": lambda lines: "\n".join(lines).encode("utf-16"),
    }.items():  # fmt: skip
        yield f"csv: {what}", table(change)
    packed = gzip.compress("\n".join(table_text()).encode())
    yield "csv.gz: cut", raw("cut.csv.gz", packed[: len(packed) // 2])
    yield "csv.gz: a wrong checksum", raw("sum.csv.gz", packed[:-8] + b"\1\2\3\4" + packed[-4:])


def mex(change: Callable[[dict[str, bytes]], None]) -> Writer:
    def write(folder: Path) -> Path:
        x = counts().T
        rows, columns = np.nonzero(x)
        entries = [f"{i + 1} {j + 1} {x[i, j]}" for i, j in zip(rows, columns, strict=True)]
        head = ["%%MatrixMarket matrix coordinate integer general", f"{N_GENES} {N_CELLS} {len(entries)}"]
        files = {
            "matrix.mtx": "\n".join([*head, *entries]).encode() + b"\n",
            "features.tsv": "".join(f"{g}\t{g}\tGene Expression\n" for g in GENES).encode(),
            "barcodes.tsv": "".join(f"{c}\n" for c in CELLS).encode(),
        }
        change(files)
        inner = folder / "mex"
        inner.mkdir()
        for name, data in files.items():
            (inner / name).write_bytes(data)
        return inner

    return write


def swapped(name: str, old: bytes, new: bytes) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        assert old in files[name]
        files[name] = files[name].replace(old, new, 1)

    return change


def entry(number: int, text: bytes) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        lines = files["matrix.mtx"].split(b"\n")
        lines[2 + number] = text
        files["matrix.mtx"] = b"\n".join(lines)

    return change


def lines_of(name: str, change: Callable[[list[bytes]], list[bytes]]) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.__setitem__(name, b"\n".join(change(files[name].split(b"\n")[:-1])) + b"\n")


def bad_mex() -> Iterator[tuple[str, Writer]]:
    for what, change in {
        "a header of something else": swapped("matrix.mtx", b"%%MatrixMarket", b"%%MatrixNarket"),
        "complex numbers": swapped("matrix.mtx", b"integer", b"complex"),
        "entries missing": lines_of("matrix.mtx", lambda lines: lines[:-5]),
        "an entry too many": lines_of("matrix.mtx", lambda lines: [*lines, b"1 1 1"]),
        "row 0": entry(3, b"0 1 1"), "a row beyond": entry(3, b"999 1 1"), "a column beyond": entry(3, b"1 999 1"),
        "a negative": entry(3, b"1 2 -4"), "a fraction": entry(3, b"1 2 0.5"), "a word": entry(3, b"1 2 x"),
        "an entry of two": entry(3, b"1 2"), "above 32 bit": entry(3, b"1 2 4294967296"),
        "no barcodes": lambda files: files.pop("barcodes.tsv"),
        "no features": lambda files: files.pop("features.tsv"),
        "a barcode too few": lines_of("barcodes.tsv", lambda lines: lines[:-1]),
        "a feature too few": lines_of("features.tsv", lambda lines: lines[:-1]),
        "no gene expression": lambda files: files.__setitem__(
            "features.tsv", files["features.tsv"].replace(b"Gene Expression", b"Antibody Capture")
        ),
    }.items():  # fmt: skip
        yield f"mtx: {what}", mex(change)


def ten_x(change: Callable[[h5py.File], None]) -> Writer:
    def write(folder: Path) -> Path:
        path = folder / "tenx.h5"
        by_cell = sp.csr_matrix(counts())
        with h5py.File(path, "w") as file:
            group = file.create_group("matrix")
            group["data"], group["indices"] = by_cell.data.astype(np.int32), by_cell.indices.astype(np.int64)
            group["indptr"], group["shape"] = by_cell.indptr.astype(np.int64), np.array([N_GENES, N_CELLS], np.int32)
            group["barcodes"] = np.array(CELLS, dtype="S")
            features = group.create_group("features")
            features["id"] = features["name"] = np.array(GENES, dtype="S")
            features["feature_type"] = np.array(["Gene Expression"] * N_GENES, dtype="S")
            change(file)
        return path

    return write


def bad_ten_x() -> Iterator[tuple[str, Writer]]:
    for what, change in {
        "a negative": replaced("matrix/data", put(4, -2)),
        "an index beyond": replaced("matrix/indices", put(4, 500)),
        "indptr that falls": replaced("matrix/indptr", put(4, 0)),
        "no barcodes": removed("matrix/barcodes"),
        "no features": removed("matrix/features"),
        "no data": removed("matrix/data"),
        "a barcode too few": replaced("matrix/barcodes", lambda old: old[:-1]),
        "another shape": replaced("matrix/shape", lambda old: old + 3),
    }.items():
        yield f"10x: {what}", ten_x(change)


def loom(change: Callable[[h5py.File], None]) -> Writer:
    def write(folder: Path) -> Path:
        with h5py.File(folder / "cells.loom", "w") as file:
            file["matrix"] = counts().T.astype(np.float32)
            file["row_attrs/Accession"] = np.array(GENES, dtype="S")
            file["col_attrs/CellID"] = np.array(CELLS, dtype="S")
            file.create_group("layers")
            change(file)
        return folder / "cells.loom"

    return write


def bad_looms() -> Iterator[tuple[str, Writer]]:
    for what, change in {
        "no matrix": removed("matrix"),
        "no genes": removed("row_attrs/Accession"),
        "a gene too few": replaced("row_attrs/Accession", lambda old: old[:-1]),
        "a cell too few": replaced("col_attrs/CellID", lambda old: old[:-1]),
        "a fraction": replaced("matrix", lambda old: old + 0.25),
    }.items():
        yield f"loom: {what}", loom(change)


def zarr_store(change: Callable[[Path], None]) -> Writer:
    def write(folder: Path) -> Path:
        path = folder / "cells.zarr"
        obs = pd.DataFrame(index=CELLS)
        ad.AnnData(sp.csr_matrix(counts().astype(np.float32)), obs=obs, var=pd.DataFrame(index=GENES)).write_zarr(path)
        change(path)
        return path

    return write


def overwrite_chunks(path: Path) -> None:
    for file in (path / "X/data").rglob("*"):
        if file.is_file() and not file.name.startswith((".z", "zarr.json")):
            file.write_bytes(b"\xff" * file.stat().st_size)


def negative_data(path: Path) -> None:
    zarr.open_group(path, mode="r+")["X/data"][3] = -1


def without(*names: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        for file in [*path.rglob(".zmetadata"), *(f for name in names for f in path.glob(name))]:
            file.unlink()

    return change


def bad_zarr() -> Iterator[tuple[str, Writer]]:
    yield "zarr: overwritten chunks", zarr_store(overwrite_chunks)
    yield "zarr: a negative", zarr_store(negative_data)
    yield "zarr: no description of the data", zarr_store(without("X/data/.zarray", "X/data/zarr.json"))
    yield "zarr: no description at all", zarr_store(without(".zgroup", "zarr.json", ".zattrs"))


def damaged_inputs() -> dict[str, Writer]:
    """Return how to write each damaged input, by what is wrong with it."""
    families = (
        bad_values, broken_structures, foreign_files, bad_tables, bad_mex, bad_ten_x, bad_looms, bad_zarr
    )  # fmt: skip
    return {name: write for family in families for name, write in family()}


SOUND: dict[str, Writer] = {
    **{f"h5ad {layout}": edited(lambda file: None, layout) for layout in LAYOUTS},
    "csv": table(lambda lines: lines),
    "csv.gz": raw("whole.csv.gz", gzip.compress("\n".join(table_text()).encode())),
    "mtx": mex(lambda files: None),
    "10x": ten_x(lambda file: None),
    "loom": loom(lambda file: None),
    "zarr": zarr_store(lambda path: None),
}
