//! The command line, read by hand: a library for it weighs a sixteenth of the whole agent.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A text: help, or the version.
    Text(String),
    /// Run the agent.
    Run(PathBuf),
    /// Show the state.
    Status {
        /// Configuration file.
        config: PathBuf,
        /// As one JSON object.
        json: bool,
    },
    /// Print the line for the factory list.
    Identity(PathBuf),
    /// Make new keys.
    Rotate(PathBuf),
    /// Fill the single slot.
    Recover {
        /// Configuration file.
        config: PathBuf,
        /// As one JSON object.
        json: bool,
    },
    /// Exchange two names.
    Exchange {
        /// One.
        one: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// Put the first image there.
    Provision {
        /// Configuration file.
        config: PathBuf,
        /// The image.
        image: PathBuf,
        /// Its release counter.
        rc: u64,
        /// Its version.
        version: String,
    },
}

/// An option: name, placeholder of its value (none for a switch), help.
type Flag = (&'static str, &'static str, &'static str);

struct Usage {
    name: &'static str,
    options: &'static [Flag],
    help: &'static str,
    more: &'static str,
}

const CONFIG: Flag = ("config", "FILE", "Configuration file");
const JSON: Flag = ("json", "", "Print one JSON object");

const COMMANDS: [Usage; 7] = [
    Usage { name: "run", options: &[CONFIG], help: "Run the agent until it is stopped", more: "" },
    Usage {
        name: "status",
        options: &[CONFIG, JSON],
        help: "Show what the journal, the boot record and the slots say",
        more: "",
    },
    Usage {
        name: "identity",
        options: &[CONFIG],
        help: "Print this device's line for the factory list, making its keys if there are none",
        more: "",
    },
    Usage {
        name: "identity rotate",
        options: &[CONFIG],
        help: "Make new keys, which the agent uses from its next start on",
        more: "The old keys vouch for the new ones, and go when the service has answered under them.\n\n\
               Example:\n  tern-agent identity rotate --config /etc/tern/agent.toml && systemctl restart tern-agent\n",
    },
    Usage {
        name: "recover",
        options: &[CONFIG, JSON],
        help: "Put the wanted release into the single slot, in a recovery system; then reboot",
        more: "Resumes after a power cut. Where no package is whole, the confirmed one is fetched again from the brokers.\n\n\
               Example, in the recovery system's init:\n  tern-agent recover --config /etc/tern/agent.toml && reboot -f\n",
    },
    Usage {
        name: "provision",
        options: &[
            CONFIG,
            ("image", "FILE", "The image"),
            ("rc", "N", "Its release counter"),
            ("version", "TEXT", "Its version"),
        ],
        help: "Put the first image into slot a and make it the confirmed one",
        more: "",
    },
    Usage {
        name: "exchange",
        options: &[
            ("one", "PATH", "A file or folder"),
            ("other", "PATH", "Another one, on the same file system"),
        ],
        help: "Exchange the names of two files or folders in one step, for hooks that put user data back",
        more: "",
    },
];

const EXAMPLES: &str = "\
Examples:
  tern-agent identity --config /etc/tern/agent.toml >> factory.jsonl
  tern-agent identity rotate --config /etc/tern/agent.toml
  tern-agent provision --config /etc/tern/agent.toml --image rootfs.img --rc 1 --version 1.0.0
  tern-agent run --config /etc/tern/agent.toml
  tern-agent status --config /etc/tern/agent.toml --json

The log goes to standard error; TERN_LOG=debug says more.
Exit codes: 0 stopped or done, 1 failed, 2 wrong usage; of recover 3 where a person has to come, 75 while the network
is waited for.
";

/// Reads what follows the program's name. What cannot be understood is returned as a text for people.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Asked, String> {
    let mut words = words.into_iter().peekable();
    let mut name = String::new();
    while let Some(word) = words.next_if(|word| !word.as_encoded_bytes().starts_with(b"-")) {
        let gap = if name.is_empty() { "" } else { " " };
        name = format!("{name}{gap}{}", word.display());
    }
    if name.is_empty() || name == "help" {
        return match words.next() {
            Some(word) if word == "--version" || word == "-V" => {
                Ok(Asked::Text(concat!("tern-agent ", env!("CARGO_PKG_VERSION"), "\n").into()))
            }
            Some(word) if word == "--help" || word == "-h" => Ok(Asked::Text(all())),
            None if name == "help" => Ok(Asked::Text(all())),
            Some(word) => Err(format!("error: no command before {}\n\n{}", word.display(), all())),
            None => Err(all()),
        };
    }
    let Some(usage) = COMMANDS.iter().find(|usage| usage.name == name) else {
        return Err(format!("error: there is no command \"{name}\"\n\n{}", all()));
    };
    let wrong = |why: String| format!("error: {why}\n\n{}", usage.text());
    let mut given: Vec<(&str, OsString)> = Vec::new();
    while let Some(word) = words.next() {
        if word == "--help" || word == "-h" {
            return Ok(Asked::Text(usage.text()));
        }
        let shown = word.display().to_string();
        let option = shown.strip_prefix("--").unwrap_or_default();
        let (option, value) =
            option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        let Some((key, placeholder, _)) = usage.options.iter().find(|(key, ..)| *key == option) else {
            return Err(wrong(format!("what is {shown}?")));
        };
        if given.iter().any(|(other, _)| other == key) {
            return Err(wrong(format!("--{key} is there twice")));
        }
        let value = match (placeholder.is_empty(), value) {
            (true, None) => OsString::new(),
            (true, Some(_)) => return Err(wrong(format!("--{key} takes no value"))),
            (false, Some(value)) => value.into(),
            (false, None) => words.next().ok_or_else(|| wrong(format!("--{key} needs a value")))?,
        };
        given.push((key, value));
    }
    let mut take =
        |key: &str| given.iter().position(|(other, _)| *other == key).map(|at| given.swap_remove(at).1);
    let json = take("json").is_some();
    let mut needed = |key: &str| take(key).ok_or_else(|| wrong(format!("--{key} is missing")));
    if usage.name == "exchange" {
        let (one, other) = (needed("one")?.into(), needed("other")?.into());
        return Ok(Asked::Exchange { one, other });
    }
    let config = PathBuf::from(needed("config")?);
    Ok(match usage.name {
        "run" => Asked::Run(config),
        "status" => Asked::Status { config, json },
        "identity" => Asked::Identity(config),
        "identity rotate" => Asked::Rotate(config),
        "recover" => Asked::Recover { config, json },
        _ => {
            let text = |word: OsString| word.into_string().ok();
            let (image, rc, version) = (needed("image")?.into(), needed("rc")?, needed("version")?);
            let Some(rc) = text(rc).and_then(|rc| rc.parse().ok()) else {
                return Err(wrong("--rc is no whole number".into()));
            };
            let Some(version) = text(version) else { return Err(wrong("--version is no text".into())) };
            Asked::Provision { config, image, rc, version }
        }
    })
}

