//! Stories of `keys init`.

use std::os::unix::fs::PermissionsExt;

use p256::ecdsa::SigningKey;
use tempfile::TempDir;
use tern_protocol::bundle::File;
use tern_protocol::tuf::key::P256Signer;
use tern_protocol::tuf::{Role, Signer, Trusted};

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
    let (kid, key) = keys.newest().unwrap();
    assert_eq!(trusted.telemetry_keys().get(&kid), Some(&key.public_key()));
    let time = keys.time.as_ref().map(|key| p256::PublicKey::from(key.verifying_key()));
    assert!(time.is_some() && trusted.time_key() == time);
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

/// Asks openssl, which we did not write, for the public half of a key.
fn openssl(key: &std::path::Path, more: &[&str]) -> Option<String> {
    let mut command = std::process::Command::new("openssl");
    command.args(["pkey", "-pubout", "-in"]).arg(key).args(more);
    let output = command.output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn openssl_reads_our_keys_with_the_passphrase_alone_and_we_read_its_keys() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("release.pem");
    let passphrase = Passphrase::chosen("correct horse").unwrap();
    let (_, public) = make_key(&path, &Protection::Passphrase(passphrase.clone())).unwrap();

    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{text}");
    assert_eq!(openssl(&path, &["-passin", "pass:correct horse"]).unwrap().trim(), public.pem().trim());
    assert_eq!(openssl(&path, &["-passin", "pass:wrong horse"]), None);

    let theirs = home.path().join("theirs.pem");
    let mut made = std::process::Command::new("openssl");
    made.args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-aes-256-cbc"]);
    made.args(["-pass", "pass:correct horse", "-out"]).arg(&theirs);
    assert!(made.output().unwrap().status.success());
    std::fs::set_permissions(&theirs, std::fs::Permissions::from_mode(0o600)).unwrap();
    let key = secret::read(&theirs, &|_| Ok(passphrase.clone())).unwrap();
    let public = P256Signer::new(SigningKey::from(&key)).public();
    assert_eq!(openssl(&theirs, &["-passin", "pass:correct horse"]).unwrap().trim(), public.pem().trim());
}

#[test]
fn a_factorys_key_is_encrypted_like_a_holders_and_openssl_reads_it() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("line-1.pem");
    let passphrase = Passphrase::chosen("correct horse").unwrap();
    let made = make_factory(&path, &Protection::Passphrase(passphrase.clone())).unwrap();

    assert!(matches!(load_signer(&path), Err(KeysError::Sealed(_))));
    let signer = load_signer_asking(&path, &|_| Ok(passphrase.clone())).unwrap();
    let public = std::fs::read_to_string(&made.public).unwrap();
    assert_eq!(tern_protocol::tuf::Signer::public(&signer).pem(), public);
    let openssl = |word: &str| {
        let mut command = std::process::Command::new("openssl");
        command.args(["pkey", "-pubout", "-passin", word, "-in"]).arg(&path).output()
    };
    // Where there is no openssl, `tests/ceremony.rs` says so as well.
    let Ok(read) = openssl("pass:correct horse") else { return };
    assert_eq!(String::from_utf8_lossy(&read.stdout), public);
    assert!(!openssl("pass:wrong horse").unwrap().status.success());
}

#[test]
fn a_wrong_passphrase_is_called_that_and_nothing_else_is() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("root.pem");
    let passphrase = || Passphrase::chosen("correct horse");
    make_key(&path, &Protection::Passphrase(passphrase().unwrap())).unwrap();
    let open = |text: &str| KeyName::File(path.clone()).open(&|_| Ok(Passphrase::given(text)));

    assert!(open("correct horse").is_ok());
    for wrong in ["", "correct horsf", "Correct horse", "correct horse "] {
        assert!(matches!(open(wrong), Err(KeysError::WrongPassphrase(_))), "{wrong:?}");
    }
    // The service has nobody to ask.
    assert!(matches!(load_signer(&path), Err(KeysError::Sealed(_))));
    assert!(matches!(make_key(&path, &Protection::Unencrypted), Err(KeysError::Exists(_))));
    let torn = std::fs::read_to_string(&path).unwrap().replacen('M', "!", 1);
    std::fs::write(&path, torn).unwrap();
    assert!(matches!(open("correct horse"), Err(KeysError::NotAKey(_))));
    assert!(matches!(Passphrase::chosen("short"), Err(KeysError::ShortPassphrase)));
}

#[test]
fn an_encrypted_key_does_not_show_the_key_and_two_of_them_have_nothing_in_common() {
    let home = TempDir::new().unwrap();
    let key = secret::draw().unwrap();
    let sealed = |name: &str| {
        let path = home.path().join(name);
        let protection = Protection::Passphrase(Passphrase::chosen("correct horse").unwrap());
        secret::write(&path, &key, &protection).unwrap();
        let (_, document) =
            pkcs8::SecretDocument::from_pem(&std::fs::read_to_string(&path).unwrap()).unwrap();
        document.as_bytes().to_vec()
    };
    let (one, other) = (sealed("one.pem"), sealed("other.pem"));

    assert!(!one.windows(32).any(|part| part == &key.to_bytes()[..]));
    let body = |bytes: &[u8]| bytes[bytes.len() - 128..].to_vec();
    assert_ne!(body(&one), body(&other), "salt and vector are drawn anew");
    assert_eq!(one.len(), other.len());
}

#[test]
fn numbers_of_keys_that_do_not_go_together_make_nothing() {
    let home = TempDir::new().unwrap();
    let options = options(&home);
    let with = |root: (usize, usize), release: (usize, usize)| {
        let quota = |(keys, threshold)| Quota { keys, threshold };
        init(&InitOptions { root: quota(root), release: quota(release), ..options.clone() })
    };

    for (root, release) in
        [((0, 0), (1, 1)), ((2, 1), (1, 1)), ((1, 2), (1, 1)), ((1, 1), (1, 0)), ((1, 1), (2, 2))]
    {
        assert!(matches!(with(root, release), Err(KeysError::Quota(_))), "{root:?} {release:?}");
    }
    assert!(!options.data.exists());
    assert!(with((1, 1), (1, 1)).is_ok());
}
