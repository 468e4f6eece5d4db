"""Which entry of the rollout file is this device's: docs/protocol.md, «Offer». No I/O."""

import hashlib
from dataclasses import dataclass

from wire import position


@dataclass
class Offer:
    rollout: str
    rc: int
    attempt: int
    kind: str
    length: int
    sha256: str
    root: str
    version: str
    component: str
    min_from: int
    floor: int


def offer(trust, device, registry, running, halted):
    """The first entry that fits, or None."""
    release, rollout = trust.signed("release"), trust.signed("rollout")
    if not release or not rollout:
        return None
    for entry in rollout["x-tern"]["entries"][:8]:
        found = fits(entry, release, rollout, device, registry, halted)
        if found:
            return found if entry["kind"] == "revert" or entry["rc"] > running else None
    return None


def fits(entry, release, rollout, device, registry, halted):
    for field, own in (("regions", "region"), ("models", "model"), ("carriers", "carrier")):
        if entry.get(field) and registry[own] not in entry[field]:
            return None
    prefix = f"{registry['product']}/{entry['rc']}/"
    approved = {path: target for path, target in release["targets"].items() if path.startswith(prefix)}
    # The agent of the page installs a release of exactly one artifact; so does this one.
    if entry["rc"] in halted or len(approved) != 1:
        return None
    (path, target), offered = *approved.items(), rollout["targets"]
    same = path in offered and all(offered[path][name] == target[name] for name in ("length", "hashes"))
    custom = target["custom"]
    if not same or registry["model"] not in custom["models"] or not included(entry, device, registry["model"]):
        return None
    return Offer(
        entry["rollout"], entry["rc"], entry["attempt"], entry["kind"], target["length"], target["hashes"]["sha256"],
        custom["root"], custom["version"], custom["component"], custom["min_from"], custom["floor"],
    )  # fmt: skip


def included(entry, device, model):
    if hashlib.sha256(device.encode()).digest()[:8].hex() in entry.get("list", []):
        return True
    cut = entry["cuts"].get(model)
    return cut is not None and position(device, bytes.fromhex(entry["salt"])) < cut
