//! What a stolen key of one role is good for.

use serde_json::json;

use super::repository::*;
use crate::bundle::File;
use crate::tuf::client::Trusted;
use crate::tuf::key::Signer;
use crate::tuf::{Role, TufError};

/// The key beside the first of release; two must sign.
const SECOND: u8 = 44;

/// Targets that ask for two of two release keys.
fn two_keys(repository: &Repository) -> File {
    let mut value = repository.value(Role::Targets);
    let second = key(SECOND).public();
    value["delegations"]["keys"][second.id().as_str()] = json!(second);
    let roles = value["delegations"]["roles"].as_array_mut().unwrap();
    let release = roles.iter_mut().find(|role| role["name"] == "release").unwrap();
    release["threshold"] = json!(2);
    release["keyids"].as_array_mut().unwrap().push(json!(second.id()));
    File { role: Role::Targets, bytes: signed(value, &repository.seeds(Role::Targets)) }
}

#[test]
fn one_of_two_release_keys_approves_nothing() {
    let repository = Repository::default();
    for (signers, accepted) in
        [(&[14][..], false), (&[SECOND], false), (&[14, 15], false), (&[14, SECOND], true)]
    {
        let mut device = Trusted::new(&repository.file(Role::Root).bytes).unwrap();
        let mut files = repository.files();
        files.retain(|file| !matches!(file.role, Role::Targets | Role::Release));
        files.push(two_keys(&repository));
        files.push(File { role: Role::Release, bytes: signed(repository.value(Role::Release), signers) });

        let done = arrive(&mut device, files);

        assert_eq!(device.current().is_some(), accepted, "{signers:?}: {done:?}");
        let short = |e: &TufError| matches!(e, TufError::Threshold { threshold: 2, .. });
        assert_eq!(refused(&done, Role::Release, short), !accepted, "{signers:?}");
    }
}

#[test]
fn a_stolen_key_signs_for_its_own_role_alone() {
    // By number, as the repository gives them out.
    let keys = [(Role::Timestamp, 11), (Role::Snapshot, 12), (Role::Rollout, 15), (Role::Halt, 16)];
    let repository = Repository::default();
    for (owner, stolen) in keys {
        for role in &Role::ALL[1..] {
            let mut device = Trusted::new(&repository.file(Role::Root).bytes).unwrap();
            let mut files = repository.files();
            let forged = files.iter_mut().find(|file| file.role == *role).unwrap();
            forged.bytes = signed(repository.value(*role), &[stolen]);

            let done = arrive(&mut device, files);

            assert_eq!(device.current().is_some(), owner == *role, "{role} by the key of {owner}: {done:?}");
        }
    }
}
