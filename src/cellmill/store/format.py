"""The bytes of a shard file (floor 3, pure): layout, footer, bounds. Knows nothing of files or of sources.

A shard file `shards/NNNNN.cells` is, little-endian throughout::

    header     16 bytes   b"CELLMILL", uint16 format version, uint16 0, uint32 0
    frames     one frame per cell, end to end (docs/reference/format.md, "Frames")
    padding    zeros to a multiple of 4
    offsets    uint32 x (n_cells + 1): start of each frame, counted from the first frame; the last is the frames' length
    padding    zeros to a multiple of 8
    uids       uint64 x n_cells: the uid of each cell, which keys its randomness
    footer     112 bytes, see `Footer`

The footer is last so that a shard is written in one pass and its length is known from the file's end alone.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from cellmill.errors import CorruptStoreError

__all__ = [
    "FOOTER_BYTES",
    "FORMAT_VERSION",
    "HEADER_BYTES",
    "MAX_FRAMES_BYTES",
    "Footer",
    "pack_header",
    "padding_bytes",
    "parse_footer",
    "parse_header",
    "parse_offsets",
    "parse_uids",
]

FORMAT_VERSION = 1
MAGIC = b"CELLMILL"
FOOTER_MAGIC = b"LLIMLLEC"
HEADER_BYTES = 16
MAX_FRAMES_BYTES = 2**32 - 1  # offsets are uint32

_HEADER = struct.Struct("<8sHHI")
# magic, version, zero, n_genes, n_cells, nnz, then start/length/hash of frames, offsets and uids
_FOOTER = struct.Struct("<8sHHIQQQQQQQQQQQ")
FOOTER_BYTES = _FOOTER.size + 8  # and the xxh3-64 of all that comes before it


@dataclass(frozen=True)
class Footer:
    """What a shard's footer says; lengths and starts in bytes from the file's beginning, hashes are xxh3-64."""

    n_genes: int
    n_cells: int
    nnz: int
    frames_start: int
    frames_bytes: int
    frames_hash: int
    offsets_start: int
    offsets_bytes: int
    offsets_hash: int
    uids_start: int
    uids_bytes: int
    uids_hash: int
    version: int = FORMAT_VERSION

    def pack(self) -> bytes:
        """Return the footer as it stands in the file, `FOOTER_BYTES` long."""
        body = _FOOTER.pack(
            FOOTER_MAGIC, self.version, 0, self.n_genes, self.n_cells, self.nnz, self.frames_start, self.frames_bytes,
            self.frames_hash, self.offsets_start, self.offsets_bytes, self.offsets_hash, self.uids_start,
            self.uids_bytes, self.uids_hash,
        )  # fmt: skip
        return body + struct.pack("<Q", xxhash.xxh3_64_intdigest(body))


def pack_header() -> bytes:
    """Return the first `HEADER_BYTES` bytes of a shard."""
    return _HEADER.pack(MAGIC, FORMAT_VERSION, 0, 0)


def padding_bytes(position: int, alignment: int) -> int:
    """Return how many zero bytes stand between `position` and the next section, which starts at an aligned place."""
    return -position % alignment


def parse_header(data: npt.NDArray[np.uint8], *, where: str) -> None:
    """Check a shard's first bytes.

    Raises
    ------
    CorruptStoreError
        When they are not those of a shard this version can read.
    """
    if len(data) < HEADER_BYTES + FOOTER_BYTES:
        raise CorruptStoreError(
            f"{where}: {len(data)} bytes are too few for a shard (at least {HEADER_BYTES + FOOTER_BYTES}); "
            "the file was cut short. Restore it from a copy or build the store again."
        )
    magic, version, _, _ = _HEADER.unpack(bytes(data[:HEADER_BYTES]))
    if magic != MAGIC:
        raise CorruptStoreError(f"{where}: not a cellmill shard (it starts with {magic!r}, not {MAGIC!r})")
    if version != FORMAT_VERSION:
        raise CorruptStoreError(
            f"{where}: format version {version}; this cellmill reads version {FORMAT_VERSION}. "
            "Read it with a newer cellmill, or build the store again."
        )


def parse_footer(data: npt.NDArray[np.uint8], *, where: str) -> Footer:
    """Return the footer of a whole shard, each of its numbers checked against the file's length.

    Raises
    ------
    CorruptStoreError
        Naming the shard and what does not hold.
    """
    parse_header(data, where=where)
    raw = bytes(data[-FOOTER_BYTES:])
    body, stated = raw[:-8], struct.unpack("<Q", raw[-8:])[0]
    if xxhash.xxh3_64_intdigest(body) != stated:
        raise CorruptStoreError(
            f"{where}: the footer's checksum does not hold; the file was cut short or changed. "
            "Restore it from a copy or build the store again."
        )
    magic, version, zero, *numbers = _FOOTER.unpack(body)
    footer = Footer(*numbers)
    frames_end = footer.frames_start + footer.frames_bytes
    offsets_end = footer.offsets_start + footer.offsets_bytes
    sound = (
        magic == FOOTER_MAGIC
        and version == FORMAT_VERSION
        and zero == 0
        and footer.frames_start == HEADER_BYTES
        and footer.frames_bytes <= MAX_FRAMES_BYTES
        and footer.offsets_start == frames_end + padding_bytes(frames_end, 4)
        and footer.offsets_bytes == 4 * (footer.n_cells + 1)
        and footer.uids_start == offsets_end + padding_bytes(offsets_end, 8)
        and footer.uids_bytes == 8 * footer.n_cells
        and footer.uids_start + footer.uids_bytes + FOOTER_BYTES == len(data)
    )
    if not sound:
        raise CorruptStoreError(f"{where}: the footer contradicts the file ({footer}, file of {len(data)} bytes)")
    return footer


def parse_offsets(data: npt.NDArray[np.uint8], footer: Footer) -> npt.NDArray[np.uint32]:
    """Return the offsets of a shard, uint32, shape (n_cells + 1,), as a view of `data`."""
    return data[footer.offsets_start : footer.offsets_start + footer.offsets_bytes].view("<u4")


def parse_uids(data: npt.NDArray[np.uint8], footer: Footer) -> npt.NDArray[np.uint64]:
    """Return the uids of a shard's cells, uint64, shape (n_cells,), as a view of `data`."""
    return data[footer.uids_start : footer.uids_start + footer.uids_bytes].view("<u8")
