//! Several reports in one message: what a device has to say at the same moment costs one topic, one authentication code
//! and one ack.
//!
//! ```json
//! {"e":3,"k":1,"n":42,"low":42,"t":"transition","rc":7,"rollout":"cam-7-1","attempt":1,"from":"idle","to":"checking",
//!  "more":[{"t":"transition","from":"checking","to":"downloading"}]}
//! ```
//! Whoever reads a message of one report alone reads the first, and acknowledges it: the device says the others again.

use serde::{Deserialize, Serialize};

use super::flat::FlatReport;
use super::{Attempt, Nonce, Report, ReportKind};
use crate::limits::{REPORT_MAX, REPORTS_MAX};
use crate::state::{Outcome, StateName};

/// Bytes that an authentication code, and whatever else a message has once, may take of [`REPORT_MAX`].
const ROOM: usize = 256;

/// What one message says: a report, and maybe some that have the numbers after it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "FlatReport")]
pub struct Reports {
    /// The first.
    pub first: Report,
    /// The others: epoch, key and `low` are those of the first, and none is a hello.
    pub more: Vec<Report>,
}

impl Reports {
    /// Takes as many reports from the front of `kinds`, which are numbered from `n` on, as one message holds.
    /// At least one, and a hello by itself; none of none.
    pub fn gather(e: u64, k: u32, n: u64, low: u64, kinds: &mut Vec<ReportKind>) -> Option<Self> {
        let bytes = |kind: &ReportKind| serde_json::to_vec(kind).map_or(REPORT_MAX, |text| text.len());
        let mut room = (REPORT_MAX - ROOM).saturating_sub(bytes(kinds.first()?));
        let alone = matches!(kinds.first(), Some(ReportKind::Hello(_)));
        let fits = kinds[1..].iter().take(REPORTS_MAX - 1).take_while(|kind| {
            let bytes = bytes(kind) + 1;
            let fits = !alone && bytes <= room && !matches!(kind, ReportKind::Hello(_));
            room = room.saturating_sub(bytes);
            fits
        });
        let count = 1 + fits.count();
        let numbers = (0..).map(|place: u64| n.wrapping_add(place));
        let mut numbered = numbers.zip(kinds.drain(..count)).map(|(n, kind)| Report { e, k, n, low, kind });
        Some(Self { first: numbered.next()?, more: numbered.collect() })
    }
}

impl From<Report> for Reports {
    fn from(first: Report) -> Self {
        Self { first, more: Vec::new() }
    }
}

impl IntoIterator for Reports {
    type Item = Report;
    type IntoIter = std::iter::Chain<std::iter::Once<Report>, std::vec::IntoIter<Report>>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self.first).chain(self.more)
    }
}

impl Serialize for Reports {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Message<'a> {
            #[serde(flatten)]
            first: &'a Report,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            more: Vec<Further<'a>>,
        }
        let shared = self.first.kind.attempt();
        let more = self.more.iter().map(|report| Further::of(&report.kind, shared)).collect();
        Message { first: &self.first, more }.serialize(to)
    }
}

/// A report behind the first, without what that one has said.
#[derive(Default, Serialize)]
struct Further<'a> {
    t: &'a str,
    #[serde(flatten)]
    attempt: Option<&'a Attempt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<Nonce>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<StateName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<StateName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<StateName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rc: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<&'a std::collections::BTreeMap<String, u64>>,
}

