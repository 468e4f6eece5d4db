"""python-tuf makes and signs repositories of a product; prints as JSON what a client must make of them.

`story`: files that follow one another, all good, through a rotation of every role. `cases`: what is held already
(`held`), then `files`, one of them forged with the real keys.

    role, says   the role that the agent refuses, and words of the reason; null: nothing is refused
    selection    what a device then makes of it: `offer RC`, a reason against one, or `none` while files lack
    general      words of the reason of a client that asks a server; null: it takes everything
    later        seconds from now at which the files come
"""

import json
import sys
from datetime import timedelta

from repository import DELEGATED, NOW, TOP, Alias, Repository, new_key
from securesystemslib.signer import CryptoSigner

CASES = []
SAME = object()
BASE = Repository().offer(8)
HELD = BASE.files()
OTHER = Repository("modem").offer(8)
THIEF = new_key()


def case(name, after, forged=None, role=None, says=None, selection="none", general=SAME, later=0, held=HELD, files=None):
    files = files or after.files(forged)
    general = says if general is SAME else general
    CASES.append(
        {
            "name": name,
            "held": held,
            "files": files,
            "role": role,
            "says": says,
            "selection": selection,
            "general": general,
            "later": later,
        }
    )


def next_():
    return BASE.copy().offer(9)


def alone():
    """The new release, and no older one to fall back to."""
    after = next_()
    after.offered = [9]
    return after


def edit(role, change):
    return {role: {"edit": change}}


def signed_by(role, *signers):
    return {role: {"signers": list(signers)}}


def expired(role, days=-1):
    after = next_()
    after.expires[role] = NOW + timedelta(days=days)
    return after


def good():
    case("nothing is wrong", next_(), selection="offer 9")
    after = next_()
    after.hashed = True
    case("snapshot names lengths and hashes", after.bump("targets", "halt"), selection="offer 9")
    after = BASE.copy().bump("halt", "rollout")
    after.halted, after.offered = [8], [8]
    case("the release is halted", after, selection="halted 8")
    case("one signature too many, by a stranger", next_(), signed_by("timestamp", *BASE.keys["timestamp"], THIEF), selection="offer 9")
    case("the same files again", BASE, files=HELD, selection="offer 8")


def roots():
    old, after = BASE.keys["root"], next_().rotate("root")
    new = after.keys["root"]
    # Without its root the rest of the files is still good under the old one.
    rest = {"selection": "offer 9"}
    say = "is signed by {} of its keys, 2 are needed".format
    case("root signed by its new keys alone", after, signed_by("root", *new), "root", say(0), **rest)
    case("root signed by its old keys alone", after, signed_by("root", *old), "root", say(0), **rest)
    case("root signed by one old key", after, signed_by("root", old[0], *new), "root", say(1), **rest)
    case("root signed by one new key", after, signed_by("root", *old, new[0]), "root", say(1), **rest)

    def alias(signed):
        role = signed["roles"]["root"]
        signed["keys"]["alias"] = signed["keys"][role["keyids"][0]]
        role["keyids"][1:] = ["alias"]

    twice = [*old[:2], new[0], Alias(new[0], "alias")]
    case("root whose two keys are one", after, {"root": {"edit": alias, "signers": twice}}, "root", say(1), **rest)
    twice = {"root": {"signers": [*old[:2], *new[:2]], "text": lambda t: doubled(t)}}
    case("root with a signature that stands twice", after, twice, "root", "signs twice", general="signs twice", **rest)

    def skip(signed):
        signed["version"] = 5

    forged = {"root": {"edit": skip, "signers": old + new}}
    # The next root is asked for by its number, so the general client never sees it.
    case("root that skips versions", after, forged, **rest)

    def none(signed):
        signed["roles"]["timestamp"]["threshold"] = 0

    forged = {"root": {"edit": none, "signers": old + new}}
    case("root with a threshold of 0", after, forged, "root", "a threshold of 0", **rest)
    forged = {"root": {"edit": lambda s: s.update(spec_version="2.0.0"), "signers": old + new}}
    case("root of another specification", after, forged, "root", "spec_version is not 1.x", **rest)
    forged = {"root": {"edit": lambda s: s["roles"].pop("snapshot"), "signers": old + new}}
    case("root that leaves a role out", after, forged, "root", "it has no keys for snapshot", **rest)
    other = next_().files() | {"root": OTHER.copy().rotate("root").files()["root"]}
    case("root of another product", next_(), None, "root", say(0), files=other, **rest)
    after = expired("root").rotate("root")
    case("root that has expired", after, None, "root", "expired at", selection="offer 8")
    case("root that replaces nothing else", next_().rotate("root"), None, selection="offer 9")


