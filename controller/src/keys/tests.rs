//! Stories of `keys init`.

use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;
use tern_protocol::bundle::File;
use tern_protocol::tuf::{Role, Trusted};

use super::*;

fn options(home: &TempDir) -> InitOptions {
    InitOptions::unencrypted(
        "acme".parse().unwrap(),
        "cam".parse().unwrap(),
        home.path().join("data"),
        home.path().join("offline"),
        1_800_000_000,
    )
}

#[test]
fn what_init_made_is_a_repository_that_a_device_trusts() {
    let home = TempDir::new().unwrap();
    let options = options(&home);

    let report = init(&options).unwrap();

    let files: Vec<File> =
        offline_files(&options.data, &options.product).unwrap().iter().map(File::from).collect();
    let trusted = Trusted::restore(&files).unwrap();
    let versions = trusted.versions();
    assert_eq!((versions.root, versions.targets, versions.release), (1, 1, 1));
    assert_eq!(trusted.expires(Role::Root), Some(1_800_000_000 + 365 * 86_400));
    assert_eq!(report.expires, 1_800_000_000 + 180 * 86_400);
    let keys = load_online(&options.data, &options.product).unwrap();
    assert_eq!(trusted.telemetry_keys().get(&keys.kid), Some(&keys.telemetry.public_key()));
    assert_eq!(products(&options.data).unwrap(), vec![options.product.clone()]);
    assert_eq!(fleet(&options.data).unwrap(), Some(options.fleet));
}

#[test]
fn private_keys_are_for_their_owner_alone_and_an_open_one_is_refused() {
    let home = TempDir::new().unwrap();
    let report = init(&options(&home)).unwrap();

    for key in report.offline_keys.iter().chain(&report.online_keys) {
        assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600, "{key:?}");
    }
    let key = &report.offline_keys[0];
    assert!(load_signer(key).is_ok());
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(load_signer(key), Err(KeysError::Open { mode: 0o640, .. })));
}

#[test]
fn a_second_init_overwrites_nothing() {
    let home = TempDir::new().unwrap();
    let options = options(&home);
    let report = init(&options).unwrap();
    let before: Vec<_> = report.offline_keys.iter().map(|key| std::fs::read(key).unwrap()).collect();

    let again = init(&options);

    assert!(matches!(again, Err(KeysError::Exists(_))));
    let after: Vec<_> = report.offline_keys.iter().map(|key| std::fs::read(key).unwrap()).collect();
    assert_eq!(before, after);
}

#[test]
fn a_second_product_joins_the_fleet_and_another_fleet_does_not() {
    let home = TempDir::new().unwrap();
    let first = options(&home);
    init(&first).unwrap();
    let second = InitOptions {
        product: "router".parse().unwrap(),
        holders: vec![Holder { folder: home.path().join("offline-router"), ..first.holders[0].clone() }],
        ..first.clone()
    };
    let stranger = InitOptions {
        fleet: "other".parse().unwrap(),
        product: "third".parse().unwrap(),
        holders: vec![Holder { folder: home.path().join("offline-third"), ..first.holders[0].clone() }],
        ..first.clone()
    };

    init(&second).unwrap();
    let refused = init(&stranger);

    assert!(matches!(refused, Err(KeysError::OtherFleet { .. })));
    assert_eq!(products(&first.data).unwrap().len(), 2);
    let keys = |product| load_online(&first.data, product).unwrap().rollout.public().id();
    assert_ne!(keys(&first.product), keys(&second.product));
}

#[test]
fn a_telemetry_key_that_targets_does_not_name_is_refused() {
    let home = TempDir::new().unwrap();
    let options = options(&home);
    let report = init(&options).unwrap();
    let other = report.online_keys.iter().find(|key| key.ends_with("halt.pem")).unwrap();
    std::fs::copy(other, online_key(&options.data, &options.product, "telemetry")).unwrap();

    let loaded = load_online(&options.data, &options.product);

    assert!(matches!(loaded, Err(KeysError::Telemetry(_))));
}
