"""The bytes of a shard and of its uids (floor 3, pure): layout, footer, bounds. Knows nothing of files or of sources.

A shard file `shards/NNNNN.cells` is, little-endian throughout::

    header     16 bytes   b"CELLMILL", uint16 format version, uint16 0, uint32 0
    frames     one frame per cell, end to end (docs/reference/format.md, "Frames")
    padding    zeros to a multiple of 4
    offsets    n_cells + 1 entries: start of each frame, counted from the first frame; the last is the frames' length.
               In 32 bits each, or, where every group of `GROUP` frames is short enough, as one uint32 a group (the
               entry of its first frame) and then one uint16 an entry (what it is above that)
    padding    zeros to a multiple of 8
    footer     88 bytes, see `Footer`

The footer is last so that a shard is written in one pass and its length is known from the file's end alone.

Beside it lies `obs/NNNNN.uids`, what keys the cells' randomness::

    header     16 bytes   b"CELLUIDS", uint16 format version, uint16 0, uint32 0
    uids       uint64 x n_cells
    hash       uint64: xxh3-64 of all before it
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
    "Offsets",
    "offsets_bytes",
    "pack_header",
    "pack_offsets",
    "pack_uids",
    "padding_bytes",
    "parse_footer",
    "parse_header",
    "parse_offsets",
    "parse_uids",
    "uids_hash_holds",
    "version_problem",
]

FORMAT_VERSION = 2
MAGIC = b"CELLMILL"
FOOTER_MAGIC = b"LLIMLLEC"
UIDS_MAGIC = b"CELLUIDS"
HEADER_BYTES = 16
MAX_FRAMES_BYTES = 2**32 - 1  # offsets are uint32
GROUP = 16  # frames that share a base in the layout of 16 bits

_HEADER = struct.Struct("<8sHHI")
# magic, version, bits of an offset, n_genes, n_cells, nnz, then start/length/hash of frames and offsets
_FOOTER = struct.Struct("<8sHHIQQQQQQQQ")
FOOTER_BYTES = _FOOTER.size + 8  # and the xxh3-64 of all that comes before it

Offsets = tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint16]]


@dataclass(frozen=True)
class Footer:
    """What a shard's footer says; lengths and starts in bytes from the file's beginning, hashes are xxh3-64."""

    offset_bits: int
    n_genes: int
    n_cells: int
    nnz: int
    frames_start: int
    frames_bytes: int
    frames_hash: int
    offsets_start: int
    offsets_bytes: int
    offsets_hash: int
    version: int = FORMAT_VERSION

    def pack(self) -> bytes:
        """Return the footer as it stands in the file, `FOOTER_BYTES` long."""
        body = _FOOTER.pack(
            FOOTER_MAGIC, self.version, self.offset_bits, self.n_genes, self.n_cells, self.nnz, self.frames_start,
            self.frames_bytes, self.frames_hash, self.offsets_start, self.offsets_bytes, self.offsets_hash,
        )  # fmt: skip
        return body + struct.pack("<Q", xxhash.xxh3_64_intdigest(body))


def pack_header() -> bytes:
    """Return the first `HEADER_BYTES` bytes of a shard."""
    return _HEADER.pack(MAGIC, FORMAT_VERSION, 0, 0)


def padding_bytes(position: int, alignment: int) -> int:
    """Return how many zero bytes stand between `position` and the next section, which starts at an aligned place."""
    return -position % alignment


def version_problem(version: object) -> str:
    """Return what to say of a format version that is not this one, remedy included."""
    if version == 1:
        return (
            "written in format 1, by a cellmill that was never released; this one reads format "
            f"{FORMAT_VERSION}. Build the store again from its inputs."
        )
    return (
        f"format version {version!r}; this cellmill reads version {FORMAT_VERSION}. "
        "Read it with a newer cellmill, or build the store again."
    )


# ---- offsets ---------------------------------------------------------------------------------------------------


def pack_offsets(offsets: npt.NDArray[np.uint32]) -> tuple[int, bytes]:
    """Return the bits of an entry and the section's bytes: 16 bits wherever they can say it, else 32.

    Parameters
    ----------
    offsets
        uint32, shape (n_cells + 1,): starts of the frames counted from the first one, and their end.
    """
    bases = offsets[::GROUP]
    steps = offsets - np.repeat(bases, GROUP)[: len(offsets)]
    if steps.max() >= 1 << 16:
        return 32, offsets.astype("<u4").tobytes()
    return 16, bases.astype("<u4").tobytes() + steps.astype("<u2").tobytes()


def offsets_bytes(n_cells: int, offset_bits: int) -> int:
    """Return the length of the offsets of a shard."""
    n_entries = n_cells + 1
    return 4 * n_entries if offset_bits == 32 else 4 * -(-n_entries // GROUP) + 2 * n_entries


def parse_offsets(data: npt.NDArray[np.uint8], footer: Footer) -> Offsets:
    """Return the offsets of a shard as views of `data`: bases, uint32, and steps, uint16.

    With 16 bits entry i is `bases[i >> 4] + steps[i]`; with 32 the bases are all entries and there are no steps.
    """
    section = data[footer.offsets_start : footer.offsets_start + footer.offsets_bytes]
    steps_bytes = 2 * (footer.n_cells + 1) if footer.offset_bits == 16 else 0
    middle = len(section) - steps_bytes
    return section[:middle].view("<u4"), section[middle:].view("<u2")


# ---- reading a shard -------------------------------------------------------------------------------------------


def parse_header(data: npt.NDArray[np.uint8], *, where: str) -> None:
    """Check a shard's first bytes.

    Raises
    ------
    CorruptStoreError
        When they are not those of a shard this version can read.
    """
    _check_start(data, MAGIC, "shard", least_bytes=HEADER_BYTES + FOOTER_BYTES, where=where)


def _check_start(data: npt.NDArray[np.uint8], magic: bytes, what: str, *, least_bytes: int, where: str) -> None:
    if len(data) < least_bytes:
        raise CorruptStoreError(
            f"{where}: {len(data)} bytes are too few for a {what} (at least {least_bytes}); "
            "the file was cut short. Restore it from a copy or build the store again."
        )
    found, version, _, _ = _HEADER.unpack(bytes(data[:HEADER_BYTES]))
    if found != magic:
        raise CorruptStoreError(
            f"{where}: not a cellmill {what} (it starts with {found!r}, not {magic!r}). "
            "Restore it from a copy or build the store again."
        )
    if version != FORMAT_VERSION:
        raise CorruptStoreError(f"{where}: {version_problem(version)}")


def parse_footer(data: npt.NDArray[np.uint8], *, where: str) -> Footer:
    """Return the footer of a whole shard, each of its numbers checked against the file's length.

    The header is looked at only to say what is wrong: it says nothing that the footer does not, and lies a disk's
    whole seek away from it.

    Raises
    ------
    CorruptStoreError
        Naming the shard and what does not hold.
    """
    raw = bytes(data[-FOOTER_BYTES:])
    body = raw[:-8]
    if len(data) < HEADER_BYTES + FOOTER_BYTES or xxhash.xxh3_64_intdigest(body).to_bytes(8, "little") != raw[-8:]:
        parse_header(data, where=where)  # no shard at all, or one of another version
        raise CorruptStoreError(
            f"{where}: the footer's checksum does not hold; the file was cut short or changed. "
            "Restore it from a copy or build the store again."
        )
    magic, version, *numbers = _FOOTER.unpack(body)
    footer = Footer(*numbers)
    frames_end = footer.frames_start + footer.frames_bytes
    offsets_end = footer.offsets_start + footer.offsets_bytes
    sound = (
        magic == FOOTER_MAGIC
        and version == FORMAT_VERSION
        and footer.offset_bits in (16, 32)
        and footer.frames_start == HEADER_BYTES
        and footer.frames_bytes <= MAX_FRAMES_BYTES
        and footer.offsets_start == frames_end + padding_bytes(frames_end, 4)
        and footer.offsets_bytes == offsets_bytes(footer.n_cells, footer.offset_bits)
        and offsets_end + padding_bytes(offsets_end, 8) + FOOTER_BYTES == len(data)
    )
    if not sound:
        parse_header(data, where=where)
        raise CorruptStoreError(f"{where}: the footer contradicts the file ({footer}, file of {len(data)} bytes)")
    return footer


# ---- uids ------------------------------------------------------------------------------------------------------


def pack_uids(uids: npt.NDArray[np.uint64]) -> bytes:
    """Return the bytes of a file of uids; `uids` is uint64, shape (n_cells,)."""
    body = _HEADER.pack(UIDS_MAGIC, FORMAT_VERSION, 0, 0) + uids.astype("<u8").tobytes()
    return body + struct.pack("<Q", xxhash.xxh3_64_intdigest(body))


def parse_uids(data: npt.NDArray[np.uint8], *, n_cells: int, where: str) -> npt.NDArray[np.uint64]:
    """Return the uids of a shard's cells, uint64, shape (n_cells,), as a view of a file's bytes; its hash is not read.

    Raises
    ------
    CorruptStoreError
        When the file is no file of uids, or one of another number of cells.
    """
    _check_start(data, UIDS_MAGIC, "file of uids", least_bytes=HEADER_BYTES + 8, where=where)
    if len(data) != HEADER_BYTES + 8 * n_cells + 8:
        raise CorruptStoreError(
            f"{where}: {len(data)} bytes are not those of {n_cells} uids ({HEADER_BYTES + 8 * n_cells + 8}). "
            "Restore it from a copy or build the store again."
        )
    return data[HEADER_BYTES:-8].view("<u8")


def uids_hash_holds(data: npt.NDArray[np.uint8]) -> bool:
    """Return whether the hash at the end of a file of uids is that of what comes before it."""
    stated: int = struct.unpack("<Q", bytes(data[-8:]))[0]
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(data[:-8]).data) == stated
