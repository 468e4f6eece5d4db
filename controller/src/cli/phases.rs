//! The little language of `--phases`.
//!
//! ```text
//! PHASES  = PHASE ( "," PHASE )*
//! PHASE   = REACH [ "@" GATE ]
//! REACH   = COUNT          this many devices more than the phase before
//!         | PERCENT "%"    this share of all covered devices, in all
//!         | "all"          everybody, newcomers as well
//! GATE    = PERCENT "%"    widen on proof that fewer fail
//!         | "none"         widen after the soak alone
//! ```
//! Without a gate a phase gets one at 5 %, and `all` gets none: nothing comes after it.

use crate::core::rollout::plan::{PHASES_MAX, Phase, Reach};
use crate::core::rollout::policy::PhaseRule;

/// The same for `--help`.
pub(super) const HELP: &str = "\
Phases are separated by commas. Each is COUNT (so many devices more), PERCENT% (of all, in all) or `all`, then
optionally @GATE% (widen on proof that fewer fail; 5% when left out) or @none (widen after the soak alone).
`all` has no gate unless one is given. Example: 34@10%,64@5%,64@5%,all";

/// Reads phases.
pub(super) fn parse(text: &str) -> Result<Vec<Phase>, String> {
    let phases: Vec<Phase> = (1..)
        .zip(text.split(','))
        .map(|(number, phase)| {
            one(phase.trim()).map_err(|why| format!("phase {number} ({:?}): {why}", phase.trim()))
        })
        .collect::<Result<_, String>>()?;
    if phases.len() > PHASES_MAX {
        return Err(format!("{} phases are more than {PHASES_MAX}", phases.len()));
    }
    if let Some(at) = phases.iter().position(|phase| phase.reach == Reach::All)
        && at + 1 < phases.len()
    {
        return Err(format!("phase {} reaches all, so nothing can come after it", at + 1));
    }
    Ok(phases)
}

fn one(text: &str) -> Result<Phase, String> {
    let (reach, gate) = match text.split_once('@') {
        Some((reach, gate)) => (reach.trim(), Some(gate.trim())),
        None => (text, None),
    };
    let reach = if reach == "all" {
        Reach::All
    } else if let Some(share) = reach.strip_suffix('%') {
        Reach::Percent(percent(share)?)
    } else {
        let count = reach.parse().map_err(|_| "give a count, a percentage or `all`".to_owned())?;
        if count == 0 {
            return Err("a phase of no devices proves nothing".into());
        }
        Reach::Devices(count)
    };
    let rule = PhaseRule::default();
    let gate = match gate {
        Some("none") => None,
        Some(gate) => {
            let share = gate.strip_suffix('%').ok_or("a gate is a percentage such as @5%, or @none")?;
            let rate = percent(share)? / 100.0;
            if rate >= 1.0 {
                return Err("a gate at 100 % proves nothing".into());
            }
            Some(rate)
        }
        None if reach == Reach::All => None,
        None => rule.gate,
    };
    Ok(Phase::new(reach, PhaseRule { gate, ..rule }))
}

fn percent(text: &str) -> Result<f64, String> {
    let value: f64 = text.trim().parse().map_err(|_| format!("{text:?} is no number"))?;
    if value > 0.0 && value <= 100.0 {
        Ok(value)
    } else {
        Err("give a percentage above 0, at most 100".into())
    }
}

/// Writes a reach the way it is given.
pub(super) fn reach(reach: Reach) -> String {
    match reach {
        Reach::Percent(percent) => format!("{percent}%"),
        Reach::Devices(count) => count.to_string(),
        Reach::All => "all".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(Reach, Option<f64>)> {
        parse(text).unwrap().into_iter().map(|phase| (phase.reach, phase.rule.gate)).collect()
    }

    #[test]
    fn the_example_of_the_help_reads_as_it_says() {
        assert_eq!(
            read("34@10%,64@5%,64@5%,all"),
            vec![
                (Reach::Devices(34), Some(0.1)),
                (Reach::Devices(64), Some(0.05)),
                (Reach::Devices(64), Some(0.05)),
                (Reach::All, None),
            ]
        );
    }

    #[test]
    fn a_phase_without_a_gate_gets_one_unless_it_reaches_all_or_says_none() {
        assert_eq!(read(" 1% , 0.5%@none, all@2% ")[0], (Reach::Percent(1.0), Some(0.05)));
        assert_eq!(read("1%,0.5%@none,all@2%")[1], (Reach::Percent(0.5), None));
        assert_eq!(read("1%,0.5%@none,all@2%")[2], (Reach::All, Some(0.02)));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_number_of_its_phase() {
        for bad in
            ["", "0", "-3", "10,", "5@5", "5@0%", "5@100%", "101%", "0%", "NaN%", "inf%", "all,5", "x%"]
        {
            let said = parse(bad);
            assert!(said.is_err(), "{bad:?} read as {said:?}");
        }
        assert!(parse("5,6,x").unwrap_err().starts_with("phase 3"));
        assert!(parse(&vec!["1"; PHASES_MAX + 1].join(",")).is_err());
    }
}
