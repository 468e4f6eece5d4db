use std::collections::BTreeSet;
use std::time::Duration;

use super::boot::{BOOT_KEYS, COPY_KEYS};
use super::component::COMPONENT_KEYS;
use super::file::{DATA_KEYS, FILE_KEYS, HOOK_KEYS, SLOTS_KEYS, TLS_KEYS, program_deadline};
use super::guard::{COLLECT_KEYS, WATCHDOG_KEYS};
use super::probe::{METRICS_KEYS, PROBE_KEYS};
use super::transfer::TRANSFER_KEYS;
use super::when::{WHEN_KEYS, WINDOW_KEYS};
use super::*;
use crate::core::conditions::{Conditions, Window};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/agent.toml");

const SMALLEST: &str = r#"
fleet = "acme"
device = "r-1"
product = "ap"
model = "m1"
region = "eu"
brokers = ["mqtt://localhost"]
slots = { capacity = 1000 }
"#;

const COPIES: &str = r#"
{ path = "/dev/disk/by-partlabel/uboot-env", offset = 0, size = 0x4000 },
{ path = "/dev/disk/by-partlabel/uboot-env", offset = 0x10000, size = 0x4000 }"#;

fn with_uboot(slots: &str, copies: &str) -> String {
    let smallest = SMALLEST.replace("capacity = 1000", &format!("capacity = 1000{slots}"));
    format!("{smallest}[boot]\nkind = \"uboot\"\ncopies = [{copies}]\n")
}

fn with_probe(keys: &str) -> String {
    format!("{SMALLEST}[[probes]]\nname = 'p'\n{keys}")
}

fn load(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    fs::write(&path, text).unwrap();
    Config::load(&path)
}

/// Returns the whole chain of the refusal, as the log prints it.
fn refusal(text: &str) -> String {
    reasons(&load(text).unwrap_err())
}

fn reasons(error: &ConfigError) -> String {
    let mut chain = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        chain = format!("{chain}: {error}");
        cause = error.source();
    }
    chain
}

/// The sample with the optional keys, which stand there as comments, switched on.
fn full_sample() -> String {
    let switch_on = |line: &str| match line.strip_prefix("#:") {
        Some(key) => key.trim_start().to_owned(),
        None => line.to_owned(),
    };
    fs::read_to_string(SAMPLE).unwrap().lines().map(switch_on).collect::<Vec<_>>().join("\n")
}

