//! `tern keys init`.

use std::path::{Path, PathBuf};

use clap::Args;
use tern_protocol::id::{FleetId, ProductId};
use tern_protocol::tuf::time;

use crate::cli::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::passphrase::NewKeys;
use crate::clock;
use crate::keys::{Holder, InitOptions, InitReport, Quota, init};

/// More holders than that are not asked for signatures in turn.
const KEYS: std::ops::RangeInclusive<u64> = 1..=9;

fn count(text: &str) -> Result<usize, String> {
    let number: u64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let within = KEYS.contains(&number).then(|| usize::try_from(number).ok()).flatten();
    within.ok_or_else(|| format!("{number} is not in {}..={}", KEYS.start(), KEYS.end()))
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Flags {
    /// Name the fleet; one service serves one fleet
    #[arg(long)]
    fleet: FleetId,
    /// Name the product: devices that share releases
    #[arg(long)]
    product: ProductId,
    /// Put the service's keys and the signed files into this data folder
    #[arg(long, value_name = "DIR", default_value = "./tern-data")]
    data: PathBuf,
    /// Put the keys of root, targets and release here, to be taken offline
    #[arg(long, value_name = "DIR", required = true)]
    offline: Vec<PathBuf>,
    /// Name a holder; once for each, in the order of the folders [default: holder-1, holder-2, …]
    #[arg(long, value_name = "NAME")]
    holder: Vec<String>,
    /// Make this many keys of root, and as many of targets
    #[arg(long, value_name = "N", default_value = "1", value_parser = count)]
    root_keys: usize,
    /// Have this many of them sign
    #[arg(long, value_name = "N", default_value = "1", value_parser = count)]
    root_threshold: usize,
    /// Make this many keys of release
    #[arg(long, value_name = "N", default_value = "1", value_parser = count)]
    release_keys: usize,
    /// Have this many of them sign
    #[arg(long, value_name = "N", default_value = "1", value_parser = count)]
    release_threshold: usize,
    #[command(flatten)]
    new: NewKeys,
    /// Let the signed files live this long [default: 365, release 180]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: Option<u32>,
}

pub(super) fn run(flags: Flags, context: &Context) -> Result<Exit, Failure> {
    let holders = holders(&flags, context)?;
    let Flags { fleet, product, data, root_keys, root_threshold, release_keys, release_threshold, .. } =
        flags;
    let root = Quota { keys: root_keys, threshold: root_threshold };
    let release = Quota { keys: release_keys, threshold: release_threshold };
    let (days, now) = (flags.days, clock::now() / 1000);
    let report = init(&InitOptions { fleet, product, data, holders, root, release, days, now })?;
    if flags.root_threshold == 1 {
        context
            .out
            .note("one key of root and one of targets decide alone; docs/security.md recommends 2 of 3");
    }
    context.out.result(&report, text);
    Ok(Exit::Done)
}

/// Tells whether a folder is another, or below it, as far as both are there.
fn lies_in(folder: &Path, other: &Path) -> bool {
    let real = |path: &Path| -> Option<PathBuf> {
        let path = std::path::absolute(path).ok()?;
        // What is not there yet can be no link.
        let there = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)))?;
        Some(there.1.join(path.strip_prefix(there.0).ok()?))
    };
    real(folder).zip(real(other)).is_some_and(|(folder, other)| folder.starts_with(other))
}

fn holders(flags: &Flags, context: &Context) -> Result<Vec<Holder>, Failure> {
    let wanted = flags.root_keys.max(flags.release_keys);
    let name = |index: usize| -> String {
        flags.holder.get(index).cloned().unwrap_or_else(|| format!("holder-{}", index + 1))
    };
    if !flags.holder.is_empty() && flags.holder.len() != wanted {
        let error = format!("{} names for {wanted} holders", flags.holder.len());
        return Err(Failure::usage(error, "give --holder once for each"));
    }
    let plain = |name: &String| {
        (1..=40).contains(&name.len()) && name.chars().all(|c| c.is_alphanumeric() || "-_. @".contains(c))
    };
    if let Some(odd) = flags.holder.iter().find(|name| !plain(name)) {
        let hint = "a name has 1 to 40 letters, digits, blanks and - _ . @";
        return Err(Failure::usage(format!("{odd:?} is no holder's name"), hint));
    }
    let folders: Vec<PathBuf> = match flags.offline.as_slice() {
        [one] if wanted > 1 => (0..wanted).map(|index| one.join(name(index))).collect(),
        folders if folders.len() == wanted => folders.to_vec(),
        folders => {
            let error = format!("{} folders for {wanted} holders", folders.len());
            return Err(Failure::usage(error, "give --offline once, or once for each holder"));
        }
    };
    if let Some(inside) = folders.iter().find(|folder| lies_in(folder, &flags.data)) {
        let error = format!("{} lies in the data folder of the service", inside.display());
        let hint = "offline keys are safe because the service does not hold them: name a folder elsewhere, such as on a stick";
        return Err(Failure::usage(error, hint));
    }
    let protections = flags.new.protections(&folders, context)?;
    let holders = folders.into_iter().zip(protections).enumerate();
    Ok(holders.map(|(i, (folder, protection))| Holder { name: name(i), folder, protection }).collect())
}

fn text(report: &InitReport) -> String {
    let list = |paths: &[PathBuf]| -> String {
        paths.iter().map(|path| format!("  {}\n", path.display())).collect()
    };
    format!(
        "product {} of fleet {} is set up\n\n\
         keep offline, and a copy in a second place:\n{}\n\
         the service holds:\n{}\n\
         signed, public:\n{}\n\
         devices are provisioned with {}\n\
         the first of these files expires at {}; have `tern keys status` run daily\n\
         next: take the offline keys away, then `tern serve`",
        report.product,
        report.fleet,
        list(&report.offline_keys),
        list(&report.online_keys),
        list(&report.files),
        report.root.display(),
        time::write(report.expires),
    )
}