def doubled(text):
    file = json.loads(text)
    file["signatures"].append(file["signatures"][-1])
    return json.dumps(file)


def timestamps():
    say = "is signed by 0 of its keys, 1 are needed"
    stay = {"selection": "offer 8"}
    case("timestamp signed by snapshot's key", next_(), signed_by("timestamp", *BASE.keys["snapshot"]), "timestamp", say, **stay)
    case("timestamp signed by nobody", next_(), signed_by("timestamp"), "timestamp", say, **stay)
    case("timestamp signed by a stranger", next_(), signed_by("timestamp", THIEF), "timestamp", say, **stay)
    case("timestamp that has expired", expired("timestamp"), None, "timestamp", "expired at", **stay)
    case("timestamp that expires now", expired("timestamp", 1), None, "timestamp", "expired at", later=86400, **stay)

    def back(signed):
        signed["version"] = 1

    # Retained topics are published at different times, so an old file is no alarm to a device.
    case("timestamp of a version before", next_(), edit("timestamp", back), general="takes timestamp back from version 2 to 1", **stay)

    def snapshot(signed):
        signed["meta"]["snapshot.json"]["version"] = 1

    says = "takes snapshot back from version 2 to 1"
    case("timestamp that goes back to an old snapshot", next_(), edit("timestamp", snapshot), "timestamp", says, **stay)
    after = next_()
    after.issued = int((NOW + timedelta(days=60)).timestamp())
    case("timestamp from after root's end", after, None, "timestamp", "after root expires", general=None, **stay)
    case("timestamp that names no snapshot", next_(), edit("timestamp", lambda s: s["meta"].clear()), "timestamp", "does not name snapshot.json", **stay)

    def other(signed):
        signed["_type"] = "snapshot"

    case("timestamp that calls itself something else", next_(), edit("timestamp", other), "timestamp", "its type is", **stay)
    forged = {"timestamp": {"text": lambda text: text + " " * 3000}}
    case("timestamp that does not end", next_(), forged, "timestamp", "above the ceiling", general="longer", **stay)
    case("timestamp of another product", OTHER.copy().offer(9), None, "timestamp", say, files=mixed("timestamp"), **stay)
    forged = {"timestamp": {"edit": lambda s: s.update(version=0)}}
    case("timestamp of version 0", next_(), forged, "timestamp", "it has no version", general="its version is 0", **stay)
    shift = {"timestamp": {"text": lambda text: text.replace('"x-tern":{', '"x-tern":{"more":1.5,')}}
    case("timestamp with a number that is no integer", next_(), shift, "timestamp", "not strict JSON", **stay)
    shift = {"timestamp": {"text": lambda text: text.replace('"_type":', '"version":9,"_type":')}}
    # Which of the two versions counts is not decided by anybody.
    case("timestamp with two versions", next_(), shift, "timestamp", "it has no version", general="appears twice", **stay)


def mixed(*roles):
    """The next files, those of `roles` from another product's repository."""
    return next_().files() | {role: text for role, text in OTHER.copy().offer(9).files().items() if role in roles}


def snapshots():
    say = "is signed by 0 of its keys, 1 are needed"
    named = "is not the file that its parent names"
    case("snapshot signed by timestamp's key", next_(), signed_by("snapshot", *BASE.keys["timestamp"]), "snapshot", say)
    case("snapshot that has expired", expired("snapshot"), None, "snapshot", "expired at")
    case("snapshot with another hash than timestamp names", next_(), files=swapped("sha256"), role="snapshot", says=named)
    case("snapshot with another length than timestamp names", next_(), files=swapped("length"), role="snapshot", says=named)

    def hashless(change):
        def change_both(signed):
            named = signed["meta"]["snapshot.json"]
            named.pop("hashes"), named.pop("length"), change(named)

        return edit("timestamp", change_both)

    forged = hashless(lambda named: named.update(version=4))
    case("snapshot of another version than timestamp names", next_(), forged, general="has version 3 where 4 is named")

    def back(file, version):
        return edit("snapshot", lambda s: s["meta"][file].update(version=version))

    for file, held in (("release", 2), ("rollout", 2)):
        says = f"takes {file}.json back from version {held} to 1"
        case(f"snapshot that takes {file} back", next_(), back(f"{file}.json", 1), "snapshot", says)
    older = BASE.copy().bump("halt", "targets")
    older.halted = [3]
    first = older.files()
    for file in ("halt", "targets"):
        after, says = older.copy().bump(), f"takes {file}.json back from version 2 to 1"
        case(f"snapshot that takes {file} back", after, back(f"{file}.json", 1), "snapshot", says, held=first)
    for file in DELEGATED:
        gone = edit("snapshot", lambda s, file=file: s["meta"].pop(f"{file}.json"))
        held = {"release": 2, "rollout": 2, "halt": 1}[file]
        says = f"takes {file}.json back from version {held} to 0"
        case(f"snapshot that hides {file}", next_(), gone, "snapshot", says)
    says = "it does not name halt.json"
    hidden = edit("snapshot", lambda s: s["meta"].pop("halt.json"))
    missing = "snapshot does not name the delegated role halt"
    case("snapshot that hides halt from a newcomer", next_(), hidden, "snapshot", says, held={"root": HELD["root"]}, general=missing)
    case("snapshot of another product", next_(), files=mixed("timestamp", "snapshot"), role="timestamp", says=say, selection="offer 8")


