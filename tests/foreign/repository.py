"""A product's repository in Tern's layout (docs/protocol.md, "Signed files"), made and signed with python-tuf."""

import copy
import hashlib
import json
from datetime import datetime, timedelta, timezone

from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner, Signature
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

TOP = ("root", "timestamp", "snapshot", "targets")
DELEGATED = ("release", "rollout", "halt")
NOW = datetime.now(timezone.utc).replace(microsecond=0)
EVERYBODY = 1000 << 32


def new_key(keyid=None):
    return CryptoSigner.generate_ecdsa(keyid=keyid)


class Alias:
    """A key that signs under another id than its own."""

    def __init__(self, signer, keyid):
        self.signer, self.keyid = signer, keyid

    def sign(self, payload):
        return Signature(self.keyid, self.signer.sign(payload).signature)


def seal(signed, signers):
    """Signs a dictionary that python-tuf's classes would not let through."""
    payload = encode_canonical(signed).encode()
    signatures = [signer.sign(payload).to_dict() for signer in signers]
    return json.dumps({"signatures": signatures, "signed": signed}, separators=(",", ":"), sort_keys=True)


def image(rc):
    return f"the image of release {rc}\n".encode() * 1000


class Repository:
    def __init__(self, product="router"):
        self.product = product
        self.keys = {role: [new_key()] for role in TOP + DELEGATED}
        self.keys["root"] = [new_key() for _ in range(3)]
        self.keys["release"] = [new_key(), new_key("the second holder of release")]
        self.threshold = {role: 1 for role in TOP + DELEGATED} | {"root": 2, "release": 2}
        # Of root, beside its own: those of the root before.
        self.before = []
        self.version = {role: 1 for role in TOP + DELEGATED}
        self.expires = {role: NOW + timedelta(days=30) for role in TOP + DELEGATED}
        self.releases = [7]
        self.offered = [7]
        self.halted = []
        # Whether snapshot names lengths and hashes, as it may.
        self.hashed = False
        self.issued = int(NOW.timestamp())
        # Files by role and version: what did not change is not signed anew.
        self.made = {}

    def copy(self):
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, (dict, list)):
                setattr(other, name, copy.copy(value))
        return other

    def bump(self, *roles):
        for role in roles + ("snapshot", "timestamp"):
            self.version[role] += 1
        return self

    def offer(self, rc):
        """A new release, offered to everybody."""
        self.releases = [*self.releases, rc]
        self.offered = [rc, *self.offered]
        return self.bump("release", "rollout")

    def rotate(self, role, keys=None, threshold=None):
        """New keys in the place of the old ones; what names and what carries them is signed anew."""
        old = self.keys[role]
        self.keys[role] = keys or [new_key() for _ in old]
        if role in TOP:
            # Of root's own keys the old ones sign too.
            self.before = old[: self.threshold["root"]] if role == "root" else []
        self.threshold[role] = threshold or self.threshold[role]
        self.version["root" if role in TOP else "targets"] += 1
        if role not in ("root", "snapshot", "timestamp"):
            self.version[role] += 1
        return self.bump()

    def meta(self, role):
        if role == "root":
            root = Root(self.version["root"], expires=self.expires["root"], consistent_snapshot=False)
            for name in TOP:
                for signer in self.keys[name]:
                    root.add_key(signer.public_key, name)
                root.roles[name].threshold = self.threshold[name]
            return root
        targets, extra, delegations = {}, {}, None
        if role == "targets":
            keys = {s.public_key.keyid: s.public_key for name in DELEGATED for s in self.keys[name]}
            roles = {
                name: DelegatedRole(
                    name,
                    [s.public_key.keyid for s in self.keys[name]],
                    self.threshold[name],
                    False,
                    [f"{self.product}/*/*"],
                )
                for name in DELEGATED
            }
            delegations = Delegations(keys, roles)
            # Some point of the curve: nothing is sealed here.
            point = new_key().public_key.keyval["public"]
            extra = {"telemetry": {"1": sec1(point)}}
        if role in ("release", "rollout"):
            for rc in self.releases if role == "release" else self.offered:
                path = f"{self.product}/{rc}/rootfs"
                targets[path] = TargetFile.from_data(path, image(rc), ["sha256"])
                if role == "release":
                    custom = {"rc": rc, "version": f"{rc}.0.0", "component": "rootfs", "models": ["tr-100"]}
                    custom |= {"min_from": 0, "floor": 0, "root": hashlib.sha256(b"\0" + image(rc)).hexdigest()}
                    targets[path].unrecognized_fields["custom"] = custom
        if role == "rollout":
            extra = {"entries": [self.entry(rc) for rc in self.offered]}
        if role == "halt":
            extra = {"halted": self.halted}
        more = {"x-tern": extra} if extra else {}
        return Targets(
            self.version[role], None, self.expires[role], targets, delegations, unrecognized_fields=more
        )

    def entry(self, rc):
        return {
            "rollout": f"{self.product}-{rc}-1",
            "rc": rc,
            "kind": "update",
            "attempt": 1,
            "regions": ["eu"],
            "salt": "30313233343536373839616263646566",
            "cuts": {"tr-100": EVERYBODY},
            "spread": 0,
            "arm": "acked",
        }

    def named(self, files):
        def named(role):
            data = files[role].encode()
            if self.hashed:
                return MetaFile(self.version[role], len(data), {"sha256": hashlib.sha256(data).hexdigest()})
            return MetaFile(self.version[role])

        return {f"{role}.json": named(role) for role in ("targets",) + DELEGATED}

    def files(self, forged=None):
        """All files. `forged`: for a role, `signers` in the place of those who should, `edit` of what is signed, or
        `text`, the whole file. Whoever names a forged file names it as it is."""
        forged, files = forged or {}, {}

        def add(role, meta):
            how, key = forged.get(role, {}), (role, self.version[role])
            if not how and key in self.made:
                files[role] = self.made[key]
                return
            signers = how.get("signers", self.keys[role][: self.threshold[role]] + (self.before if role == "root" else []))
            if "edit" in how:
                signed = meta.to_dict()
                how["edit"](signed)
                files[role] = seal(signed, signers)
            else:
                file = Metadata(meta)
                for signer in signers:
                    file.sign(signer, append=True)
                files[role] = file.to_bytes().decode()
            if "text" in how:
                files[role] = how["text"](files[role])
            if not how:
                self.made[key] = files[role]

        for role in ("root", "targets") + DELEGATED:
            add(role, self.meta(role))
        add("snapshot", Snapshot(self.version["snapshot"], None, self.expires["snapshot"], self.named(files)))
        data = files["snapshot"].encode()
        named = MetaFile(self.version["snapshot"], len(data), {"sha256": hashlib.sha256(data).hexdigest()})
        more = {"x-tern": {"time": self.issued}}
        version, expires = self.version["timestamp"], self.expires["timestamp"]
        add("timestamp", Timestamp(version, None, expires, named, unrecognized_fields=more))
        return files


def sec1(pem):
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    return load_pem_public_key(pem.encode()).public_bytes(Encoding.X962, PublicFormat.UncompressedPoint).hex()
