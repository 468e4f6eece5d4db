"""Finds the independent reference of the kill switch's arithmetic, and takes only its functions: no counting of ours
comes from there, and no arithmetic of ours comes from the service."""

import importlib.util
import os
import sys
from functools import lru_cache
from pathlib import Path

FILE = "killswitch_sim.py"
# So that a test can tell "not compared" from "compared, and different".
ABSENT = 77


def folders():
    """Where it is looked for: where TERN_ORACLE says, and nowhere else; without that, beside the checkout."""
    named = os.environ.get("TERN_ORACLE")
    if named:
        return [Path(named)]
    above = Path(__file__).resolve().parents[2:6]
    return [folder / "shared" / "oracle" for folder in above]


def load():
    """Returns the reference as a module; ends with ABSENT and says what to do when it is not there."""
    for folder in folders():
        file = folder / FILE
        if file.is_file():
            sys.dont_write_bytecode = True
            spec = importlib.util.spec_from_file_location("killswitch_reference", file)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    looked = ", ".join(str(folder) for folder in folders())
    print(
        f"NOT COMPARED: the reference {FILE} is absent (looked in {looked}); set TERN_ORACLE to its folder",
        file=sys.stderr,
    )
    sys.exit(ABSENT)


reference = load()
RATIOS = list(reference.RATIOS)


@lru_cache(maxsize=None)
def grid(p, up):
    return reference.grid_up(p) if up else reference.grid_down(p)


@lru_cache(maxsize=1 << 18)
def kill_evidence(n, f, p):
    """ln e of f bad ones in n against "at most p are bad"."""
    return float(reference.log_e(n, f, p, grid(p, True)))


@lru_cache(maxsize=1 << 16)
def gate_evidence(n, f, p):
    """ln e of f bad or pending ones in n against "at least p are bad"."""
    return float(reference.log_e(n, f, p, grid(p, False)))


def pair_tick(treated, control, at_risk, aside, ratio):
    """What one tick adds, for each alternative, to the evidence against "at most `ratio` times the control's rate"."""
    return [float(more) for more in reference.logodds_pair(treated, control, at_risk, aside, ratio)]


def pair_evidence(sums):
    """ln e of all ticks."""
    return float(reference.mix(reference.np.asarray(sums, float)))


def bound(n, f, beta):
    """The rate that is ruled out with confidence 1 - beta."""
    return float(reference.ucb(n, f, beta)) if 0 <= f < n else 1.0
