//! Arguments of `tern demo`.

use std::path::PathBuf;

use clap::Args;

const AFTER: &str = "\
Examples:
  tern demo
  tern demo --devices 500 --bad-rate 0.2 --seed 7
  tern demo --image old.img new.img --keep ./demo";

/// What `tern demo` was told.
#[derive(Debug, Clone, PartialEq)]
pub struct DemoArgs {
    /// Devices.
    pub devices: u32,
    /// Seed of everything random.
    pub seed: u64,
    /// Share of devices on which the bad release fails.
    pub bad_rate: f64,
    /// Folder to keep instead of a temporary one.
    pub keep: Option<PathBuf>,
    /// Images to use: the old one and the new one.
    pub image: Option<(PathBuf, PathBuf)>,
    /// How much faster than real the waits of the devices run.
    pub time_scale: f64,
    /// Print JSON.
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(super) struct Flags {
    /// Run this many devices
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    devices: u32,
    /// Repeat a run: the same seed draws the same devices, faults and delays
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Let the bad release fail on this share of the devices
    #[arg(long, default_value_t = 0.5, value_name = "0..1", value_parser = share)]
    bad_rate: f64,
    /// Keep everything in this folder instead of a temporary one
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Use these images instead of made-up ones
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"])]
    image: Option<Vec<PathBuf>>,
    /// Run the devices' waits this much faster than real
    #[arg(long, default_value_t = 60.0, value_name = "FACTOR", value_parser = factor)]
    time_scale: f64,
}

impl Flags {
    pub(super) fn args(self, json: bool) -> DemoArgs {
        let Self { devices, seed, bad_rate, keep, image, time_scale } = self;
        let image = image.and_then(|paths| <[PathBuf; 2]>::try_from(paths).ok()).map(|[old, new]| (old, new));
        DemoArgs { devices, seed, bad_rate, keep, image, time_scale, json }
    }
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "give a number".to_owned())?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("give a share from 0 to 1".into()) }
}

fn factor(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "give a number".to_owned())?;
    if (1.0..=10_000.0).contains(&value) { Ok(value) } else { Err("give a factor from 1 to 10000".into()) }
}
