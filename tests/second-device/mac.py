"""Keys, authentication codes and proofs: docs/protocol.md, «Authentication codes», «Answers», «Enrolment». No I/O."""

import base64
import hashlib
import hmac
import json

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

CEILING = 4096
P256 = ec.SECP256R1()
ECDSA = ec.ECDSA(hashes.SHA256())


def new_key():
    return ec.generate_private_key(P256)


def private(scalar):
    return ec.derive_private_key(int.from_bytes(scalar, "big"), P256)


def save(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def load(pem):
    return serialization.load_pem_private_key(pem, None)


def point(key):
    """The uncompressed SEC1 point, 65 bytes."""
    return key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def _hashed(*fields):
    return b"".join(hashlib.sha256(field if isinstance(field, bytes) else field.encode()).digest() for field in fields)


class Codes:
    """The codes between one device and one telemetry key of the service."""

    def __init__(self, own, peer_point, fleet, device, kid):
        self.secret = own.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(P256, peer_point))
        self.fleet, self.device, self.kid = fleet.encode(), device.encode(), kid

    def key(self, direction, epoch):
        info = b"tern-mac-v1" + direction + self.device + b"\x00" + self.kid.to_bytes(4, "big") + epoch.to_bytes(8, "big")
        return HKDF(hashes.SHA256(), 32, self.fleet, info).derive(self.secret)

    def tag(self, direction, epoch, open_body):
        text = b"tern-v1" + direction + self.device + b"\x00" + open_body
        code = hmac.digest(self.key(direction, epoch), text, "sha256")[:16]
        return base64.urlsafe_b64encode(code).rstrip(b"=")

    def seal(self, body, direction=b"u"):
        """`body` is a dict whose first field is `e`; returns the sealed message."""
        text = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()[:-1]
        message = text + b',"m":"' + self.tag(direction, body["e"], text) + b'"}'
        if len(message) > CEILING:
            raise ValueError("the report is longer than its ceiling; shorten its reason")
        return message

    def open(self, message, epochs, direction=b"d"):
        """Returns the body of a message of one of the epochs, or None if it is not authentic."""
        if len(message) > CEILING or not message.startswith(b'{"e":') or message[-30:-24] != b',"m":"' or message[-2:] != b'"}':
            return None
        digits = message[5 : message.find(b",", 5)]
        if not digits.isdigit() or len(digits) > 20 or int(digits) not in epochs:
            return None
        if not hmac.compare_digest(self.tag(direction, int(digits), message[:-30]), message[-24:-2]):
            return None
        return json.loads(message)


def enrol_input(fleet, device, identity, telemetry):
    return b"tern-enrol-v1" + _hashed(fleet, device, identity, telemetry)


def enrol(fleet, device, identity, telemetry, claim=None, registry=None):
    """The enrolment message; `claim` is the operator's token."""
    keys = point(identity), point(telemetry)
    proof = identity.sign(enrol_input(fleet, device, *keys), ECDSA)
    body = {"identity": keys[0].hex(), "telemetry": keys[1].hex(), "proof": proof.hex()}
    if claim:
        body |= {"claim": claim_code(claim, fleet, device, *keys, registry), "registry": registry}
    return json.dumps(body, separators=(",", ":")).encode()


def claim_key(token):
    return hashlib.sha256(bytes.fromhex(token.split(".")[1])).digest()


def claim_code(token, fleet, device, identity, telemetry, registry):
    said = [registry[name] for name in ("product", "model", "carrier", "region")]
    text = b"tern-claim-v1" + _hashed(fleet, device, identity, telemetry, *said)
    return token.split(".")[0] + "." + hmac.digest(claim_key(token), text, "sha256").hex()


def challenge_input(device, challenge, counter):
    return b"tern-challenge-v1" + _hashed(device) + challenge + counter.to_bytes(8, "big")


def proof(identity, device, challenge, counter):
    signature = identity.sign(challenge_input(device, bytes.fromhex(challenge), counter), ECDSA)
    return {"challenge": challenge, "counter": counter, "signature": signature.hex()}
