//! Prints the evidence of one test, for people who check a verdict and for other implementations.

use clap::{Parser, Subcommand};
use tern_controller::core::rollout::evidence::{Arm, PairEvidence, gate_evidence, kill_evidence};

/// Print the natural logarithm of an e-value
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  evidence kill 812 37 0.009\n  evidence gate 200 0 0.05\n  evidence pair 1.25 9,31,1000,10000 4,12,990,9970"
)]
struct Flags {
    #[command(subcommand)]
    test: Test,
}

#[derive(Debug, Subcommand)]
enum Test {
    /// More than P of N are bad, when F are; silence is the same with those that are due
    Kill {
        /// Devices that started
        n: u64,
        /// Bad ones
        f: u64,
        /// Allowed rate
        p: f64,
    },
    /// Fewer than P of N are bad, when F are bad or pending
    Gate {
        /// Devices that started
        n: u64,
        /// Bad and pending ones
        f: u64,
        /// Rate of the gate
        p: f64,
    },
    /// The rate is more than RHO times that of a control
    Pair {
        /// Allowed ratio
        rho: f64,
        /// One for each tick: events, events of the control, exposure, exposure of the control
        #[arg(required = true, value_parser = tick)]
        ticks: Vec<(Arm, Arm)>,
    },
}

fn tick(text: &str) -> Result<(Arm, Arm), String> {
    let numbers: Result<Vec<u64>, _> = text.split(',').map(str::parse).collect();
    match numbers.as_deref() {
        Ok([xt, xc, et, ec]) => Ok((Arm { events: *xt, exposure: *et }, Arm { events: *xc, exposure: *ec })),
        _ => Err("four whole numbers with commas between them".to_owned()),
    }
}

#[expect(clippy::print_stdout, reason = "this is the result")]
fn main() {
    let ln_e = match Flags::parse().test {
        Test::Kill { n, f, p } => kill_evidence(n, f, p),
        Test::Gate { n, f, p } => gate_evidence(n, f, p),
        Test::Pair { rho, ticks } => {
            let mut pair = PairEvidence::default();
            ticks.into_iter().for_each(|(treated, control)| pair.tick(treated, control, rho));
            pair.ln_e()
        }
    };
    println!("{ln_e:.9}");
}
