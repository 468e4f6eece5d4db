//! Which deaths there are, and running them.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tern_controller::core::fact::Fact;
use tern_tests::apart::service::Deaths;
use tern_tests::apart::tail::Left;

use super::story;

/// Points of a start at which the second life dies too: all until it has published what it completed, and some.
const SECOND: usize = 30;
/// Stories at once: each is a simulation and a service that take turns.
const WORKERS: usize = 2;

/// What an undisturbed story showed.
pub(crate) struct Plan {
    /// Points, with their operation and edge.
    points: Vec<String>,
    /// Frames that the batch of each append holds, by the point after it: place in the ledger, and how many.
    batches: BTreeMap<usize, (usize, usize)>,
    /// Places of the kills in the ledger, and of the starts.
    kills: Vec<usize>,
    starts: Vec<usize>,
    verdicts: Vec<String>,
}

/// A case in which something was wrong.
pub(crate) struct Failure {
    pub(crate) deaths: Deaths,
    pub(crate) why: String,
}

impl Plan {
    /// Counts: runs the story once with nobody dying.
    pub(crate) fn of_the_story() -> Self {
        let mut sim = story::told(Deaths::NONE);
        assert_eq!(story::wrong(&sim), None, "the story is sound when nobody dies");
        let verdicts = story::verdicts(&sim);
        let facts: Vec<Fact> = sim.controller.ledger.iter().map(|entry| entry.fact.clone()).collect();
        sim.controller.stop();
        let points = sim.controller.apart.as_ref().expect("it ran apart").trace.clone();
        let (mut batches, mut place) = (BTreeMap::new(), 0);
        for (number, _) in points.iter().enumerate().filter(|(_, line)| line.starts_with("Append After")) {
            let frames = sim.controller.apart.as_ref().map_or(0, |apart| apart.frames_appended(number));
            batches.insert(number, (place, frames));
            place += frames;
        }
        assert_eq!(place, facts.len(), "every frame was appended in one of the batches");
        let places = |which: fn(&Fact) -> bool| (0..facts.len()).filter(|at| which(&facts[*at])).collect();
        let kills = places(|fact| matches!(fact, Fact::Killed { .. }));
        let starts = places(|fact| matches!(fact, Fact::RolloutStarted { .. }));
        Self { points, batches, kills, starts, verdicts }
    }

    /// Every death: at each point, as a killed process; after each append also as a power cut that leaves any number of
    /// the frames, and half of the next; and a second death at each point of the start that completes a kill.
    pub(crate) fn every_case(&self) -> Vec<Deaths> {
        let mut cases: Vec<Deaths> = (0..self.points.len()).map(|point| once(point, Left::All)).collect();
        cases.extend(self.batches.keys().flat_map(|point| self.power_cuts(*point)));
        cases.extend(self.second_deaths());
        cases
    }

    /// Those whose first death is at this point.
    pub(crate) fn cases_of(&self, point: u64) -> Vec<Deaths> {
        self.every_case().into_iter().filter(|case| case.points[0] == point).collect()
    }

    /// About so many of them, evenly spread, and those that leave a kill or a start unfinished, or take a kill
    /// away.
    pub(crate) fn some_cases(&self, count: usize) -> Vec<Deaths> {
        let all = self.every_case();
        let stride = all.len().div_ceil(count).max(1);
        let unfinished = self.with_unfinished_kills().into_iter().chain(self.with_unfinished_starts());
        // At the start that completes a kill: while it opens, and before and after it has recorded that.
        let again = self.second_deaths().into_iter().step_by(SECOND / 3);
        all.into_iter()
            .step_by(stride)
            .chain(unfinished)
            .chain(self.without_the_kills())
            .chain(again)
            .collect()
    }

    /// Deaths just before a kill is written, and power cuts that take it away again.
    pub(crate) fn without_the_kills(&self) -> Vec<Deaths> {
        let gone = Left::Frames { whole: 0, torn: false };
        let both = |point: usize| [once(point - 1, Left::All), once(point, gone)];
        self.kill_batches().into_iter().flat_map(|(point, _)| both(point)).collect()
    }

    /// Power cuts that leave a kill and not the files that tell of it.
    pub(crate) fn with_unfinished_kills(&self) -> Vec<Deaths> {
        self.unfinished_kills().into_iter().map(|(point, left)| once(point, left)).collect()
    }

    fn second_deaths(&self) -> Vec<Deaths> {
        let both = |(point, left)| {
            (0..SECOND as u64).map(move |second| Deaths {
                points: vec![point as u64, second],
                left,
                broken: None,
            })
        };
        self.unfinished_kills().into_iter().flat_map(both).collect()
    }

