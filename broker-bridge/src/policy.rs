//! Who may say what, and hear what: the one table, asked by the front and printed for other brokers.
//!
//! | client | publishes | subscribes |
//! |---|---|---|
//! | device | its own four `up/…` | its own `d/…`, its own cohort, and `ts`, `head`, `root/<n>` of any product; no wildcards |
//! | site | `up/…` of any device, its own `site/…/status` | all of `p/…` and `d/…`, and `revoked`: it has a front of its own |
//! | service | everything | everything |
//!
//! Nobody but the service retains; nobody subscribes outside the fleet, nor to `$share`.

use std::fmt;

use tern_protocol::id::{DeviceId, FleetId, ProductId, SiteId};
use tern_protocol::limits;
use tern_protocol::position::{Cohort, Partition};
use tern_protocol::topic::{Topic, UpKind};

mod mosquitto;

pub use mosquitto::mosquitto_acl;

/// User name of the service; it has its own password whatever the devices use.
pub const SERVICE: &str = "service";

/// An authenticated client.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Client {
    /// A device.
    Device(DeviceId),
    /// The edge of a site.
    Site(SiteId),
    /// The controller, or a chunk server of its own; any client id.
    Service(String),
}

impl Client {
    fn kind(&self) -> Kind {
        match self {
            Self::Device(_) => Kind::Device,
            Self::Site(_) => Kind::Site,
            Self::Service(_) => Kind::Service,
        }
    }

    /// Returns its id.
    pub fn id(&self) -> &str {
        match self {
            Self::Device(id) => id.as_str(),
            Self::Site(id) => id.as_str(),
            Self::Service(id) => id,
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(id) => write!(f, "device {id}"),
            Self::Site(id) => write!(f, "site {id}"),
            Self::Service(id) => write!(f, "service {id}"),
        }
    }
}

/// Says why something is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No rule lets this client publish there.
    #[error("{client} may not publish to {topic:?}")]
    Publish {
        /// Who.
        client: Client,
        /// Where.
        topic: String,
    },
    /// Only the service retains.
    #[error("{client} may not retain ({topic:?})")]
    Retain {
        /// Who.
        client: Client,
        /// Where.
        topic: String,
    },
    /// Above the ceiling of its topic.
    #[error("{client} sent {length} B to {topic:?}, above the ceiling of {ceiling} B")]
    Size {
        /// Who.
        client: Client,
        /// Where.
        topic: String,
        /// How much.
        length: usize,
        /// The ceiling.
        ceiling: usize,
    },
    /// No rule lets this client subscribe to that.
    #[error("{client} may not subscribe to {filter:?}")]
    Subscribe {
        /// Who.
        client: Client,
        /// To what.
        filter: String,
    },
}

/// Who serves a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// The front itself: `d/…`.
    Direct,
    /// The broker behind it.
    Broker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Device,
    Site,
    Service,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Publish,
    Subscribe,
}

/// One level of a topic as a rule sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Word(&'static str),
    /// The client's own id.
    Own,
    /// The partition of the client's own id.
    OwnPartition,
    /// The cohort of the client's own id.
    OwnCohort,
    /// Any checked name.
    Name,
    /// A version: decimal digits.
    Number,
    /// Any one level, `+` included.
    Any,
    /// All that follows, `#` included.
    Rest,
}

struct Rule {
    kind: Kind,
    access: Access,
    levels: &'static [Level],
}

const fn rule(kind: Kind, access: Access, levels: &'static [Level]) -> Rule {
    Rule { kind, access, levels }
}

use Access::{Publish, Subscribe};
use Kind::{Device, Service, Site};
use Level::{Any, Name, Number, Own, OwnCohort, OwnPartition, Rest, Word};

const RULES: &[Rule] = &[
    rule(Device, Publish, &[Word("up"), OwnPartition, Own, Word("report")]),
    rule(Device, Publish, &[Word("up"), OwnPartition, Own, Word("get")]),
    rule(Device, Publish, &[Word("up"), OwnPartition, Own, Word("presence")]),
    rule(Device, Publish, &[Word("up"), OwnPartition, Own, Word("enrol")]),
    rule(Device, Subscribe, &[Word("p"), Name, Word("ts")]),
    rule(Device, Subscribe, &[Word("p"), Name, Word("head")]),
    rule(Device, Subscribe, &[Word("p"), Name, Word("root"), Number]),
    rule(Device, Subscribe, &[Word("p"), Name, Name, OwnCohort]),
    rule(Device, Subscribe, &[Word("d"), Own, Word("in")]),
    rule(Device, Subscribe, &[Word("d"), Own, Word("pack")]),
    rule(Site, Publish, &[Word("up"), Any, Name, Any]),
    rule(Site, Publish, &[Word("site"), Own, Word("status")]),
    rule(Site, Subscribe, &[Word("p"), Rest]),
    rule(Site, Subscribe, &[Word("d"), Any, Any]),
    rule(Site, Subscribe, &[Word("revoked")]),
    rule(Service, Publish, &[Rest]),
    rule(Service, Subscribe, &[Rest]),
];

