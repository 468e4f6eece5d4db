"""The bundle: docs/protocol.md, «Bundle». Reads and, for the test vectors, writes. No I/O."""

import hashlib
import re
import struct
import zlib
from datetime import datetime, timezone

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

ROLES = {1: "root", 2: "timestamp", 3: "snapshot", 4: "targets", 5: "release", 6: "rollout", 7: "halt"}
NUMBERS = {name: number for number, name in ROLES.items()}
PACKED, INFLATED, FILES = 64 * 1024, 160 * 1024, 40
SIZES = {1: 32, 2: 16, 3: 64, 4: 4, 5: 4, 6: 1}


class Unreadable(Exception):
    """The bundle leans on a root and targets that are not here; `versions` names them."""

    def __init__(self, versions):
        super().__init__(f"packed against root {versions[0]} and targets {versions[1]}")
        self.versions = versions


def header(data):
    if len(data) < 13 or len(data) > PACKED or data[:4] != b"TRNB" or data[4] != 2:
        raise ValueError("not a bundle of format 2")
    return struct.unpack(">II", data[5:13])


def unpack(data, dictionary_of):
    """Returns [(role, bytes of the signed file)]. `dictionary_of((root, targets))` gives the dictionary, or None."""
    root, number = header(data)
    dictionary = dictionary_of((root, number))
    if dictionary is None:
        raise Unreadable((root, number))
    inflate = zlib.decompressobj(-15, zdict=dictionary)
    text = inflate.decompress(data[13:], INFLATED)
    if not inflate.eof:
        raise ValueError("the text is longer than its ceiling, or cut short")
    values = Values(inflate.unused_data)
    files, rest = [], text
    while rest:
        end = rest.find(b"\x00", 1)
        if rest[0] not in ROLES or end < 0 or len(files) == FILES:
            raise ValueError("a file of no known role, without an end, or one too many")
        files.append((ROLES[rest[0]], values.fill(rest[1:end])))
        rest = rest[end + 1 :]
    if values.rest:
        raise ValueError("bytes after the last value")
    return files


class Values:
    def __init__(self, data):
        self.rest = data

    def fill(self, text):
        return re.sub(b"[\x01-\x06]", lambda mark: self.take(mark.group()[0]), text)

    def take(self, mark):
        size = SIZES[mark]
        value, self.rest = self.rest[:size], self.rest[size:]
        if len(value) != size:
            raise ValueError("a value is missing")
        if mark in (1, 2):
            return value.hex().encode()
        if mark == 3:
            r, s = value[:32], value[32:]
            return encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big")).hex().encode()
        if mark == 4:
            return datetime.fromtimestamp(int.from_bytes(value, "big"), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
        if mark == 5:
            return str(int.from_bytes(value, "big")).encode()
        return value


def pack(root, number, dictionary, files):
    """Packs without choosing much: whole strings of hex, signatures and times are taken out, all of them."""
    text, values = b"", b""

    def take(match):
        nonlocal values
        found = match.group(1)
        for mark, size, value in candidates(found):
            if len(value) == size:
                values += value
                return b'"' + bytes([mark]) + b'"'
        return match.group()

    for role, file in files:
        text += bytes([NUMBERS[role]]) + re.sub(rb'"([0-9a-f]{32,160}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)"', take, file) + b"\x00"
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=dictionary)
    return b"TRNB\x02" + struct.pack(">II", root, number) + deflate.compress(text) + deflate.flush() + values


