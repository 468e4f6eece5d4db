//! The policy as a mosquitto ACL file.
//!
//! mosquitto knows users, not kinds of client: what devices may do becomes `pattern` lines (`%u` is the user
//! name, which must be the device id), a site and the service get a `user` block. It cannot compute a
//! partition or a cohort from a name, so those levels become `+`; the controller drops a report in another
//! partition than its device's, and a device trusts only signed files, whichever cohort's topic they came on.

use std::fmt::Write as _;

use tern_protocol::id::{DeviceId, FleetId, SiteId};

use super::{Access, Kind, Level, RULES, SERVICE};

/// Writes the ACL file for `fleet` with its `sites`; `revoked` devices may do nothing.
pub fn mosquitto_acl(fleet: &FleetId, sites: &[SiteId], revoked: &[DeviceId]) -> String {
    let mut out = format!(
        "# Topic policy of fleet {fleet}; made by: tern-bridge policy mosquitto --fleet {fleet}\n\
         # Do not edit: run that again. User names must be device ids, so set allow_anonymous false.\n\
         # Retaining is not covered by an ACL: the controller ignores what devices retain, and\n\
         # devices believe only signatures.\n\n\
         # Devices\n"
    );
    lines(&mut out, fleet, Kind::Device, "pattern", "%u");
    out.push_str("\n# The controller\n");
    user(&mut out, SERVICE);
    lines(&mut out, fleet, Kind::Service, "topic", "");
    for site in sites {
        out.push_str("\n# A site\n");
        user(&mut out, site.as_str());
        lines(&mut out, fleet, Kind::Site, "topic", site.as_str());
    }
    for device in revoked {
        // What a user's own block denies is decided before the patterns of all devices.
        out.push_str("\n# Revoked\n");
        user(&mut out, device.as_str());
        out.push_str("topic deny #\n");
    }
    out
}

fn user(out: &mut String, name: &str) {
    out.push_str("user ");
    out.push_str(name);
    out.push('\n');
}

fn lines(out: &mut String, fleet: &FleetId, kind: Kind, directive: &str, own: &str) {
    for rule in RULES.iter().filter(|r| r.kind == kind) {
        let access = match rule.access {
            Access::Publish => "write",
            Access::Subscribe => "read",
        };
        let levels: Vec<&str> = rule
            .levels
            .iter()
            .map(|level| match level {
                Level::Word(word) => word,
                Level::Own => own,
                Level::OwnPartition | Level::OwnCohort | Level::Name | Level::Number | Level::Any => "+",
                Level::Rest => "#",
            })
            .collect();
        writeln!(out, "{directive} {access} ota/v1/{fleet}/{}", levels.join("/"))
            .expect("writing to a string does not fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_every_rule_and_each_site() {
        let acl =
            mosquitto_acl(&"acme".parse().unwrap(), &["hut-3".parse().unwrap()], &["r-9".parse().unwrap()]);

        for line in [
            "pattern write ota/v1/acme/up/+/%u/report",
            "pattern read ota/v1/acme/p/+/+/+",
            "pattern read ota/v1/acme/d/%u/pack",
            "user service\ntopic write ota/v1/acme/#\ntopic read ota/v1/acme/#",
            "user r-9\ntopic deny #",
            "user hut-3\ntopic write ota/v1/acme/up/+/+/+\ntopic write ota/v1/acme/site/hut-3/status",
        ] {
            assert!(acl.contains(line), "{line}\n--- is missing in ---\n{acl}");
        }
        assert!(!acl.contains("pattern write ota/v1/acme/d/"), "{acl}");
    }
}
