"""The update machine of docs/design.md, for a device whose slots are files. One attempt, kept in the journal.

State names are those of reports. The state is saved before what it owes is done, so a restart asks again.
"""

import dataclasses
import logging

import wire
from download import Download

log = logging.getLogger("device")
ASK_AGAIN, GIVE_UP = 60, 600
RETRY, RETRIES = 30, 5
BEFORE_START = ("checking", "downloading", "verifying", "pre-updating", "retry")


class Update:
    def __init__(self, machine):
        self.m, self.reports, self.store = machine, machine.reports, machine.store
        self.answer = None  # the answer to the open nonce
        self.download = None
        self.hashed = self.probed = False
        self.asked = self.started = self.soaked = self.wait_until = None

    @property
    def attempt(self):
        return self.m.j.get("attempt")

    @property
    def slot(self):
        return {"a": "b", "b": "a"}[self.store.record()["confirmed"]]

    def names(self):
        return {name: self.attempt[name] for name in ("rc", "rollout", "attempt")}

    def goto(self, state, reason=None, **change):
        before = self.attempt["state"]
        log.info("%s → %s%s", before, state, f": {reason}" if reason else "")
        self.attempt.update(state=state, **change)
        self.asked, self.answer, self.hashed = None, None, False
        self.reports.add("transition", **self.names(), **{"from": before, "to": state}, **({"reason": reason} if reason else {}))

    def end(self, outcome, state, reason=None):
        """Reports how a start ended, after the step that ended it."""
        names = self.names()
        self.goto(state, reason)
        self.reports.add("outcome", **names, outcome=outcome, **({"reason": reason} if reason else {}))
        if state == "failed":
            self.m.j["finished"] = [self.attempt["rollout"], self.attempt["attempt"]]
        if state in ("failed", "idle"):
            self.rest(state)

    def rest(self, state):
        self.m.j["attempt"], self.m.j["rests"] = None, state
        self.download = self.wait_until = self.started = None
        self.m.save()

    # One step.

    def step(self, offer, now):
        if self.attempt is None:
            if offer is None or [offer.rollout, offer.attempt] == self.m.j.get("finished"):
                return
            # A device that gave up rests in `failed`, and begins from there.
            self.m.j["attempt"] = dataclasses.asdict(offer) | {"state": self.m.j.get("rests", "idle")}
            self.goto("checking")
        if self.recalled() or self.withdrawn(offer):
            return
        state = None
        # Several states may pass in one step; each is saved and reported.
        while self.attempt and state != self.attempt["state"] and not self.m.rebooting:
            state = self.attempt["state"]
            getattr(self, state.replace("-", "_"))(now)

    def recalled(self):
        attempt = self.attempt
        if attempt["rc"] not in self.m.j["halted"] or attempt["state"] in ("success", "rollback"):
            return False
        self.reports.add("halted", **self.names(), state=attempt["state"])
        if attempt["state"] in BEFORE_START or (attempt["state"] == "updating" and not self.started):
            self.goto("idle", "halted")
            self.rest("idle")
        elif attempt["state"] == "updating" and not attempt.get("armed"):
            self.end("recalled", "idle", "halted")
        else:
            self.goto("rollback", "halted", outcome="recalled")
        return self.attempt is None

    def withdrawn(self, offer):
        """Drops what is not offered any more as long as nothing is armed."""
        attempt = self.attempt
        same = offer and (offer.rollout, offer.attempt, offer.rc) == tuple(attempt[k] for k in ("rollout", "attempt", "rc"))
        if same or attempt["state"] not in (*BEFORE_START, "updating") or attempt.get("armed"):
            return False
        if attempt["state"] == "updating" and self.started:
            self.end("deferred", "verifying", "no longer offered")
        self.goto("idle", "no longer offered")
        self.rest("idle")
        return True

    def checking(self, now):
        a, j = self.attempt, self.m.j
        wrong = [
            (a["component"] != self.m.config.component, f"component {a['component']}"),
            (self.m.rc < a["min_from"], f"needs {a['min_from']} first"),
            (a["rc"] < j["floor"], f"below the floor {j['floor']}"),
            # It knows of no other component, so whatever is required of one is not met.
            (bool(a.get("requires")), f"requires {a.get('requires')}, which this device does not know"),
        ]
        reasons = [text for is_wrong, text in wrong if is_wrong]
        if reasons:
            self.end("failed", "failed", reasons[0])
        else:
            self.goto("downloading")

    def downloading(self, now):
        if self.download is None:
            self.store.mark_bad(self.slot, self.attempt["length"])
            self.download = Download(self.attempt, lambda index, chunk: self.store.write_chunk(self.slot, index, chunk))
            # So that a wave does not ask all at once.
            self.wait_until = now + wire.spread(self.m.config.device, self.attempt["spread"])
        if self.download.complete:
            self.store.sync(self.slot)
            self.download = self.wait_until = None
            self.goto("verifying")
        elif self.m.online and now >= self.wait_until:
            self.wait_until = now
            wants = self.download.wants(now)
            if wants:
                self.m.get({"want": wants})

    def pack(self, pack, now):
        if self.download:
            self.download.take(pack, now)

    def verifying(self, now):
        if not self.hashed:
            if self.store.hashes(self.slot) != (self.attempt["sha256"], self.attempt["root"]):
                self.goto("retry", "bad bytes in the slot")
                return
            label = {name: self.attempt[name] for name in ("rc", "version", "sha256", "root")}
            self.store.set_label(self.slot, label)
            self.hashed = True
        if self.answered(now):
            self.goto("pre-updating")

    def answered(self, now):
        """Whether an answer to a nonce of this state is here and names nothing newer than what is held; else asks."""
        answer = self.answer
        if answer and self.reports.answers_ours(answer, now):
            held = self.m.trust.versions()
            if all(answer[role] <= held[role] for role in ("rollout", "halt")):
                return True
        elif self.reports.greeted and (self.asked is None or now >= self.asked + ASK_AGAIN):
            self.asked = now
            self.reports.ask(now, **self.names())
        return False

    def pre_updating(self, now):
        # No hooks: nothing to run, nothing to undo.
        self.started = None
        self.goto("updating")

    def updating(self, now):
        if self.attempt.get("armed"):
            return self.booted()
        if self.started is None:
            self.started = self.asked = now
            self.reports.add("started", nonce=self.reports.new_nonce(now), **self.names())
        # The start counts only once it is in the ledger: an answer alone does not say that.
        if self.answered(now) and not self.reports.start_waits():
            self.attempt["armed"] = True
            self.m.save()
            self.store.write_record(self.store.record()["confirmed"], self.slot, 2)
            self.m.rebooting = True
        elif now > self.started + GIVE_UP:
            self.started = None
            self.end("deferred", "verifying", "no answer to the start")

    def booted(self):
        if self.store.record()["trial"] is None:
            # The power went before the record was written; the answer is stale by now.
            self.attempt["armed"] = False
        elif self.m.running == self.store.record()["trial"]:
            self.goto("verify-post")
        else:
            self.goto("rollback", "the trial did not boot", outcome="rolled-back")

    def verify_post(self, now):
        if self.m.running != self.store.record()["trial"]:
            self.goto("rollback", "the trial did not stay up", outcome="rolled-back")
            return
        if not self.probed:
            with open(self.store.slot(self.m.running), "rb") as image:
                if not image.read(len(self.m.config.healthy)) == self.m.config.healthy:
                    self.goto("rollback", "probe: the image is not well", outcome="rolled-back")
                    return
            self.probed = True
        if self.soaked is None and self.answered(now):
            self.soaked = now + self.m.config.soak
            self.answer, self.asked = None, None
        if self.soaked is not None and now >= self.soaked and self.answered(now):
            self.goto("success")

    def success(self, now):
        # Confirm before reporting: a report that is not kept would let the gate advance.
        self.store.write_record(self.m.running)
        self.m.j["floor"] = max(self.m.j["floor"], self.attempt["floor"])
        self.end("success", "idle")

    def rollback(self, now):
        record = self.store.record()
        if self.m.running != record["confirmed"]:
            self.store.write_record(record["confirmed"])
            self.m.rebooting = True
        else:
            self.store.write_record(record["confirmed"])
            self.end(self.attempt["outcome"], "failed", "back on the previous release")

    def retry(self, now):
        tries = self.attempt.get("tries", 0)
        if self.wait_until is None:
            self.wait_until = now + RETRY * 2**tries
        elif now >= self.wait_until:
            self.wait_until = None
            if tries + 1 >= RETRIES:
                self.end("failed", "failed", "bad bytes in the slot, again and again")
            else:
                self.goto("downloading", tries=tries + 1)

    def due(self, now):
        times = [self.soaked, self.wait_until, self.asked and self.asked + ASK_AGAIN]
        if self.download and self.download.asked:
            times.append(self.download.asked + self.download.wait)
        return min((at for at in times if at is not None and at > now), default=None)
