//! Every MQTT topic of Tern, built and parsed here and nowhere else (docs/protocol.md, "Topics").
//!
//! ```text
//! ota/v1/<fleet>/p/<product>/ts                    ota/v1/<fleet>/d/<device>/in
//! ota/v1/<fleet>/p/<product>/root/<n>              ota/v1/<fleet>/d/<device>/pack
//! ota/v1/<fleet>/p/<product>/head                  ota/v1/<fleet>/up/<partition>/<device>/<kind>
//! ota/v1/<fleet>/p/<product>/<region>/<cohort>     ota/v1/<fleet>/site/<site>/status
//! ota/v1/<fleet>/revoked
//! ```

use std::fmt;

use crate::id::{DeviceId, FleetId, IdError, ProductId, RegionId, SiteId};
use crate::position::{Cohort, Partition};

/// A topic below `ota/v1/<fleet>/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Heartbeat: timestamp and snapshot. Retained.
    Timestamp(ProductId),
    /// One version of root. Retained.
    Root(ProductId, u32),
    /// All signed files of a product. Retained, never cleared.
    Head(ProductId),
    /// Signed files for one cohort in one region. Retained until `head` carries the rollout.
    Cohort(ProductId, RegionId, Cohort),
    /// Answers, and files that the device asked for.
    DeviceIn(DeviceId),
    /// Packs.
    DevicePack(DeviceId),
    /// What a device sends.
    Up(DeviceId, UpKind),
    /// State of an edge.
    SiteStatus(SiteId),
    /// Devices that no front lets in. Retained; for the service to say and for fronts to hear.
    Revoked,
}

/// The four kinds of message that a device sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UpKind {
    /// Sealed, numbered reports. QoS 1.
    Report,
    /// Requests for packs and files. QoS 0.
    Get,
    /// Online or offline, for display. QoS 1.
    Presence,
    /// Keys and proof of possession. QoS 1.
    Enrol,
}

impl UpKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Report, Self::Get, Self::Presence, Self::Enrol];

    /// Returns the word in the topic.
    pub fn word(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Get => "get",
            Self::Presence => "presence",
            Self::Enrol => "enrol",
        }
    }
}

/// Says why a text is not a topic of this fleet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Not below `ota/v1/<fleet>/`.
    #[error("the topic is not one of fleet {0}")]
    OtherFleet(FleetId),
    /// No topic has this shape.
    #[error("no topic of the protocol has this shape")]
    Unknown,
    /// One of its names is malformed.
    #[error("a name in the topic is malformed")]
    Name(#[from] IdError),
    /// The partition is not the one of the device.
    #[error("device {device} does not belong to this partition")]
    WrongPartition {
        /// The device that the topic names.
        device: DeviceId,
    },
}

impl Topic {
    /// Returns the full topic in `fleet`.
    pub fn render(&self, fleet: &FleetId) -> String {
        format!("ota/v1/{fleet}/{}", Tail(self))
    }

    /// Reads a full topic of `fleet`; a report in another partition than its device's is refused.
    pub fn parse(fleet: &FleetId, text: &str) -> Result<Self, TopicError> {
        let other = || TopicError::OtherFleet(fleet.clone());
        let rest = text.strip_prefix("ota/v1/").ok_or_else(other)?;
        let rest = rest.strip_prefix(fleet.as_str()).and_then(|r| r.strip_prefix('/')).ok_or_else(other)?;
        let mut words = rest.split('/');
        let mut next = || words.next().ok_or(TopicError::Unknown);
        let topic = match next()? {
            "p" => {
                let product = next()?.parse()?;
                match (next()?, words.next()) {
                    ("ts", None) => Self::Timestamp(product),
                    ("head", None) => Self::Head(product),
                    ("root", Some(n)) => Self::Root(product, decimal(n)?),
                    (region, Some(cohort)) => Self::Cohort(product, region.parse()?, cohort_of(cohort)?),
                    _ => return Err(TopicError::Unknown),
                }
            }
            "d" => {
                let device = next()?.parse()?;
                match next()? {
                    "in" => Self::DeviceIn(device),
                    "pack" => Self::DevicePack(device),
                    _ => return Err(TopicError::Unknown),
                }
            }
            "up" => {
                let partition = next()?;
                let device: DeviceId = next()?.parse()?;
                let kind = next()?;
                let kind = UpKind::ALL.into_iter().find(|k| k.word() == kind).ok_or(TopicError::Unknown)?;
                if format!("{:02x}", Partition::of(&device).0) != partition {
                    return Err(TopicError::WrongPartition { device });
                }
                Self::Up(device, kind)
            }
            "site" => {
                let site = next()?.parse()?;
                if next()? != "status" {
                    return Err(TopicError::Unknown);
                }
                Self::SiteStatus(site)
            }
            "revoked" => Self::Revoked,
            _ => return Err(TopicError::Unknown),
        };
        match words.next() {
            None => Ok(topic),
            Some(_) => Err(TopicError::Unknown),
        }
    }

