"""Takes the line of a verdict apart, and says whether a number could have been rounded to what the line shows."""

import math
import re

NUMBER = r"(\d+(?:\.\d+)?)"
PERCENT = NUMBER + r" %"
ODDS = r"(below 1|\d+(?:\.\d)?e\d+|\d+) : 1"
PROOF = r"(?:(?P<bad>\d+) bad of (?P<n>\d+) started, all resolved|(?P<bad2>\d+) bad \+ (?P<pending>\d+) pending of (?P<n2>\d+))"

EVIDENCE = re.compile(
    r"(?:(?P<f>\d+) (?P<what>bad|unreachable) of (?P<n>\d+) started"
    r"|(?P<f2>\d+) of (?P<n2>\d+) devices silent (?P<after>\d+) (?P<unit>s|min|h|d) after start)"
    rf" \((?P<share>{PERCENT})\); allowed (?P<allowed>{PERCENT}); evidence (?P<odds>{ODDS}), needed (?P<needed>{ODDS})"
    r"(?P<outage>; devices outside the rollout are offline too, so this may be the network)?\.$"
)
FORMS = {
    "hard-stop": re.compile(r"hard stop, (?P<f>\d+) bad of the first (?P<n>\d+) started\.$"),
    "first-bad": re.compile(r"(?P<f>\d+) bad of (?P<n>\d+) started in a small fleet; look before more start\.$"),
    "budget": re.compile(r"(?P<f>\d+) bad devices; the harm budget is (?P<budget>\d+)\.$"),
    "evidence": EVIDENCE,
    "proven": re.compile(PROOF + rf"; failure rate < (?P<bound>{PERCENT}) \((?P<confidence>{PERCENT})\), soak (?P<soak>.+)\.$"),
    "soaked": re.compile(r"(?P<n>\d+) started, no gate asked for, soak (?P<soak>.+)\.$"),
    "gate": re.compile(PROOF + rf"; proven < (?P<bound>{PERCENT}), need < (?P<need>{PERCENT}); (?P<enough>enough.*|this phase.*|undecided.*)\.$"),
    "unproven": re.compile(
        PROOF + rf"; unproven: (?P<devices>\d+) devices cannot show < (?P<need>{PERCENT}) \(now < (?P<bound>{PERCENT})\); (?:it never widens|widens).*\.$"
    ),
    "wave": re.compile(
        r"wave \d+ of \d+(?: opens)?, (?:(?P<included>\d+) of (?P<devices>\d+) devices included, )?(?P<bad>\d+) bad of (?P<n>\d+) started"
        r"(?:, (?P<soak>.+) after the one before\.|; the next opens .*\.)$"
    ),
    "room": re.compile(r"wave \d+ of \d+ goes on, (?P<owed>\d+) of its devices to come, (?P<bad>\d+) bad of (?P<n>\d+) started\.$"),
    "pair": re.compile(
        rf"(?P<what>bad|silent|crashes|battery drain): released (?P<f>\d+)/(?P<n>\d+) vs control (?P<cf>\d+)/(?P<cn>\d+); "
        rf"(?:allowed (?P<allowed>{PERCENT}) and )?ratio > (?P<ratio>[\d.]+); evidence (?P<odds>{ODDS}), needed (?P<needed>{ODDS})\.$"
    ),
    "nothing": re.compile(r"no device has started(: none of its \d+ devices was heard since it opened)?\.$"),
    "spent": re.compile(r"all (?P<devices>\d+) devices of the phase started before it was resumed.*\.$"),
    "soaking": re.compile(r"soak (?P<soak>.+) of (?P<of>.+)\.$"),
}
WORDS = ("KILL", "PAUSE", "ADVANCE", "HOLD")
SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}


def parse(line):
    """Returns (verdict, form, fields); nothing if a person's word and no judgement stands there."""
    verdict, _, rest = line.partition(": ")
    verdict = verdict.split(" ")[0]
    if verdict not in WORDS or rest.startswith("by "):
        return None
    for form, pattern in FORMS.items():
        if found := pattern.match(rest):
            fields = found.groupdict()
            # A pattern may have two spellings of one field.
            return verdict, form, {k.rstrip("2"): v for k, v in fields.items() if v is not None}
    raise ValueError(f"no form of a verdict fits: {line}")


def shows_percent(text, rate):
    """Could `rate` have been rounded to "4.6 %"? Below one per cent there are two digits after the point, else one."""
    digits = 2 if rate * 100 < 1 else 1
    return abs(float(text.removesuffix(" %")) - rate * 100) <= 0.5 * 10**-digits + 1e-9


def shows_odds(text, ln_e):
    """Could e^ln_e have been rounded to "1.4e12 : 1", or "392 : 1"? From 10^5 on there are two digits."""
    text = text.removesuffix(" : 1")
    if text == "below 1":
        return ln_e < 0
    shown = float(text)
    if "e" in text:
        unit = 10 ** math.floor(math.log10(shown) + 1e-12) / 10
        return abs(shown - math.exp(ln_e)) <= unit * 0.5 + shown * 1e-5
    return abs(shown - math.exp(ln_e)) <= 0.5 + shown * 1e-5


def shows_span(text, seconds):
    """Could a time have been cut to "26 h"?"""
    number, unit = text.split(" ")
    return 0 <= seconds - int(number) * SECONDS[unit] < SECONDS[unit] + 1e-3