fn listed(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

/// Returns the waits as they would stand in a file.
fn numbers(timing: &Timing) -> toml::Table {
    toml::Table::try_from(timing).unwrap()
}

fn keys(table: &toml::Table) -> BTreeSet<String> {
    table.keys().cloned().collect()
}

#[test]
fn the_sample_loads_as_it_is_and_with_every_option_switched_on() {
    Config::load(Path::new(SAMPLE)).unwrap();
    load(&full_sample()).unwrap();
}

/// The refusal itself is seen by `cargo test -p tern-agent --no-default-features without_tls`.
#[test]
fn without_tls_a_broker_that_wants_it_is_refused_and_what_to_install_is_said() {
    let said = refusal(&SMALLEST.replace("mqtt://", "mqtts://"));

    let expected = if cfg!(feature = "tls") { "no [tls] section" } else { "built without TLS; install one" };
    assert!(said.contains(expected), "{said}");
}

/// The refusal itself is seen by `cargo test -p tern-agent --no-default-features without_`.
#[test]
fn without_web_servers_a_prefix_is_refused_and_what_to_install_is_said() {
    let with = |keys: &str| format!("{SMALLEST}[transfer]\n{keys}");
    let plain = with("http_prefixes = [\"http://images/tern\"]");

    if cfg!(feature = "http-source") {
        let web = load(&plain).unwrap().web;
        assert_eq!(web.prefixes, ["http://images/tern".parse().unwrap()]);
        let encrypted = with("http_prefixes = [\"https://images/tern\"]");
        let expected = if cfg!(feature = "tls") { "transfer.http_ca" } else { "built without it" };
        assert!(refusal(&encrypted).contains(expected));
        let many = with(&format!("http_prefixes = {:?}", vec!["http://images"; 5]));
        assert!(refusal(&many).contains("more than 4"));
    } else {
        assert!(refusal(&plain).contains("built with the feature \"http-source\""));
    }
    assert_eq!(load(SMALLEST).unwrap().web, WebConfig::default());
}

#[test]
fn a_prefix_says_scheme_host_port_and_path_and_nothing_more() {
    for (text, shown) in [
        ("http://images", "http://images:80"),
        ("https://images/tern/", "https://images:443/tern"),
        ("https://[::1]:8443/a/b", "https://[::1]:8443/a/b"),
    ] {
        assert_eq!(text.parse::<WebPrefix>().unwrap().to_string(), shown);
    }
    for bad in [
        "images/tern",
        "ftp://images",
        "https://user:word@images",
        "http://images/?key=1",
        "http://images/a#b",
        "http://a b",
    ] {
        let refusal = bad.parse::<WebPrefix>().unwrap_err();
        assert!(refusal.contains("http_prefixes"), "{refusal}");
    }
}

#[test]
fn the_sample_shows_every_key_there_is() {
    let sample: toml::Table = toml::from_str(&full_sample()).unwrap();
    let section = |name: &str| sample[name].as_table().unwrap().clone();
    let entry = |name: &str| sample[name][0].as_table().unwrap().clone();

    assert_eq!(keys(&sample), listed(&FILE_KEYS));
    assert_eq!(keys(&section("tls")), listed(&TLS_KEYS));
    // A device has two slots or a single one.
    let mut slots = keys(&section("slots"));
    slots.insert("system".to_owned());
    assert_eq!(slots, listed(&SLOTS_KEYS));
    assert!(fs::read_to_string(SAMPLE).unwrap().contains("# system = "));
    let components = sample["components"].as_array().unwrap().iter();
    let components = components.flat_map(|component| keys(component.as_table().unwrap()));
    assert_eq!(components.collect::<BTreeSet<_>>(), listed(&COMPONENT_KEYS));
    // A device has one boot loader, and the keys of that.
    let mut boot = keys(&section("boot"));
    boot.extend(["entries", "templates", "command", "deadline"].map(str::to_owned));
    assert_eq!(boot, listed(&BOOT_KEYS));
    for key in ["entries", "templates", "command", "deadline"] {
        assert!(fs::read_to_string(SAMPLE).unwrap().contains(&format!("\n# {key} = ")), "{key}");
    }
    assert_eq!(keys(sample["boot"]["copies"][0].as_table().unwrap()), listed(&COPY_KEYS));
    assert_eq!(keys(&section("timing")), keys(&numbers(&Timing::default())));
    let probes = sample["probes"].as_array().unwrap().iter().map(|probe| keys(probe.as_table().unwrap()));
    assert_eq!(probes.flatten().collect::<BTreeSet<_>>(), listed(&PROBE_KEYS));
    assert_eq!(keys(&section("metrics")), listed(&METRICS_KEYS));
    assert_eq!(keys(&section("collect")), listed(&COLLECT_KEYS));
    assert_eq!(keys(&section("watchdog")), listed(&WATCHDOG_KEYS));
    assert_eq!(keys(&entry("hooks")), listed(&HOOK_KEYS));
    assert_eq!(keys(&section("data")), listed(&DATA_KEYS));
    // Refused by an agent that is built without them.
    let mut transfer = keys(&section("transfer"));
    transfer.extend(["http_prefixes", "http_ca"].map(str::to_owned));
    assert_eq!(transfer, listed(&TRANSFER_KEYS));
    for key in ["http_prefixes", "http_ca"] {
        assert!(fs::read_to_string(SAMPLE).unwrap().contains(&format!("\n# {key} = ")), "{key}");
    }
    // Of a file and a command that answer the same question only one can be named.
    let mut when = keys(&section("when"));
    when.extend(["consent_command", "metered_file"].map(str::to_owned));
    assert_eq!(when, listed(&WHEN_KEYS));
    assert_eq!(keys(sample["when"]["windows"][0].as_table().unwrap()), listed(&WINDOW_KEYS));
    for key in ["consent_command", "metered_file"] {
        assert!(fs::read_to_string(SAMPLE).unwrap().contains(key), "{key}");
    }
}

#[test]
fn the_defaults_in_the_sample_are_the_defaults_in_the_code() {
    let sample = load(&full_sample()).unwrap();
    let smallest = load(SMALLEST).unwrap();

    assert_eq!(sample.timing, Timing::default());
    assert_eq!(sample.timing, smallest.timing);
    assert_eq!(sample.transfer, smallest.transfer);
    assert_eq!(sample.component, smallest.component);
    assert_eq!(sample.carrier, smallest.carrier);
    assert_eq!(sample.data_dir, smallest.data_dir);
    assert_eq!(sample.runtime_dir, smallest.runtime_dir);
    assert_eq!(sample.root, smallest.root);
    assert_eq!(sample.slots.dir, smallest.slots.dir);
    assert_eq!(smallest.when.conditions, Conditions::default());
    assert_eq!(sample.when.sources.power_supply, smallest.when.sources.power_supply);
    assert_eq!(smallest.data, Vec::<PathBuf>::new());
    assert_eq!(smallest.slots.paths, None);
    assert_eq!(smallest.boot, BootConfig::File);
    assert_eq!(sample.boot, load(&with_uboot("", COPIES)).unwrap().boot);
    for (kind, needed, shown) in [
        ("systemd-boot", "", &["entries", "templates"][..]),
        ("script", "command = [\"/usr/lib/tern/boot-script\"]", &["command", "deadline"][..]),
    ] {
        let text = fs::read_to_string(SAMPLE).unwrap();
        let lines = shown.iter().map(|key| {
            text.lines()
                .find_map(|line| {
                    line.strip_prefix("# ").filter(|line| line.starts_with(&format!("{key} = ")))
                })
                .unwrap()
        });
        let with = |keys: &str| load(&format!("{SMALLEST}[boot]\nkind = \"{kind}\"\n{keys}")).unwrap().boot;
        assert_eq!(with(needed), with(&lines.collect::<Vec<_>>().join("\n")), "{kind}");
    }
    assert_eq!(sample.probes[0].deadline, program_deadline());
    assert_eq!(sample.probes[2].deadline, program_deadline());
    assert_eq!((smallest.collect, smallest.watchdog), (None, None));
    let empty = load(&format!("{SMALLEST}[collect]\n[watchdog]")).unwrap();
    assert_eq!(sample.watchdog, empty.watchdog);
    let services = vec![];
    assert_eq!(sample.collect.map(|collect| CollectConfig { services, ..collect }), empty.collect);
    assert_eq!(sample.hooks[0].program.deadline, program_deadline());
}

#[test]
fn an_unknown_key_is_refused_by_name_wherever_it_stands() {
    for text in [
        "pasword_file = 'x'",
        "[timing]\npasword_file = 1",
        "[[probes]]\nname = 'x'\npasword_file = 1",
        "[metrics]\npasword_file = 1",
        "[collect]\npasword_file = 1",
        "[watchdog]\npasword_file = 1",
        "[tls]\npasword_file = 1",
        "[boot]\npasword_file = 1",
        "[boot]\nkind = 'uboot'\ncopies = [{ pasword_file = 1 }]",
        "[[hooks]]\npasword_file = 1",
        "[when]\npasword_file = 1",
        "[when]\nwindows = [{ pasword_file = 1 }]",
        "[data]\npasword_file = 1",
    ] {
        let refusal = refusal(&format!("{SMALLEST}{text}"));
        assert!(refusal.contains("unknown field `pasword_file`"), "{refusal}");
    }
}

#[test]
fn a_table_is_read_by_its_keys_and_never_by_position() {
    for text in
        ["timing = [1, 30]", "tls = ['ca.pem']", "probes = [['p', ['/bin/true'], 1]]", "watchdog = ['x']"]
    {
        let refusal = refusal(&format!("{text}\n{SMALLEST}"));
        let says = ["must be a table", "must be a list of tables"];
        assert!(says.iter().any(|words| refusal.contains(words)), "{refusal}");
    }
}

#[test]
fn a_missing_file_a_missing_key_and_a_bad_id_are_named() {
    let error = Config::load(Path::new("/no/such/agent.toml")).unwrap_err();
    assert!(error.to_string().contains("/no/such/agent.toml"), "{error}");

    assert!(refusal(&SMALLEST.replace("fleet = \"acme\"", "")).contains("missing field `fleet`"));
    assert!(refusal(&SMALLEST.replace("r-1", "r/1")).contains("device id \"r/1\" may hold only letters"));
}

#[test]
fn settings_that_make_no_sense_together_are_refused_with_a_way_out() {
    let cases = [
        (SMALLEST.replace("[\"mqtt://localhost\"]", "[]"), "name at least one"),
        (SMALLEST.replace("mqtt://", "mqtts://"), "no [tls] section"),
        (format!("{SMALLEST}[tls]\nca = 'x'\ncert = 'y'"), "tls.cert and tls.key"),
        (format!("{SMALLEST}password_file = 'x'"), "password_file without user"),
        (SMALLEST.replace("1000", "0"), "slots.capacity"),
        (with_uboot(", a = '/dev/a'", COPIES), "go together"),
        (with_uboot(", a = '/dev/a', b = '/dev/b', system = '/dev/c'", COPIES), "neither slots.a"),
        (with_uboot(", a = '/dev/a', b = '/dev/a'", COPIES), "are the same"),
        (SMALLEST.replace("1000", "1000, a = '/dev/a', b = '/dev/b'"), "need a boot loader"),
        (with_uboot("", COPIES).replace("uboot\"\n", "file\"\n"), "boot.copies is for boot.kind = \"uboot\""),
        (with_uboot("", COPIES).replace("uboot\"\n", "grub\"\n"), "a boot loader that is none of these has"),
        (format!("{SMALLEST}[boot]\nkind = 'grub'"), "\"uboot\", \"systemd-boot\" or \"script\""),
        (format!("{SMALLEST}[boot]\nentries = '/x'"), "boot.entries is for boot.kind = \"systemd-boot\""),
        (
            format!("{SMALLEST}[boot]\nkind = 'systemd-boot'\nentries = '/x'\ntemplates = '/x'"),
            "would boot them",
        ),
        (format!("{SMALLEST}[boot]\nkind = 'systemd-boot'\nreboot = []"), "boot.reboot is empty"),
        (format!("{SMALLEST}[boot]\nkind = 'script'"), "missing field `command`"),
        (format!("{SMALLEST}[boot]\nkind = 'script'\ncommand = []"), "name an executable"),
        (format!("{SMALLEST}[boot]\nkind = 'script'\ncommand = ['x']\ndeadline = 0"), "never succeed"),
        (format!("{SMALLEST}[boot]\nkind = 'script'\ncommand = ['x']\ndeadline = 31"), "above 30 s"),
        (
            format!(
                "{}[boot]\nkind = 'script'\ncommand = ['x']",
                SMALLEST.replace("1000", "1000, system = '/dev/c'")
            ),
            "which U-Boot boots",
        ),
        (with_uboot("", ""), "must be two"),
        (with_uboot("", &COPIES.replace("0x10000", "0x3fff")), "overlap"),
        (with_uboot("", &COPIES.replacen("0x4000", "0x8000", 1)), "differ in size"),
        (with_uboot("", &COPIES.replace("0x4000", "511")), "not within 512"),
        (with_uboot("", &COPIES.replace("0x4000", "0x100001")), "not within 512"),
        (
            with_uboot(
                "",
                &COPIES.replace("0x10000", "9223372036854775807").replace("offset = 0,", "offset = -1,"),
            ),
            "boot.copies.offset must be a whole number",
        ),
        (format!("{}reboot = []", with_uboot("", COPIES)), "boot.reboot is empty"),
        (format!("{SMALLEST}[[probes]]\nname = 'p'\ncommand = []"), "name an executable"),
        (format!("{SMALLEST}[[probes]]\nname = 'p'\ncommand = ['x']\ndeadline = 0"), "never succeed"),
        (with_probe("process = 'x'\nhttp = 'http://x'"), "exactly one of"),
        (with_probe("least = 1"), "exactly one of"),
        (with_probe("file = '/x'"), "without bounds"),
        (with_probe("file = '/x'\nleast = 2\nmost = 1"), "no number is within"),
        (with_probe("file = '/x'\nleast = nan"), "no number is within"),
        (with_probe("file = '/x'\nmost = 1\nfor = 1"), "for processes"),
        (with_probe("process = 'x'\nmost = 1"), "but no number"),
        (with_probe("process = '/usr/bin/x'"), "without a folder"),
        (with_probe("http = 'https://x'"), "is not plain HTTP"),
        (with_probe("process = 'x'\ndeadline = 0"), "never succeed"),
        (with_probe("process = 'x'\ntimes = 0\ninterval = 1"), "1 to 1000"),
        (with_probe("process = 'x'\ntimes = 1.5\ninterval = 1"), "1 to 1000"),
        (with_probe("process = 'x'\ntimes = 2"), "write an interval"),
        (with_probe("process = 'x'\ntimes = 7\ninterval = 10"), "within its deadline"),
        (with_probe("process = ['x']"), "probes.process must be a text"),
        (with_probe("process = 'x'\ndeadline = '1 s'"), "probes.deadline must be a number"),
        (with_probe("process = 'x'\nsoak = 1"), "probes.soak must be true or false"),
        (with_probe("command = 'x'"), "probes.command must be a list"),
        (with_probe("command = [1]"), "probes.command must be a list of texts"),
        (with_probe("process = 1979-05-27"), "probes.process must be a text"),
        (with_probe("process = 'x'\ndeadline = -1"), "no duration"),
        (format!("{SMALLEST}[[probes]]\nprocess = 'x'"), "missing field `name`"),
        (format!("{SMALLEST}[metrics]\nname = 'm'"), "name an executable"),
        (format!("{SMALLEST}[collect]\nservices = ['']"), "without a name"),
        (format!("{SMALLEST}[collect]\nservices = {:?}", ["x"; 17]), "more than 16"),
        (format!("{SMALLEST}[watchdog]\ntimeout = 2"), "watchdog.timeout"),
        (format!("{SMALLEST}[watchdog]\nduring = 'never'"), "write trial or always"),
        (format!("{SMALLEST}[when]\nbattery_min = 101"), "at most 100"),
        (format!("{SMALLEST}[when]\nconsent_file = 'x'\nconsent_command = ['y']"), "name one of them"),
        (format!("{SMALLEST}[when]\nload_command = ['']"), "name an executable"),
        (format!("{SMALLEST}[when]\ntime_zone = 'Nowhere/City'"), "write the rule itself"),
        (format!("{SMALLEST}[when]\nwithout_clock = 'run'"), "write \"wait\" or \"go\""),
        (format!("{SMALLEST}[when]\nwindows = [{{ from = '2:00', to = '04:00' }}]"), "no time of day"),
        (format!("{SMALLEST}[when]\nwindows = [{{ from = '24:00', to = '04:00' }}]"), "no time of day"),
        (format!("{SMALLEST}[when]\nwindows = [{{ from = '23:55', to = '00:09' }}]"), "shorter than 15"),
        (
            format!("{SMALLEST}[when]\nwindows = [{{ days = ['Sat'], from = '02:00', to = '04:00' }}]"),
            "no day",
        ),
        (
            format!("{SMALLEST}[[hooks]]\nstep = 'confirmed'\nname = 'h'\ncommand = ['x']\nundo = ['y']"),
            "can be undone",
        ),
        (
            format!("{SMALLEST}[[hooks]]\nstep = 'post-install'\nname = 'h'\ncommand = ['x']"),
            "unknown variant",
        ),
        (
            format!("{SMALLEST}[[hooks]]\nstep = 'post-boot'\nname = 'h'\ncommand = ['x']\ndeadline = 601"),
            "taken for a silent one",
        ),
        (format!("{SMALLEST}[transfer]\nprofile = \"huge\""), "linux, small-linux, mcu, fast, or none"),
        (format!("{SMALLEST}[transfer]\nrate = 1000"), "at least 1024"),
        (format!("{SMALLEST}[timing]\nscale = 0"), "timing.scale"),
        (format!("{SMALLEST}[timing]\nscale = nan"), "timing.scale"),
        (format!("{SMALLEST}[timing]\nwindow = 97"), "1 to 96"),
        (format!("{SMALLEST}[timing]\nask_first = 601"), "timing.ask_first"),
        (format!("{SMALLEST}[timing]\nreconnect_first = 0"), "timing.reconnect_first"),
        (format!("{SMALLEST}[timing]\nsoak = -1"), "no duration"),
        (format!("{SMALLEST}[timing]\nsoak = inf"), "no duration"),
    ];
    for (text, expected) in cases {
        let refusal = refusal(&text);
        assert!(refusal.contains(expected), "{expected}: {refusal}");
    }
}

#[test]
fn every_key_of_the_waits_is_read_and_changes_no_other() {
    let plain = numbers(&load(SMALLEST).unwrap().timing);
    for (key, value) in plain.iter().filter(|(key, _)| *key != "scale") {
        let other = match value {
            // One less: the window is at its ceiling already.
            toml::Value::Integer(count) => toml::Value::Integer(count - 1),
            // Stays within the bounds that some set one another.
            other => toml::Value::Float(other.as_float().unwrap() * 1.0625),
        };
        let expected = plain.clone().into_iter().map(|(name, was)| match &name == key {
            true => (name, other.clone()),
            false => (name, was),
        });

        let changed = numbers(&load(&format!("{SMALLEST}[timing]\n{key} = {other}")).unwrap().timing);

        assert_eq!(changed, expected.collect::<toml::Table>(), "{key}");
    }
}

#[test]
fn the_scale_multiplies_every_duration_and_nothing_else() {
    let number = |value: &toml::Value| value.as_float().unwrap_or_else(|| value.as_integer().unwrap() as f64);
    let plain = numbers(&Timing::default());

    let scaled = numbers(&load(&format!("{SMALLEST}[timing]\nscale = 0.5")).unwrap().timing);

    for (key, value) in &plain {
        let is_duration = !["retry_attempts", "connect_jitter", "window"].contains(&key.as_str());
        let expected = number(value) * if is_duration { 0.5 } else { 1.0 };
        assert_eq!(number(&scaled[key]), expected, "{key}");
    }
}

#[test]
fn the_core_has_the_same_defaults_and_a_deadline_of_the_devices_own() {
    let timing = Timing::default();

    assert_eq!(timing.core(0.0), crate::core::timing::Timing::default());
    assert_eq!(timing.core(1.0).connect_deadline, 42 * 60 * 1000);
    assert_eq!(timing.core(-1.0).connect_deadline, 28 * 60 * 1000);
    let scaled = load(&format!("{SMALLEST}[timing]\nscale = 0.01")).unwrap().timing;
    let plain = crate::core::timing::Timing::default();
    assert_eq!(scaled.core(0.0).soak, plain.soak / 100);
    assert_eq!(scaled.core(0.0).ask_most, plain.ask_most / 100);
}

#[test]
fn broker_addresses_say_host_port_and_encryption() {
    let address = |tls, host: &str, port| Ok(BrokerAddress { tls, host: host.into(), port });

    assert_eq!("mqtt://broker.example:1884".parse(), address(false, "broker.example", 1884));
    assert_eq!("mqtt://broker.example/".parse(), address(false, "broker.example", 1883));
    assert_eq!("mqtts://10.0.0.1".parse(), address(true, "10.0.0.1", 8883));
    assert_eq!("mqtts://[::1]:99".parse(), address(true, "::1", 99));
    assert_eq!("mqtt://[::1]".parse(), address(false, "::1", 1883));
    for bad in [
        "",
        "broker",
        "http://x",
        "mqtt://",
        "mqtt://:1",
        "mqtt://a:",
        "mqtt://a:0",
        "mqtt://a:65536",
        "mqtt://a/b",
        "mqtt://u@a",
        "mqtt://::1",
        "mqtt://[::1]1",
    ] {
        assert!(bad.parse::<BrokerAddress>().is_err(), "{bad}");
    }
}

#[test]
fn a_claim_that_others_may_read_is_refused_until_it_has_served() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("claim");
    std::fs::write(&path, "batch-7.abababababababababababababababab\n").unwrap();
    let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    let config = Config { claim_file: Some(path.clone()), ..load(SMALLEST).unwrap() };

    mode(0o640);
    let refused = config.claim(false).unwrap_err();

    assert!(format!("{refused:?}").contains("mode 640"), "{refused:?}");
    assert!(config.claim(true).is_ok(), "nothing hangs on it any more");
    mode(0o600);
    assert!(config.claim(false).unwrap().is_some());
}

