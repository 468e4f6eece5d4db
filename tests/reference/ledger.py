"""Works every verdict of an exported ledger out again: folds its frames by itself, has the reference compute the
evidence, and holds what the line of the verdict says against that.

    ledger.py FRAMES [--now ROLLOUT=LINE]... [--json]

FRAMES holds one JSON object a line: seq, at, and the fact, flat or below "entry" or "fact". --now: the line that
`tern rollout explain` shows at the end of the ledger. Exit 0: all numbers agree; 1: not; 77: no reference.
"""

import argparse
import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

import control
import lines
import oracle
from logs import BAD, EARLY, LAST, TINY_ALPHA, TINY_FLEET, story

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "second-device"))
from wire import position  # noqa: E402  (the other implementation of positions)

CREDIT = 600_000  # milliseconds between two frames that count as received
DEADLINES = {"early": EARLY, "last": LAST}
TOGETHER = 0.5  # of the weight of what is compared with a control, for all models together


@dataclass
class Attempt:
    phase: int
    reports: dict = field(default_factory=dict)
    series: int = -1
    rank: int = 0
    begun: bool = False
    ended: str = ""
    found: dict = field(default_factory=dict)


@dataclass
class Rollout:
    product: str
    salt: bytes
    plan: dict
    rc: int
    phases: list = field(default_factory=list)
    attempts: dict = field(default_factory=dict)
    series: int = 0
    ranks: dict = field(default_factory=dict)


class Clock:
    """The clock of reception: it stands while the service receives nothing."""

    def __init__(self):
        self.on, self.told, self.observed, self.at = True, False, 0, 0

    def now(self, at):
        return self.observed + (min(max(0, at - self.at), CREDIT) if self.on and self.at else 0)

    def frame(self, at, fact):
        if fact == "service-started":
            self.on = False
        self.observed, self.at = self.now(at), at
        if fact == "service-started":
            self.on = not self.told
        elif fact in ("reception-began", "reception-ended"):
            self.told, self.on = True, fact == "reception-began"


