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
