"""The TUF client workflow over files in any order: docs/protocol.md, «Signed files». No I/O, no clock."""

import hashlib
import json
from datetime import datetime, timezone

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

KiB = 1024
CEILINGS = {"root": 16 * KiB, "snapshot": 16 * KiB, "timestamp": 2 * KiB}
DELEGATED = ("release", "rollout", "halt")
LISTED = ("targets",) + DELEGATED
WAITING = 64  # files of the pool; who floods it loses the oldest


class Refused(Exception):
    """A file that does not pass; the text says which check."""


class Unsigned(Refused):
    """Too few signatures: of a top-level file a newer root may still say that they are enough."""


def parse(file):
    """Strict JSON: no floats, no key twice in one object, at most 16 levels."""

    def once(pairs):
        if len(dict(pairs)) != len(pairs):
            raise Refused("a key stands twice in one object")
        return dict(pairs)

    def no(text):
        raise Refused(f"{text} is not an integer")

    def depth(value):
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if inner is None else 1 + max(map(depth, inner), default=0)

    try:
        value = json.loads(file, object_pairs_hook=once, parse_float=no, parse_constant=no)
    except (ValueError, RecursionError) as error:
        raise Refused(f"not JSON: {error}") from error
    if depth(value) > 16:
        raise Refused("nested deeper than 16")
    return value