def swapped(what):
    """A snapshot that was signed, and is not the one that timestamp names."""

    def change(signed):
        named = signed["meta"]["snapshot.json"]
        if what == "length":
            named["length"] += 1
        else:
            named["hashes"]["sha256"] = "0" * 64

    return next_().files(edit("timestamp", change))


def targets():
    say = "is signed by 0 of its keys, 1 are needed"

    def after(role="targets"):
        return next_().bump(role)

    for role in ("release", "root"):
        case(f"targets signed by {role}'s keys", after(), signed_by("targets", *BASE.keys[role]), "targets", say)
    late = after()
    late.expires["targets"] = NOW - timedelta(days=1)
    case("targets that have expired", late, None, "targets", "expired at")
    hashed = after()
    hashed.hashed = True
    files = hashed.files() | {"targets": hashed.files(edit("targets", lambda s: s["x-tern"].update(more=1)))["targets"]}
    says = "targets version 2 is not the file that its parent names"
    case("targets with another hash than snapshot names", hashed, None, "targets", says, files=files, general="longer")
    twice = edit("targets", lambda s: s["delegations"]["roles"].append(s["delegations"]["roles"][0]))
    case("targets that delegate to a role twice", after(), twice, "targets", "it delegates to a role twice")
    top = edit("targets", lambda s: s["delegations"]["roles"][2].update(name="root"))
    case("targets that delegate to root", after(), top, "targets", "it delegates to a top-level role")
    key = edit("targets", lambda s: s["x-tern"]["telemetry"].update({"2": "04" + "00" * 64}))
    case("targets with a telemetry key that is none", after(), key, "targets", "no point of P-256", general=None)
    narrow = edit("targets", lambda s: s["delegations"]["roles"][1].update(paths=["router/8/*"]))
    case("rollout names a path outside its delegation", alone().bump("targets"), narrow, selection="not-approved 9", general=None)
    narrow = edit("targets", lambda s: s["delegations"]["roles"][0].update(paths=["router/8/*"]))
    # Whoever looks a path up is never led to release, and believes rollout alone: why a device compares both.
    case("release names a path outside its delegation", alone().bump("targets"), narrow, selection="not-approved 9", general=None)
    hashes = edit("targets", lambda s: s["delegations"]["roles"][0].update(path_hash_prefixes=["00"]))
    case("a delegation with paths and hash prefixes", after(), hashes, "targets", "both paths and path_hash_prefixes")
    gone = edit("targets", lambda s: s["delegations"]["roles"].pop(0))
    case("targets that delegate to no release", after(), gone, "release", "nobody delegates to release", general=None)
    case("targets of another product", after(), files=after().files() | {"targets": OTHER.copy().bump("targets").files()["targets"]}, role="targets", says=say)


def releases():
    say = "release is signed by {} of its keys, 2 are needed".format
    keys = BASE.keys["release"]
    case("release signed by rollout's key", next_(), signed_by("release", *BASE.keys["rollout"]), "release", say(0))
    case("release signed by one holder", next_(), signed_by("release", keys[0]), "release", say(1))
    case("release signed by a holder and a stranger", next_(), signed_by("release", keys[0], THIEF), "release", say(1))
    case("release signed by one holder under the other's name", next_(), signed_by("release", keys[0], Alias(keys[0], keys[1].public_key.keyid)), "release", say(1))

    def alias(signed):
        role = signed["delegations"]["roles"][0]
        signed["delegations"]["keys"]["alias"] = signed["delegations"]["keys"][keys[0].public_key.keyid]
        role["keyids"] = [keys[0].public_key.keyid, "alias"]

    forged = edit("targets", alias) | signed_by("release", keys[0], Alias(keys[0], "alias"))
    case("release whose two keys are one", next_().bump("targets"), forged, "release", say(1))
    case("release that has expired", expired("release"), None, "release", "expired at")
    stale = next_().files() | {"release": HELD["release"]}
    # A device takes an old file for an old message, and goes on asking for the one that snapshot names.
    case("release of the version before", next_(), files=stale, general="has version 2 where 3 is named")

    def other(signed):
        del signed["targets"]["router/9/rootfs"]["custom"]

    case("release that says nothing of a target", next_(), edit("release", other), "release", "has no custom", general=None)

    def floor(signed):
        signed["targets"]["router/9/rootfs"]["custom"]["floor"] = 10

    case("release with a floor above itself", next_(), edit("release", floor), "release", "a floor above its rc", general=None)

    def rc(signed):
        signed["targets"]["router/9/rootfs"]["custom"]["rc"] = 8

    case("release under another counter than its path", alone(), edit("release", rc), selection="not-approved 9", general=None)
    many = next_()
    many.releases = list(range(5, 11))
    case("release with six of them", many, None, "release", "more than 5 releases", general=None)
    case("release of another product", next_(), files=mixed("release"), role="release", says=say(0))

    def models(signed):
        signed["targets"]["router/9/rootfs"]["custom"]["models"] = ["tr-200"]

    case("release for another model", alone(), edit("release", models), selection="not-for-model 9", general=None)


