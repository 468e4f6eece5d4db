"""Checks the test vectors of docs/protocol.md: `vectors.py [PAGE]`. Says how many held; ends with 1 at the first that does not."""

import hashlib
import json
import sys
from pathlib import Path

import bundle
import mac
import trust
import wire

checks = 0


def same(found, expected, what):
    global checks
    if found != expected:
        sys.exit(f"{what}: {found!r} here, {expected!r} on the page")
    checks += 1


def read(page):
    block = page.read_text().split("\n## Test vectors\n")[1].split("```json\n")[1].split("```")[0]
    return json.loads(block)


def positions(vectors):
    for vector in vectors:
        device = vector["device"]
        same(wire.partition(device), vector["partition"], f"partition of {device}")
        same(f"{wire.cohort(device):03d}", vector["cohort"], f"cohort of {device}")
        same(wire.position(device, bytes.fromhex(vector["salt"])), vector["position"], f"position of {device}")


def tree(vector):
    image = bytes(i % 251 for i in range(vector["length"]))
    same(hashlib.sha256(image).hexdigest(), vector["sha256"], "SHA-256 of the image")
    leaves = [wire.leaf(image[at : at + wire.CHUNK]) for at in range(0, len(image), wire.CHUNK)]
    same([leaf.hex() for leaf in leaves], vector["leaves"], "leaves")
    same(wire.merkle_root(image).hex(), vector["root"], "Merkle root")
    piece = wire.Pack(bytes.fromhex(vector["piece_frame"]))
    same((piece.kind, piece.level, piece.index, piece.digests()), (piece.PIECE, 0, 0, leaves), "piece")
    same(piece.of, bytes.fromhex(vector["root"])[:8], "object of the piece")
    frame = bytes.fromhex(vector["chunk_2_header"]) + image[2 * wire.CHUNK :]
    same(len(frame), vector["chunk_2_frame_length"], "length of the last chunk's frame")
    chunk = wire.Pack(frame)
    same((chunk.kind, chunk.level, chunk.index), (chunk.CHUNK, 0, 2), "chunk")


def codes(vector):
    device, service = (mac.private(bytes.fromhex(vector[f"{name}_private"])) for name in ("device", "service"))
    for message in vector["messages"]:
        direction, epoch = message["direction"].encode(), message["epoch"]
        for own, peer in ((device, service), (service, device)):
            both = mac.Codes(own, mac.point(peer), vector["fleet"], vector["device"], message["kid"])
            same(both.secret.hex(), vector["secret"], "secret")
            same(both.key(direction, epoch).hex(), message["key"], "key")
            same(both.seal(json.loads(message["body"]), direction).decode(), message["message"], "sealed message")
            sealed = message["message"].encode()
            opened = both.open(sealed, [epoch], direction)
            same(opened and {**opened, "m": None}, json.loads(message["body"]) | {"m": None}, "opened message")
            same(both.open(sealed.replace(b"1", b"7", 1), [epoch], direction), None, "a changed message")


def proofs(enrol, claim, challenge):
    identity, telemetry = (mac.private(bytes.fromhex(enrol[f"{name}_private"])) for name in ("identity", "telemetry"))
    same((mac.point(identity).hex(), mac.point(telemetry).hex()), (enrol["identity"], enrol["telemetry"]), "public keys")
    names = enrol["fleet"], enrol["device"]
    keys = mac.point(identity), mac.point(telemetry)
    same(mac.enrol_input(*names, *keys).hex(), enrol["input"], "what an enrolment signs")
    same(mac.claim_key(claim["token"]).hex(), claim["key"], "key of the claim")
    same(mac.claim_code(claim["token"], *names, *keys, claim["registry"]), claim["claim"], "claim")
    nonce = bytes.fromhex(challenge["challenge"])
    same(mac.challenge_input(enrol["device"], nonce, challenge["counter"]).hex(), challenge["input"], "what a challenge signs")
    for signature, text in ((enrol["proof"], enrol["input"]), (challenge["signature"], challenge["input"])):
        identity.public_key().verify(bytes.fromhex(signature), bytes.fromhex(text), mac.ECDSA)
        same(True, True, "signature")


def bundles(vectors):
    held = {}

    def dictionary(versions):
        return bundle.GENERAL if versions[1] == 0 else bundle.static(held["root"], held["targets"])

    for vector in vectors:
        packed = bytes.fromhex(vector["bundle"])
        versions = bundle.header(packed)
        general = vector["dictionary"][1] == 0
        same(versions[1] if general else list(versions), 0 if general else vector["dictionary"], "dictionary's name")
        words = dictionary(versions)
        same(hashlib.sha256(words).hexdigest(), vector["dictionary_sha256"], "dictionary")
        files = bundle.unpack(packed, dictionary)
        found = [[role, hashlib.sha256(file).hexdigest()] for role, file in files]
        same(found, vector["files"], "files of the bundle")
        held |= {role: trust.parse(file) for role, file in files}
        # Another packer: other bytes, the same files.
        same(bundle.unpack(bundle.pack(*versions, words, files), dictionary), files, "files packed here")
        try:
            bundle.unpack(packed + b"\0", dictionary)
            sys.exit("a byte after the last value was not noticed")
        except ValueError:
            pass
    root, targets = held["root"]["signed"], held["targets"]["signed"]
    for role in ("root", "targets", "timestamp", "snapshot"):
        trust.verify(held[role], root["keys"], root["roles"][role])
    delegated = {entry["name"]: entry for entry in targets["delegations"]["roles"]}
    trust.verify(held["rollout"], targets["delegations"]["keys"], delegated["rollout"])
    same(True, True, "signatures of the files")


def main():
    page = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "docs" / "protocol.md"
    vectors = read(page)
    positions(vectors["positions"])
    tree(vectors["tree"])
    codes(vectors["codes"])
    proofs(vectors["enrol"], vectors["claim"], vectors["challenge"])
    bundles(vectors["bundles"])
    print(f"{checks} checks of {page.name} hold")


if __name__ == "__main__":
    main()
