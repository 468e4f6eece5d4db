//! From flags to a plan, and what a plan would do, in a table.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use tern_protocol::id::{CarrierId, DeviceId, ModelId, ProductId, RegionId, RolloutId, TagId};
use tern_protocol::tuf::content::Urgency;

use super::failure::{Failure, chain};
use super::output::table;
use super::{phases, words};
use crate::api::types::{PhasePreview, Preview, StartRollout};
use crate::core::rollout::detect::Detectable;
use crate::core::rollout::evidence::upper_bound;
use crate::core::rollout::hold_back::HoldBack;
use crate::core::rollout::plan::{Approval, Phase, Plan, Reach};
use crate::core::rollout::policy::{PhaseRule, Policy};
use crate::core::rollout::times::Times;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Roll out a release of this product
    #[arg(long)]
    product: ProductId,
    /// Roll out the release with this counter
    #[arg(long, value_name = "N")]
    rc: u64,
    /// Name the rollout [default: <product>-<rc>-<attempt>]
    #[arg(long)]
    name: Option<RolloutId>,
    /// Have devices that failed try again: give a higher number than before
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    attempt: u32,
    /// Widen in these phases [default: 1%,10%,50%,all]
    #[arg(long, long_help = phases::HELP)]
    phases: Option<String>,
    /// Read the whole plan from a file (.toml or .json); the other flags win
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Cover only this region; may be given several times
    #[arg(long)]
    region: Vec<RegionId>,
    /// Cover only this hardware model; may be given several times
    #[arg(long)]
    model: Vec<ModelId>,
    /// Cover only this carrier; may be given several times
    #[arg(long)]
    carrier: Vec<CarrierId>,
    /// Begin with this device, in a phase of its own before the others; may be given several times
    #[arg(long, value_name = "DEVICE")]
    first: Vec<DeviceId>,
    /// Begin with the devices that have this tag, the same way
    #[arg(long, value_name = "TAG")]
    first_tag: Vec<TagId>,
    /// If the release is killed, take devices back that run it, by a rollout of its own
    #[arg(long)]
    revert: bool,
    /// Ask a second person before it starts, or before every phase
    #[arg(long, value_name = "WHAT", value_enum)]
    approval: Option<Asks>,
    /// Watch every phase for at least this long, such as 30m or 12h; a bare number is seconds [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = words::wait)]
    soak: Option<u64>,
    /// Offer every phase to all its devices at once
    #[arg(long)]
    at_once: bool,
    /// Let at least this much time pass between two waves of a phase, such as 30m [default: 2h]
    #[arg(long, value_name = "TIME", value_parser = words::wait, conflicts_with = "at_once")]
    wave_pause: Option<u64>,
    /// Have at most this many devices on trial at once; who is offered the release counts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    concurrency: Option<u64>,
    /// Offer the release to at most this many devices an hour
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Hold back this share of the devices as control, in percent, or `none` [default: 2]
    #[arg(long, value_name = "PERCENT", value_parser = words::hold_back)]
    hold_back: Option<HoldBack>,
    /// Spread the first requests of a phase's devices over this long, such as 10m; a bare number is seconds
    #[arg(long, value_name = "TIME", value_parser = words::short_wait)]
    spread: Option<u32>,
    /// Go past the devices' maintenance windows and consent, where they allow that; power and load still hold
    #[arg(long, conflicts_with = "forced_from")]
    forced: bool,
    /// Do so from this moment on, such as 2026-12-24T02:00:00Z
    #[arg(long, value_name = "TIME", value_parser = words::instant)]
    forced_from: Option<u64>,
}

/// What `--approval` says.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Asks {
    /// Before it starts
    Start,
    /// Before every phase
    Phases,
}

impl From<Asks> for Approval {
    fn from(asks: Asks) -> Self {
        match asks {
            Asks::Start => Self::Start,
            Asks::Phases => Self::Phases,
        }
    }
}

