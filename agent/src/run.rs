//! The loop around the core: messages, jobs and time in, saves, publishes and jobs out.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use tern_protocol::claim::Token;
use tern_protocol::digest::Digest;
use tern_protocol::message::{Presence, Registry};
use tern_protocol::state::StateName;
use tern_protocol::topic::{Topic, UpKind};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::clock;
use crate::collect::Collectors;
use crate::command::Context;
use crate::component::{self, Component, ComponentError};
use crate::config::Config;
use crate::core::SlotName;
use crate::core::agent::{Agent, ComponentFacts, Done, Input, Job, Output, Settings, Target};
use crate::core::state::State;
use crate::core::timing::{Now, Stamp};
use crate::device::Device;
use crate::health::run_probes;
use crate::health::soak::{Soak, Soaked};
use crate::hooks::{HookRefusal, HookStep, Told, run_hooks, undo_hooks};
use crate::identity::{self, FileIdentity};
use crate::link::{self, LinkCommand, LinkConfig, LinkEvent};
use crate::pulse::{End, Pulse};
use crate::starts;
use crate::surroundings::look;
use crate::web::WebServers;

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Somebody asked the agent to stop.
    Stopped,
    /// The device boots: this process image is over.
    Rebooting,
}

/// How long the link may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long the system may take to stop its services, of which we are one.
const GOING_DOWN: Duration = Duration::from_secs(300);

/// Runs the agent until it is stopped or the device boots. Call it on a single-threaded runtime.
pub async fn run(config: Config) -> anyhow::Result<Ended> {
    let device = Device::open(&config)?;
    let durable = device.load_journal()?;
    identity::check(&config.data_dir, durable.enrolled)?;
    let identity = FileIdentity::open(&config.data_dir)?;
    let pulse = Pulse::start(&config, device.booted(), &durable, clock::uptime());
    let (collect, program) = (config.collect.clone(), config.metrics.clone());
    let collectors = Collectors::open(collect, program, &config.data_dir, &durable.state);
    let claim = config.claim(durable.enrolled)?;
    let trust = device.load_trust(&config.root)?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| anyhow::anyhow!("the system gives no random numbers: {e}"))?;
    let web = WebServers::new(&config, durable.time_floor.latest())?;
    let link_config = LinkConfig::load(&config, durable.time_floor.latest())?;
    let (commands, events, link) = link::start(link_config);
    let settings = settings(&config, claim);
    let soak = Soak::new(&config.probes, settings.timing.soak, config.timing.probe_deadline);
    let mut agent = Agent::new(settings, Box::new(identity), durable, trust, seed);
    if soak.is_wanted() {
        agent.expect_soak_probes();
    }
    let (results, finished) = mpsc::channel(16);
    let (figures, collected) = mpsc::channel(1);
    let pending = VecDeque::new();
    let slot_paths = SlotName::BOTH.map(|slot| device.context(&config, slot, 0, String::new()).slot_path);
    let (collector, job) = (None, None);
    let shell = Shell {
        config,
        device,
        agent,
        commands,
        results,
        figures,
        collectors,
        collector,
        job,
        pending,
        soak,
        pulse,
        web,
        slot_paths,
    };
    let ended = shell.run(events, finished, collected).await?;
    // Dropping the commands has told the link to say goodbye; it must not hold up a boot for long.
    if tokio::time::timeout(GOODBYE, link).await.is_err() {
        tracing::debug!("the broker did not take our goodbye in time");
    }
    Ok(ended)
}

