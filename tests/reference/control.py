"""Counts what a control and the devices beside it showed, from the frames of a ledger: which of them were silent, and which had
a bad day, in the same ticks. The evidence of a tick is the reference's."""

import math
from dataclasses import dataclass, field

import oracle

FEWEST = 20  # devices of a control that judges silence
RATIO = 2  # silence beside a control
CRASHES = ("crashes", "panics", "watchdog-resets", "modem-resets")
BOOT_LOOP = 4
DAYS_KNOWN = 50
TREATED, HELD = 0, 1


@dataclass
class Pair:
    """One comparison: the ticks that are over, and the one that goes on."""

    sums: list = field(default_factory=lambda: [0.0] * len(oracle.RATIOS))
    events: list = field(default_factory=lambda: [0, 0])
    exposed: list = field(default_factory=lambda: [0, 0])
    tick: tuple = ()  # [since, since when both arms], events, exposed

    def over(self, at, longest):
        """Does the tick that goes on end by now? A lone arm is waited with not longer than this; with both a quarter of it."""
        since, both = self.tick[0]
        return at - since >= longest if both is None else at - both >= longest // 4

    def ended(self, ratio):
        """Returns this comparison with its tick added."""
        _, events, exposed = self.tick
        sums = self.sums
        if all(exposed):
            sums = [a + b for a, b in zip(sums, oracle.pair_tick(*events, *exposed, ratio))]
        add = lambda a, b: [x + y for x, y in zip(a, b)]
        return Pair(sums, add(self.events, events), add(self.exposed, exposed))

    def add(self, arm, event, at):
        if not self.tick:
            self.tick = ([at, None], [0, 0], [0, 0])
        self.tick[1][arm] += bool(event)
        self.tick[2][arm] += 1
        if all(self.tick[2]) and self.tick[0][1] is None:
            self.tick[0][1] = at


@dataclass
class Drained(Pair):
    """The same of what devices drain: the events of a tick are those above nine in ten held-back days of before; until enough
    are known, above nine in ten of both arms."""

    told: list = field(default_factory=lambda: [[], []])
    known: list = field(default_factory=list)

    def ended(self, ratio):
        usual = sorted(self.known if len(self.known) >= DAYS_KNOWN else self.told[TREATED] + self.told[HELD])
        most = usual[-(-len(usual) * 9 // 10) - 1]
        for arm, drains in enumerate(self.told):
            self.tick[1][arm] = sum(drain > most for drain in drains)
        whole = super().ended(ratio)
        return Drained(whole.sums, whole.events, whole.exposed, known=self.known + self.told[HELD])

    def add(self, arm, drain, at):
        super().add(arm, False, at)
        self.told[arm].append(bucket(drain))


def bucket(drain):
    """Drains are told apart by a twelfth of an octave; those below 12 each by itself."""
    most = lambda n: n if n < 12 else math.ceil(12 * 2 ** ((n - 11) / 12))
    return next((n for n in range(700) if drain <= most(n)), 700)


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
        """A new series compares anew; windows that were counted stay counted, and what is usual stays known."""
        self.pairs = {key: Drained(known=pair.known) for key, pair in self.pairs.items() if isinstance(pair, Drained)}

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
        """A device said how its day was; each day of a device counts once, until its first crash. Of drain its first counts."""
        window = max(1, self.policy["health_window"] * 1000)
        day, first = at // window, name not in self.windows
        if self.windows.get(name, -1) >= day:
            return
        crashed = any(metrics.get(what, 0) for what in CRASHES) or metrics.get("boots", 0) >= BOOT_LOOP
        self.windows[name] = math.inf if crashed else day
        self.told(("crash", model), Pair(), arm, crashed, at, window)
        if first and (drain := metrics.get("drain")) is not None:
            self.told(("battery", model), Drained(), arm, drain, at, window)

    def told(self, key, first, arm, what, at, window):
        pair = self.pairs.get(key, first)
        if pair.tick and pair.over(at, window):
            pair = pair.ended(1 + self.policy["max_regression"])
        pair.add(arm, what, at)
        self.pairs[key] = pair

    def health(self, what, models, at):
        """Crashes, or drain; as long as a tick goes on it compares nothing."""
        window, ratio = max(1, self.policy["health_window"] * 1000), 1 + self.policy["max_regression"]
        pairs = [self.pairs.get((what, model), Pair()) for model in sorted(models)]
        return merged(p.ended(ratio) if p.tick and p.over(at, window) else p for p in pairs)
