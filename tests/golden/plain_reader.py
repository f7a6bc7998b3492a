"""A reader of stores in plain Python, written from docs/reference/format.md alone. Slow, and strict.

It imports nothing of cellmill: what it reads is what the page says, so that it proves the page complete. Each function
is a section of the page. All hashes of all files are checked, and what the page calls derived (uids, fingerprints,
totals) is computed anew.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

VERSION = 2
Cell = tuple[list[int], list[int]]  # genes, as storage positions that ascend, and their counts


class Refused(ValueError):  # noqa: N818 - a word of the page
    """What a reader must refuse."""


def require(holds: object, what: str) -> None:
    if not holds:
        raise Refused(what)


def hash64(data: bytes) -> int:
    return xxhash.xxh3_64_intdigest(data)


def hash128(data: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(data)


# ---- the whole ---------------------------------------------------------------------------------------------------


@dataclass
class PlainStore:
    """All of a store, in lists; one entry a cell."""

    manifest: dict[str, Any]
    genes: list[dict[str, Any]]
    head: list[list[int]]  # of each head gene the frequencies of its symbols
    vocabulary: dict[str, Any]
    cells: list[Cell]
    uids: list[int]
    obs: dict[str, list[Any]]
    offset_bits: list[int]  # of each shard
    frames: list[bytes]  # of each cell


def read_store(folder: Path) -> PlainStore:
    """Read everything, check everything; raises Refused."""
    manifest = read_manifest((folder / "manifest.json").read_bytes())
    vocabulary = read_vocabulary(named(folder, manifest["vocabulary"]), manifest)
    genes = read_genes(named(folder, manifest["genes"]))
    head = read_model(named(folder, manifest["head"])) if manifest["head"] else []
    require(len(head) <= len(genes), "more head genes than genes")
    obs: dict[str, list[Any]] = {name: [] for name, _ in manifest["obs_schema"]}
    store = PlainStore(manifest, genes, head, vocabulary, [], [], obs, [], [])
    for source in manifest["sources"]:
        named(folder, source["report"])
    for shard in manifest["shards"]:
        read_shard(store, shard, *(named(folder, shard[part]) for part in ("cells", "obs", "uids")))
    check_uids(store)
    check_counts(store)
    return store


def named(folder: Path, entry: dict[str, Any]) -> bytes:
    """Return the bytes of a file that the manifest names."""
    require((folder / entry["path"]).is_file(), f"{entry['path']} is missing")
    data = (folder / entry["path"]).read_bytes()
    require(len(data) == entry["bytes"] and hash128(data) == entry["xxh3"], f"{entry['path']} is another file")
    return data


# ---- manifest.json -----------------------------------------------------------------------------------------------

NAME = "[A-Za-z0-9_][A-Za-z0-9_.-]*"
PATHS = {
    "cells": rf"shards/{NAME}\.cells",
    "obs": rf"obs/{NAME}\.parquet",
    "uids": rf"obs/{NAME}\.uids",
    "report": rf"reports/{NAME}\.json",
    "genes": rf"{NAME}\.parquet",
    "vocabulary": rf"{NAME}\.json\.gz",
    "head": rf"{NAME}\.bin",
}
OBS_TYPES = ("bool", "int32", "int64", "uint64", "float32", "float64", "string", "category")
STANDARD = [
    ["cell", "string"],
    ["dataset", "category"],
    ["uid", "uint64"],
    ["fingerprint", "uint64"],
    ["total_counts", "int64"],
    ["n_genes_detected", "int32"],
]
STORED = [("stored_counts", "total_counts"), ("n_genes_stored", "n_genes_detected")]
TEXT, FILE, LIST, COLUMNS = "text", "file", "list", "columns"
FILE_ENTRY = {"path": TEXT, "bytes": 2**63 - 1, "xxh3": TEXT}
MANIFEST = {
    "manifest_xxh3": TEXT,
    "format_version": VERSION,
    "vocabulary_hash": TEXT,
    "vocabulary_name": TEXT,
    "vocabulary": FILE,
    "genes": FILE,
    "head": FILE,
    "obs_schema": LIST,
    "shards": COLUMNS,
    "sources": COLUMNS,
    "cellmill_version": TEXT,
    "digest": TEXT,
}
SHARD = {"cells": FILE, "obs": FILE, "uids": FILE, "n_cells": 2**32 - 1, "nnz": 2**63 - 1, "source": TEXT}
SOURCE = {"name": TEXT, "kind": TEXT, "uri": TEXT, "matrix": TEXT, "xxh3": TEXT, "report": FILE}
SOURCE |= {"bytes": 2**63 - 1, "n_cells": 2**63 - 1}


def read_manifest(raw: bytes) -> dict[str, Any]:
    require(raw[:21] == b'{\n "manifest_xxh3": "', "not a manifest")
    require(raw[21:53] == hash128(raw[:21] + b"0" * 32 + raw[53:]).encode(), "the manifest's own hash")
    try:
        manifest = json.loads(raw, object_pairs_hook=once_each)
    except ValueError as error:
        raise Refused(f"manifest.json is not JSON: {error}") from None
    require(manifest.get("format_version") == VERSION, "not a manifest of version 2")
    manifest.setdefault("head", None)
    check_object(manifest, MANIFEST)
    check_obs_schema(manifest["obs_schema"])
    shards = rows_of(manifest["shards"], SHARD)
    manifest["sources"] = rows_of(manifest["sources"], SOURCE)
    hashes = [bytes.fromhex(shard[part]["xxh3"]) for part in ("cells", "obs", "uids") for shard in shards]
    numbers = [struct.pack("<Q", shard[key]) for key in ("n_cells", "nnz") for shard in shards]
    content = {
        "format_version": VERSION,
        "vocabulary_hash": manifest["vocabulary_hash"],
        "genes": manifest["genes"]["xxh3"],
        "head": manifest["head"] and manifest["head"]["xxh3"],
        "obs_schema": manifest["obs_schema"],
        "shards": hash128(b"".join(hashes + numbers)),
    }
    text = json.dumps(content, sort_keys=True, separators=(", ", ": "), ensure_ascii=True)
    require(manifest["digest"] == hash128(text.encode()), "the digest")
    manifest["shards"] = shards
    return manifest


def once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    require(len(dict(pairs)) == len(pairs), "a key twice in one object")
    return dict(pairs)


def rows_of(columns: Any, kinds: dict[str, Any]) -> list[dict[str, Any]]:
    """Return columns as rows: one object for each shard, or source."""
    require(isinstance(columns, dict) and set(columns) == set(kinds), f"columns {list(columns)}")
    for key, kind in kinds.items():
        if kind == FILE:
            columns[key] = rows_of(columns[key], FILE_ENTRY)
        require(isinstance(columns[key], list), f"the column {key} is no list")
    require(len({len(column) for column in columns.values()}) == 1, "columns of different lengths")
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    for row in rows:
        check_object(row, kinds)
    for key, kind in kinds.items():
        require(not isinstance(kind, int) or sum(row[key] for row in rows) < 2**63, f"the sum of {key}")
    return rows


def check_object(value: Any, kinds: dict[str, Any]) -> None:
    """Check that an object has these keys alone, and what each holds; a number stands for the largest allowed."""
    require(isinstance(value, dict) and set(value) == set(kinds), f"keys {list(value)}, expected {list(kinds)}")
    for key, kind in kinds.items():
        found = value[key]
        if kind == FILE and not (key == "head" and found is None):
            check_object(found, FILE_ENTRY)
            require(re.fullmatch(PATHS[key], found["path"], re.ASCII), f"the path {found['path']}")
            require(re.fullmatch("[0-9a-f]{32}", found["xxh3"]), f"the hash {found['xxh3']}")
        elif kind == TEXT:
            require(isinstance(found, str), f"{key} is no text")
        elif kind == LIST:
            require(isinstance(found, list), f"{key} is no list")
        elif isinstance(kind, int):
            require(type(found) is int and 0 <= found <= kind, f"{key} is {found}")


def check_obs_schema(schema: list[Any]) -> None:
    require(schema[: len(STANDARD)] == STANDARD, "obs_schema must begin with the six columns")
    require(all(kind in OBS_TYPES for _, kind in schema), "a type of obs_schema")
    names = [name.lower() for name, _ in schema]
    require(len(set(names)) == len(names) and "row" not in names, "names of obs_schema")


# ---- vocabulary.json.gz and genes.parquet --------------------------------------------------------------------------


def read_vocabulary(raw: bytes, manifest: dict[str, Any]) -> dict[str, Any]:
    vocabulary = json.loads(gzip.decompress(raw))
    require(vocabulary["format"] == "cellmill-vocabulary/1", "the format of the vocabulary")
    content = {key: vocabulary[key] for key in ("ids", "tokens", "specials")}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    require(hash128(text.encode()) == vocabulary["hash"] == manifest["vocabulary_hash"], "the vocabulary's hash")
    return vocabulary


def read_genes(raw: bytes) -> list[dict[str, Any]]:
    table = pq.read_table(pa.BufferReader(raw))
    wanted = [
        ("gene_id", pa.string()),
        ("symbol", pa.string()),
        ("token", pa.int64()),
        ("detection_rate", pa.float64()),
    ]
    require([(field.name, field.type) for field in table.schema] == wanted, "the columns of genes.parquet")
    return table.to_pylist()


# ---- reports -------------------------------------------------------------------------------------------------------


def read_measured(report: bytes, vocabulary: dict[str, Any]) -> set[str] | None:
    """Return the ids of the genes that an input measured, None where its report does not say."""
    record = json.loads(report).get("measured")
    if record is None:
        return None
    require(record["vocabulary_hash"] == vocabulary["hash"], "measured genes of another vocabulary")
    bits = base64.b64decode(record["bits"], validate=True)
    n = len(vocabulary["ids"])
    require(len(bits) == (n + 7) // 8, "the number of bytes of measured genes")
    marked = [i for i in range(8 * len(bits)) if bits[i // 8] >> (i % 8) & 1]
    require(len(marked) == record["n_genes"] and all(i < n for i in marked), "the number of measured genes")
    return {vocabulary["ids"][i] for i in marked}


# ---- shards --------------------------------------------------------------------------------------------------------

HEADER = struct.Struct("<8sHHI")
FOOTER = struct.Struct("<8sHHIQQQQQQQQQ")


def read_shard(store: PlainStore, entry: dict[str, Any], cells: bytes, obs: bytes, uids: bytes) -> None:
    n_genes, bits, frames = read_cells(cells, entry)
    require(n_genes <= len(store.genes), "the shard has more genes than the store")
    store.offset_bits.append(bits)
    store.frames += frames
    store.cells += [read_frame(frame, n_genes, store.head) for frame in frames]
    require(sum(len(genes) for genes, _ in store.cells[-len(frames) :]) == entry["nnz"] or not frames, "counts")
    store.uids += read_uids(uids, entry["n_cells"])
    for name, values in read_obs(obs, store.manifest["obs_schema"], entry["n_cells"]).items():
        store.obs[name] += values


def read_cells(data: bytes, entry: dict[str, Any]) -> tuple[int, int, list[bytes]]:
    """Return the number of genes, the bits of an offset, and the frames of a shard file."""
    require(len(data) >= 16 + FOOTER.size, "too short for a shard")
    require(HEADER.unpack(data[:16]) == (b"CELLMILL", VERSION, 0, 0), "the header")
    magic, version, bits, n_genes, n, nnz, *sections, own = FOOTER.unpack(data[-FOOTER.size :])
    require(hash64(data[-FOOTER.size : -8]) == own, "the footer's hash")
    require((magic, version) == (b"LLIMLLEC", VERSION) and bits in (16, 32), "the footer")
    start, length, frames_hash, offsets_start, offsets_length, offsets_hash = sections
    entries = n + 1
    groups = (entries + 15) // 16
    require(start == 16 and length <= 2**32 - 1, "where the frames are")
    require(offsets_start == round_up(start + length, 4), "where the offsets are")
    require(offsets_length == (4 * entries if bits == 32 else 4 * groups + 2 * entries), "the length of the offsets")
    require(round_up(offsets_start + offsets_length, 8) + FOOTER.size == len(data), "the length of the file")
    require((n, nnz) == (entry["n_cells"], entry["nnz"]), "the footer contradicts the manifest")
    frames, offsets = data[16 : 16 + length], data[offsets_start : offsets_start + offsets_length]
    require(hash64(frames) == frames_hash and hash64(offsets) == offsets_hash, "a section's hash")
    require(not any(data[16 + length : offsets_start]), "the padding after the frames")
    require(not any(data[offsets_start + offsets_length : -FOOTER.size]), "the padding after the offsets")
    starts = read_offsets(offsets, bits, entries)
    require(starts[0] == 0 and starts[-1] == length and starts == sorted(starts), "the offsets")
    return n_genes, bits, [frames[starts[i] : starts[i + 1]] for i in range(n)]


def round_up(position: int, multiple: int) -> int:
    return (position + multiple - 1) // multiple * multiple


def read_offsets(data: bytes, bits: int, entries: int) -> list[int]:
    if bits == 32:
        return list(struct.unpack(f"<{entries}I", data))
    groups = (entries + 15) // 16
    bases = struct.unpack(f"<{groups}I", data[: 4 * groups])
    steps = struct.unpack(f"<{entries}H", data[4 * groups :])
    require(not any(steps[::16]), "the first step of a group")
    return [bases[i >> 4] + steps[i] for i in range(entries)]


def read_uids(data: bytes, n: int) -> list[int]:
    require(len(data) == 16 + 8 * n + 8, "the length of the uids")
    require(HEADER.unpack(data[:16]) == (b"CELLUIDS", VERSION, 0, 0), "the header of the uids")
    *uids, own = struct.unpack(f"<{n + 1}Q", data[16:])
    require(hash64(data[:-8]) == own, "the hash of the uids")
    return uids


# ---- obs -----------------------------------------------------------------------------------------------------------


def read_obs(raw: bytes, schema: list[list[str]], n: int) -> dict[str, list[Any]]:
    """Return every column of the schema, null where the file has none, in the type that the schema says."""
    table = pq.read_table(pa.BufferReader(raw))
    require(table.num_rows == n, "the rows of obs")
    present = set(table.column_names)
    return {name: cast(table.column(name), kind) if name in present else [None] * n for name, kind in schema}


def cast(column: pa.ChunkedArray, kind: str) -> list[Any]:
    if kind in ("string", "category"):
        if pa.types.is_floating(column.type):
            return column.cast(pa.string()).to_pylist()  # "as Arrow writes them"
        return [None if value is None else as_text(value) for value in column.to_pylist()]
    to = {"bool": bool, "float32": float, "float64": float}.get(kind, int)
    return [None if value is None else to(value) for value in column.to_pylist()]


def as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_uids(store: PlainStore) -> None:
    """Check that uids are those of obs, and the hashes of dataset, cell, and how often the name came before."""
    seen: Counter[tuple[str, str]] = Counter()
    require(store.uids == store.obs["uid"], "uids differ from those in obs")
    for uid, dataset, cell in zip(store.uids, store.obs["dataset"], store.obs["cell"], strict=True):
        require(uid == hash64(f"{dataset}\0{cell}\0{seen[dataset, cell]}".encode()), f"the uid of {cell}")
        seen[dataset, cell] += 1


def check_counts(store: PlainStore) -> None:
    """Check what obs says of the counts."""
    hashes = [hash64(gene["gene_id"].encode()) for gene in store.genes]
    totals, detected = (said_of_stored(store, *names) for names in STORED)
    for row, (genes, counts) in enumerate(store.cells):
        require(sum(counts) == totals[row], f"the total of row {row}")
        require(len(genes) == detected[row], f"the genes of row {row}")
        of_genes = [hashes[gene] for gene in genes]
        require(fingerprint(of_genes, counts) == store.obs["fingerprint"][row], f"the fingerprint of row {row}")


def said_of_stored(store: PlainStore, name: str, older: str) -> list[int]:
    """What obs says of the genes that the store holds; where a file does not, its cells hold all genes."""
    own = store.obs.get(name, store.obs[older])
    return [whole if value is None else value for value, whole in zip(own, store.obs[older], strict=True)]


# ---- fingerprints --------------------------------------------------------------------------------------------------

WRAP = 2**64 - 1


def mix64(x: int) -> int:
    z = (x + 0x9E3779B97F4A7C15) & WRAP
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & WRAP
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & WRAP
    return z ^ z >> 31


def fingerprint(hashes: list[int], counts: list[int]) -> int:
    s = sum(mix64(gene ^ mix64(count)) for gene, count in zip(hashes, counts, strict=True)) & WRAP
    return mix64(s ^ mix64(len(counts) ^ mix64(sum(counts) & WRAP)))


# ---- frames --------------------------------------------------------------------------------------------------------

PLAIN, PATCHED, UNARY = 0, 1, 2


def read_frame(frame: bytes, n_genes: int, head: Sequence[list[int]] = ()) -> Cell:
    """Return the cell in a frame; `head` is the model of the head genes, if there are any."""
    nnz, at = read_varint(frame, 0)
    if not head:
        require(nnz <= n_genes, "more nonzeros than genes")
        genes, counts, at = read_blocks(frame, at, nnz, n_genes)
        require(at == len(frame), "the length of the frame")
        return genes, counts
    nnz, in_blocks, others = nnz >> 1, 0, nnz & 1
    require(nnz <= n_genes, "more nonzeros than genes")
    if others:
        in_blocks, at = read_varint(frame, at)
        if in_blocks == 0:  # without head genes
            genes, counts, at = read_blocks(frame, at, nnz, n_genes)
            require(at == len(frame), "the length of the frame")
            return genes, counts
    require(in_blocks <= min(nnz, n_genes - len(head)) and nnz - in_blocks <= len(head), "nonzeros in blocks")
    if nnz == 0:
        require(at == len(frame), "the length of the frame")
        return [], []
    genes, counts, at = read_blocks(frame, at, in_blocks, n_genes - len(head))
    head_genes, head_counts = read_head_section(frame[at:], head)
    require(len(head_genes) == nnz - in_blocks, "nonzeros of head genes")
    return head_genes + [len(head) + gene for gene in genes], head_counts + counts


def read_blocks(frame: bytes, at: int, nnz: int, n_genes: int) -> tuple[list[int], list[int], int]:
    """Return genes and counts of the blocks that begin at `at`, and where they end."""
    require(2 * ((nnz + 127) // 128) <= len(frame) - at, "headers end outside the frame")
    headers = []
    for begin in range(0, nnz, 128):
        for _ in ("gaps", "counts"):
            header, at = read_header(frame, at, min(128, nnz - begin))
            headers.append(header)
    lengths = [section_lengths(header) for header in headers]
    require(at + sum(map(sum, lengths)) <= len(frame), "the length of the frame")
    streams: tuple[list[int], list[int]] = ([], [])
    for number, (header, (low, rest)) in enumerate(zip(headers, lengths, strict=True)):
        streams[number % 2].extend(read_block(header, frame[at : at + low], frame[at + low : at + low + rest]))
        at += low + rest
    genes, last = [], -1
    for gap in streams[0]:
        last += gap + 1
        genes.append(last)
    require(last < n_genes, "a gene that the store does not have")
    require(all(count <= 2**32 - 2 for count in streams[1]), "a count above 2^32 - 1")
    return genes, [count + 1 for count in streams[1]], at


def read_varint(data: bytes, begin: int, longest: int = 5) -> tuple[int, int]:
    value = 0
    for i in range(longest):
        require(begin + i < len(data), "a varint ends outside")
        value |= (data[begin + i] & 127) << 7 * i
        if data[begin + i] < 128:
            return value, begin + i + 1
    raise Refused(f"a varint of more than {longest} bytes")


def read_header(frame: bytes, at: int, n: int) -> tuple[tuple[int, ...], int]:
    """Return (values, mode, width, then what the mode adds) of a block, and where the next header begins."""
    require(at < len(frame), "a header ends outside the frame")
    mode, width = frame[at] >> 6, frame[at] & 63
    require(mode in (PLAIN, PATCHED, UNARY), "a mode that is not used")
    require(width <= (16 if mode == UNARY else 32), "the width")
    more = tuple(frame[at + 1 : at + (1, 3, 2)[mode]])
    require(len(more) == (0, 2, 1)[mode], "a header ends outside the frame")
    if mode == PATCHED:
        require(1 <= more[0] <= n and width + more[1] <= 32, "the header of a patched block")
    if mode == UNARY:
        require(more[0] >= 1, "the header of a unary block")
    return (n, mode, width, *more), at + 1 + len(more)


def section_lengths(header: tuple[int, ...]) -> tuple[int, int]:
    """Return the bytes of the low bits, and of what comes after them."""
    n, mode, width, *more = header
    low = (n * width + 7) // 8
    if mode == PATCHED:
        return low, (more[0] * (7 + more[1]) + 7) // 8
    return low, more[0] if mode == UNARY else 0


def read_block(header: tuple[int, ...], low: bytes, rest: bytes) -> list[int]:
    n, mode, width, *more = header
    values = read_low_bits(low, n, width)
    if mode == PATCHED:
        last = -1
        for entry in bit_string(rest, more[0], 7 + more[1]):
            position, high = entry & 127, entry >> 7
            require(last < position < n, "the exceptions' positions")
            values[position] += (high + 1) << width
            last = position
    if mode == UNARY:
        highs = list(count_zeros(rest))
        require(len(highs) == n and rest[-1] != 0, "the ones of a unary section")
        values = [(high << width) + value for high, value in zip(highs, values, strict=True)]
    return values


def read_low_bits(section: bytes, n: int, width: int) -> list[int]:
    if n < 128:
        return bit_string(section, n, width)
    words = struct.unpack(f"<{4 * width}I", section)
    lanes = [bit_string(struct.pack(f"<{width}I", *words[lane::4]), 32, width) for lane in range(4)]
    return [lanes[j % 4][j // 4] for j in range(128)]


def bit_string(section: bytes, n: int, width: int) -> list[int]:
    """Return `n` numbers of `width` bits each, bit 0 of each byte first."""
    bits = int.from_bytes(section, "little")
    return [bits >> j * width & (1 << width) - 1 for j in range(n)]


def count_zeros(section: bytes) -> Iterator[int]:
    """Yield the number of zeros before each one."""
    zeros = 0
    for byte in section:
        for bit in range(8):
            if byte >> bit & 1:
                yield zeros
                zeros = 0
            else:
                zeros += 1


# ---- head genes ----------------------------------------------------------------------------------------------------

SLOTS = 2**14


def read_model(data: bytes) -> list[list[int]]:
    """Return the frequencies of the symbols of each head gene, the escape's last."""
    require(len(data) >= 24 and data[:12] == b"CELLHEAD\1\0\0\0", "the beginning of the model")
    require(hash64(data[:-8]) == int.from_bytes(data[-8:], "little"), "the hash of the model")
    n_head, at, end = int.from_bytes(data[12:16], "little"), 16, len(data) - 8
    require(1 <= n_head <= 65_535, "the number of head genes")
    tables = []
    for _ in range(n_head):
        require(at < end and 1 <= data[at] <= 124, "the number of literals")
        written, literals = [], data[at]
        at += 1
        for _ in range(literals):
            frequency, at = read_varint(data[:end], at, longest=2)
            written.append(frequency)
        require(min(written) >= 1 and sum(written) < SLOTS, "the frequencies")
        tables.append([SLOTS - sum(written), *written])
    require(at == end, "the length of the model")
    return tables


