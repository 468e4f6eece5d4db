"""A second device: docs/protocol.md in Python. Run as `device.py CONFIG identity | provision IMAGE RC VERSION | run`.

A process is a boot: to reboot, it starts itself anew, and everything it then knows was on the disk.
"""

import json
import logging
import os
import sys
import time
from pathlib import Path

import mac
from link import DOWN, MESSAGE, UP, Link
from machine import Machine
from store import Store

log = logging.getLogger("device")


class Config:
    def __init__(self, path):
        values = json.loads(Path(path).read_text())
        self.fleet, self.device = values["fleet"], values["device"]
        self.host, self.port = values["broker"].rsplit(":", 1)
        self.registry = {name: values[name] for name in ("product", "model", "carrier", "region")}
        self.component = values.get("component", "rootfs")
        self.data, self.root = values["data"], values["root"]
        self.claim = values.get("claim")
        self.resend = values.get("resend", 10)
        self.soak = values.get("soak", 900)
        # A release is well if its image begins with this text: the one thing that this device can look at.
        self.healthy = values.get("healthy", "").encode()


def identity(config, store):
    keys = {"device": config.device, "identity": mac.point(store.key("identity")).hex()}
    print(json.dumps(keys | config.registry, separators=(",", ":")))


def provision(config, store, image, rc, version):
    store.slot("a").write_bytes(Path(image).read_bytes())
    sha256, root = store.hashes("a")
    store.set_label("a", {"rc": int(rc), "version": version, "sha256": sha256, "root": root})
    store.write_record("a")


def run(config, store):
    machine = Machine(config, store)
    link = Link(config.device, config.host, int(config.port), machine.topics.up("presence"))
    machine.link = link
    while not machine.rebooting:
        event = link.next(machine.patience(time.monotonic()))
        now = time.monotonic()
        if event is None:
            pass
        elif event[0] == UP:
            machine.connected(now)
        elif event[0] == DOWN:
            machine.disconnected()
        elif event[0] == MESSAGE:
            try:
                machine.message(event[1], event[2], now)
            except (ValueError, KeyError, TypeError, LookupError, AttributeError) as error:
                log.warning("a message on %s is not understood: %r", event[1], error)
        machine.step(now)
    link.close()
    os.execv(sys.executable, [sys.executable, *sys.argv])


def main():
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    config = Config(sys.argv[1])
    store = Store(config.data, config.root)
    {"identity": identity, "provision": provision, "run": run}[sys.argv[2]](config, store, *sys.argv[3:])


if __name__ == "__main__":
    main()
