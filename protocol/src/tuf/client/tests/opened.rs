//! What devices of one process may share, and what each still judges by itself.

use std::sync::Arc;

use super::repository::*;
use crate::tuf::client::{Opened, Trusted};
use crate::tuf::{Role, TufError};

fn sharing(repository: &Repository, opened: &Arc<Opened>) -> Trusted {
    Trusted::new(&repository.file(Role::Root).bytes).unwrap().sharing(opened.clone())
}

#[test]
fn devices_that_share_come_to_what_each_would_come_to_alone_and_hold_one_copy() {
    let (opened, repository) = (Arc::default(), Repository { hashes: true, ..Repository::default() });
    let [mut first, mut second] = [0, 1].map(|_| sharing(&repository, &opened));

    let done = [&mut first, &mut second].map(|device| arrive(device, repository.files()));

    assert_eq!(done[0], done[1]);
    assert_eq!(first.files(), repository.device().files());
    assert_eq!(second.files(), first.files());
    let at = |device: &Trusted| {
        Role::ALL[1..].iter().map(|r| device.file(*r).unwrap().as_ptr()).collect::<Vec<_>>()
    };
    assert_eq!(at(&first), at(&second));
    restart(&second);
}

#[test]
fn what_verified_under_other_keys_is_judged_anew() {
    for role in Role::ALL.into_iter().skip(1) {
        let (opened, repository) = (Arc::default(), Repository::default());
        arrive(&mut sharing(&repository, &opened), repository.files());
        let mut other = repository.clone();
        let key = match role {
            Role::Timestamp => &mut other.timestamp_key,
            Role::Snapshot => &mut other.snapshot_key,
            Role::Targets => &mut other.targets_key,
            Role::Release => &mut other.release_key,
            Role::Halt => &mut other.halt_key,
            _ => continue,
        };
        *key = 77;
        // The other repository's device is sent a file that a device of the first one has taken as good.
        let mut device = sharing(&other, &opened);
        let mut files = other.files();
        files.iter_mut().filter(|file| file.role == role).for_each(|file| *file = repository.file(role));

        for _ in 0..2 {
            let done = arrive(&mut device, files.clone());
            assert!(refused(&done, role, |e| matches!(e, TufError::Threshold { .. })), "{role}: {done:?}");
        }
        assert!(device.file(role).is_none() && device.current().is_none(), "{role}");
    }
}

#[test]
fn a_forged_file_is_refused_again_and_again_and_an_expired_one_though_it_verified() {
    let (opened, repository) = (Arc::default(), Repository::default());
    let mut forged = repository.files();
    let halt = forged.iter_mut().find(|file| file.role == Role::Halt).unwrap();
    halt.bytes = signed(repository.value(Role::Halt), &[99]);
    for _ in 0..2 {
        let done = arrive(&mut sharing(&repository, &opened), forged.clone());
        assert!(refused(&done, Role::Halt, |e| matches!(e, TufError::Threshold { .. })), "{done:?}");
    }
    arrive(&mut sharing(&repository, &opened), repository.files());

    let mut late = sharing(&Repository { expires: LATER * 2, ..repository.clone() }, &opened);
    let done = arrive_at(&mut late, repository.files(), LATER);

    assert!(refused(&done, Role::Timestamp, |e| matches!(e, TufError::Expired { .. })), "{done:?}");
}
