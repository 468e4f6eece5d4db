//! What is played: how a release really is, and how its rollout goes.

use tern_controller::core::rollout::baseline::Baseline;

/// In which order reports come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Bad news as soon as good.
    Neutral,
    /// Bad news first: within minutes.
    BadFirst,
}

/// One scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    /// Its name.
    pub(crate) name: &'static str,
    /// Failure rate that is usual.
    pub(crate) baseline: f64,
    /// Failure rate of this release.
    pub(crate) fails: f64,
    /// Share of devices that never speak again.
    pub(crate) bricks: f64,
    /// In which order reports come.
    pub(crate) order: Order,
    /// The first phase opens in doubling waves, and not all at once.
    pub(crate) paced: bool,
    /// Devices harmed in another implementation of the same method: median and 95 %, of 100 runs with other draws.
    pub(crate) reference: Option<(u64, u64)>,
}

impl Scenario {
    /// What a release with the usual rate does in a fleet.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a fleet")]
    pub(crate) fn usual(&self, fleet: u64) -> Baseline {
        Baseline { started: fleet, bad: libm::round(fleet as f64 * self.baseline) as u64 }
    }

    /// Tells whether killing it would be wrong.
    pub(crate) fn is_healthy(&self) -> bool {
        self.fails <= self.baseline && self.bricks == 0.0
    }
}

const fn bad(name: &'static str, baseline: f64, factor: f64, reference: (u64, u64)) -> Scenario {
    let fails = baseline * factor;
    Scenario {
        name,
        baseline,
        fails,
        bricks: 0.0,
        order: Order::Neutral,
        paced: false,
        reference: Some(reference),
    }
}

const fn healthy(name: &'static str, baseline: f64, order: Order) -> Scenario {
    Scenario { name, baseline, fails: baseline, bricks: 0.0, order, paced: false, reference: None }
}

const fn brick(name: &'static str, fails: f64, bricks: f64, paced: bool, reference: (u64, u64)) -> Scenario {
    let order = Order::Neutral;
    Scenario { name, baseline: 0.01, fails, bricks, order, paced, reference: Some(reference) }
}

const fn paced(scenario: Scenario) -> Scenario {
    Scenario { paced: true, ..scenario }
}

/// All of them.
pub(crate) const SCENARIOS: [Scenario; 20] = [
    healthy("healthy-0.1%", 0.001, Order::Neutral),
    healthy("healthy-1%", 0.01, Order::Neutral),
    healthy("healthy-3%", 0.03, Order::Neutral),
    healthy("healthy-1%-bad-news-first", 0.01, Order::BadFirst),
    healthy("healthy-3%-bad-news-first", 0.03, Order::BadFirst),
    bad("0.1%-x2", 0.001, 2.0, (174, 193)),
    bad("0.1%-x5", 0.001, 5.0, (32, 39)),
    bad("0.1%-x20", 0.001, 20.0, (13, 18)),
    bad("1%-x1.5", 0.01, 1.5, (698, 1406)),
    bad("1%-x2", 0.01, 2.0, (147, 690)),
    bad("1%-x5", 0.01, 5.0, (31, 39)),
    bad("1%-x20", 0.01, 20.0, (83, 106)),
    bad("3%-x2", 0.03, 2.0, (390, 422)),
    bad("3%-x5", 0.03, 5.0, (93, 107)),
    brick("brick-100%", 0.0, 1.0, false, (626, 648)),
    brick("brick-100%-paced", 0.0, 1.0, true, (18, 23)),
    brick("brick-10%", 0.01, 0.1, false, (84, 96)),
    brick("brick-10%-paced", 0.01, 0.1, true, (70, 88)),
    paced(bad("1%-x5-paced", 0.01, 5.0, (21, 32))),
    paced(bad("1%-x20-paced", 0.01, 20.0, (8, 14))),
];
