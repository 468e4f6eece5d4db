//! python-tuf makes and signs the repository of a product, and forgeries of it with the real keys: what our clients make
//! of them. The table is data, written by `tests/foreign/signer.py`.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::error::Error;

use serde::Deserialize;
use tern_protocol::bundle::File;
use tern_protocol::limits::TufLimits;
use tern_protocol::offer::{Device, NothingBecause, Selection, select};
use tern_protocol::tuf::client::{BoxError, Client, ClientError, Refresh, Source, Store};
use tern_protocol::tuf::{Pool, Role, RoleName, Trusted, peek};
use tern_tests::lab::{Foreign, ends};

type Files = BTreeMap<String, String>;

#[derive(Deserialize)]
struct Written {
    now: u64,
    story: Vec<Step>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Step {
    name: String,
    files: Files,
    offer: u64,
    versions: BTreeMap<String, u32>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    held: Files,
    files: Files,
    role: Option<String>,
    says: Option<String>,
    selection: String,
    general: Option<String>,
    later: u64,
}

fn written() -> Option<Written> {
    let ran = ends(&mut Foreign::built()?.script("signer.py"));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    Some(serde_json::from_str(&ran.out).unwrap())
}

/// The agent's workflow: files from a pool.
struct Agent {
    trusted: Trusted,
    pool: Pool,
}

impl Agent {
    fn provisioned(root: &str) -> Self {
        Self { trusted: Trusted::new(root.as_bytes()).unwrap(), pool: Pool::default() }
    }

    fn given(&mut self, files: &Files, now: u64) -> Refresh {
        for (name, text) in files {
            self.pool.add(File { role: Role::from_name(name).unwrap(), bytes: text.clone().into_bytes() });
        }
        self.trusted.refresh(&mut self.pool, now)
    }

    fn selection(&self) -> String {
        let Some(current) = self.trusted.current() else { return "none".into() };
        let [id, carrier, region] = ["dev-1", "none", "eu"].map(str::to_owned);
        let device = Device {
            id: &id.parse().unwrap(),
            product: &"router".parse().unwrap(),
            model: &"tr-100".parse().unwrap(),
            carrier: &carrier.parse().unwrap(),
            region: &region.parse().unwrap(),
            running: 0,
        };
        match select(&current, &device) {
            Selection::Offer(offer) => format!("offer {}", offer.attempt.rc),
            Selection::Control(offer) => format!("control {}", offer.attempt.rc),
            Selection::Nothing(NothingBecause::NotApproved { rc }) => format!("not-approved {rc}"),
            Selection::Nothing(NothingBecause::NotForModel { rc }) => format!("not-for-model {rc}"),
            Selection::Nothing(NothingBecause::Halted { rc }) => format!("halted {rc}"),
            Selection::Nothing(NothingBecause::NotIncluded { .. }) => "not-included".into(),
            Selection::Nothing(because) => format!("{because:?}"),
        }
    }
}

/// The general client: files by name from a server.
#[derive(Default)]
struct General {
    stored: Stored,
    server: Server,
}

#[derive(Default)]
struct Stored(BTreeMap<RoleName, Vec<u8>>);

#[derive(Default)]
struct Server {
    files: Files,
    roots: BTreeMap<u32, String>,
}

impl Store for Stored {
    fn load(&self, role: &RoleName) -> Result<Option<Vec<u8>>, BoxError> {
        Ok(self.0.get(role).cloned())
    }
    fn keep(&mut self, role: &RoleName, bytes: &[u8]) -> Result<(), BoxError> {
        self.0.insert(role.clone(), bytes.to_vec());
        Ok(())
    }
    fn forget(&mut self, role: &RoleName) -> Result<(), BoxError> {
        self.0.remove(role);
        Ok(())
    }
}

impl Source for Server {
    fn fetch(
        &mut self,
        role: &RoleName,
        version: Option<u32>,
        most: usize,
    ) -> Result<Option<Vec<u8>>, BoxError> {
        let file = match version {
            Some(version) => self.roots.get(&version),
            None => self.files.get(role.as_str()),
        };
        match file {
            Some(text) if text.len() > most => Err("the file is longer than it may be".into()),
            file => Ok(file.map(|text| text.clone().into_bytes())),
        }
    }
}

impl General {
    fn provisioned(root: &str) -> Self {
        let mut general = Self::default();
        Client::init(&mut general.stored, root.as_bytes(), &TufLimits::DEVICE).unwrap();
        general
    }

