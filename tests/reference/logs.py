"""Counts and judges event logs by itself, with the arithmetic of the reference, and compares with what the service made
of the same logs.

    logs.py LOGS FINDINGS [--json]      what `event-logs make` and `event-logs play` printed

Exit 0: the same; 1: they differ, and where; 77: the reference is absent, and nothing was compared.
"""

import argparse
import heapq
import json
import math
import sys
from dataclasses import dataclass, field

import oracle

# Evidence is written to six decimals, so it is compared to that.
NEAR = 1e-6
STRATUM_MIN = 20
TINY_FLEET, TINY_ALPHA = 200, 0.01
BAD = {"failed", "rolled-back"}
EARLY, LAST = "silence-early", "silence"
# At one moment: what a device says comes before what its silence says.
REPORT, DEADLINE = 0, 1


@dataclass
class Device:
    model: str
    reports: dict = field(default_factory=dict)  # number -> (epoch, what, outcome), each once
    highest: int = 0  # epoch
    begun: bool = False
    since: int = 0
    epoch: int = 0
    rank: int = 0
    heard: bool = False
    ended: str = ""
    due: dict = field(default_factory=dict)  # deadline -> when
    found: dict = field(default_factory=dict)  # deadline -> was it silent


@dataclass
class Model:
    starts: int = 0  # devices of all times: one that took its start back keeps its place among the first
    started: int = 0
    bad: int = 0
    first_bad: int = 0
    due: dict = field(default_factory=lambda: {EARLY: 0, LAST: 0})
    silent: dict = field(default_factory=lambda: {EARLY: 0, LAST: 0})


def story(reports):
    """What a device's reports say in the order in which it made them: does a start stand, and how did it end?"""
    begun, end = False, ""
    for _, what, outcome in (report for _, report in sorted(reports.items())):
        if what in ("started", "trial"):
            begun = True
        elif what == "outcome" and begun and outcome == "deferred":
            begun = False
        elif what == "outcome" and begun:
            return True, outcome
    return begun, end


class Judge:
    """One log."""

    def __init__(self, log):
        policy = log["policy"]
        self.log = log
        self.devices = {device: Device(model) for device, model in log["devices"]}
        self.models = {model: Model() for _, model in log["devices"]}
        self.alpha = policy["alpha"]
        if len(self.devices) < TINY_FLEET:
            self.alpha = max(self.alpha, TINY_ALPHA)
        self.stop = policy["hard_stop"]
        weights = policy["weights"]
        # Models with few devices are judged together. Every stratum has a share of its own, from the first start to the last.
        size = {model: sum(of == model for _, of in log["devices"]) for model in self.models}
        self.strata = {}
        for model in sorted(self.models):
            self.strata.setdefault(model if size[model] >= STRATUM_MIN else "", []).append(self.models[model])
        share = len(self.strata)
        self.tests = [
            ("outcome", policy["max_failure_rate"], weights["outcome"] / share),
            (LAST, policy["silence_deadline"]["max_rate"], weights["silence"] / share),
            (EARLY, policy["silence_early"]["max_rate"], weights["silence_early"] / share),
        ]
        self.wait = {
            EARLY: policy["silence_early"]["after"] * 1000,
            LAST: policy["silence_deadline"]["after"] * 1000,
        }
        self.queue = [(line["at"], REPORT, i, line["device"]) for i, line in enumerate(log["lines"])]
        heapq.heapify(self.queue)
        self.peak = self.end = -math.inf
        self.lines = 0

    def run(self):
        """Returns the kill, or nothing."""
        while self.queue:
            at, kind, what, device = heapq.heappop(self.queue)
            before = self.counted()
            if kind == REPORT:
                self.lines += 1
                self.report(at, self.log["lines"][what])
            else:
                self.deadline(at, what, device)
            if self.counted() == before:
                continue
            if kill := self.judged():
                return {"at": at, "lines": self.lines, "device": device, **kill}
        return None

    def counted(self):
        return [(m.starts, m.started, m.bad, *m.due.values(), *m.silent.values()) for m in self.models.values()]

    def report(self, at, line):
        device = self.devices[line["device"]]
        # (device, number) is a report's name: twice is once. An epoch that is over is no longer believed.
        if line["n"] in device.reports or line["e"] < device.highest:
            return
        device.highest = line["e"]
        device.reports[line["n"]] = (line["e"], line["what"], line.get("outcome"))
        if device.begun and line["e"] > device.epoch:
            device.heard = True
        begun, ended = story(device.reports)
        if device.found.get(LAST):
            return  # the first verdict stands
        model = self.models[device.model]
        if begun and not device.begun:
            device.begun, device.since, device.epoch = True, at, line["e"]
            # What runs on trial has come up, and so has what is known from a later boot.
            device.heard = line["what"] == "trial"
            model.started += 1
            # Whoever begins again keeps its place.
            if not device.rank:
                model.starts += 1
                device.rank = model.starts
            for deadline, wait in self.wait.items():
                if deadline not in device.found:
                    device.due[deadline] = at + wait
                    heapq.heappush(self.queue, (at + wait, DEADLINE, deadline, line["device"]))
        elif device.begun and not begun:
            device.begun = False
            model.started -= 1
        if ended and not device.ended:
            device.ended = ended
            if ended in BAD:
                model.bad += 1
                model.first_bad += bool(self.stop) and device.rank <= self.stop["first"]

    def deadline(self, at, deadline, name):
        device = self.devices[name]
        # It took its start back, or began again since.
        if not device.begun or device.due[deadline] != at or deadline in device.found:
            return
        ended = bool(device.ended)
        device.found[deadline] = silent = not (ended or (deadline == EARLY and device.heard))
        model = self.models[device.model]
        model.due[deadline] += 1
        model.silent[deadline] += silent

    def sums(self):
        """What was counted, by model."""
        named = lambda m: {"started": m.started, "bad": m.bad, "due_early": m.due[EARLY],
                           "silent_early": m.silent[EARLY], "due": m.due[LAST], "silent": m.silent[LAST]}
        return {name: named(model) for name, model in self.models.items() if model.starts}

    def judged(self):
        self.end = -math.inf
        kill = None
        # Those that are judged together come first.
        for name in sorted(self.strata):
            models = self.strata[name]
            first_bad = max(model.first_bad for model in models)
            if self.stop and first_bad >= self.stop["bad"]:
                kill = kill or {"test": "hard-stop", "n": self.stop["first"], "f": first_bad}
            if not any(model.starts for model in models):
                continue
            total = lambda of: sum(of(model) for model in models)
            for test, p, weight in self.tests:
                if test == "outcome":
                    n, f = total(lambda m: m.started), total(lambda m: m.bad)
                else:
                    n, f = total(lambda m: m.due[test]), total(lambda m: m.silent[test])
                ln_e, threshold = oracle.kill_evidence(n, f, p), math.log(1 / (self.alpha * weight))
                self.end = max(self.end, ln_e - threshold)
                if ln_e >= threshold:
                    weighed = {"p": p, "alpha": self.alpha, "weight": weight, "ln_e": ln_e, "threshold": threshold}
                    kill = kill or {"test": test, "n": n, "f": f, "weighed": weighed}
        self.peak = max(self.peak, self.end)
        return kill