class Ledger:
    def __init__(self):
        self.clock, self.devices, self.rollouts, self.numbers = Clock(), {}, {}, set()
        self.applied, self.silenced, self.wrong, self.checked = {}, set(), [], []

    def take(self, seq, at, fact):
        kind = fact["fact"]
        line = fact.get("because", "")
        if kind in ("killed", "paused", "phase-opened", "wave-opened", "hold-back-ended"):
            self.check(seq, fact["rollout"], line, at)
        self.clock.frame(at, kind)
        if kind == "devices-added":
            self.devices.update({entry["device"]: entry for entry in fact["devices"]})
        elif kind == "applied":
            self.applied[fact["device"]] = fact["registry"]
        elif kind == "approved":
            self.devices[fact["device"]] = self.applied[fact["device"]]
        elif kind == "standing-changed":
            (self.silenced.discard if fact["standing"] == "active" else self.silenced.add)(fact["device"])
        elif kind == "rollout-started":
            self.rollouts[fact["rollout"]] = rollout = Rollout(
                fact["product"], bytes.fromhex(fact["salt"]), fact["plan"], fact["rc"])
            rollout.control, rollout.over = control.Control(rollout.plan["policy"]), False
            rollout.had_control = False
            rollout.pooled, rollout.baseline = set(fact.get("pooled", [])), fact.get("baseline", {})
        elif kind == "phase-opened":
            phases = self.rollouts[fact["rollout"]].phases
            self.rollouts[fact["rollout"]].control.held_from(fact.get("held_from"))
            self.rollouts[fact["rollout"]].had_control |= fact.get("held_from") is not None
            if fact["phase"] == len(phases):
                phases.append({**fact, "opened": self.clock.observed, "reach": fact.get("included", fact["devices"])})
        elif kind == "wave-opened":
            phase = self.rollouts[fact["rollout"]].phases[-1]
            phase["reach"] += fact["devices"]
            self.rollouts[fact["rollout"]].control.held_from(fact.get("held_from"))
            phase.update(cuts=fact["cuts"], held_from=fact.get("held_from"), opened=self.clock.observed)
            phase["listed"] = [*phase.get("listed", []), *fact.get("listed", [])]
        elif kind == "hold-back-ended":
            rollout = self.rollouts[fact["rollout"]]
            rollout.phases[-1]["held_from"] = fact.get("held_from")
            rollout.control.held_from(fact.get("held_from"))
            rollout.control.let_go = True
        elif kind in ("killed", "completed"):
            self.rollouts[fact["rollout"]].over = True
        elif kind == "resumed":
            rollout = self.rollouts[fact["rollout"]]
            rollout.series += 1
            rollout.ranks.clear()
            rollout.control.resumed()
            rollout.phases[-1]["opened"] = self.clock.observed
        elif kind == "deadline-passed":
            for silent, names in ((False, fact.get("heard", [])), (True, fact.get("silent", []))):
                for name in names:
                    self.passed(self.rollouts[fact["rollout"]], DEADLINES[fact["deadline"]], name, silent)
        elif kind == "reported":
            self.reported(fact["device"], fact["n"], fact["e"], fact["report"])

    def passed(self, rollout, deadline, name, silent):
        """A deadline found something. Those held back have one after the other; of the others the first finding stands."""
        compared = rollout.control
        model, at = self.devices[name]["model"], self.clock.observed
        if name in compared.beside:
            return compared.due(deadline, model, control.HELD, silent, at)
        attempt = rollout.attempts.get(name)
        if attempt is None or deadline in attempt.found:
            return
        attempt.found[deadline] = silent
        judged = rollout.phases[-1].get("held_from") is not None or any(of == model for _, of in compared.pairs)
        if attempt.series == rollout.series and judged:
            away = deadline == LAST and attempt.ended == "unreachable"
            compared.due(deadline, model, control.TREATED, silent or away, at)

    def fared(self, name, metrics):
        """A device said how its day was, to every rollout in which it is compared."""
        for rollout in self.rollouts.values():
            attempt = rollout.attempts.get(name)
            held = name in rollout.control.beside
            if not rollout.over and (held or attempt and attempt.ended == "success"):
                arm = control.HELD if held else control.TREATED
                rollout.control.fared(name, self.devices[name]["model"], arm, metrics, self.clock.observed)

    def reported(self, name, n, epoch, report):
        rollout = self.rollouts.get(report.get("rollout"))
        if (name, n) in self.numbers:
            return
        self.numbers.add((name, n))
        device = self.devices.get(name)
        if device and report["t"] == "health" and "boots" in report.get("metrics", {}):
            self.fared(name, report["metrics"])
        if not rollout or not device or not rollout.phases or report.get("rc") != rollout.rc:
            return
        attempt = rollout.attempts.get(name)
        if attempt is None:
            place = position(name, rollout.salt)
            held = rollout.phases[-1].get("held_from")
            if report["t"] == "control-start":
                reached = rollout.phases[-1]["cuts"].get(device["model"], 0)
                if held is not None and place >= held and reached and name not in rollout.control.beside:
                    rollout.control.began(name, device["model"], place)
                return
            named = (i for i, p in enumerate(rollout.phases) if name in p.get("listed", []))
            included = (i for i, p in enumerate(rollout.phases) if place < p["cuts"].get(device["model"], 0))
            phase = next(named, None)
            if phase is None and (held is None or place < held):
                phase = next(included, None)
            if phase is None:
                return
            attempt = rollout.attempts[name] = Attempt(phase)
            rollout.control.left(name)
        what = report["t"]
        if what == "transition" and report["to"] == "verify-post":
            what = "trial"
        attempt.reports[n] = (epoch, what, report.get("outcome"))
        begun, ended = story(attempt.reports)
        if attempt.found.get(LAST):
            return
        if begun and not attempt.begun:
            model = device["model"]
            # Whoever begins again in the same series keeps its place.
            if attempt.series != rollout.series:
                attempt.series = rollout.series
                attempt.rank = rollout.ranks[model] = rollout.ranks.get(model, 0) + 1
        attempt.begun = begun
        attempt.ended = attempt.ended or ended

    def covered(self, rollout):
        plan = rollout.plan
        fits = lambda d: d["product"] == rollout.product and all(
            not plan[key + "s"] or d[key] in plan[key + "s"] for key in ("region", "model", "carrier"))
        return sum(fits(d) for name, d in self.devices.items() if name not in self.silenced)

    def counts(self, rollout, phase=None, model=None):
        """Counts of the present series, of one phase or model if asked."""
        c = dict.fromkeys(("n", "bad", "unreachable", "good", "first_bad", EARLY, LAST, "due" + EARLY, "due" + LAST), 0)
        stop = rollout.plan["policy"]["hard_stop"] or {"first": 0}
        for name, a in rollout.attempts.items():
            if a.series != rollout.series or phase not in (None, a.phase):
                continue
            if model is not None and self.devices[name]["model"] not in model:
                continue
            if not a.begun or a.ended == "recalled":
                # A start that was taken back or recalled is judged no more; what a deadline found of it stands.
                standing = False
            else:
                standing = True
            for deadline in (EARLY, LAST):
                if deadline in a.found:
                    c["due" + deadline] += 1
                    c[deadline] += a.found[deadline]
            if standing:
                c["n"] += 1
                c["bad"] += a.ended in BAD
                c["good"] += a.ended == "success"
                c["unreachable"] += a.ended == "unreachable"
                c["first_bad"] += a.ended in BAD and a.rank <= stop["first"]
        c["held"] = c["bad"] + c[LAST] + c["unreachable"]
        c["pending"] = c["n"] - c["good"] - c["held"]
        return c

    def check(self, seq, name, line, at):
        """Holds a line against what the frames before it add up to."""
        found = lines.parse(line)
        rollout = self.rollouts.get(name)
        if found is None or rollout is None or not rollout.phases:
            return
        verdict, form, fields = found
        problems = list(self.problems(rollout, line, verdict, form, fields, at))
        self.checked.append({"seq": seq, "rollout": name, "line": line})
        self.wrong += [f"frame {seq}, {name}: {problem}: {line}" for problem in problems]

    def problems(self, rollout, line, verdict, form, fields, at):
        policy = rollout.plan["policy"]
        phase = len(rollout.phases) - 1
        rule = rollout.plan["phases"][phase]
        begun = {self.devices[name]["model"] for name, a in rollout.attempts.items() if a.series >= 0}
        known = set(rollout.phases[0]["cuts"]) | set(rollout.phases[0].get("goal", {})) | begun
        strata = [{model} for model in sorted(known - rollout.pooled)] + [known & rollout.pooled] * bool(known & rollout.pooled)
        soaked = (self.clock.now(at) - rollout.phases[phase]["opened"]) / 1000
        if form in ("hard-stop", "first-bad", "budget", "evidence", "pair"):
            # The line does not name the model, so one of them must explain it.
            share, together = len(strata), len(strata) > 1 and rollout.had_control
            part = TOGETHER if together else 1
            tried = [list(self.stopping(rollout, policy, (share, part), models, verdict, form, fields, at))
                     for models in strata if models & begun]
            if together and form == "pair" and "all models" in line:
                tried = [list(self.stopping(rollout, policy, (1, TOGETHER), begun, verdict, form, fields, at))]
            yield from min(tried, key=len, default=["nobody started"])
            return
        c = self.counts(rollout, phase=phase)
        if form in ("wave", "room"):
            # Those that a wave counts are of the whole phase, and the time is that since the wave before.
            if (int(fields["bad"]), int(fields["n"])) != (c["held"], c["n"]):
                yield f"{c['held']} are bad of {c['n']}"
            if "soak" in fields and not lines.shows_span(fields["soak"], soaked):
                yield f"the wave before is {soaked} s old"
            return
        shown = {"n": c["n"], "bad": c["held"], "pending": c["pending"]}
        for key, value in shown.items():
            if key in fields and int(fields[key]) != value:
                yield f"{key} is {value}"
        if "pending" not in fields and form in ("proven", "gate", "unproven") and c["pending"]:
            yield f"{c['pending']} are pending"
        if "soak" in fields and not lines.shows_span(fields["soak"], soaked) and verdict == "ADVANCE":
            yield f"it soaked for {soaked} s"
        if verdict == "ADVANCE" and soaked < rule["soak"]:
            yield f"it soaked for {soaked} s of {rule['soak']}"
        if rule["gate"] is None or "bound" not in fields:
            return
        held = c["held"] + c["pending"]
        ln_e, needed = oracle.gate_evidence(c["n"], held, rule["gate"]), math.log(1 / policy["beta"])
        if (ln_e >= needed) != (form == "proven"):
            yield f"ln e is {ln_e}, the gate needs {needed}"
        if "bound" in fields and not lines.shows_percent(fields["bound"], oracle.bound(c["n"], held, policy["beta"])):
            yield f"the bound is {oracle.bound(c['n'], held, policy['beta'])}"
        if "confidence" in fields and not lines.shows_percent(fields["confidence"], 1 - policy["beta"]):
            yield f"the confidence is {1 - policy['beta']}"
        if "need" in fields and not lines.shows_percent(fields["need"], rule["gate"]):
            yield f"the gate is {rule['gate']}"

    def stopping(self, rollout, policy, shares, model, verdict, form, fields, at):
        """What is wrong with a kill or a pause, if it is about this model."""
        share, part = shares
        c = self.counts(rollout, model=model)
        tiny = self.covered(rollout) < TINY_FLEET
        if form == "hard-stop":
            if (int(fields["f"]), int(fields["n"])) != (c["first_bad"], policy["hard_stop"]["first"]):
                yield f"{c['first_bad']} are bad of the first"
            if c["first_bad"] < policy["hard_stop"]["bad"]:
                yield "the hard stop allows that"
            return
        if form == "first-bad":
            if (int(fields["f"]), int(fields["n"])) != (c["bad"], c["n"]) or not tiny or c["n"] >= 10:
                yield f"{c['bad']} are bad of {c['n']}, the fleet is tiny: {tiny}"
            return
        if form == "budget":
            if int(fields["f"]) != c["held"] or c["held"] < policy["harm_budget"]:
                yield f"{c['held']} are bad"
            return
        # Silence and health are judged over all models together too, where there is a control.
        weights = {what: weight * (1 if what == "outcome" else part) for what, weight in policy["weights"].items()}
        if form == "pair":
            now, compared = self.clock.now(at), rollout.control
            few = compared.let_go or compared.exposed(model) < control.FEWEST
            regression = 1 + policy["max_regression"]
            tests = {
                "silent": [
                    (compared.silence(LAST, model, now), control.RATIO, weights["silence"], few, policy["silence_deadline"]["max_rate"]),
                    (compared.silence(EARLY, model, now), control.RATIO, weights["silence_early"], few, policy["silence_early"]["max_rate"]),
                ],
                "crashes": [(compared.health("crash", model, now), regression, weights["crash"], False, None)],
                "battery drain": [(compared.health("battery", model, now), regression, weights["battery"], False, None)],
            }
            tried = [list(self.compared(policy, share, tiny, verdict, fields, *test)) for test in tests[fields["what"]]]
            yield from min(tried, key=len)
            return
        limits = self.limits(rollout, policy, model)
        if fields.get("what") == "bad":
            tests = [("n", "bad", p, weights["outcome"] / len(limits)) for p in limits]
        elif fields.get("what") == "unreachable":
            tests = [("n", "unreachable", policy["silence_deadline"]["max_rate"], weights["silence"])]
        else:
            after = int(fields["after"])
            rules = {EARLY: ("silence_early", "silence_early"), LAST: ("silence_deadline", "silence")}
            tests = [("due" + deadline, deadline, policy[rule]["max_rate"], weights[weight])
                     for deadline, (rule, weight) in rules.items()
                     if lines.shows_span(f"{after} {fields['unit']}", policy[rule]["after"])]
        tried = [list(self.weighed(policy, share, tiny, verdict, fields, c, test)) for test in tests]
        yield from min(tried, key=len, default=["no deadline is so long"])

    def compared(self, policy, share, tiny, verdict, fields, pair, ratio, weight, few, allowed):
        """What is wrong with a line about a control, if it is about this comparison."""
        shown = tuple(int(fields[key]) for key in ("f", "n", "cf", "cn"))
        counted = (pair.events[0], pair.exposed[0], pair.events[1], pair.exposed[1])
        if shown != counted:
            yield "released {}/{} vs control {}/{}".format(*counted)
        if few:
            yield f"the control has fewer than {control.FEWEST} devices, or was let go"
        if float(fields["ratio"]) != ratio:
            yield f"the ratio is {ratio}"
        alpha = policy["alpha"] if verdict == "KILL" else policy["alpha_pause"]
        alpha = max(alpha, TINY_ALPHA) if tiny and verdict == "KILL" else alpha
        ln_e, needed = oracle.pair_evidence(pair.sums), math.log(1 / (alpha * weight / share))
        if allowed is not None:
            # More than the control, and more than is allowed anyway.
            ln_e = min(ln_e, oracle.kill_evidence(pair.exposed[0], pair.events[0], allowed))
        if (fields.get("allowed") is None) != (allowed is None) or allowed is not None and not lines.shows_percent(fields["allowed"], allowed):
            yield f"{allowed} is allowed"
        if ln_e < needed:
            yield f"ln e is {ln_e}, it takes {needed}"
        if not lines.shows_odds(fields["odds"], ln_e):
            yield f"the evidence is {math.exp(ln_e)} : 1"
        if not lines.shows_odds(fields["needed"], needed):
            yield f"{math.exp(needed)} : 1 are needed"

    def limits(self, rollout, policy, models):
        """The failure rates that the kill test tries to refute."""
        absolute = policy["max_failure_rate"]
        known = [rollout.baseline[model] for model in models if model in rollout.baseline]
        started, bad = sum(b["started"] for b in known), sum(b["bad"] for b in known)
        if policy["claim"] == "absolute" or not started:
            return [absolute]
        allowed = max(oracle.bound(started, bad, 0.05), 0.001) * (1 + policy["max_regression"])
        relative = round(min(allowed, 0.9), 9)
        if policy["claim"] == "relative":
            return [relative]
        return [absolute] if relative >= absolute else [absolute, relative]

    def weighed(self, policy, share, tiny, verdict, fields, c, test):
        key_n, key_f, p, weight = test
        n, f = c[key_n], c[key_f]
        if (int(fields["f"]), int(fields["n"])) != (f, n):
            yield f"{f} of {n} are counted"
            return
        killing = verdict == "KILL" or "outage" in fields
        alpha = policy["alpha"] if killing else policy["alpha_pause"]
        alpha = max(alpha, TINY_ALPHA) if tiny and killing else alpha
        ln_e, needed = oracle.kill_evidence(n, f, p), math.log(1 / (alpha * weight / share))
        if ln_e < needed:
            yield f"ln e is {ln_e}, it takes {needed}"
        if not lines.shows_odds(fields["odds"], ln_e):
            yield f"the evidence is {math.exp(ln_e)} : 1"
        if not lines.shows_odds(fields["needed"], needed):
            yield f"{math.exp(needed)} : 1 are needed"
        if not lines.shows_percent(fields["share"], f / n):
            yield f"the share is {f / n}"
        if not lines.shows_percent(fields["allowed"], p):
            yield f"{p} is allowed"