    fn power_cuts(&self, point: usize) -> Vec<Deaths> {
        let (_, frames) = self.batches[&point];
        let torn = [false, true];
        let each = (0..frames).flat_map(|whole| torn.map(|torn| once(point, Left::Frames { whole, torn })));
        each.collect()
    }

    /// The batches that hold a kill: the point after the append, and the kill's place in the batch.
    fn kill_batches(&self) -> Vec<(usize, usize)> {
        self.batches_of(&self.kills)
    }

    fn batches_of(&self, places: &[usize]) -> Vec<(usize, usize)> {
        let holds = |kill: usize| {
            let found =
                self.batches.iter().find(|(_, (place, frames))| (*place..place + frames).contains(&kill));
            found.map(|(point, (place, _))| (*point, kill - place))
        };
        places.iter().filter_map(|place| holds(*place)).collect()
    }

    fn unfinished_kills(&self) -> Vec<(usize, Left)> {
        let left = |within: usize| Left::Frames { whole: within + 1, torn: false };
        self.kill_batches().into_iter().map(|(point, within)| (point, left(within))).collect()
    }

    /// Power cuts that leave a start and not the phase that it opens.
    fn with_unfinished_starts(&self) -> Vec<Deaths> {
        let left = |within: usize| Left::Frames { whole: within + 1, torn: false };
        let starts = self.batches_of(&self.starts).into_iter();
        starts.map(|(point, within)| once(point, left(within))).collect()
    }
}

fn once(point: usize, left: Left) -> Deaths {
    Deaths { points: vec![point as u64], left, broken: None }
}

/// Runs every case and returns those in which something was wrong.
pub(crate) fn run_all(plan: &Plan, cases: &[Deaths]) -> Vec<Failure> {
    let (next, failures) = (Mutex::new(cases.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(case) = next.lock().ok().and_then(|mut next| next.next().cloned()) {
                    if let Some(why) = run(plan, case.clone())
                        && let Ok(mut failures) = failures.lock()
                    {
                        failures.push(Failure { deaths: case, why });
                    }
                }
            });
        }
    });
    failures.into_inner().expect("no worker panics while it holds the lock")
}

fn run(plan: &Plan, deaths: Deaths) -> Option<String> {
    let ordered = deaths.points.len();
    // Whatever the simulation finds it says by a panic.
    let story = std::thread::Builder::new().name("a story".to_owned()).spawn(move || story::told(deaths));
    let sim = match story.expect("a thread starts").join() {
        Ok(sim) => sim,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            return Some(text.unwrap_or_else(|| "a panic without words".to_owned()));
        }
    };
    let died = sim.controller.apart.as_ref().map_or(0, |apart| apart.deaths());
    let verdicts = story::verdicts(&sim);
    if died != ordered {
        return Some(format!(
            "it died {died} times and not {ordered} times: the story is not the same each time"
        ));
    }
    story::differs(&verdicts, &plan.verdicts).or_else(|| story::wrong(&sim))
}

/// Prints what was done and what was found.
pub(crate) fn tell(plan: &Plan, cases: &[Deaths], failures: &[Failure]) {
    let mut words: BTreeMap<String, usize> = BTreeMap::new();
    for line in &plan.points {
        let word: Vec<&str> = line.split(' ').take(2).collect();
        *words.entry(word.join(" ")).or_default() += 1;
    }
    say(&format!("the story has {} points: {words:?}", plan.points.len()));
    say(&format!("verdicts: {}", plan.verdicts.join(", ")));
    let second = cases.iter().filter(|case| case.points.len() > 1).count();
    let cuts = cases.iter().filter(|case| case.left != Left::All).count() - second;
    let kills = cases.len() - cuts - second;
    say(&format!(
        "{} cases: {kills} as kill -9, {cuts} as a power cut after an append, {second} with a second death at the start \
         after a kill was left unfinished; {} failed",
        cases.len(),
        failures.len()
    ));
    for Failure { deaths, why } in failures.iter().take(20) {
        let place = plan.points.get(usize::try_from(deaths.points[0]).unwrap_or(usize::MAX));
        let first = why.lines().next().unwrap_or_default();
        say(&format!("failed: {deaths:?} at {}: {first}", place.map_or("?", String::as_str)));
        if cases.len() < 12 {
            say(why);
        }
    }
}

/// Prints a line past the test's capture.
pub(crate) fn say(line: &str) {
    // Nobody reads it: then nobody misses it.
    let _unheard = std::io::Write::write_all(&mut std::io::stdout(), format!("{line}\n").as_bytes());
}