def rollouts():
    say = "rollout is signed by 0 of its keys, 1 are needed"
    case("rollout signed by release's keys", next_(), signed_by("rollout", *BASE.keys["release"]), "rollout", say)
    case("rollout that has expired", expired("rollout"), None, "rollout", "expired at")
    case("rollout of another product", next_(), files=mixed("rollout"), role="rollout", says=say)

    def nine(signed):
        return signed["targets"]["router/9/rootfs"]

    def wrong(name, change, selection="not-approved 9"):
        case(name, alone(), edit("rollout", change), selection=selection, general=None)

    wrong("rollout with another hash than release", lambda s: nine(s)["hashes"].update(sha256="0" * 64))
    wrong("rollout with another length than release", lambda s: nine(s).update(length=nine(s)["length"] - 1))
    wrong("rollout without the target", lambda s: s["targets"].pop("router/9/rootfs"))
    wrong("rollout with a target more than release", lambda s: s["targets"].update({"router/9/modem": nine(s)}))
    wrong("rollout of what release does not name", lambda s: s["x-tern"]["entries"][0].update(rc=10), "not-approved 10")

    def product(signed):
        signed["targets"] = {path.replace("router", "modem"): target for path, target in signed["targets"].items()}

    wrong("rollout of another product's paths", product)
    wrong("rollout that includes nobody", lambda s: s["x-tern"]["entries"][0].update(cuts={"tr-100": 0}), "not-included")

    def nines(signed):
        signed["x-tern"]["entries"] *= 6

    case("rollout with twelve entries", next_(), edit("rollout", nines), "rollout", "more than 8 entries", general=None)
    wrong("rollout that means to revert, and nothing else", lambda s: s["x-tern"]["entries"][0].update(kind="revert"), "offer 9")


def halts():
    def after():
        return next_().bump("halt")

    say = "halt is signed by 0 of its keys, 1 are needed"
    for role in ("rollout", "release"):
        case(f"halt signed by {role}'s keys", after(), signed_by("halt", *BASE.keys[role]), "halt", say)
    late = after()
    late.expires["halt"] = NOW - timedelta(days=1)
    case("halt that has expired", late, None, "halt", "expired at")
    many = after()
    many.halted = list(range(1025))
    case("halt of 1025 releases", many, None, "halt", "more than 1024 halted releases", general=None)
    # A kind of key that a device does not verify with.
    key = CryptoSigner.generate_ed25519()
    case("halt by a key of another kind", after().rotate("halt", [key]), None, "halt", say)


def story():
    steps, state = [], Repository()

    def step(name):
        offer = max(state.offered)
        steps.append({"name": name, "files": state.files(), "offer": offer, "versions": dict(state.version)})

    step("the first files")
    state.offer(8)
    step("a release")
    for role in TOP + DELEGATED:
        state.rotate(role)
        step(f"new keys of {role}")
        state.offer(state.releases[-1] + 1)
        state.releases = state.releases[-5:]
        state.offered = state.offered[:5]
        step(f"a release after new keys of {role}")
    state.rotate("release", [new_key("ann"), new_key("bob"), new_key("cid")], 3)
    step("three keys of release, all of which sign")
    state.rotate("targets", [new_key("Ünï ☃"), new_key()], 2)
    step("two keys of targets, with names of their own")
    state.rotate("root", [new_key() for _ in range(5)], 3)
    step("five keys of root, three of which sign")
    return steps


if __name__ == "__main__":
    for part in (good, roots, timestamps, snapshots, targets, releases, rollouts, halts):
        part()
    names = [case["name"] for case in CASES]
    assert len(names) == len(set(names)), "a name twice"
    json.dump({"now": int(NOW.timestamp()), "story": story(), "cases": CASES}, sys.stdout)
