//! The samples under deploy/ are what the program reads.

use tern_bridge::{BridgeConfig, FrontLimits};

const SAMPLE: &str = include_str!("../../deploy/bridge.toml");

#[test]
fn the_sample_configuration_loads_and_shows_the_defaults() {
    let config = BridgeConfig::from_toml(SAMPLE).unwrap();

    assert_eq!(config.limits, FrontLimits::default());
}

#[test]
fn the_listeners_that_are_commented_out_would_load_too() {
    let text: Vec<&str> = SAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest.starts_with("[[") || rest.starts_with("listen =") || rest.starts_with("auth.") =>
            {
                rest
            }
            _ => line,
        })
        .filter(|line| !line.starts_with("auth.tls only"))
        .collect();

    let config = BridgeConfig::from_toml(&text.join("\n")).unwrap();

    assert_eq!(config.listeners.len(), 3);
}

#[test]
fn every_limit_is_shown() {
    let table: toml::Table = SAMPLE.parse().unwrap();
    let shown: Vec<&String> = table["limits"].as_table().unwrap().keys().collect();
    let debug = format!("{:?}", FrontLimits::default());

    assert_eq!(shown.len(), debug.matches(": ").count(), "{shown:?} against {debug}");
}

#[test]
fn the_upstream_that_is_commented_out_loads_and_shows_every_key_with_its_default() {
    let (front, upstream) = SAMPLE.split_once("# [upstream]\n").unwrap();
    let keys: Vec<&str> = upstream
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| line.contains(" = "))
        .collect();
    let text = |keys: &[&str]| {
        let front = front.replace("service_password = \"change-me-before-use\"", "");
        format!("{front}\n[upstream]\n{}\n", keys.join("\n"))
    };

    let shown = BridgeConfig::from_toml(&text(&keys)).unwrap().upstream.unwrap();
    let optional = ["cache_bytes", "queue_bytes", "window"];
    let short: Vec<&str> =
        keys.iter().copied().filter(|key| !optional.iter().any(|o| key.starts_with(o))).collect();

    assert_eq!(BridgeConfig::from_toml(&text(&short)).unwrap().upstream.unwrap(), shown);
    assert_eq!(keys.len(), format!("{shown:?}").matches(": ").count() - 2, "{shown:?}");
}
