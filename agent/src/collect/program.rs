//! The integrator's own figures.

use std::collections::BTreeMap;

use crate::command::{Context, Ending, Program};

/// Asks the integrator's program what went wrong since it was asked last: its last line is a JSON object of counts.
/// A program that fails, or prints something else, has counted nothing; the log says so.
pub async fn ask(program: &Program, context: &Context) -> BTreeMap<String, u64> {
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

    #[tokio::test]
    async fn figures_are_the_last_line_and_whatever_is_none_counts_nothing() {
        let context = Context {
            slot: SlotName::A,
            slot_path: "/bin/true".into(),
            rc: 1,
            version: "1".into(),
            device: "r-1".parse().unwrap(),
        };
        let says = |text: &str| Program {
            name: "figures".into(),
            command: ["/bin/sh", "-c", text].map(str::to_owned).into(),
            deadline: Duration::from_secs(20),
        };

        let counted = ask(&says(r#"echo warming up; echo '{"crashes":2,"drain":41}'"#), &context).await;
        assert_eq!(counted, BTreeMap::from([("crashes".to_owned(), 2), ("drain".to_owned(), 41)]));
        for wrong in ["echo none", r#"echo '{"crashes":1}'; exit 1"#, r#"echo '{"crashes":-1}'"#, "true"] {
            assert!(ask(&says(wrong), &context).await.is_empty(), "{wrong}");
        }
    }
}
