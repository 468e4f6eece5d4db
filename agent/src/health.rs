//! Health probes: the integrator's programs that decide whether a release on trial is well.

use crate::command::{Context, Ending, Program, ProgramFailure};

/// A program that exits with 0 when its part of the device is well.
pub type Probe = Program;

/// Says which probe found the device unwell.
pub type ProbeFailure = ProgramFailure;

/// Runs all probes in order; the first that does not exit with 0 ends it. Ends by itself, because every probe has
/// a deadline; may run twice.
pub async fn run_probes(probes: &[Probe], context: &Context) -> Result<(), ProbeFailure> {
    for probe in probes {
        let finished = probe.run(context, &[]).await;
        match finished.ending {
            Ending::Exit(0) => tracing::info!(probe = probe.name, "healthy"),
            reason => {
                let name = probe.name.clone();
                return Err(ProbeFailure { name, reason, output_tail: finished.output_tail });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::slot::SlotName;

    fn context(slot_path: &str) -> Context {
        Context {
            slot: SlotName::A,
            slot_path: slot_path.into(),
            rc: 1,
            version: "1".into(),
            device: "r-1".parse().unwrap(),
        }
    }

    fn probe(name: &str, command: &[&str]) -> Probe {
        let command = command.iter().map(|part| (*part).to_owned()).collect();
        Probe { name: name.into(), command, deadline: Duration::from_secs(20) }
    }

    #[tokio::test]
    async fn a_device_is_healthy_when_every_probe_says_so() {
        let probes = [probe("payload", &["{slot_path}"]), probe("disk", &["/bin/true"])];

        assert!(run_probes(&probes, &context("/bin/true")).await.is_ok());
        assert!(run_probes(&[], &context("/bin/true")).await.is_ok());
    }

    #[tokio::test]
    async fn the_first_unhealthy_probe_is_named_with_what_it_said_and_the_rest_is_not_asked() {
        let folder = tempfile::tempdir().unwrap();
        let asked = folder.path().join("asked");
        let probes = [
            probe("disk", &["/bin/true"]),
            probe("modem", &["/bin/sh", "-c", "echo no carrier; exit 4"]),
            probe("late", &["/bin/touch", asked.to_str().unwrap()]),
        ];

        let failure = run_probes(&probes, &context("/bin/true")).await.unwrap_err();

        assert_eq!(failure.summary(), "modem: exit code 4, saying \"no carrier\"");
        assert!(!asked.exists());
    }
}
