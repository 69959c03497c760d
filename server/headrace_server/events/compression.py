"""The compression codecs of Kafka's record batches, as its brokers and clients read them.

Numbers and framing: https://kafka.apache.org/documentation/#recordbatch and KIP-57 (LZ4).
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import cramjam

Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]

Compress: TypeAlias = Callable[[memoryview], bytes]


@dataclass(frozen=True)
class Codec:
    """A codec.

    Attributes:
        number: Its number in the attributes of a batch.
        compress: Records to the bytes that follow the batch's header; releases the GIL.
    """

    number: int
    compress: Compress


_LZ4_BLOCK_BYTES = 64 << 10
_LZ4_STORED = 1 << 31
_LZ4_HEADER = bytes.fromhex("04224d18 60 40 82")
"""Of a frame of blocks that stand alone, of at most 64 KiB, without checksums (LZ4 frame format 1.6)."""


def _lz4(data: memoryview) -> bytes:
    """An LZ4 frame.

    Written by hand because the library's frames hold blocks that refer to earlier ones,
    which brokers refuse; only a slower way that holds the GIL can be told not to.
    """
    pieces = [_LZ4_HEADER]
    room = bytearray(cramjam.lz4.compress_block_bound(data[:_LZ4_BLOCK_BYTES]))
    for start in range(0, len(data), _LZ4_BLOCK_BYTES):
        block = data[start : start + _LZ4_BLOCK_BYTES]
        size = cramjam.lz4.compress_block_into(block, room, store_size=False)
        if size < len(block):
            pieces += [struct.pack("<I", size), bytes(room[:size])]
        else:
            pieces += [struct.pack("<I", len(block) | _LZ4_STORED), block.tobytes()]
    return b"".join([*pieces, bytes(4)])


_SNAPPY_HEADER = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
_SNAPPY_BLOCK_BYTES = 32 << 10


def _snappy(data: memoryview) -> bytes:
    """Blocks with their sizes, as the Java library xerial-snappy frames them."""
    pieces = [_SNAPPY_HEADER]
    for start in range(0, len(data), _SNAPPY_BLOCK_BYTES):
        block = bytes(cramjam.snappy.compress_raw(data[start : start + _SNAPPY_BLOCK_BYTES]))
        pieces += [struct.pack(">i", len(block)), block]
    return b"".join(pieces)


CODECS: Mapping[Compression, Codec] = {
    "none": Codec(0, lambda data: data.tobytes()),
    "gzip": Codec(1, lambda data: bytes(cramjam.gzip.compress(data, level=1))),
    "snappy": Codec(2, _snappy),
    "lz4": Codec(3, _lz4),
    "zstd": Codec(4, lambda data: bytes(cramjam.zstd.compress(data, level=1))),
}
