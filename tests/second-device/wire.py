"""Ids, topics, positions, the chunk tree and pack frames: docs/protocol.md, «Topics», «Position», «Chunks». No I/O."""

import hashlib
import struct
from functools import lru_cache

CHUNK = 65536
PIECE = 256
COHORTS = 1000


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def partition(device):
    return sha(device.encode())[:1].hex()


def cohort(device):
    return int.from_bytes(sha(device.encode())[1:9], "big") % COHORTS


@lru_cache(maxsize=16)
def ranks(salt):
    order = sorted(range(COHORTS), key=lambda c: (sha(salt, b"%03d" % c), c))
    return {c: rank for rank, c in enumerate(order)}


def position(device, salt):
    return ranks(salt)[cohort(device)] << 32 | int.from_bytes(sha(salt, device.encode())[:4], "big")


def spread(device, seconds):
    """How long this device waits before its first request: a share of the entry's spread."""
    return seconds * int.from_bytes(sha(device.encode())[:4], "big") / 2**32


class Topics:
    """The topics of one device; product and region are what the service acknowledged last."""

    def __init__(self, fleet, device):
        self.base = f"ota/v1/{fleet}"
        self.device = device
        self.inbox = f"{self.base}/d/{device}/in"
        self.pack = f"{self.base}/d/{device}/pack"

    def up(self, kind):
        return f"{self.base}/up/{partition(self.device)}/{self.device}/{kind}"

    def down(self, product, region):
        place = f"{self.base}/p/{product}"
        return [f"{place}/ts", f"{place}/head", f"{place}/{region}/{cohort(self.device):03d}", self.inbox, self.pack]


# The tree of RFC 6962, section 2.1.


def leaf(chunk):
    return sha(b"\x00", chunk)


def tree(digests):
    if len(digests) == 1:
        return digests[0]
    split = 1 << (len(digests) - 1).bit_length() - 1
    return sha(b"\x01", tree(digests[:split]), tree(digests[split:]))


def merkle_root(image):
    return tree([leaf(image[at : at + CHUNK]) for at in range(0, len(image), CHUNK)])


def chunk_count(length):
    return -(-length // CHUNK)


def chunk_length(length, index):
    return min(CHUNK, length - index * CHUNK)


class Pack:
    """One pack frame: kind 1 is a chunk, kind 2 a piece of the tree."""

    CHUNK, PIECE = 1, 2
    CEILING = 65600

    def __init__(self, frame):
        if not 15 < len(frame) <= self.CEILING or frame[0] != 1:
            raise ValueError("not a pack frame of format 1")
        self.kind, self.of, self.level, self.index = struct.unpack(">B8sBI", frame[1:15])
        self.payload = frame[15:]

    def digests(self):
        if len(self.payload) % 32 or len(self.payload) > PIECE * 32:
            raise ValueError("a piece is at most 256 digests of 32 bytes")
        return [self.payload[at : at + 32] for at in range(0, len(self.payload), 32)]
