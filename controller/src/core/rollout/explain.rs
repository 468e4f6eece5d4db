//! Verdicts in words: one line each, with the numbers.

use std::fmt;
use std::time::Duration;

use super::verdict::{AdvanceReason, Evidence, HoldReason, KillReason, PauseReason, Proof, Test};

impl fmt::Display for KillReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evidence(evidence) => evidence.fmt(f),
            Self::HardStop { bad, first } => write!(f, "hard stop, {bad} bad of the first {first} started"),
        }
    }
}

impl fmt::Display for PauseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evidence(evidence) => evidence.fmt(f),
            Self::Outage(evidence) => {
                write!(
                    f,
                    "{evidence}; devices outside the rollout are offline too, so this may be the network"
                )
            }
            Self::FirstBad { bad, started } => {
                write!(f, "{bad} bad of {started} started in a small fleet; look before more start")
            }
            Self::HarmBudget { bad, budget } => write!(f, "{bad} bad devices; the harm budget is {budget}"),
        }
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wave { wave, of, included, devices, started, bad, open, pause } => {
                write!(
                    f,
                    "wave {wave} of {of}, {included} of {devices} devices included, {bad} bad of {started} started; "
                )?;
                if open < pause {
                    write!(f, "the next opens {} after this one, {} have passed", span(*pause), span(*open))
                } else {
                    write!(f, "the next opens when half of them have started")
                }
            }
            Self::NothingStarted => write!(f, "no device has started"),
            Self::Away { devices } => {
                write!(f, "no device has started: none of its {devices} devices was heard since it opened")
            }
            Self::Spent { devices } => write!(
                f,
                "all {devices} devices of the phase started before it was resumed or run the release, so its gate can prove nothing new; \
                 look at them, then `tern rollout promote`"
            ),
            Self::Soaking { soaked, soak } => write!(f, "soak {} of {}", span(*soaked), span(*soak)),
            Self::Gate { proof, enough } => {
                write!(f, "{proof}; proven < {}, need < {}; ", percent(proof.bound), percent(proof.p_max))?;
                match enough {
                    Some(enough) if *enough <= proof.n => {
                        write!(f, "enough once the pending ones report clean")
                    }
                    Some(enough) => write!(f, "enough with {} more clean devices", enough - proof.n),
                    None => write!(f, "this phase has too few devices to pass any more; a person decides"),
                }
            }
            Self::Unproven { proof, devices } => {
                let (below, need) = (percent(proof.bound), percent(proof.p_max));
                write!(f, "{proof}; unproven: {devices} devices cannot show < {need} (now < {below}); ")?;
                write!(f, "it never widens by itself; look at them, then `tern rollout promote`")
            }
            Self::TimedOut { proof, soaked } => {
                let (below, need) = (percent(proof.bound), percent(proof.p_max));
                write!(f, "{proof}; proven < {below}, need < {need}; ")?;
                write!(f, "undecided after {}; a person decides", span(*soaked))
            }
        }
    }
}

impl fmt::Display for AdvanceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wave { wave, of, bad, started, soaked } => {
                write!(
                    f,
                    "wave {wave} of {of} opens, {bad} bad of {started} started, {} after the one before",
                    span(*soaked)
                )
            }
            Self::Room { wave, of, owed, bad, started } => {
                write!(
                    f,
                    "wave {wave} of {of} goes on, {owed} of its devices to come, {bad} bad of {started} started"
                )
            }
            Self::Proven { proof, soaked } => {
                let confidence = percent(1.0 - proof.beta);
                let below = percent(proof.bound);
                write!(f, "{proof}; failure rate < {below} ({confidence}), soak {}", span(*soaked))
            }
            Self::Soaked { started, soaked } => {
                write!(f, "{started} started, no gate asked for, soak {}", span(*soaked))
            }
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pending {
            0 => write!(f, "{} bad of {} started, all resolved", self.bad, self.n),
            pending => write!(f, "{} bad + {pending} pending of {}", self.bad, self.n),
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (n, bad) = (self.n, self.f);
        let share = percent(if n == 0 { 0.0 } else { bad as f64 / n as f64 });
        match (self.control, self.test) {
            (Some(control), test) => {
                let what = match test {
                    Test::Outcome => "bad",
                    Test::Silence | Test::SilenceEarly => "silent",
                    Test::Crash => "crashes",
                    Test::Battery => "battery drain",
                    Test::Unreachable => "unreachable",
                };
                write!(f, "{what}: released {bad}/{n} vs control {}/{}", control.events, control.exposure)?;
                match self.allowed {
                    Some(allowed) => write!(f, "; allowed {} and ratio > {}", percent(allowed), self.p)?,
                    None => write!(f, "; ratio > {}", self.p)?,
                }
            }
            (None, Test::Silence | Test::SilenceEarly) => {
                let after = span(self.after);
                write!(f, "{bad} of {n} devices silent {after} after start ({share}); ")?;
                write!(f, "allowed {}", percent(self.p))?;
            }
            (None, test) => {
                let what = match test {
                    Test::Unreachable => "unreachable",
                    Test::Crash => "crashed",
                    Test::Battery => "draining",
                    _ => "bad",
                };
                write!(f, "{bad} {what} of {n} started ({share}); allowed {}", percent(self.p))?;
            }
        }
        write!(f, "; evidence {}, needed {}", odds(self.ln_e), odds(self.threshold))
    }
}

/// "1.4e12 : 1". Works on the logarithm: the number itself may not fit a double.
fn odds(ln: f64) -> String {
    let digits = ln / std::f64::consts::LN_10;
    if digits < 0.0 {
        return "below 1 : 1".to_owned();
    }
    // Five digits are still read at a glance.
    if digits < 4.999 {
        return format!("{:.0} : 1", libm::exp(ln));
    }
    let mut exponent = libm::floor(digits);
    let mut mantissa = libm::exp((digits - exponent) * std::f64::consts::LN_10);
    if mantissa >= 9.95 {
        (mantissa, exponent) = (1.0, exponent + 1.0);
    }
    format!("{mantissa:.1}e{exponent:.0} : 1")
}

/// "4.6 %", "5 %", "0.34 %".
pub(super) fn percent(rate: f64) -> String {
    let percent = rate * 100.0;
    let text = if percent < 1.0 { format!("{percent:.2}") } else { format!("{percent:.1}") };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} %")
}

/// "26 h", "45 min", "7 d".
pub(super) fn span(time: Duration) -> String {
    match time.as_secs() {
        s if s < 120 => format!("{s} s"),
        s if s < 2 * 3600 && s % 3600 != 0 => format!("{} min", s / 60),
        s if s < 72 * 3600 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}