def candidates(found):
    if b"T" in found:
        at = datetime.strptime(found.decode(), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
        yield 4, 4, int(at.timestamp()).to_bytes(4, "big")
        return
    if len(found) in (64, 32):
        yield (1, 32, bytes.fromhex(found.decode())) if len(found) == 64 else (2, 16, bytes.fromhex(found.decode()))
        return
    try:
        r, s = decode_dss_signature(bytes.fromhex(found.decode()))
        if encode_dss_signature(r, s).hex().encode() == found:
            yield 3, 64, r.to_bytes(32, "big") + s.to_bytes(32, "big")
    except ValueError:
        return


# Dictionaries. The texts are those of the page; their hash is the page's too.

SIGNED_BY_ONE = rb'{"signatures":[{"keyid":"<1>","sig":"<3>"}],"signed":'
PUBLIC = (
    rb"-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt"
    rb"\n6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\n-----END PUBLIC KEY-----\n"
)
KEY = rb'{"<1>":{"keytype":"ecdsa","keyval":{"public":"' + PUBLIC + rb'"},"scheme":"ecdsa-sha2-nistp256"}}'
ROOT = (
    rb'{"_type":"root","consistent_snapshot":false,"expires":"<4>","keys":' + KEY + rb',"roles":{'
    rb'"root":{"keyids":["<1>"],"threshold":1},"snapshot":{"keyids":["<1>"],"threshold":1},'
    rb'"targets":{"keyids":["<1>"],"threshold":1},"timestamp":{"keyids":["<1>"],"threshold":1}},'
    rb'"spec_version":"1.0.31","version":1}}<0>'
)


def _delegation(name):
    return rb'{"keyids":["<1>"],"name":"' + name + rb'","paths":["a/*/*"],"terminating":false,"threshold":1}'


TARGETS = (
    rb'{"_type":"targets","delegations":{"keys":' + KEY + rb',"roles":['
    + b",".join(_delegation(name) for name in (b"release", b"rollout", b"halt"))
    + rb']},"expires":"<4>","spec_version":"1.0.31","targets":{},"version":1,"x-tern":{"telemetry":{"1":""}}}}<0>'
)
HALT = rb'{"_type":"targets","expires":"<4>","spec_version":"1.0.31","targets":{},"version":1,"x-tern":{"halted":[1]}}}<0>'
RELEASE = (
    rb'{"_type":"targets","expires":"<4>","spec_version":"1.0.31","targets":{"a/1/rootfs":{"custom":{"component":"rootfs",'
    rb'"floor":0,"min_from":0,"models":["a"],"rc":1,"root":"<1>","version":"1.0.0"},"hashes":{"sha256":"<1>"},"length":<5>}},'
    rb'"version":1}}<0>'
)
TIMESTAMP = (
    rb'{"_type":"timestamp","expires":"<4>","meta":{"snapshot.json":{"hashes":{"sha256":"<1>"},"length":0,"version":1}},'
    rb'"spec_version":"1.0.31","version":1,"x-tern":{"time":<5>}}}<0>'
)
SNAPSHOT = (
    rb'{"_type":"snapshot","expires":"<4>","meta":{"halt.json":{"version":1},"release.json":{"version":1},'
    rb'"rollout.json":{"version":1},"targets.json":{"version":1}},"spec_version":"1.0.31","version":1}}<0>'
)
ROLLOUT = (
    rb'{"_type":"targets","expires":"<4>","spec_version":"1.0.31","targets":{"a/1/rootfs":{"hashes":{"sha256":"<1>"},'
    rb'"length":<5>}},"version":1,"x-tern":{"entries":[{"arm":"acked","attempt":1,"cuts":{"a":0},"kind":"update","rc":1,'
    rb'"regions":["a"],"rollout":"a-1-1","salt":"<2>","spread":0}]}}}<0>'
)
ORDER = [("halt", HALT), ("release", RELEASE), ("timestamp", TIMESTAMP), ("snapshot", SNAPSHOT), ("rollout", ROLLOUT)]


def _marks(text):
    return re.sub(rb"<(\d)>", lambda mark: bytes([int(mark.group(1))]), text)


def _line(role, signed, signatures=None):
    head = SIGNED_BY_ONE if signatures is None else rb'{"signatures":[' + signatures + rb'],"signed":'
    return bytes([NUMBERS[role]]) + _marks(head + signed)


GENERAL = _line("root", ROOT) + _line("targets", TARGETS) + b"".join(_line(role, text) for role, text in ORDER)
assert hashlib.sha256(GENERAL).hexdigest() == "8e96c2e5851f458e6ba4c9878388e1f6132b80e830f6180f88f5a8e836c18e9c"


def static(root, targets):
    """The dictionary of a root and a targets file, both as parsed JSON."""
    delegations = targets["signed"]["delegations"]["roles"]
    product = delegations[0]["paths"][0].split("/")[0].encode()
    keys = {role["name"]: role["keyids"] for role in delegations}
    keys |= {role: root["signed"]["roles"][role]["keyids"] for role in ("timestamp", "snapshot")}
    out = b""
    for role, text in ORDER:
        signatures = b",".join(rb'{"keyid":"' + key.encode() + rb'","sig":"<3>"}' for key in keys.get(role, [])[:16])
        text = text.replace(b'"a/1/', b'"' + product + b"/1/").replace(b'"a-1-1"', b'"' + product + b'-1-1"')
        out += _line(role, text, signatures)
    return out
