use super::*;
use crate::boot::Trial;

fn record(active: SlotName, trial: Option<(SlotName, u8)>) -> BootRecord {
    let trial = trial.map(|(slot, tries_left)| Trial { slot, rc: 2, tries_left });
    BootRecord { active, trial }
}

#[test]
fn a_trial_is_installed_without_using_up_a_boot_of_it() {
    let record = record(SlotName::A, Some((SlotName::B, 2)));

    let plan = plan(&record, Some(SlotName::A), [true, true]).unwrap();

    assert_eq!(plan, Plan { wanted: SlotName::B, record: None, is_installed: false });
}

#[test]
fn a_trial_that_is_used_up_or_damaged_gives_way_to_the_confirmed_package() {
    let used_up = record(SlotName::A, Some((SlotName::B, 0)));
    let back = plan(&used_up, Some(SlotName::B), [true, true]).unwrap();
    assert_eq!(back, Plan { wanted: SlotName::A, record: None, is_installed: false });

    let on_trial = record(SlotName::A, Some((SlotName::B, 2)));
    let back = plan(&on_trial, Some(SlotName::A), [true, false]).unwrap();
    assert_eq!(back, Plan { wanted: SlotName::A, record: Some(used_up), is_installed: true });
}

#[test]
fn without_a_whole_package_there_is_no_plan() {
    for (record, usable) in [
        (record(SlotName::A, None), [false, true]),
        (record(SlotName::B, None), [true, false]),
        (record(SlotName::A, Some((SlotName::B, 2))), [false, false]),
    ] {
        assert!(plan(&record, None, usable).is_err(), "{record:?}");
    }
}

#[test]
fn whatever_is_wanted_is_confirmed_or_on_trial_and_usable() {
    for active in SlotName::BOTH {
        for trial in [None, Some(0), Some(1), Some(2)] {
            for usable in [[false, false], [false, true], [true, false], [true, true]] {
                for installed in [None, Some(SlotName::A), Some(SlotName::B)] {
                    let record = record(active, trial.map(|tries| (active.other(), tries)));
                    let Ok(plan) = plan(&record, installed, usable) else { continue };

                    let on_trial = trial.is_some_and(|tries| tries > 0) && plan.wanted == active.other();
                    assert!(
                        usable[plan.wanted as usize] && (plan.wanted == active || on_trial),
                        "{record:?}"
                    );
                    assert_eq!(plan.is_installed, installed == Some(plan.wanted));
                }
            }
        }
    }
}
