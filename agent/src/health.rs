//! Health probes: the integrator's programs that decide whether a release on trial is well.

use std::collections::BTreeMap;

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

/// Asks the integrator's program what went wrong since it was asked last: its last line is a JSON object of counts.
/// A program that fails, or prints something else, has counted nothing; the log says so.
pub async fn collect(program: &Program, context: &Context) -> BTreeMap<String, u64> {
    let finished = program.run(context, &[]).await;
    let line = finished.output_tail.trim_end().lines().next_back().unwrap_or_default();
    let counted = match &finished.ending {
        Ending::Exit(0) => serde_json::from_str(line).map_err(|error| error.to_string()),
        ending => Err(ending.to_string()),
    };
    counted.unwrap_or_else(|error| {
        tracing::warn!(program = program.name, error, "figures of health could not be read");
        BTreeMap::new()
    })
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
    async fn figures_are_the_last_line_and_whatever_is_none_counts_nothing() {
        let says = |text: &str| probe("figures", &["/bin/sh", "-c", text]);
        let asked = |text: &'static str| async move { collect(&says(text), &context("/bin/true")).await };

        let counted = asked(r#"echo warming up; echo '{"crashes":2,"drain":41}'"#).await;
        assert_eq!(counted, BTreeMap::from([("crashes".to_owned(), 2), ("drain".to_owned(), 41)]));
        for wrong in ["echo none", r#"echo '{"crashes":1}'; exit 1"#, r#"echo '{"crashes":-1}'"#, "true"] {
            assert!(asked(wrong).await.is_empty(), "{wrong}");
        }
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