class State:
    """The number that the counts are in, and the words that follow it."""

    def __init__(self, section: bytes) -> None:
        length = len(section)
        require(length >= 1, "a section of no bytes")
        first = length if length <= 2 else 3 if length % 2 else 4
        require(section[first - 1] != 0, "the last byte of the state")
        self.x = int.from_bytes(section[:first], "little")
        self.words = list(struct.unpack(f"<{(length - first) // 2}H", section[first:]))

    def refill(self) -> None:
        if self.x < 2**16 and self.words:
            self.x = self.x * 2**16 + self.words.pop(0)

    def take_symbol(self, frequencies: list[int]) -> int:
        slot = self.x % SLOTS
        begin = 0
        for symbol, frequency in enumerate(frequencies):
            if slot < begin + frequency:
                self.x = frequency * (self.x // SLOTS) + slot - begin
                self.refill()
                return symbol
            begin += frequency
        raise AssertionError("frequencies add up to all slots")

    def take_bits(self, r: int) -> int:
        high = self.take_bits(r - 16) if r > 16 else 0
        low_bits = min(r, 16)
        low = self.x % 2**low_bits
        self.x >>= low_bits
        self.refill()
        return high << low_bits | low


def read_head_section(section: bytes, head: Sequence[list[int]]) -> Cell:
    state = State(section)
    genes, counts = [], []
    for gene, frequencies in enumerate(head):
        count = read_count(state, frequencies)
        if count:
            genes.append(gene)
            counts.append(count)
    require(not state.words, "words that are left over")
    require(state.x == 1, "the state at the end")
    return genes, counts


def read_count(state: State, frequencies: list[int]) -> int:
    symbol = state.take_symbol(frequencies)
    if symbol == len(frequencies) - 1:
        count = state.take_bits(32)
        require(count != 0, "an escape of nothing")
        return count
    if symbol < 8:
        return symbol
    r = (symbol - 8) // 4 + 1
    return ((4 + (symbol - 8) % 4) << r) + state.take_bits(r)