impl Flags {
    /// Builds the request.
    pub(super) fn request(self) -> Result<StartRollout, Failure> {
        let mut plan = self.plan.as_deref().map_or(Ok(Plan::default()), read)?;
        if let Some(text) = &self.phases {
            let hint = "see `tern rollout plan --help`";
            plan.phases = phases::parse(text).map_err(|why| Failure::usage(why, hint))?;
        }
        if !self.first.is_empty() || !self.first_tag.is_empty() {
            // Hand-picked devices prove nothing for the others: the gates come after them.
            let rule = PhaseRule { gate: None, ..PhaseRule::default() };
            let named =
                Phase { list: self.first, tags: self.first_tag, ..Phase::new(Reach::Devices(0), rule) };
            plan.phases.insert(0, named);
        }
        plan.revert |= self.revert;
        plan.approval = self.approval.map_or(plan.approval, Approval::from);
        if let Some(soak) = self.soak {
            for phase in &mut plan.phases {
                phase.rule.soak = Duration::from_secs(soak);
            }
        }
        replace(&mut plan.regions, self.region);
        replace(&mut plan.models, self.model);
        replace(&mut plan.carriers, self.carrier);
        plan.waves.on &= !self.at_once;
        plan.waves.pause = self.wave_pause.map(Duration::from_secs).or(plan.waves.pause);
        plan.concurrency = self.concurrency.or(plan.concurrency);
        plan.rate = self.rate.or(plan.rate);
        plan.hold_back = self.hold_back.unwrap_or(plan.hold_back);
        plan.spread = self.spread.unwrap_or(plan.spread);
        plan.urgency = match self.forced_from {
            Some(moment) => Urgency::ForcedFrom(moment),
            None if self.forced => Urgency::Forced,
            None => plan.urgency,
        };
        plan.check().map_err(|e| Failure::usage(chain(&e), "correct the plan"))?;
        let Self { product, rc, name, attempt, .. } = self;
        Ok(StartRollout { rollout: name, product, rc, attempt, plan })
    }
}

fn replace<T>(place: &mut Vec<T>, given: Vec<T>) {
    if !given.is_empty() {
        *place = given;
    }
}

fn read(path: &Path) -> Result<Plan, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::new(format!("could not read {shown}: {e}"), "check the path"))?;
    let json = path.extension().is_some_and(|extension| extension == "json");
    let plan = if json {
        serde_json::from_str(&text).map_err(|e| e.to_string())
    } else {
        toml::from_str(&text).map_err(|e| e.to_string())
    };
    plan.map_err(|why| Failure::usage(format!("{shown} is not a plan: {}", why.trim()), "correct the file"))
}

/// Shows what a plan would do.
pub(super) fn text(request: &StartRollout, preview: &Preview) -> String {
    let beta = request.plan.policy.beta;
    let rows = (1..).zip(&preview.phases).map(|(number, step): (usize, _)| {
        let Phase { reach, rule, .. } = &step.phase;
        let detects = match step.devices {
            0 => "-".to_owned(),
            n => format!("above {}", words::percent(upper_bound(n, 0, beta))),
        };
        [
            number.to_string(),
            if step.phase.names() { "by name".to_owned() } else { phases::reach(*reach) },
            step.devices.to_string(),
            rule.gate.map_or_else(|| "none".to_owned(), |gate| format!("< {}", words::percent(gate))),
            match step.waves.as_slice() {
                [] | [_] => "at once".to_owned(),
                waves => format!("{} from {}", waves.len(), waves[0]),
            },
            words::seconds(least(step)),
            step.held_back.to_string(),
            words::bytes(step.devices.saturating_mul(preview.bytes_each)),
            step.cohort_messages.to_string(),
            detects,
        ]
    });
    let heading = [
        "phase",
        "reach",
        "devices",
        "gate",
        "waves",
        "takes",
        "held back",
        "data",
        "messages",
        "would notice failures",
    ];
    let soak = preview.phases.iter().map(least).fold(0, u64::saturating_add);
    let data = preview.devices.saturating_mul(preview.bytes_each);
    let mut text = format!(
        "{} rc {}: {}, {} each, {} in all at most; {} at least\n\n{}\n",
        request.product,
        request.rc,
        words::count(preview.devices, "device"),
        words::bytes(preview.bytes_each),
        words::bytes(data),
        words::seconds(soak),
        table(heading, rows)
    );
    text.push_str(&format!(
        "\nThe last column: if every device of the phase is good, higher failure rates are ruled out with {} \
         confidence.\n",
        words::percent(1.0 - beta)
    ));
    if let Some(usual) = preview.usual {
        let usual = words::percent(usual);
        text.push_str(&format!("The last release that reached everybody failed on {usual}.\n"));
    }
    let plan = &request.plan;
    if plan.times != Times::default() {
        text.push_str(
            "Times are counted from when it may begin and as if it might always widen: `times` of the plan, its start and its \
             windows, come on top.\n",
        );
    }
    if let Some(line) = urgency(plan.urgency) {
        text.push_str(&format!("It is {line}.\n"));
    }
    if !plan.arm.is_acked() {
        text.push_str(
            "Devices that nobody can answer install it all the same, as long as their signed files are fresh: a kill reaches them \
             when their site is connected again.\n",
        );
    }
    if plan.concurrency.is_some() || plan.rate.is_some() {
        text.push_str("Under its cap a wave opens in parts, as there is room: what stands below is when its first part does.\n");
    }
    for (number, step) in (1..).zip(&preview.phases).filter(|(_, step)| step.devices > 0) {
        text.push_str(&hours(number, step, &request.plan.policy));
    }
    text
}

