"""Which entry of the rollout file is this device's: docs/protocol.md, «Offer». No I/O."""

import hashlib
import re
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
    spread: int
    requires: list


def offer(trust, device, registry, running, halted):
    """The first entry that fits, or None."""
    release, rollout = trust.signed("release"), trust.signed("rollout")
    if not release or not rollout:
        return None
    for entry in rollout["x-tern"]["entries"][:8]:
        found = fits(entry, release, rollout, device, registry, halted)
        if not found:
            continue
        raises = entry["rc"] != running if entry["kind"] == "revert" else entry["rc"] > running
        # The first entry that fits ends the search, also where it brings nothing: no later one speaks for this device.
        return found if raises and not held_back(entry, device) else None
    return None


def fits(entry, release, rollout, device, registry, halted):
    for field, own in (("regions", "region"), ("models", "model"), ("carriers", "carrier")):
        if entry.get(field) and registry[own] not in entry[field]:
            return None
    prefix = f"{registry['product']}/{entry['rc']}/"
    approved, offered = (of_release(file, prefix) for file in (release, rollout))
    if entry["rc"] in halted or not approved or approved.keys() != offered.keys():
        return None
    same = all(named(offered[path]) == named(target) for path, target in approved.items())
    own = all(
        target["custom"]["rc"] == entry["rc"] and variant(path[len(prefix) :], target["custom"]["component"]) is not None
        for path, target in approved.items()
    )
    if not same or not own or not included(entry, device, registry["model"]):
        return None
    targets = taken(approved, prefix, registry)
    # A device with one slot pair installs a release of exactly one component.
    if len(targets) != 1 or targets[0] is None:
        return None
    (target,) = targets
    custom = target["custom"]
    return Offer(
        entry["rollout"], entry["rc"], entry["attempt"], entry["kind"], target["length"], target["hashes"]["sha256"],
        custom["root"], custom.get("release", custom["version"]), custom["component"], custom["min_from"], custom["floor"],
        entry.get("spread", 0), sorted(custom.get("requires", {})),
    )  # fmt: skip


def variant(part, component):
    """Where an artifact stands among those of its component: those with a name by name, the one without last."""
    if part == component:
        return (1, "")
    name = part[len(component) + 1 :] if part.startswith(component + "@") else ""
    return (0, name) if re.fullmatch("[A-Za-z0-9_-]{1,64}", name) else None


def taken(approved, prefix, registry):
    """For each component the first artifact that is for this device, or None."""
    first = {}
    for path, target in sorted(
        approved.items(), key=lambda item: variant(item[0][len(prefix) :], item[1]["custom"]["component"])
    ):
        custom = target["custom"]
        found = first.setdefault(custom["component"], None)
        conditions = (("carriers", "carrier"), ("regions", "region"))
        fits = all(not custom.get(field) or registry[own] in custom[field] for field, own in conditions)
        if found is None and fits and registry["model"] in custom["models"]:
            first[custom["component"]] = target
    return list(first.values())


def of_release(file, prefix):
    return {path: target for path, target in file["targets"].items() if path.startswith(prefix)}


def named(target):
    return target["length"], target["hashes"]["sha256"]


def listed(entry, device):
    return hashlib.sha256(device.encode()).digest()[:8].hex() in entry.get("list", [])


def held_back(entry, device):
    first, end = entry.get("hold_back") or (0, 0)
    return not listed(entry, device) and first <= position(device, bytes.fromhex(entry["salt"])) < end


def included(entry, device, model):
    if listed(entry, device):
        return True
    cut = entry.get("cuts", {}).get(model, 0)
    # A device that is held back is exposed beside the first wave, wherever its range lies: it fits, and gets nothing.
    return cut > 0 and (held_back(entry, device) or position(device, bytes.fromhex(entry["salt"])) < cut)
