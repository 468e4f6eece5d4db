//! The numbers that Prometheus reads: few enough to know by heart.

use std::fmt::Write as _;

use super::types::EdgeView;
use super::views;
use crate::core::rollout::record::{Rollout, Status};
use crate::core::service::Service;
use crate::ledger::Ledger;

/// Rollouts that are shown: the active ones, and the newest of the others.
const ROLLOUTS: usize = 20;

/// Writes the text format, version 0.0.4.
pub(super) fn text(service: &Service, ledger: &Ledger, edge: &EdgeView, refused_callers: u64) -> String {
    let (fleet, counters) = (service.fleet(), service.counters());
    let EdgeView { wire, front, .. } = edge;
    let mut page = Page::default();
    page.one("tern_devices", "gauge", "Registered devices", fleet.devices.len() as u64);
    page.one("tern_devices_enrolled", "gauge", "Devices whose key is known", views::enrolled(fleet));
    page.one("tern_devices_pending", "gauge", "Devices that wait for approval", fleet.pending.len() as u64);
    page.one("tern_reports_total", "counter", "Reports counted in the fleet's life", fleet.reports);
    page.one("tern_reports_accepted_total", "counter", "Reports taken in", counters.accepted);
    page.one("tern_messages_forged_total", "counter", "Messages that did not authenticate", counters.forged);
    page.one("tern_messages_malformed_total", "counter", "Messages that made no sense", counters.malformed);
    page.one("tern_messages_unknown_total", "counter", "Messages of unregistered devices", counters.unknown);
    let trouble = service.trouble().len() as u64;
    page.one(
        "tern_products_unsigned",
        "gauge",
        "Products for which nothing can be signed: wake somebody",
        trouble,
    );
    let recovery = super::recover::view(service);
    let comparing = u64::from(recovery.comparing);
    page.one("tern_comparing", "gauge", "1: compares with devices after a restore, signs nothing", comparing);
    page.one("tern_comparing_devices_compared", "gauge", "Devices that were compared", recovery.compared);
    let refused = counters.refused();
    page.one("tern_enrolments_refused_total", "counter", "Enrolments by claims that were not good", refused);
    let help = "Requests to the API refused for want of a token or of a role";
    page.one("tern_api_refused_total", "counter", help, refused_callers);
    page.one("tern_ledger_frames", "counter", "Frames of the ledger", ledger.next());
    page.one("tern_wire_pack_bytes_total", "counter", "Payload of packs sent", wire.packs);
    page.one("tern_wire_down_bytes_total", "counter", "MQTT bytes to devices", wire.down);
    page.one("tern_wire_up_bytes_total", "counter", "MQTT bytes from devices", wire.up);
    for (name, help, value) in [
        ("tern_front_refused_connections_total", "Connections refused", front.refused_connections),
        (
            "tern_front_revoked_connections_total",
            "Connections of revoked devices closed",
            front.revoked_connections,
        ),
        ("tern_front_refused_messages_total", "Messages refused by policy", front.refused_messages),
        ("tern_front_refused_subscriptions_total", "Filters refused by policy", front.refused_subscriptions),
    ] {
        page.one(name, "counter", help, value);
    }

    let mut rollouts: Vec<&Rollout> = fleet.rollouts.values().collect();
    let active = |r: &Rollout| matches!(r.status, Status::Running | Status::Paused);
    rollouts.sort_by_key(|r| (!active(r), std::cmp::Reverse(r.started_at)));
    rollouts.truncate(ROLLOUTS);
    let status = |r: &Rollout| match r.status {
        Status::Running => 1,
        Status::Paused => 2,
        Status::Killed => 3,
        Status::Completed => 4,
    };
    let help = "1 running, 2 paused, 3 killed, 4 completed";
    page.each("tern_rollout_status", help, &rollouts, status);
    page.each("tern_rollout_phase", "Present phase, from 1", &rollouts, |r| r.phases.len() as u64);
    page.each("tern_rollout_covered", "Devices that it covers", &rollouts, |r| service.covered(r));
    page.each("tern_rollout_started", "Devices that started", &rollouts, |r| r.total().started);
    page.each("tern_rollout_good", "Devices that confirmed", &rollouts, |r| r.total().good);
    page.each("tern_rollout_bad", "Devices that failed or rolled back", &rollouts, |r| r.total().bad);
    page.each("tern_rollout_silent", "Devices silent past the last deadline", &rollouts, |r| {
        r.total().silent
    });
    page.each("tern_rollout_recalled", "Devices stopped by a kill", &rollouts, |r| r.total().recalled);
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a String takes everything");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        writeln!(self.0, "{name} {value}").expect("a String takes everything");
    }

    fn each(&mut self, name: &str, help: &str, rollouts: &[&Rollout], value: impl Fn(&Rollout) -> u64) {
        self.head(name, "gauge", help);
        for rollout in rollouts {
            // An id holds nothing that a label would have to escape.
            writeln!(self.0, "{name}{{rollout=\"{}\"}} {}", rollout.id, value(rollout))
                .expect("a String takes everything");
        }
    }
}
