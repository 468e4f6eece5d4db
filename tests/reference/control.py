"""Counts what a control and the devices beside it showed, from the frames of a ledger: which of them were silent, and which had
a bad day, in the same ticks. The evidence of a tick is the reference's."""

from dataclasses import dataclass, field

import oracle

FEWEST = 20  # devices of a control that judges silence
RATIO = 2  # silence beside a control
CRASHES = ("crashes", "panics", "watchdog-resets", "modem-resets")
BOOT_LOOP = 4
TREATED, HELD = 0, 1


@dataclass
class Pair:
    """One comparison: the ticks that are over, and the one that goes on."""

    sums: list = field(default_factory=lambda: [0.0] * len(oracle.RATIOS))
    events: list = field(default_factory=lambda: [0, 0])
    exposed: list = field(default_factory=lambda: [0, 0])
    tick: tuple = ()  # since, events, exposed

    def over(self, at, longest):
        """Does the tick that goes on end by now? It waits for both arms, and for a lone one not longer than a deadline."""
        since, _, exposed = self.tick
        return at - since >= longest or all(exposed) and at - since >= longest // 4

    def ended(self, ratio):
        """Returns this comparison with its tick added."""
        _, events, exposed = self.tick
        sums = self.sums
        if all(exposed):
            sums = [a + b for a, b in zip(sums, oracle.pair_tick(*events, *exposed, ratio))]
        add = lambda a, b: [x + y for x, y in zip(a, b)]
        return Pair(sums, add(self.events, events), add(self.exposed, exposed))

    def add(self, arm, event, since):
        if not self.tick:
            self.tick = (since, [0, 0], [0, 0])
        self.tick[1][arm] += bool(event)
        self.tick[2][arm] += 1


def merged(pairs):
    """Several models that are judged together."""
    whole = Pair()
    for pair in pairs:
        whole.sums = [a + b for a, b in zip(whole.sums, pair.sums)]
        whole.events = [a + b for a, b in zip(whole.events, pair.events)]
        whole.exposed = [a + b for a, b in zip(whole.exposed, pair.exposed)]
    return whole


class Control:
    """The control of one rollout."""

    def __init__(self, policy):
        self.policy, self.beside, self.pairs, self.windows, self.let_go = policy, {}, {}, {}, False

    def began(self, name, model, place):
        """A held-back device is exposed from here on."""
        self.beside[name] = (model, place)

    def left(self, name):
        self.beside.pop(name, None)

    def held_from(self, place):
        """From here on devices are held back; the others are beside nobody any more."""
        kept = {name: at for name, at in self.beside.items() if place is not None and at[1] >= place}
        self.beside = kept

    def resumed(self):
        """A new series compares anew; windows that were counted stay counted."""
        self.pairs.clear()

    def exposed(self, models):
        return sum(model in models for model, _ in self.beside.values())

    def due(self, deadline, model, arm, silent, at):
        longest = self.policy["silence_early"]["after"] * 1000
        pair = self.pairs.get((deadline, model), Pair())
        if pair.tick and pair.over(at, longest):
            pair = pair.ended(RATIO)
        pair.add(arm, silent, at)
        self.pairs[deadline, model] = pair

    def silence(self, deadline, models, at):
        longest = self.policy["silence_early"]["after"] * 1000
        pairs = [self.pairs.get((deadline, model), Pair()) for model in sorted(models)]
        return merged(p.ended(RATIO) if p.tick and p.over(at, longest) else p for p in pairs)

    def fared(self, name, model, arm, metrics, at):
        """A device said how its day was; each day of a device counts once."""
        window = max(1, self.policy["health_window"] * 1000)
        day = at // window
        if self.windows.get(name, -1) >= day:
            return
        self.windows[name] = day
        crashed = any(metrics.get(what, 0) for what in CRASHES) or metrics.get("boots", 0) >= BOOT_LOOP
        pair = self.pairs.get(("crash", model), Pair())
        if pair.tick and day > pair.tick[0]:
            pair = pair.ended(1 + self.policy["max_regression"])
        pair.add(arm, crashed, day)
        self.pairs["crash", model] = pair

    def crashes(self, models):
        """Days that are over; the one that goes on compares nothing yet."""
        return merged(self.pairs.get(("crash", model), Pair()) for model in sorted(models))