def facts(path):
    """Frames in order: (seq, at, fact), however the fact is wrapped."""
    for line in open(path):
        frame = json.loads(line)
        entry = frame.get("entry", frame)
        if isinstance(entry.get("fact"), dict):
            entry = {**entry, **entry["fact"]}
        yield frame.get("seq"), entry.get("at", frame.get("at")), entry


def main():
    arguments = argparse.ArgumentParser(description="Work the verdicts of an exported ledger out again")
    arguments.add_argument("frames")
    arguments.add_argument("--now", action="append", default=[], metavar="ROLLOUT=LINE", help="a line that is true at the end")
    arguments.add_argument("--json", action="store_true", help="print one JSON object")
    given = arguments.parse_args()
    ledger, seq, at = Ledger(), 0, 0
    for seq, at, fact in facts(given.frames):
        ledger.take(seq, at, fact)
    for now in given.now:
        name, _, line = now.partition("=")
        ledger.check(seq, name, line, at)
    result = {"verdicts": len(ledger.checked), "checked": ledger.checked, "wrong": ledger.wrong}
    print(json.dumps(result) if given.json else "\n".join([*ledger.wrong, f"{len(ledger.checked)} verdicts, {len(ledger.wrong)} wrong"]))
    sys.exit(1 if ledger.wrong else 0)


if __name__ == "__main__":
    main()