/// Says how far devices' own conditions count, unless they all do.
pub(super) fn urgency(urgency: Urgency) -> Option<String> {
    let past = "goes past windows and consent of devices that allow it";
    match urgency {
        Urgency::Soft => None,
        Urgency::Forced => Some(format!("forced: it {past}")),
        Urgency::ForcedFrom(moment) => Some(format!(
            "forced from {} on: from then it {past}",
            words::moment(moment.saturating_mul(1000))
        )),
    }
}

/// Says when a phase opens, wave by wave, and what is detected in it, and when.
fn hours(number: usize, step: &PhasePreview, policy: &Policy) -> String {
    const SHOWN: usize = 8;
    let after = |seconds: u64| {
        if seconds == 0 { "at once".to_owned() } else { format!("after {}", words::seconds(seconds)) }
    };
    let waves = step.waves.iter().zip(&step.opens);
    let mut waves: Vec<String> =
        waves.map(|(devices, opens)| format!("{devices} {}", after(*opens))).collect();
    if waves.len() > SHOWN {
        let left = waves.len() - SHOWN;
        let last = waves.pop().unwrap_or_default();
        waves.truncate(SHOWN - 1);
        waves.push(format!("… {left} more waves … {last}"));
    }
    let Detectable { failing, silent } = step.detects;
    let last = step.opens.last().copied().unwrap_or(0);
    let known = |rate: Option<f64>, what: &str, after: Duration| {
        let by = words::seconds(last.saturating_add(after.as_secs()));
        rate.map_or_else(
            || format!("no release for how many devices it {what}"),
            |rate| format!("a release that {what} {} by {by}", words::percent(rate)),
        )
    };
    let killed = if failing.is_none() && silent.is_none() {
        "Too few devices for any kill by evidence, whatever the release does.".to_owned()
    } else {
        let failing = known(failing, "fails on", policy.device.longest());
        let silent = known(silent, "silences", policy.silence_deadline.after);
        format!("Killed nine times in ten: {failing}, {silent}.")
    };
    let (waves, over) = (waves.join(", "), after(step.ends));
    format!("\nPhase {number} opens for {waves}; it is over {over} at the earliest.\n  {killed}\n")
}