#[test]
fn the_key_of_a_probe_says_its_kind() {
    use crate::health::Kind;
    use crate::health::metric::{From, Metric};

    let sample = load(&full_sample()).unwrap();
    let bounded = load(&with_probe("command = ['/bin/signal']\nleast = -95")).unwrap();
    let kinds: Vec<_> = sample.probes.iter().map(|probe| &probe.kind).collect();

    let program = |path: &str| vec![path.to_owned()];
    assert_eq!(kinds[0], &Kind::Command(vec!["{slot_path}".into(), "--self-test".into()]));
    assert_eq!(kinds[1], &Kind::Process { name: "ModemManager".into(), lived: Duration::from_secs(20) });
    assert_eq!(kinds[2], &Kind::Http("http://127.0.0.1:80/status".parse().unwrap()));
    let from = From::File("/sys/class/thermal/thermal_zone0/temp".into());
    assert_eq!(kinds[3], &Kind::Metric(Metric { from, least: Some(-20000.0), most: Some(90000.0) }));
    let from = From::Command(program("/bin/signal"));
    assert_eq!(bounded.probes[0].kind, Kind::Metric(Metric { from, least: Some(-95.0), most: None }));
    let modem = &sample.probes[1];
    assert_eq!((modem.times, modem.interval, modem.soak), (2, Some(Duration::from_secs(5)), true));
    let web = &sample.probes[0];
    assert_eq!((web.times, web.interval, web.soak), (1, None, false));
}