def canonical(value):
    """OLPC canonical JSON: sorted keys, no spaces, and in strings nothing escaped but the quote and the backslash."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{canonical(key)}:{canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return json.dumps(value)


def seconds(text):
    return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp())


def verify(file, keys, role):
    """A threshold of distinct public keys of the role must have signed."""
    text, good = canonical(file["signed"]).encode(), set()
    for signature in file["signatures"][:16]:
        key = keys.get(signature["keyid"])
        if signature["keyid"] not in role["keyids"] or key is None or key["scheme"] != "ecdsa-sha2-nistp256":
            continue
        public = serialization.load_pem_public_key(key["keyval"]["public"].encode())
        try:
            public.verify(bytes.fromhex(signature["sig"]), text, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, ValueError):
            continue
        good.add(public.public_numbers())
    if len(good) < max(role["threshold"], 1):
        raise Unsigned(f"{len(good)} of {role['threshold']} signatures")


class Trust:
    """The newest files that passed (`held`: role → bytes and JSON), and those that wait for what names them (`pool`)."""

    def __init__(self, files):
        self.held = {role: (file, parse(file)) for role, file in files.items()}
        self.pool, self.alarms = {}, []
        self.newer_root = False  # something waits that only a newer root can vouch for

    def files(self):
        return {role: file for role, (file, _) in self.held.items()}

    def signed(self, role):
        return self.held[role][1]["signed"] if role in self.held else None

    def version(self, role):
        return self.signed(role)["version"] if role in self.held else 0

    def versions(self):
        return {role: self.version(role) for role in ("root", "timestamp", "snapshot", *LISTED)}

    def offer(self, files, now):
        """Takes files in, goes as far as they allow. Returns whether anything was accepted."""
        for role, file in files:
            try:
                if len(file) > CEILINGS.get(role, 32 * KiB):
                    raise Refused("longer than its ceiling")
                value = parse(file)
                if value["signed"]["version"] > self.version(role):
                    self.pool.setdefault((role, value["signed"]["version"]), []).append((file, value))
            except (Refused, KeyError, TypeError) as error:
                self.alarms.append(f"{role}: {error!r}")
        while len(self.pool) > WAITING:
            self.pool.pop(next(iter(self.pool)))
        before = self.versions()
        self.newer_root = False
        self.roots(now)
        # Only a root that is in force today may name the keys of anything new.
        if seconds(self.signed("root")["expires"]) <= now:
            self.newer_root = True
        else:
            self.timestamps(now)
            self.attempt("snapshot", self.named("timestamp", "snapshot"), self.check_snapshot, now)
            for role in LISTED:
                self.attempt(role, self.named("snapshot", role), self.check_listed, now)
        self.pool = {key: waiting for key, waiting in self.pool.items() if waiting and key[1] > self.version(key[0])}
        return self.versions() != before

    def named(self, by, role):
        listed = (self.signed(by) or {"meta": {}})["meta"].get(f"{role}.json")
        return listed["version"] if listed else 0

    def missing(self):
        """Roles whose named version is not held; a root that somebody spoke of is asked for by the device."""
        wants = [("snapshot", self.named("timestamp", "snapshot"))] + [(role, self.named("snapshot", role)) for role in LISTED]
        return [role for role, version in wants if version > self.version(role)]

    def attempt(self, role, version, check, now):
        if version <= self.version(role):
            return
        kept = []
        for file, value in self.pool.get((role, version), []):
            try:
                if value["signed"]["_type"] != ("targets" if role in DELEGATED else role):
                    raise Refused("another _type")
                check(role, file, value, now)
                self.accept(role, file, value)
                return
            except (Refused, KeyError, TypeError, ValueError) as error:
                self.alarms.append(f"{role} {version}: {error!r}")
                if isinstance(error, Unsigned) and role in ("timestamp", "snapshot", "targets"):
                    self.newer_root = True
                    kept.append((file, value))
        self.pool[(role, version)] = kept

    def accept(self, role, file, value):
        self.held[role] = (file, value)

    # 5.3
    def roots(self, now):
        for _ in range(32):
            version = self.version("root") + 1
            if ("root", version) not in self.pool:
                return
            old = self.signed("root")
            self.attempt("root", version, self.check_root, now)
            if self.version("root") != version:
                return
            new = self.signed("root")
            for role in ("timestamp", "snapshot"):
                if set(old["roles"][role]["keyids"]) != set(new["roles"][role]["keyids"]):
                    # 5.3.11: recovery from a fast-forward attack
                    self.held.pop("timestamp", None)
                    self.held.pop("snapshot", None)
            self.forget_unsigned()

    def check_root(self, role, file, value, now):
        for root in (self.signed("root"), value["signed"]):
            verify(value, root["keys"], root["roles"]["root"])

    # 5.4
    def timestamps(self, now):
        for version in sorted((version for role, version in self.pool if role == "timestamp"), reverse=True):
            self.attempt("timestamp", version, self.check_timestamp, now)

    def check_timestamp(self, role, file, value, now):
        signed, root = value["signed"], self.signed("root")
        verify(value, root["keys"], root["roles"]["timestamp"])
        if signed["meta"]["snapshot.json"]["version"] < self.named("timestamp", "snapshot"):
            raise Refused("its snapshot is older")
        self.expiry(signed, now)
        if signed["x-tern"]["time"] > seconds(root["expires"]):
            raise Refused("issued after root's end")

    # 5.5
    def check_snapshot(self, role, file, value, now):
        signed, root = value["signed"], self.signed("root")
        meta = self.signed("timestamp")["meta"]["snapshot.json"]
        if meta.get("length", len(file)) < len(file):
            raise Refused("longer than timestamp says")
        for name, digest in meta.get("hashes", {}).items():
            if hashlib.new(name, file).hexdigest() != digest:
                raise Refused("not the bytes that timestamp names")
        verify(value, root["keys"], root["roles"]["snapshot"])
        for name, held in (self.signed("snapshot") or {"meta": {}})["meta"].items():
            if signed["meta"].get(name, {"version": 0})["version"] < held["version"]:
                raise Refused(f"{name} goes back")
        if not all(f"{name}.json" in signed["meta"] for name in LISTED):
            raise Refused("it hides a file")
        self.expiry(signed, now)

    # 5.6
    def check_listed(self, role, file, value, now):
        verify(value, *self.delegator(role))
        self.expiry(value["signed"], now)
        if role == "targets":
            self.held[role] = (file, value)
            self.forget_unsigned()

    def delegator(self, role):
        if role == "targets":
            root = self.signed("root")
            return root["keys"], root["roles"]["targets"]
        if "targets" not in self.held:
            raise Refused("no targets yet")
        delegations = self.signed("targets")["delegations"]
        return delegations["keys"], next(entry for entry in delegations["roles"] if entry["name"] == role)

    def forget_unsigned(self):
        """A file of a key that was replaced is not held any more."""
        for role in LISTED:
            try:
                if role in self.held:
                    verify(self.held[role][1], *self.delegator(role))
            except (Refused, StopIteration):
                self.held.pop(role)

    def expiry(self, signed, now):
        if seconds(signed["expires"]) <= now:
            raise Refused("expired")

    # What Tern adds.

    def halted(self):
        return set((self.signed("halt") or {"x-tern": {"halted": []}})["x-tern"]["halted"])

    def telemetry(self):
        """(kid, point) of the service: the highest number."""
        keys = (self.signed("targets") or {"x-tern": {"telemetry": {}}})["x-tern"]["telemetry"]
        return max(((int(kid), bytes.fromhex(text)) for kid, text in keys.items()), default=None)