impl<'a> Further<'a> {
    fn of(kind: &'a ReportKind, shared: Option<&Attempt>) -> Self {
        let attempt = kind.attempt().filter(|attempt| Some(*attempt) != shared);
        let further = Self { t: kind.word(), attempt, ..Self::default() };
        match kind {
            // Never behind another: its reader would not know what it says.
            ReportKind::Hello(_) | ReportKind::ControlStart { .. } => further,
            ReportKind::Ask { nonce, .. } | ReportKind::Started { nonce, .. } => {
                Self { nonce: Some(*nonce), ..further }
            }
            ReportKind::Transition { from, to, reason, .. } => {
                Self { from: Some(*from), to: Some(*to), reason: reason.as_deref(), ..further }
            }
            ReportKind::Outcome { outcome, reason, .. } => {
                Self { outcome: Some(*outcome), reason: reason.as_deref(), ..further }
            }
            ReportKind::Health { rc, metrics } => Self { rc: Some(*rc), metrics: Some(metrics), ..further },
            ReportKind::Halted { state, .. } => Self { state: Some(*state), ..further },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Hello, Versions};

    fn attempt(rc: u64) -> Attempt {
        Attempt { rc, rollout: "r7".parse().unwrap(), attempt: 1 }
    }

    fn hello() -> ReportKind {
        ReportKind::Hello(Box::new(Hello {
            running: 6,
            agent: "0.1.0".into(),
            product: "cam".parse().unwrap(),
            model: "b3".parse().unwrap(),
            carrier: "none".parse().unwrap(),
            region: "eu".parse().unwrap(),
            floor: 0,
            versions: Versions::default(),
            halted: vec![],
            components: [].into(),
            proof: None,
        }))
    }

    fn every_kind() -> Vec<ReportKind> {
        let attempt = || attempt(7);
        let reason = || Some("no \"carrier\"".to_owned());
        let (from, to) = (StateName::Idle, StateName::Checking);
        vec![
            ReportKind::Transition { attempt: attempt(), from, to, reason: None },
            ReportKind::Transition { attempt: attempt(), from: to, to: StateName::Retry, reason: reason() },
            ReportKind::Ask { nonce: Nonce([1; 16]), attempt: attempt() },
            ReportKind::Started { nonce: Nonce([2; 16]), attempt: attempt() },
            ReportKind::ControlStart { attempt: attempt() },
            ReportKind::Outcome { attempt: attempt(), outcome: Outcome::RolledBack, reason: reason() },
            ReportKind::Health { rc: 6, metrics: [("crashes".to_owned(), 2)].into() },
            ReportKind::Halted { attempt: attempt(), state: to },
            ReportKind::Halted { attempt: super::tests::attempt(8), state: to },
        ]
    }

    #[test]
    fn every_kind_reads_behind_every_other_as_it_was_written() {
        let pairs = every_kind()
            .into_iter()
            .flat_map(|first| every_kind().into_iter().map(move |it| (first.clone(), it)));
        for (first, second) in pairs {
            let mut kinds = vec![first, second];
            let said = kinds.clone();

            let message = Reports::gather(3, 1, 40, 38, &mut kinds).unwrap();
            let text = serde_json::to_string(&message).unwrap();
            let read: Reports = serde_json::from_str(&text).unwrap();

            assert!(text.starts_with(r#"{"e":3,"k":1,"n":40,"low":38,"t":"#), "{text}");
            assert_eq!(kinds, []);
            assert_eq!(read.into_iter().map(|r| r.kind).collect::<Vec<_>>(), said);
            let numbers: Vec<_> = message.into_iter().map(|r| (r.e, r.k, r.n, r.low)).collect();
            assert_eq!(numbers, [(3, 1, 40, 38), (3, 1, 41, 38)]);
        }
    }

    #[test]
    fn what_the_first_has_said_is_not_said_again() {
        let mut kinds = every_kind().split_off(2);
        let text = serde_json::to_string(&Reports::gather(3, 1, 40, 38, &mut kinds).unwrap()).unwrap();
        assert_eq!((text.matches(r#""rollout":"r7""#).count(), kinds.len()), (2, 0), "{text}");
    }

    #[test]
    fn one_report_is_written_as_ever_and_a_message_of_several_is_no_single_report() {
        let mut kinds = every_kind();
        kinds.truncate(1);
        let one = Report { e: 3, k: 1, n: 40, low: 38, kind: kinds[0].clone() };
        let text = serde_json::to_string(&Reports::gather(3, 1, 40, 38, &mut kinds).unwrap()).unwrap();
        assert_eq!(text, serde_json::to_string(&one).unwrap());

        let mut several = every_kind();
        let text = serde_json::to_string(&Reports::gather(3, 1, 40, 38, &mut several).unwrap()).unwrap();
        assert!(serde_json::from_str::<Report>(&text).is_err());
    }

    #[test]
    fn a_message_holds_what_its_ceilings_allow_and_the_rest_follows() {
        let reason = Some("x".repeat(512));
        let (from, to) = (StateName::Downloading, StateName::Retry);
        let long = ReportKind::Transition { attempt: attempt(7), from, to, reason };
        let short = ReportKind::Transition { attempt: attempt(7), from, to, reason: None };
        for kind in [long, short] {
            let mut kinds = vec![kind; 40];
            let mut n = 1;
            while let Some(message) = Reports::gather(3, 1, n, 1, &mut kinds) {
                let text = serde_json::to_string(&message).unwrap();
                assert!(text.len() + 40 <= REPORT_MAX && message.more.len() < REPORTS_MAX, "{}", text.len());
                let read: Reports = serde_json::from_str(&text).unwrap();
                assert_eq!(read, message);
                n += read.into_iter().count() as u64;
            }
            assert_eq!(n, 41);
        }
    }

    #[test]
    fn a_hello_stands_alone_and_nothing_else_may_hold_one() {
        let mut kinds = vec![hello(), every_kind().remove(0), hello()];
        for rest in [2, 1, 0] {
            let message = Reports::gather(3, 1, 1, 1, &mut kinds).unwrap();
            assert_eq!((message.more.len(), kinds.len()), (0, rest));
        }
        let inner = serde_json::to_string(&hello()).unwrap();
        let outer =
            r#"{"e":1,"k":1,"n":1,"low":1,"t":"control-start","rc":1,"rollout":"r","attempt":1,"more":["#;
        assert!(serde_json::from_str::<Reports>(&format!("{outer}{inner}]}}")).is_err());
        let nested = r#"{"t":"control-start","more":[{"t":"control-start"}]}"#;
        assert!(serde_json::from_str::<Reports>(&format!("{outer}{nested}]}}")).is_err());
        let many = [r#"{"t":"control-start"}"#; REPORTS_MAX].join(",");
        assert!(serde_json::from_str::<Reports>(&format!("{outer}{many}]}}")).is_err());
        let allowed = [r#"{"t":"control-start"}"#; REPORTS_MAX - 1].join(",");
        assert!(serde_json::from_str::<Reports>(&format!("{outer}{allowed}]}}")).is_ok());
        // Half an attempt of its own is not filled up with another one's.
        let half = r#"{"t":"control-start","attempt":2}"#;
        assert!(serde_json::from_str::<Reports>(&format!("{outer}{half}]}}")).is_err());
        let behind_hello = inner.replacen(
            '{',
            r#"{"e":1,"k":1,"n":1,"low":1,"more":[{"t":"health","rc":1,"metrics":{}}],"#,
            1,
        );
        assert!(serde_json::from_str::<Reports>(&behind_hello).is_err());
        let unshared =
            r#"{"e":1,"k":1,"n":1,"low":1,"t":"health","rc":1,"metrics":{},"more":[{"t":"control-start"}]}"#;
        assert!(serde_json::from_str::<Reports>(unshared).is_err());
    }
}