#[test]
fn the_conditions_of_the_sample_are_those_that_it_shows() {
    let when = load(&full_sample()).unwrap().when.conditions;

    let weekend = [false, false, false, false, false, true, true];
    assert_eq!(when.windows, [Window { days: weekend, from: 120, to: 270 }]);
    assert_eq!(
        (when.battery_min, when.metered_max, when.consent, when.load),
        (Some(40), Some(5_000_000), true, true)
    );
    // 2026-07-01 and 2026-12-01.
    assert_eq!((when.zone.offset(1_782_864_000), when.zone.offset(1_796_083_200)), (7200, 3600));
}

#[test]
fn a_component_says_what_it_needs() {
    let with =
        |keys: &str| refusal(&format!("{SMALLEST}\n[[components]]\nname = 'modem'\ncapacity = 1000\n{keys}"));

    assert!(with("").contains("missing field `kind` in components"));
    assert!(with("kind = 'disk'").contains("expected one of [\"file\", \"archive\", \"program\"]"));
    for keys in ["kind = 'program'\ninstall = ['x']", "kind = 'program'\npath = '/x'"] {
        assert!(with(keys).contains("has install and revert, and no path"), "{keys}");
    }
    for keys in ["kind = 'file'", "kind = 'archive'\npath = '/x'\ninstall = ['x']\nrevert = ['x']"] {
        assert!(with(keys).contains("has a path, and no programs"), "{keys}");
    }
    assert!(with("kind = 'file'\npath = 'x'").contains("must be absolute"));
    assert!(with("kind = 'file'\npath = '/var/lib/tern/x'").contains("are not apart"));
    let twice = "kind = 'file'\npath = '/x'\n[[components]]\nname = 'modem'\ncapacity = 1\nkind = 'file'\npath = '/y'";
    assert!(with(twice).contains("is there twice"));
    assert!(
        with("kind = 'file'\npath = '/x'\n[[components]]\nname = '../x'\ncapacity = 1")
            .contains("is no word")
    );
}

/// What the system has and its recovery system has not must not keep the latter from its work.
#[test]
fn recovery_reads_only_what_it_needs() {
    let text = with_uboot("", COPIES).replace("mqtt://", "mqtts://");
    let more =
        "tls = { ca = '/etc/ca.pem' }\nshade = 'of a newer agent'\nwhen = { time_zone = 'Mars/Olympus' }\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    fs::write(&path, format!("{more}{text}")).unwrap();

    assert!(Config::load(&path).is_err());
    let config = Config::load_for_recovery(&path).unwrap();
    assert_eq!((config.brokers[0].tls, config.slots.capacity), (true, 1000));
    assert!(matches!(config.boot, BootConfig::Uboot(_)));

    fs::write(&path, format!("{more}{}", text.replace("capacity = 1000", "capacity = 0"))).unwrap();
    let error = Config::load_for_recovery(&path).unwrap_err();
    assert!(reasons(&error).contains("slots.capacity is 0"), "{}", reasons(&error));
}