/// Checks a message and returns its topic; `None` where the service uses a topic of its own.
pub fn may_publish(
    fleet: &FleetId,
    client: &Client,
    topic: &str,
    retain: bool,
    length: usize,
) -> Result<Option<Topic>, Denied> {
    let denied = || Denied::Publish { client: client.clone(), topic: shortened(topic) };
    if !allows(fleet, client, Publish, topic) {
        return Err(denied());
    }
    // The shape is right; the protocol's own reader also knows partitions, so a site cannot misplace a device.
    let parsed = Topic::parse(fleet, topic).ok();
    if client.kind() != Service {
        parsed.as_ref().ok_or_else(denied)?;
        if retain {
            return Err(Denied::Retain { client: client.clone(), topic: shortened(topic) });
        }
    }
    let ceiling = parsed.as_ref().map_or(limits::BUNDLE_MAX, ceiling_of);
    if length > ceiling {
        return Err(Denied::Size { client: client.clone(), topic: shortened(topic), length, ceiling });
    }
    Ok(parsed)
}

/// Checks a subscription and tells who serves it.
pub fn may_subscribe(fleet: &FleetId, client: &Client, filter: &str) -> Result<Route, Denied> {
    if !is_filter(filter) || !allows(fleet, client, Subscribe, filter) {
        return Err(Denied::Subscribe { client: client.clone(), filter: shortened(filter) });
    }
    let direct = tail(fleet, filter).is_some_and(|t| t == "d" || t.starts_with("d/"));
    Ok(if direct { Route::Direct } else { Route::Broker })
}

/// Returns the start of a text that is to be logged: a remote one may have 64 KiB.
fn shortened(text: &str) -> String {
    text.chars().take(120).collect()
}

/// Returns the largest message of a topic.
fn ceiling_of(topic: &Topic) -> usize {
    match topic {
        Topic::Timestamp(_) | Topic::Root(..) | Topic::Head(_) | Topic::Cohort(..) => limits::BUNDLE_MAX,
        Topic::DeviceIn(_) => limits::BUNDLE_MAX.max(limits::ANSWER_MAX),
        Topic::DevicePack(_) => limits::PACK_FRAME_MAX,
        // Besides reports: signed files that the service asked for.
        Topic::Up(_, UpKind::Report) => limits::PRESENTED_MAX,
        Topic::Up(_, UpKind::Get) => limits::GET_MAX,
        Topic::Up(_, UpKind::Presence) => limits::PRESENCE_MAX,
        Topic::Up(_, UpKind::Enrol) => limits::ENROL_MAX,
        Topic::SiteStatus(_) => limits::SITE_STATUS_MAX,
        Topic::Revoked => 8 * limits::REVOKED_MAX,
    }
}

fn tail<'a>(fleet: &FleetId, topic: &'a str) -> Option<&'a str> {
    topic.strip_prefix("ota/v1/")?.strip_prefix(fleet.as_str())?.strip_prefix('/')
}

fn allows(fleet: &FleetId, client: &Client, access: Access, topic: &str) -> bool {
    let Some(tail) = tail(fleet, topic) else { return false };
    let mut rules = RULES.iter().filter(|r| r.kind == client.kind() && r.access == access);
    rules.any(|rule| covers(rule.levels, tail, client))
}

fn covers(levels: &[Level], tail: &str, client: &Client) -> bool {
    let mut words = tail.split('/');
    for level in levels {
        let Some(word) = words.next() else { return false };
        let fits = match level {
            Word(fixed) => word == *fixed,
            Own => word == client.id(),
            OwnPartition => own(client).is_some_and(|id| word == format!("{:02x}", Partition::of(&id).0)),
            OwnCohort => own(client).is_some_and(|id| word == format!("{:03}", Cohort::of(&id).number())),
            // Every name has the same alphabet; a product's has no reserved words.
            Name => word.parse::<ProductId>().is_ok(),
            Number => !word.is_empty() && word.len() <= 10 && word.bytes().all(|b| b.is_ascii_digit()),
            Any => word != "#",
            Rest => return true,
        };
        if !fits {
            return false;
        }
    }
    words.next().is_none()
}

fn own(client: &Client) -> Option<DeviceId> {
    client.id().parse().ok()
}

/// Tells whether `filter` follows MQTT 3.1.1 section 4.7.1: `#` alone and last, `+` alone in its level.
fn is_filter(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let wild = level.contains(['+', '#']);
        if wild && (level.len() != 1 || (level == "#" && levels.peek().is_some())) {
            return false;
        }
    }
    !filter.is_empty()
}

/// Tells whether a topic falls under a filter that [`may_subscribe`] let pass.
pub fn matches(filter: &str, topic: &str) -> bool {
    let mut words = topic.split('/');
    for level in filter.split('/') {
        match (level, words.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(word)) if level == word => {}
            _ => return false,
        }
    }
    words.next().is_none()
}

#[cfg(test)]
mod tests;