/// Returns the least seconds that a phase takes: its waves, then its soak. One that includes nobody more is passed over
/// at once.
fn least(step: &PhasePreview) -> u64 {
    step.opens.first().map_or(0, |opens| step.ends.saturating_sub(*opens))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::core::rollout::plan::Reach;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn request(words: &[&str]) -> Result<StartRollout, Failure> {
        let all = ["x", "--product", "cam", "--rc", "7"].iter().chain(words);
        Line::try_parse_from(all).map_err(|e| Failure::usage(e.to_string(), ""))?.flags.request()
    }

    #[test]
    fn without_flags_the_plan_is_the_default_one() {
        let request = request(&[]).unwrap();
        assert_eq!(request.plan, Plan::default());
        assert_eq!(request.name().unwrap().as_str(), "cam-7-1");
    }

    #[test]
    fn flags_win_over_the_file_and_the_rest_of_the_file_stays() {
        let dir = tempfile::TempDir::new().unwrap();
        let toml = dir.path().join("plan.toml");
        let text = "spread = 60\nregions = ['eu']\n[policy]\nalpha = 0.01\n\
                    [[phases]]\nreach = { devices = 5 }\ngate = 0.2\nsoak = 60\n[[phases]]\nreach = 'all'\n";
        std::fs::write(&toml, text).unwrap();
        let path = toml.to_str().unwrap();

        let plan = request(&["--plan", path, "--region", "us", "--soak", "30"]).unwrap().plan;

        assert_eq!(plan.regions, vec!["us".parse().unwrap()]);
        assert_eq!((plan.spread, plan.policy.alpha), (60, 0.01));
        assert_eq!(plan.phases[0].reach, Reach::Devices(5));
        assert!(plan.phases.iter().all(|phase| phase.rule.soak == Duration::from_secs(30)));
    }

    #[test]
    fn times_take_units_as_those_of_tokens_and_claims_do() {
        let soak = |words: &[&str]| request(words).unwrap().plan.phases[0].rule.soak.as_secs();
        assert_eq!(["5s", "30m", "12h", "30", "0"].map(|t| soak(&["--soak", t])), [5, 1800, 43_200, 30, 0]);
        assert_eq!(request(&["--spread", "10m"]).unwrap().plan.spread, 600);
        let capped = request(&["--concurrency", "20", "--rate", "500"]).unwrap().plan;
        assert_eq!((capped.concurrency, capped.rate), (Some(20), Some(500)));
        assert!(request(&["--concurrency", "0"]).is_err());
        let said = request(&["--soak", "5 minutes"]).unwrap_err().error;
        assert!(said.contains("s, m, h or d"), "{said}");
    }

    #[test]
    fn a_rollout_is_forced_by_a_flag_from_a_moment_or_by_its_file_and_says_so() {
        let urgency = |words: &[&str]| request(words).unwrap().plan.urgency;
        assert_eq!(urgency(&[]), Urgency::Soft);
        assert_eq!(urgency(&["--forced"]), Urgency::Forced);
        assert_eq!(urgency(&["--forced-from", "2026-12-24T02:00:00Z"]), Urgency::ForcedFrom(1_798_077_600));
        assert!(request(&["--forced-from", "tomorrow"]).is_err());
        let said = super::urgency(Urgency::ForcedFrom(1_798_077_600)).unwrap();
        assert!(said.starts_with("forced from 2026-12-24T02:00:00Z on"), "{said}");

        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("plan.toml");
        std::fs::write(&file, "urgency = { forced-from = 1798077600 }").unwrap();
        assert_eq!(urgency(&["--plan", file.to_str().unwrap()]), Urgency::ForcedFrom(1_798_077_600));
        // The ledger of a rollout that is not forced holds what it always did.
        let written = serde_json::to_string(&request(&[]).unwrap().plan).unwrap();
        assert!(!written.contains("urgency"), "{written}");
    }

    fn said_of(plan: &str) -> String {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("plan.toml");
        std::fs::write(&file, plan).unwrap();
        request(&["--plan", file.to_str().unwrap()]).map_or_else(|e| e.error, |_| "accepted".to_owned())
    }

    #[test]
    fn a_plan_file_with_a_figure_out_of_range_is_refused_with_the_figure() {
        for (plan, words) in [
            ("[policy]\nalpha = 0.0", "alpha must lie between 0 and 1, found 0"),
            ("[[phases]]\nreach = 'all'\ngate = 5.0", "gate must lie between 0 and 1, found 5"),
            ("[[phases]]\nreach = 'all'\ngate = nan", "gate must lie between 0 and 1, found NaN"),
            ("[policy]\nhard_stop = { bad = 0, first = 0 }", "hard_stop needs at least one bad device"),
            ("[[phases]]\nreach = { devices = 0 }", "a phase of no devices proves nothing"),
            ("[[phases]]\nreach = 'all'\n[[phases]]\nreach = { devices = 1 }", "nothing can come after it"),
            ("[[phases]]\nreach = 'all'\nsoak = 9223372036854775807", "at most 7776000 s (90 days)"),
        ] {
            let said = said_of(plan);
            assert!(said.contains(words), "{plan}: {said}");
        }
        assert_eq!(said_of("[policy]\nalpha = 0.01"), "accepted");
    }

    #[test]
    fn the_least_time_counts_only_phases_that_include_somebody() {
        let request = request(&["--phases", "64@5%,10%,all"]).unwrap();
        let steps = request.plan.phases.iter().zip([3, 0, 0]);
        let phases = steps
            .map(|(phase, devices)| PhasePreview {
                phase: phase.clone(),
                devices,
                cohort_messages: devices,
                waves: vec![devices],
                held_back: 0,
                opens: if devices > 0 { vec![0] } else { Vec::new() },
                ends: 86_400,
                detects: Detectable { failing: Some(0.23), silent: None },
            })
            .collect();
        let (no_variant, unmet, usual, warnings) = (0, 0, Some(0.01), Vec::new());
        let preview = Preview { devices: 3, no_variant, unmet, bytes_each: 1, usual, phases, warnings };

        let said = text(&request, &preview);

        assert!(said.contains("3 devices, 1 B each, 3 B in all at most; 24 h at least"), "{said}");
        assert!(
            said.contains("Phase 1 opens for 3 at once; it is over after 24 h at the earliest"),
            "{said}"
        );
        assert!(said.contains("a release that fails on 23 % by 60 min, no release for"), "{said}");
        assert!(said.contains("failed on 1 %") && !said.contains("Phase 2"), "{said}");
        assert!(!said.contains("Times are counted") && !said.contains("Under its cap"), "{said}");

        let (mut request, mut preview) = (request, preview);
        preview.phases[0].detects = Detectable::default();
        request.plan.times.not_before = Some(1);
        request.plan.rate = Some(5);
        let said = text(&request, &preview);
        assert!(said.contains("Too few devices for any kill") && !said.contains("no release for"), "{said}");
        assert!(said.contains("Times are counted") && said.contains("Under its cap"), "{said}");
    }

    #[test]
    fn a_plan_file_with_an_unknown_key_is_refused_by_name() {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("plan.json");
        std::fs::write(&file, r#"{"spred": 60}"#).unwrap();

        let refused = request(&["--plan", file.to_str().unwrap()]).unwrap_err();

        assert!(refused.error.contains("spred"), "{}", refused.error);
        assert!(request(&["--phases", "5@x"]).is_err());
    }
}