    /// Tells whether the controller publishes this topic retained.
    pub fn is_retained(&self) -> bool {
        matches!(self, Self::Timestamp(_) | Self::Root(..) | Self::Head(_) | Self::Cohort(..) | Self::Revoked)
    }

    /// Returns the quality of service at which this topic is published.
    pub fn qos(&self) -> u8 {
        match self {
            Self::DevicePack(_) | Self::Up(_, UpKind::Get) => 0,
            _ => 1,
        }
    }

    /// Returns the exact topics that a device subscribes to, root files aside.
    pub fn of_device(device: &DeviceId, product: &ProductId, region: &RegionId) -> [Self; 5] {
        [
            Self::Timestamp(product.clone()),
            Self::Head(product.clone()),
            Self::Cohort(product.clone(), region.clone(), Cohort::of(device)),
            Self::DeviceIn(device.clone()),
            Self::DevicePack(device.clone()),
        ]
    }
}

/// Returns the filter under which the controller hears every device.
pub fn uplink_filter(fleet: &FleetId, kind: UpKind) -> String {
    format!("ota/v1/{fleet}/up/+/+/{}", kind.word())
}

/// Returns the filter under which the controller hears every site.
pub fn site_filter(fleet: &FleetId) -> String {
    format!("ota/v1/{fleet}/site/+/status")
}

/// Returns the filter of all that products publish.
pub fn product_filter(fleet: &FleetId) -> String {
    format!("ota/v1/{fleet}/p/#")
}

fn decimal(text: &str) -> Result<u32, TopicError> {
    let canonical = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    canonical.then(|| text.parse().ok()).flatten().ok_or(TopicError::Unknown)
}

fn cohort_of(text: &str) -> Result<Cohort, TopicError> {
    let canonical = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
    canonical.then(|| text.parse().ok().and_then(Cohort::new)).flatten().ok_or(TopicError::Unknown)
}

struct Tail<'a>(&'a Topic);

impl fmt::Display for Tail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Topic::Timestamp(product) => write!(f, "p/{product}/ts"),
            Topic::Root(product, n) => write!(f, "p/{product}/root/{n}"),
            Topic::Head(product) => write!(f, "p/{product}/head"),
            Topic::Cohort(product, region, cohort) => {
                write!(f, "p/{product}/{region}/{:03}", cohort.number())
            }
            Topic::DeviceIn(device) => write!(f, "d/{device}/in"),
            Topic::DevicePack(device) => write!(f, "d/{device}/pack"),
            Topic::Up(device, kind) => {
                write!(f, "up/{:02x}/{device}/{}", Partition::of(device).0, kind.word())
            }
            Topic::SiteStatus(site) => write!(f, "site/{site}/status"),
            Topic::Revoked => f.write_str("revoked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> FleetId {
        "acme".parse().unwrap()
    }

    fn one_of_each() -> Vec<Topic> {
        let (product, device): (ProductId, DeviceId) = ("ap".parse().unwrap(), "r-1".parse().unwrap());
        let mut all = vec![
            Topic::Timestamp(product.clone()),
            Topic::Root(product.clone(), 12),
            Topic::Head(product.clone()),
            Topic::Cohort(product, "eu".parse().unwrap(), Cohort::of(&device)),
            Topic::DeviceIn(device.clone()),
            Topic::DevicePack(device.clone()),
            Topic::SiteStatus("hut-3".parse().unwrap()),
            Topic::Revoked,
        ];
        all.extend(UpKind::ALL.map(|kind| Topic::Up(device.clone(), kind)));
        all
    }

    #[test]
    fn every_topic_survives_the_round_trip() {
        for topic in one_of_each() {
            assert_eq!(Topic::parse(&fleet(), &topic.render(&fleet())), Ok(topic));
        }
    }

    #[test]
    fn a_topic_with_one_word_more_or_less_is_refused() {
        for topic in one_of_each() {
            let text = topic.render(&fleet());
            assert!(Topic::parse(&fleet(), &format!("{text}/x")).is_err(), "{text}/x");
            let shorter = text.rsplit_once('/').unwrap().0;
            assert!(Topic::parse(&fleet(), shorter).is_err(), "{shorter}");
        }
    }

    #[test]
    fn a_report_in_a_foreign_partition_is_refused() {
        let device: DeviceId = "r-1".parse().unwrap();
        let foreign = Partition::of(&device).0.wrapping_add(1);
        let text = format!("ota/v1/acme/up/{foreign:02x}/r-1/report");
        assert_eq!(Topic::parse(&fleet(), &text), Err(TopicError::WrongPartition { device }));
    }

    #[test]
    fn another_fleet_is_not_ours() {
        assert!(matches!(Topic::parse(&fleet(), "ota/v1/acme2/p/ap/head"), Err(TopicError::OtherFleet(_))));
    }
}
