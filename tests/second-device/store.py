"""What the device keeps: keys, journal, signed files, slots and the boot record. The only file that touches its disk."""

import hashlib
import json
import os
from pathlib import Path

import mac
import wire


def write(path, data):
    """Replaces a file durably: the old bytes or the new ones, never half."""
    beside = path.with_name(path.name + ".new")
    with open(beside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def write_json(path, value):
    write(path, json.dumps(value).encode())


def read_json(path, default):
    return json.loads(path.read_bytes()) if path.exists() else default


class Store:
    def __init__(self, folder, factory_root):
        self.folder, self.factory_root = Path(folder), Path(factory_root)
        for name in ("slots", "trust"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def key(self, name):
        path = self.folder / f"{name}.pem"
        if not path.exists():
            write(path, mac.save(mac.new_key()))
            path.chmod(0o600)
        return mac.load(path.read_bytes())

    # Epoch, numbers, floor, halted list, the attempt and the outbox.

    def journal(self):
        return read_json(self.folder / "journal.json", {})

    def save_journal(self, value):
        write_json(self.folder / "journal.json", value)

    # Signed files, byte for byte.

    def trusted(self):
        files = {path.stem: path.read_bytes() for path in (self.folder / "trust").glob("*.json")}
        return files if "root" in files else {"root": self.factory_root.read_bytes()}

    def save_trusted(self, files):
        for old in (self.folder / "trust").glob("*.json"):
            if old.stem not in files:
                old.unlink()
        for role, file in files.items():
            path = self.folder / "trust" / f"{role}.json"
            if not path.exists() or path.read_bytes() != file:
                write(path, file)

    # Two slots. A label says which bytes are vouched for; it goes before the first byte is written.

    def slot(self, name):
        return self.folder / "slots" / f"{name}.img"

    def label(self, name):
        return read_json(self.folder / "slots" / f"{name}.json", None)

    def set_label(self, name, label):
        write_json(self.folder / "slots" / f"{name}.json", label)

    def mark_bad(self, name, length):
        self.set_label(name, None)
        with open(self.slot(name), "wb") as file:
            file.truncate(length)

    def write_chunk(self, name, index, chunk):
        with open(self.slot(name), "r+b") as file:
            file.seek(index * wire.CHUNK)
            file.write(chunk)

    def sync(self, name):
        with open(self.slot(name), "r+b") as file:
            os.fsync(file.fileno())

    def hashes(self, name):
        """(SHA-256, Merkle root) of the bytes as they lie there."""
        image = self.slot(name).read_bytes()
        return hashlib.sha256(image).hexdigest(), wire.merkle_root(image).hex()

    # The boot record, and the loader that reads it.

    def record(self):
        return read_json(self.folder / "boot.json", {"confirmed": "a", "trial": None, "tries": 0})

    def write_record(self, confirmed, trial=None, tries=0):
        write_json(self.folder / "boot.json", {"confirmed": confirmed, "trial": trial, "tries": tries})

    def boot(self):
        """Chooses the slot: a trial while it has tries and its bytes are those of its label, else what is confirmed."""
        record = self.record()
        trial, confirmed = record["trial"], record["confirmed"]
        if trial and record["tries"] > 0:
            self.write_record(confirmed, trial, record["tries"] - 1)
            if self.label(trial) and self.hashes(trial)[0] == self.label(trial)["sha256"]:
                return trial
        return confirmed