def differences(ours, theirs, path=""):
    """What differs between two values; evidence may by as much as its last written digit."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in ours:
            yield from differences(ours[key], theirs.get(key), f"{path}.{key}" if path else key)
    elif isinstance(ours, float) and isinstance(theirs, float):
        if not abs(ours - theirs) <= NEAR:
            yield f"{path}: reference {ours}, service {theirs}"
    elif ours != theirs:
        yield f"{path}: reference {ours}, service {theirs}"


def strange(log):
    """Does this log hold repeated reports, and reports that were overtaken?"""
    seen, highest, repeated, overtaken = set(), {}, False, False
    for line in log["lines"]:
        key = (line["device"], line["n"])
        repeated |= key in seen
        overtaken |= key not in seen and line["n"] < highest.get(line["device"], 0)
        seen.add(key)
        highest[line["device"]] = max(highest.get(line["device"], 0), line["n"])
    return repeated, overtaken


def main():
    arguments = argparse.ArgumentParser(description="Compare what the service made of event logs with the reference")
    arguments.add_argument("logs")
    arguments.add_argument("findings")
    arguments.add_argument("--json", action="store_true", help="print one JSON object")
    given = arguments.parse_args()
    logs = [json.loads(line) for line in open(given.logs)]
    findings = [json.loads(line) for line in open(given.findings)]
    if len(logs) != len(findings):
        sys.exit(f"{len(logs)} logs and {len(findings)} findings: play the same file")
    sums = dict.fromkeys(("logs", "lines", "kills", "near", "near_kills", "repeated", "overtaken"), 0)
    by_test, wrong, furthest = {}, [], 0.0
    for log, theirs in zip(logs, findings):
        judge = Judge(log)
        kill = judge.run()
        ours = {"log": log["log"], "kill": kill, "peak": judge.peak, "end": judge.end, "counts": judge.sums(),
                "replays": True}
        wrong += [f"log {log['log']} ({log['profile']}): {text}" for text in differences(ours, theirs)]
        repeated, overtaken = strange(log)
        near = abs(judge.end) < 1
        sums["logs"] += 1
        sums["lines"] += len(log["lines"])
        sums["kills"] += kill is not None
        sums["near"] += near
        sums["near_kills"] += near and kill is not None
        sums["repeated"] += repeated
        sums["overtaken"] += overtaken
        if kill:
            by_test[kill["test"]] = by_test.get(kill["test"], 0) + 1
            if "weighed" in kill and theirs["kill"] and theirs["kill"]["weighed"]:
                furthest = max(furthest, abs(kill["weighed"]["ln_e"] - theirs["kill"]["weighed"]["ln_e"]))
    result = {**sums, "kills_by_test": by_test, "furthest_ln_e": furthest, "differences": len(wrong)}
    if given.json:
        print(json.dumps({**result, "examples": wrong[:20]}))
    else:
        print(f"{sums['logs']} logs with {sums['lines']} reports, {sums['repeated']} with repeated ones and "
              f"{sums['overtaken']} with overtaken ones")
        print(f"{sums['kills']} killed: " + ", ".join(f"{n} by {test}" for test, n in sorted(by_test.items())))
        print(f"{sums['near']} end within 1 of a threshold in ln e, {sums['near_kills']} of them killed")
        print(f"{len(wrong)} differences in kill, moment, device, test, n, f, share, evidence; "
              f"ln e differs by {furthest:.1e} at most")
        for text in wrong[:20]:
            print(text)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