    /// Follows what a server has now, and reads every role; returns the length of the target that is named so.
    fn follows(&mut self, files: &Files, now: u64, path: &str) -> Result<Option<u64>, ClientError> {
        self.server.files = files.clone();
        // Roots stay where they were published.
        let root = &files["root"];
        self.server.roots.insert(peek(root.as_bytes()).unwrap_or(0), root.clone());
        let client = Client::new(&mut self.server, &mut self.stored, TufLimits::DEVICE, now)?;
        let mut repository = client.refresh()?;
        // Nobody names it, so everybody is asked.
        assert!(repository.find("router/0/nothing")?.is_none());
        Ok(repository.find(path)?.map(|target| target.length))
    }
}

fn chain(error: &ClientError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

fn held(agent: &Agent) -> BTreeMap<String, u32> {
    Role::ALL
        .map(|role| (role.name().to_owned(), agent.trusted.file(role).and_then(peek).unwrap_or(0)))
        .into()
}

#[test]
fn our_clients_follow_a_repository_of_python_tufs_through_new_keys_of_every_role() {
    let Some(written) = written() else { return };
    let first = &written.story[0].files["root"];
    let (mut agent, mut general) = (Agent::provisioned(first), General::provisioned(first));

    for step in &written.story {
        let done = agent.given(&step.files, written.now);
        assert_eq!((&done.refused, &done.missing), (&vec![], &vec![]), "{}", step.name);
        assert_eq!(held(&agent), step.versions, "{}", step.name);
        assert_eq!(agent.selection(), format!("offer {}", step.offer), "{}", step.name);
        // Byte for byte as they were signed, whatever python-tuf writes.
        for (role, text) in &step.files {
            let held = agent.trusted.file(Role::from_name(role).unwrap());
            assert!(held == Some(text.as_bytes()), "{}: {role}", step.name);
        }
        let path = format!("router/{}/rootfs", step.offer);
        let found = general.follows(&step.files, written.now, &path);
        assert!(matches!(found, Ok(Some(length)) if length > 1000), "{}: {found:?}", step.name);
    }

    // One that was away for all of it, and one that restarts.
    let mut late = Agent::provisioned(first);
    let last = written.story.last().unwrap();
    for step in &written.story {
        late.pool.add(File { role: Role::Root, bytes: step.files["root"].clone().into_bytes() });
    }
    let done = late.given(&last.files, written.now);
    assert_eq!((done.refused, late.selection()), (vec![], format!("offer {}", last.offer)));
    let restored = Trusted::restore(&late.trusted.files()).unwrap();
    assert_eq!(restored.files(), agent.trusted.files());
}

#[test]
fn our_clients_refuse_what_python_tuf_forges_and_say_why() {
    let Some(written) = written() else { return };
    let (mut wrong, mut refused) = (Vec::new(), 0);

    for case in &written.cases {
        let mut differs = |what: &str, found: String| wrong.push(format!("{}: {what}: {found}", case.name));
        let mut agent = Agent::provisioned(&case.held["root"]);
        let before = agent.given(&case.held, written.now);
        assert_eq!(before.refused, vec![], "{}", case.name);
        let done = agent.given(&case.files, written.now + case.later);
        let refusals: Vec<String> = done.refused.iter().map(|(role, e)| format!("{role}: {e}")).collect();
        match (&case.role, &case.says) {
            (Some(role), Some(says)) => {
                refused += 1;
                let told = done.refused.iter().all(|(refused, error)| {
                    refused.name() == role && error.to_string().contains(says.as_str())
                });
                if refusals.is_empty() || !told {
                    differs(&format!("the agent should refuse {role} ({says})"), format!("{refusals:?}"));
                }
            }
            _ if !refusals.is_empty() => differs("the agent should refuse nothing", format!("{refusals:?}")),
            _ => {}
        }
        if agent.selection() != case.selection {
            differs(&format!("the device should see {}", case.selection), agent.selection());
        }

        let mut general = General::provisioned(&case.held["root"]);
        if case.held.len() > 1 {
            general.follows(&case.held, written.now, "router/8/rootfs").unwrap();
        }
        let found = general.follows(&case.files, written.now + case.later, "router/9/rootfs");
        match (&case.general, &found) {
            (None, Ok(_)) => {}
            (Some(says), Err(error)) if chain(error).contains(says.as_str()) => {}
            (says, Err(error)) => differs(&format!("a general client: {says:?}"), chain(error)),
            (says, Ok(found)) => differs(&format!("a general client: {says:?}"), format!("{found:?}")),
        }
    }

    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), written.cases.len(), wrong.join("\n"));
    assert!(refused >= 50, "the table has lost its cases: {refused}");
}
