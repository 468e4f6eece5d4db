//! A device with user data, and with hooks that can be stopped in the middle of what they do.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tern_agent::core::state::State;
use tern_tests::lab::tree::{Walk, plant, set_time};
use tern_tests::lab::{Lab, LabDevice, Making, Records, made, wait_telling};

use crate::points::Stop;
use crate::{Broken, PATIENCE};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/hooks");
/// Release 4 is not well, and the migration to release 5 fails.
const SECTIONS: &str = r#"
[data]
areas = ["{dir}/srv/app data", "{dir}/srv/user"]
[[probes]]
name = "probe"
command = ["{dir}/hook", "probe", "/bin/sh", "-c", "test $TERN_RC != 4"]
[[hooks]]
step = "download"
name = "download"
command = ["{dir}/hook", "download", "true"]
[[hooks]]
step = "pre-update"
name = "stop"
command = ["{dir}/hook", "pre-update", "true"]
[[hooks]]
step = "snapshot"
name = "data"
command = ["{dir}/hook", "snapshot", "{scripts}/snapshot-data.sh", "{dir}/snapshot"]
undo = ["{dir}/hook", "undo", "{scripts}/undo.sh", "{dir}/snapshot"]
deadline = 300
[[hooks]]
step = "migrate"
name = "schema"
command = ["{dir}/hook", "migrate", "/bin/sh", "-c", 'exec {scripts}/migrate.sh "$HERE/srv/user" "$HERE/steps" $TERN_RC']
[[hooks]]
step = "arm"
name = "arm"
command = ["{dir}/hook", "arm", "true"]
[[hooks]]
step = "post-boot"
name = "post-boot"
command = ["{dir}/hook", "post-boot", "true"]
[[hooks]]
step = "confirmed"
name = "drop-snapshot"
command = ["{dir}/hook", "confirmed", "{scripts}/snapshot-data.sh", "{dir}/snapshot"]
[[hooks]]
step = "undo"
name = "undone"
command = ["{dir}/hook", "undone", "true"]
[[hooks]]
step = "rolled-back"
name = "rolled-back"
command = ["{dir}/hook", "rolled-back", "true"]
"#;

/// Waits at a point, if it is the one that is asked for.
const POINT: &str = r#"
point() {
    [ "$(cat "$HERE/stop" 2>/dev/null)" = "$1" ] || return 0
    read -r _ _ _ _ group _ </proc/$$/stat
    echo "$group" >"$HERE/group"
    echo "$1" >"$HERE/at"
    read -r _ <"$HERE/fifo"
}
"#;

/// Runs every hook: with the programs of `bin` before the system's, and a point before it begins.
const HOOK: &str = r#"#!/bin/sh
HERE={dir} PATH={dir}/bin:/usr/bin:/bin AGENT=$TERN_AGENT
TERN_AGENT=$HERE/bin/tern-agent
export HERE PATH AGENT TERN_AGENT
. "$HERE/point.sh"
name=$1
shift
[ "$name" != undo ] || point held
point "$name"
[ "$name $(cat "$HERE/broken")" != "undo undo" ] || exit 0
exec "$@"
"#;

/// Copies, with something broken if the device says so, and can be stopped behind it, or with half of it done.
const CP: &str = r#"#!/bin/sh
. "$HERE/point.sh"
for to; do :; done
case "$TERN_STEP $(cat "$HERE/broken")" in
"snapshot sparse") set -- "$@" --sparse=never ;;
"snapshot xattr" | "snapshot links" | "snapshot timestamps" | "snapshot ownership")
    set -- "$@" --no-preserve="$(cat "$HERE/broken")"
    ;;
esac
/usr/bin/cp "$@"
code=$?
half() { rm -rf "$to/deep" "$to/settings"; }
[ "$TERN_STEP $(cat "$HERE/broken")" != "undo half" ] || half
[ "$(cat "$HERE/stop" 2>/dev/null)" != "$TERN_STEP-half" ] || half
point "$TERN_STEP-half"
point "$TERN_STEP-copied"
exit $code
"#;

/// Exchanges two names, and can be stopped behind that.
const EXCHANGE: &str = r#"#!/bin/sh
. "$HERE/point.sh"
{program} "$@" || exit
[ {word} != "$1" ] || point "$TERN_STEP-exchanged"
"#;

/// A step of a migration: changes, adds, empties and deletes, with a point in the middle, in both areas. Twice is as good as once.
const STEP: &str = r#"#!/bin/sh
set -eu
. "$HERE/point.sh"
cd "$1"
other="../app data"
rm -rf -- -rf "second name" "deep/er" "deep/{gone}" "$other/-rf" "$other/deep/$(printf '\377\376\200')"
echo "two = {number}" >settings.new
mv settings.new settings
echo "of {number}" >deep/file
mkdir -p "new {number}"
point migrate-half
{fails}
/usr/bin/cp --attributes-only --preserve=xattr sparse deep/data
: >"$other/hole"
truncate -s 1M "$other/sparse"
chmod 600 zeros
ln -sfn elsewhere link
rm -f "deep/hole first" fifo
for each in settings deep/file deep/data zeros link "new {number}" deep "$other/hole" "$other/sparse" "$other/deep" "$other"; do
    touch -h -d "@16000{number}0000" "$each"
done
"#;

