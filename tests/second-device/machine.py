"""The device between its messages: greets, follows signed files, and hands what is offered to the update."""

import json
import logging
import time

import mac
import wire
from files import Files
from offer import offer
from reports import Reports
from trust import Trust
from update import Update

log = logging.getLogger("device")
DAY = 86400
CLOCK_WAS_SET = 1767225600  # 2026-01-01


class Machine:
    def __init__(self, config, store):
        self.config, self.store = config, store
        self.keys = store.key("identity"), store.key("telemetry")
        fresh = {"epoch": 0, "n": 0, "outbox": [], "floor": 0, "halted": [], "registry": config.registry, "enrolled": False, "shown": 0}
        self.j = fresh | store.journal()
        self.j["epoch"] += 1
        self.running = store.boot()
        self.save()
        self.topics = wire.Topics(config.fleet, config.device)
        self.trust = Trust(store.trusted())
        self.learn_halted()
        self.files = Files(self.trust)
        self.reports = Reports(self.j, config.device, self.keys[0], self.publish, self.enrol, self.save, config.resend)
        self.update = Update(self)
        self.link, self.online, self.rebooting = None, False, False
        self.find_codes()
        log.info("%s boots slot %s, rc %s, epoch %s", config.device, self.running, self.rc, self.j["epoch"])

    @property
    def rc(self):
        return self.store.label(self.running)["rc"]

    def save(self):
        self.store.save_journal(self.j)

    def wall(self):
        """The later of the clock and the time that an answer showed; a clock that was ever set moves by a day at most."""
        clock = int(time.time())
        return max(clock, min(self.j["shown"], clock + DAY) if clock >= CLOCK_WAS_SET else self.j["shown"])

    def patience(self, now):
        times = [self.reports.next_due(), self.files.due, self.update.due(now)]
        return max(0.01, min([at - now for at in times if at is not None] + [5]))

    def learn_halted(self):
        """What was once halted stays halted, whatever becomes of the halt file or of the journal."""
        self.j["halted"] = sorted(set(self.j["halted"]) | self.trust.halted())
        self.save()

    # The connection.

    def publish(self, kind, payload, qos=1):
        if self.online:
            self.link.publish(self.topics.up(kind), payload, qos)

    def get(self, request):
        self.publish("get", json.dumps(request, separators=(",", ":")).encode(), 0)

    def subscriptions(self):
        registry = self.j["registry"]
        return self.topics.down(registry["product"], registry["region"])

    def connected(self, now):
        self.online = True
        self.link.subscribe(self.subscriptions())
        self.publish("presence", b'{"online": true}')
        self.files.schedule(now, True)
        self.greet(now)

    def disconnected(self):
        self.online = self.reports.greeted = False

    def enrol(self):
        """What it proves is what it was configured as: the registry's word is the service's own."""
        config = self.config
        self.publish("enrol", mac.enrol(config.fleet, config.device, *self.keys, config.claim, config.registry))

    def greet(self, now):
        label = self.store.label(self.running)
        halted = sorted(self.j["halted"], reverse=True)[:32]
        hello = {"running": self.rc, "agent": "second-device", **self.j["registry"], "floor": self.j["floor"]}
        hello |= {"versions": self.trust.versions(), "halted": halted, "components": {self.config.component: label["version"]}}
        self.reports.greet(**hello)
        self.reports.send_due(now)

    def find_codes(self):
        """Codes need the service's telemetry key, and that stands in targets: before it nothing can be sealed."""
        key = self.trust.telemetry()
        if key and (not self.reports.codes or self.reports.codes.kid != key[0]):
            self.reports.codes = mac.Codes(self.keys[1], key[1], self.config.fleet, self.config.device, key[0])

    # Messages.

    def message(self, topic, payload, now):
        if topic == self.topics.pack:
            self.update.pack(wire.Pack(payload), now)
        elif topic != self.topics.inbox or payload.startswith(b"TRNB"):
            self.bundle(topic, payload, now)
        else:
            self.answer(self.reports.open(payload), now)

    def bundle(self, topic, payload, now):
        if not payload:
            return  # a cohort topic that was cleared: no information
        if self.files.take(topic, payload, now, self.wall()):
            self.store.save_trusted(self.trust.files())
            self.learn_halted()
            self.find_codes()
            log.info("trusts %s, halted %s", self.trust.versions(), self.j["halted"])
        for alarm in self.trust.alarms:
            log.warning("refused %s", alarm)
        self.trust.alarms.clear()
        if topic == self.topics.inbox:
            self.files.answered()

    def answer(self, body, now):
        if body is None:
            log.warning("an answer that is not authentic")
            return
        if not self.j["enrolled"]:
            self.j["enrolled"] = True
            self.save()
        if body["t"] == "ack":
            self.reports.acked(body["ranges"])
            self.adopt(body.get("registry"))
        elif body["t"] == "answer":
            self.reports.acked(body.get("ranges", []))
            self.j["shown"] = max(self.j["shown"], body["time"])
            if self.reports.answers_ours(body, now):
                self.update.answer = body
                self.files.expect({"rollout": body["rollout"], "halt": body["halt"]}, now)
        elif body["t"] == "challenge":
            self.reports.challenged(body)
        elif body["t"] == "grant" and self.reports.granted(body):
            log.info("granted epoch %s, numbers above %s", self.j["epoch"], self.j["n"])
            self.greet(now)
        else:
            log.warning("a %s that is not for now", body["t"])

    def adopt(self, registry):
        """What the service says that this device is, wins."""
        if registry and registry != self.j["registry"]:
            old = set(self.subscriptions())
            self.j["registry"] = registry
            self.save()
            self.link.unsubscribe(sorted(old - set(self.subscriptions())))
            self.link.subscribe(self.subscriptions())

    # Whatever happened: what is owed now.

    def step(self, now):
        if self.reports.deaf:
            self.greet(now)
        self.reports.send_due(now)
        request = self.online and self.files.request(self.j["registry"]["product"], now)
        if request:
            self.get(request)
        found = offer(self.trust, self.config.device, self.j["registry"], self.rc, self.j["halted"])
        self.update.step(found, now)
        self.reports.send_due(now)