impl Usage {
    fn text(&self) -> String {
        let mut text = format!("{}\n\nUsage: tern-agent {}", self.help, self.name);
        for (key, value, _) in self.options {
            let part = if value.is_empty() { format!(" [--{key}]") } else { format!(" --{key} <{value}>") };
            text.push_str(&part);
        }
        text.push_str("\n\nOptions:\n");
        for (key, value, help) in self.options {
            let left = if value.is_empty() { format!("--{key}") } else { format!("--{key} <{value}>") };
            // A string takes everything.
            let _never = writeln!(text, "  {left:18} {help}");
        }
        let gap = if self.more.is_empty() { "" } else { "\n" };
        format!("{text}{gap}{}", self.more)
    }
}

fn all() -> String {
    let mut text = String::from(
        "Keeps one device on the release that its fleet has approved\n\nUsage: tern-agent <COMMAND>, tern-agent --version\n\nCommands:\n",
    );
    for usage in &COMMANDS {
        let _never = writeln!(text, "  {:16} {}", usage.name, usage.help);
    }
    format!("{text}\nEach of them knows --help.\n\n{EXAMPLES}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Result<Asked, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn every_example_of_the_help_is_understood() {
        let help = all() + &COMMANDS.map(|usage| usage.text()).concat();
        let examples: Vec<&str> =
            help.lines().filter_map(|line| line.strip_prefix("  tern-agent ")).collect();
        assert_eq!(examples.len(), 7);
        for example in examples {
            let line = example.split([';', '>', '&']).next().unwrap();
            assert!(!matches!(asked(line), Err(_) | Ok(Asked::Text(_))), "{example}");
        }
    }

    #[test]
    fn a_command_gets_what_its_options_say() {
        let config = PathBuf::from("c");

        assert_eq!(asked("run --config c"), Ok(Asked::Run(config.clone())));
        assert_eq!(
            asked("status --json --config=c"),
            Ok(Asked::Status { config: config.clone(), json: true })
        );
        assert_eq!(asked("recover --config c"), Ok(Asked::Recover { config: config.clone(), json: false }));
        let names = Asked::Exchange { one: "-x".into(), other: "y".into() };
        assert_eq!(asked("exchange --one -x --other y"), Ok(names));
        assert_eq!(asked("identity --config c"), Ok(Asked::Identity(config.clone())));
        assert_eq!(asked("identity rotate --config c"), Ok(Asked::Rotate(config.clone())));
        let (image, version) = ("-i".into(), "1.0".into());
        let first = asked("provision --config c --image -i --rc 7 --version 1.0");
        assert_eq!(first, Ok(Asked::Provision { config, image, rc: 7, version }));
    }

    #[test]
    fn a_file_name_need_not_be_text() {
        use std::os::unix::ffi::OsStringExt as _;
        let name = OsString::from_vec(vec![b'/', 0xff]);
        let words = ["run".into(), "--config".into(), name.clone()];

        assert_eq!(parse(words), Ok(Asked::Run(name.into())));
    }

    #[test]
    fn what_cannot_be_understood_is_named_with_the_usage_beside_it() {
        for (line, expected) in [
            ("", "Commands:"),
            ("fly", "no command \"fly\""),
            ("--config c", "no command before --config"),
            ("run", "--config is missing"),
            ("run --config", "needs a value"),
            ("run --config c --config d", "twice"),
            ("run --config c --jsno", "what is --jsno?"),
            ("run --config c extra", "what is extra?"),
            ("run --json --config c", "what is --json?"),
            ("status --config c --json=1", "takes no value"),
            ("provision --config c --image i --rc x --version 1", "no whole number"),
            ("provision --config c --rc 1 --version 1", "--image is missing"),
        ] {
            let said = asked(line).unwrap_err();
            assert!(said.contains(expected) && said.contains("Usage: tern-agent"), "{line}: {said}");
        }
    }

    #[test]
    fn help_and_version_are_texts() {
        let text = |line: &str| match asked(line) {
            Ok(Asked::Text(text)) => text,
            other => panic!("{line}: {other:?}"),
        };
        assert!(text("--version").starts_with("tern-agent 0."));
        assert_eq!(text("-h"), text("help"));
        assert!(text("provision --help").contains("--rc <N>"));
        assert!(text("recover -h").contains("reboot -f"));
    }
}