/// A device.
pub(crate) struct Terminal {
    pub(crate) device: LabDevice,
    /// What the areas were.
    pub(crate) before: Walk,
    /// Where it is to stop.
    pub(crate) stops: VecDeque<Stop>,
    pub(crate) broken: Option<Broken>,
    plans: [&'static [Stop]; 4],
}

impl Terminal {
    /// Makes one; none where the file system keeps no attributes.
    pub(crate) fn make(
        lab: &Lab,
        name: &str,
        plans: [&'static [Stop]; 4],
        broken: Option<Broken>,
    ) -> Option<Self> {
        let image = lab.path("1.img");
        made(&image, 100_000, 1);
        let making =
            Making { sections: SECTIONS.replace("{scripts}", SCRIPTS), soak: 0.5, ..Making::default() };
        let device = LabDevice::build(lab, name, &image, &making);
        let dir = device.dir.clone();
        if !has_data(&dir) {
            return None;
        }
        let program = |name: &str, text: &str| executable(&dir.join(name), text);
        program("hook", &HOOK.replace("{dir}", &dir.display().to_string()));
        fs::create_dir(dir.join("bin")).unwrap();
        program("bin/cp", CP);
        let exchanges =
            |word: &str, program: &str| EXCHANGE.replace("{word}", word).replace("{program}", program);
        program("bin/mv", &exchanges("--exchange", "/usr/bin/mv"));
        program("bin/tern-agent", &exchanges("exchange", "\"$AGENT\""));
        fs::write(dir.join("broken"), broken.map_or("nothing", |broken| broken.how)).unwrap();
        let made = Command::new("mkfifo").arg(dir.join("fifo")).status();
        assert!(made.unwrap().success());
        device.register(lab);
        let before = Walk::through(&dir.join("srv"));
        Some(Self { device, before, stops: VecDeque::new(), broken, plans })
    }

    pub(crate) fn name(&self) -> &str {
        &self.device.name
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.device.dir.join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn start(&mut self) {
        self.device.start();
    }

    /// Has it stop where it is to in this release.
    pub(crate) fn plan(&mut self, rc: u64) {
        self.stops = self.plans[usize::try_from(rc - 2).unwrap()].iter().copied().collect();
        self.set_stop();
    }

    /// Names the next point.
    pub(crate) fn set_stop(&self) {
        fs::write(self.path("at"), "").unwrap();
        fs::write(self.path("stop"), self.stops.front().map_or("", |stop| stop.point())).unwrap();
    }

    pub(crate) fn is_at(&self, point: &str) -> bool {
        self.read("at").trim() == point
    }

    /// Walks through the folder that the areas are in: what is left beside them is seen as well.
    pub(crate) fn walk(&self) -> Walk {
        Walk::through(&self.path("srv"))
    }

    /// Waits until a release has come to its end, and nothing is owed to it any more.
    pub(crate) fn comes_to_rest(&self, rc: u64, is_confirmed: bool) {
        let records = Records::of(&self.device);
        let rests = || {
            let journal = records.journal()?;
            let is_over = match &journal.state {
                // Where the release was killed before its migration was undone, the device has been told.
                State::Idle { .. } => is_confirmed == (records.confirmed() == Some(rc)),
                State::Failed { work, .. } => !is_confirmed && work.offer.attempt.rc == rc,
                _ => false,
            };
            (is_over && journal.hooks.through.is_none() && journal.hooks.tell.is_none()).then_some(())
        };
        let told = || format!("{} to come to rest after release {rc}: {}", self.name(), self.device.log());
        wait_telling(told, PATIENCE, rests);
        assert_eq!(self.device.status()["not_undone"], serde_json::Value::Null, "{}", self.name());
        let is_left = self.path("snapshot").exists();
        assert_eq!(
            is_left,
            self.broken.is_some_and(|broken| broken.how == "undo") && rc == 4,
            "{}: a snapshot",
            self.name()
        );
    }
}

/// Returns what the areas are after a migration by hand up to this release.
pub(crate) fn expected(lab: &Lab, rc: u64) -> Walk {
    let folder = lab.path(&format!("expected-{rc}"));
    assert!(has_data(&folder));
    let mut migrate = Command::new(Path::new(SCRIPTS).join("migrate.sh"));
    migrate.arg(folder.join("srv/user")).arg(folder.join("steps")).arg(rc.to_string());
    assert!(migrate.env("HERE", &folder).status().unwrap().success());
    Walk::through(&folder.join("srv"))
}

/// Plants the areas, and has the steps of migrations.
fn has_data(folder: &Path) -> bool {
    let areas = ["app data", "user"].map(|name| folder.join("srv").join(name));
    if !areas.iter().all(|area| plant(area)) {
        return false;
    }
    let user = &areas[1];
    fs::write(user.join("schema"), "2\n").unwrap();
    [user.join("schema"), user.clone()].iter().for_each(|path| set_time(path, 1_500_000_000, 3));
    fs::write(folder.join("point.sh"), POINT).unwrap();
    fs::create_dir(folder.join("steps")).unwrap();
    for number in 3..=5_usize {
        let fails = if number == 5 { "rm -rf deep; exit 4" } else { "" };
        let gone = ["*", "~", "#"][number - 3];
        let step = STEP.replace("{number}", &number.to_string());
        let step = step.replace("{gone}", gone).replace("{fails}", fails);
        executable(&folder.join("steps").join(number.to_string()), &step);
    }
    true
}

/// Written by another process: a descriptor of ours that a device has just inherited would keep it busy.
fn executable(path: &Path, text: &str) {
    let script = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
    assert!(Command::new("/bin/sh").args(["-c", script, "-", text]).arg(path).status().unwrap().success());
}