fn settings(config: &Config, claim: Option<Token>) -> Settings {
    let hash = Digest::of(config.device.as_str().as_bytes()).short();
    // Spread over -1 to 1 by the device's name: stable, and different for every device.
    let jitter = (hash >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
    Settings {
        fleet: config.fleet.clone(),
        device: config.device.clone(),
        registry: Registry {
            product: config.product.clone(),
            model: config.model.clone(),
            carrier: config.carrier.clone(),
            region: config.region.clone(),
        },
        component: config.component.clone(),
        claim,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        timing: config.timing.core(jitter),
        conditions: config.when.conditions.clone(),
        hooks: config.hooks.iter().map(|hook| hook.step).collect(),
        transfer: config.transfer.clone(),
    }
}

/// A change of a component that is under way.
type Changing = Pin<Box<dyn Future<Output = Result<ComponentFacts, ComponentError>> + Send>>;

struct Shell {
    config: Config,
    device: Device,
    agent: Agent,
    commands: mpsc::Sender<LinkCommand>,
    results: mpsc::Sender<(u64, Done)>,
    figures: mpsc::Sender<BTreeMap<String, u64>>,
    collectors: Collectors,
    /// What counts how the device fares, while it does.
    collector: Option<JoinHandle<()>>,
    /// The job that runs beside the loop; a new one takes its place.
    job: Option<JoinHandle<()>>,
    /// Inputs that came out of outputs.
    pending: VecDeque<Input>,
    soak: Soak,
    pulse: Pulse,
    web: WebServers,
    /// Where the slots' bytes are; a then b.
    slot_paths: [PathBuf; 2],
}

impl Shell {
    async fn run(
        mut self,
        mut events: mpsc::Receiver<LinkEvent>,
        mut finished: mpsc::Receiver<(u64, Done)>,
        mut collected: mpsc::Receiver<BTreeMap<String, u64>>,
    ) -> anyhow::Result<Ended> {
        let mut stop = Signals::new()?;
        let facts = self.device.facts()?;
        tracing::info!(slot = %facts.slot, rc = facts.running, boot = facts.boot_id, "agent is up");
        self.pending.push_back(Input::Up(facts));
        let mut is_up = false;
        loop {
            while let Some(input) = self.pending.pop_front() {
                if self.handle(input).await? {
                    self.say_goodbye().await;
                    return if self.device.goes_down() {
                        going_down(&mut stop, &mut self.pulse).await
                    } else {
                        self.pulse.end(End::Replaced);
                        Ok(Ended::Rebooting)
                    };
                }
            }
            if !is_up {
                is_up = true;
                self.came_up()?;
                continue;
            }
            self.attend_health();
            let wait = self.agent.wake_at().min(self.soak.due()).saturating_sub(self.now().uptime);
            // Uptime may stand still while a device sleeps, so look at it now and then.
            let wait = Duration::from_millis(wait).min(Duration::from_secs(60));
            let wait = wait.min(self.pulse.wait(clock::uptime()));
            let input = tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.link_event(event),
                    None => anyhow::bail!("the link has ended"),
                },
                done = finished.recv() => done.map(|(job, result)| Input::Done { job, result }),
                figures = collected.recv() => figures.map(Input::Collected),
                (request, said) = self.web.said() => Some(Input::Web { request, said }),
                soaked = self.soak.ended() => soaked_input(soaked),
                () = tokio::time::sleep(wait) => Some(Input::Time),
                () = stop.recv() => {
                    self.pulse.end(End::Stopped);
                    self.say_goodbye().await;
                    return Ok(Ended::Stopped);
                }
            };
            self.pending.extend(input);
        }
    }

    /// Something was taken in. A trial that cannot save, or whose agent ends again and again, must not look well.
    fn came_up(&mut self) -> anyhow::Result<()> {
        self.device.save_journal(self.agent.durable())?;
        self.pulse.ready(clock::uptime());
        if self.pulse.is_worn_out() {
            let reason = format!("the agent ended by itself {} times in this trial", starts::MOST);
            self.pending.push_back(Input::Soaked(Err(reason)));
        }
        Ok(())
    }

    /// What every turn of the loop owes: a beat, a look at the battery, and probes of the soak that are due.
    fn attend_health(&mut self) {
        let now = clock::uptime();
        self.pulse.beat(self.agent.durable(), now);
        self.collectors.sample(now);
        let at = Stamp { epoch: self.agent.durable().epoch, uptime: self.now().uptime };
        if let Some(last) = self.soak.attend(&self.agent.durable().state, at) {
            let context = self.context(false);
            self.soak.begin(last, context);
        }
    }

    fn now(&self) -> Now {
        let uptime = self.device.booted().uptime(clock::uptime());
        Now { uptime: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX), wall: clock::wall() }
    }

    fn link_event(&self, event: LinkEvent) -> Option<Input> {
        match event {
            LinkEvent::Up => {
                tracing::info!("connected");
                Some(Input::LinkUp)
            }
            LinkEvent::Down { reason } => {
                tracing::info!(reason, "disconnected");
                Some(Input::LinkDown)
            }
            LinkEvent::Message { topic, payload } => match Topic::parse(&self.config.fleet, &topic) {
                Ok(topic) => Some(Input::Message { topic, payload }),
                Err(error) => {
                    tracing::debug!(topic, %error, "a message on a topic that is none");
                    None
                }
            },
        }
    }

    /// Hands one input to the core and carries out what it asks for, in order. Tells whether the device boots.
    async fn handle(&mut self, input: Input) -> anyhow::Result<bool> {
        let before = self.agent.durable().state.name();
        let now = self.now();
        let outputs = self.agent.handle(input, now);
        let after = self.agent.durable().state.name();
        if before != after {
            let rc = self.agent.durable().state.work().map(|work| work.offer.attempt.rc);
            match &self.agent.durable().state {
                State::Failed { reason, .. } => {
                    tracing::warn!(from = %before, to = %after, rc, reason, "state")
                }
                _ => tracing::info!(from = %before, to = %after, rc, "state"),
            }
        }
        if after != StateName::Downloading {
            self.device.forget_delta();
            self.web.rest();
        }
        for output in outputs {
            match output {
                Output::SaveTrust(files) => self.device.save_trust(&files)?,
                // Without a journal nothing may be done: the process ends, and its supervisor tries again.
                Output::SaveJournal => self.device.save_journal(self.agent.durable())?,
                Output::Listen(topics) => {
                    let topics = topics.iter().map(|topic| topic.render(&self.config.fleet)).collect();
                    self.command(LinkCommand::Subscribe(topics)).await;
                }
                Output::Refused { role, error } => {
                    // Most often a device that was provisioned with the root of another fleet: it will never update.
                    tracing::warn!(
                        %role,
                        %error,
                        "a signed file was refused; if this goes on, compare {} with the product's root.json",
                        self.config.root.display()
                    );
                }
                // Should this fail the process ends, and its next start finds both pairs of keys as they are now.
                Output::SettleKeys => identity::settle(&self.config.data_dir)?,
                Output::ListenAgain => self.command(LinkCommand::Resubscribe).await,
                Output::Publish { topic, payload } => self.publish(&topic, payload).await,
                Output::Collect => self.collect(),
                Output::Failing { work, reason, times } => {
                    tracing::warn!(?work, reason, times, "this could not be done, and is tried again");
                }
                Output::Fetched { target, by, bytes, mended, web } => {
                    tracing::info!(%target, by, bytes, mended, web, "fetched");
                }
                Output::Web { request, prefix, get } => self.web.ask(request, prefix, get),
                Output::StopWeb(request) => self.web.stop(request),
                Output::WebFailed { prefix, reason, next: Some(next) } => {
                    tracing::warn!(prefix, reason, next, "a web server is given up for this update");
                }
                Output::WebFailed { prefix, reason, next: None } => {
                    tracing::info!(prefix, reason, "a web server is tried again");
                }
                Output::Write { target, offset, bytes } => self.device.write(target, offset, &bytes),
                Output::Start { job, work } => {
                    if self.start(job, work) {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    async fn publish(&self, topic: &Topic, payload: Vec<u8>) {
        let qos = if self.agent.doubts_link() { 1 } else { topic.qos() };
        let text = topic.render(&self.config.fleet);
        self.command(LinkCommand::Publish { topic: text, payload, qos }).await;
    }

    async fn command(&self, command: LinkCommand) {
        if self.commands.send(command).await.is_err() {
            tracing::warn!("the link does not take commands any more");
        }
    }

    /// Starts a job; quick ones are done at once. Tells whether the device boots.
    fn start(&mut self, job: u64, work: Job) -> bool {
        if let Some(old) = self.job.take() {
            old.abort();
            // What blocks beside the loop cannot be aborted; a hash ends by itself.
            self.device.stop_hashing();
        }
        let result = match work {
            Job::MarkBad(target) => self.device.mark_bad(target),
            Job::Sync(target, _) => self.device.sync(target),
            Job::Arm { slot, rc } => self.device.arm(slot, rc),
            Job::Disarm => self.device.disarm(),
            Job::Confirm(slot) => self.device.confirm(slot),
            Job::Reboot => match self.device.reboot() {
                Done::Ok => return true,
                failed => failed,
            },
            Job::Hash { target: Target::Slot(slot), artifact, rc, version } => {
                let files = self.agent.trust().files();
                let hash = self.device.hash(slot, artifact, rc, version, files);
                self.blocking(job, hash);
                return false;
            }
            Job::Hash { target: Target::Component(name), artifact, rc, version } => {
                let hash = self.device.hash_component(&name, artifact, rc, version);
                self.blocking(job, hash);
                return false;
            }
            Job::Decode(order) => {
                let decode = self.device.decode(order);
                self.blocking(job, decode);
                return false;
            }
            Job::Compare { target, length, first, leaves } => {
                let compare = self.device.compare(&target, length, first, leaves);
                self.blocking(job, compare);
                return false;
            }
            Job::Install { component, rc } => {
                self.component(job, &component, move |it| Box::pin(async move { it.install(rc).await }));
                return false;
            }
            Job::Revert(component) => {
                self.component(job, &component, |it| Box::pin(async move { it.revert().await }));
                return false;
            }
            Job::Keep(component) => {
                self.component(job, &component, |it| Box::pin(async move { it.keep().await }));
                return false;
            }
            Job::Probe => {
                self.probe(job);
                return false;
            }
            Job::RunHooks(step) => {
                self.hooks(job, step);
                return false;
            }
            Job::UndoHooks => {
                self.hooks(job, HookStep::Undo);
                return false;
            }
            Job::Look(stage) => {
                let (when, context) = (self.config.when.clone(), self.context(true));
                self.beside(job, async move {
                    Done::Looked(look(&when.sources, &when.conditions, stage, &context).await)
                });
                return false;
            }
        };
        self.pending.push_back(Input::Done { job, result });
        false
    }

    fn blocking(&mut self, job: u64, work: impl FnOnce() -> Done + Send + 'static) {
        self.beside(job, async move {
            let joined = tokio::task::spawn_blocking(work).await;
            joined.unwrap_or_else(|error| Done::Failed(error.to_string()))
        });
    }

    /// Does something with a component.
    fn component(&mut self, job: u64, name: &str, work: impl FnOnce(Component) -> Changing) {
        let changing = self.device.component(name).map(work);
        let name = name.to_owned();
        self.beside(job, async move {
            match changing {
                Some(changing) => {
                    let done = component::done(changing.await);
                    if let Done::Component(facts) = &done {
                        let (version, tried) = (&facts.version, facts.unsettled);
                        tracing::info!(component = name, version, tried, "component done");
                    }
                    done
                }
                None => Done::Failed("there is no such component any more; see [[components]]".into()),
            }
        });
    }

    fn probe(&mut self, job: u64) {
        let (probes, deadline) = (self.config.probes.clone(), self.config.timing.probe_deadline);
        let context = self.context(false);
        self.beside(job, async move {
            match tokio::time::timeout(deadline, run_probes(&probes, &context)).await {
                Ok(Ok(())) => Done::Ok,
                Ok(Err(failure)) => Done::Failed(failure.summary()),
                Err(_) => {
                    Done::Failed(format!("the probes together took longer than {} s", deadline.as_secs()))
                }
            }
        });
    }

    /// Beside jobs: an update does not wait for it. It ends by its deadline, and is not begun anew before.
    fn collect(&mut self) {
        if self.collector.as_ref().is_some_and(|running| !running.is_finished()) {
            return;
        }
        let (collectors, context, figures) =
            (self.collectors.clone(), self.context(false), self.figures.clone());
        self.collector = Some(tokio::spawn(async move {
            let counted = collectors.collect(&context).await;
            // The loop has ended: nobody needs them.
            let _ended = figures.send(counted).await;
        }));
    }

    fn hooks(&mut self, job: u64, step: HookStep) {
        let (hooks, told) = (self.config.hooks.clone(), self.told(step));
        let through = self.agent.durable().hooks.through;
        self.beside(job, async move {
            if step == HookStep::Undo {
                let undone = undo_hooks(&hooks, through, &told).await;
                return undone.map_or_else(|error| Done::Failed(error.summary()), |()| Done::Ok);
            }
            match run_hooks(&hooks, step, &told).await {
                Ok(()) => Done::Ok,
                Err(refusal @ HookRefusal::NotNow { .. }) => Done::NotNow(refusal.summary()),
                Err(refusal) => Done::Failed(refusal.summary()),
            }
        });
    }

    /// Returns what hooks are told: about the attempt that is open, or that has just ended.
    fn told(&self, step: HookStep) -> Told {
        let about = self.agent.durable().hooks.about.clone();
        let mut context = self.context(!matches!(step, HookStep::PostBoot | HookStep::Confirmed));
        if let Some(about) = &about {
            (context.rc, context.version) = (about.rc, about.version.clone());
        }
        let reason = match step {
            HookStep::Undo => self.agent.undo_reason(),
            HookStep::RolledBack => self.agent.durable().hooks.reason.clone(),
            _ => String::new(),
        };
        Told {
            context,
            from_version: about.map(|about| about.from).unwrap_or_default(),
            data: self.config.data.clone(),
            reason,
            logs: self.config.data_dir.join("hooks"),
        }
    }

    /// Returns what programs are told: about the slot of the open attempt, or about the running one.
    fn context(&self, installing: bool) -> Context {
        let work = self.agent.durable().state.work();
        let running = self.device.booted().slot;
        let slot = if installing { running.other() } else { running };
        let (rc, version) =
            work.map_or((0, String::new()), |w| (w.offer.attempt.rc, w.offer.version.clone()));
        // Not asked of the slots: a hash that takes minutes holds them, and the loop must turn.
        let [a, b] = &self.slot_paths;
        let slot_path = if slot == SlotName::A { a } else { b }.clone();
        Context { slot, slot_path, rc, version, device: self.config.device.clone() }
    }

    /// Runs a job beside the loop. When it is replaced it is dropped, and with it what it started.
    fn beside(&mut self, job: u64, work: impl Future<Output = Done> + Send + 'static) {
        self.spawn(job, Box::pin(work));
    }

    /// Of one type, whatever the job: the runtime's code for each kind of task weighs some kilobytes.
    fn spawn(&mut self, job: u64, work: Pin<Box<dyn Future<Output = Done> + Send>>) {
        let results = self.results.clone();
        self.job = Some(tokio::spawn(async move {
            let result = work.await;
            // The loop has ended: nobody needs the result.
            let _ended = results.send((job, result)).await;
        }));
    }

    async fn say_goodbye(&self) {
        let payload = serde_json::to_vec(&Presence { online: false }).unwrap_or_default();
        self.publish(&Topic::Up(self.config.device.clone(), UpKind::Presence), payload).await;
    }
}

/// Only a failure, and a run at the soak's end, are news.
fn soaked_input(soaked: Soaked) -> Option<Input> {
    (soaked.last || soaked.result.is_err()).then_some(Input::Soaked(soaked.result))
}

/// Waits to be stopped with the rest of the system. Coming up again in the same boot would only ask for it once more.
/// Nobody feeds the hardware watchdog meanwhile, so a shutdown that hangs is a reset.
async fn going_down(stop: &mut Signals, pulse: &mut Pulse) -> anyhow::Result<Ended> {
    pulse.end(End::Rebooting);
    let beat = async {
        loop {
            pulse.tell_manager(clock::uptime());
            tokio::time::sleep(pulse.wait(clock::uptime()).min(GOING_DOWN)).await;
        }
    };
    let stopped = async {
        tokio::select! {
            () = stop.recv() => {}
            () = beat => {}
        }
    };
    match tokio::time::timeout(GOING_DOWN, stopped).await {
        Ok(()) => Ok(Ended::Stopped),
        Err(_) => anyhow::bail!(
            "the system did not go down within {} s of the reboot command; look at boot.reboot",
            GOING_DOWN.as_secs()
        ),
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
