//! Power cuts inside the one write: every sector, in the order of the medium, backwards, and every single one missing.

use super::*;
use crate::boot::uboot::environment::{Newest, rewrite};

const SECTOR: usize = 512;
const SECTORS: usize = SIZE / SECTOR;

/// Which sectors of a write have reached the medium.
fn cuts() -> Vec<[bool; SECTORS]> {
    let count = |from: usize, to: usize| std::array::from_fn(|sector| (from..to).contains(&sector));
    let forwards = (0..=SECTORS).map(|to| count(0, to));
    let backwards = (0..=SECTORS).map(|from| count(from, SECTORS));
    let holes = (0..SECTORS).map(|hole| std::array::from_fn(|sector| sector != hole));
    forwards.chain(backwards).chain(holes).collect()
}

fn torn(old: &[u8], new: &[u8], cut: &[bool; SECTORS]) -> Vec<u8> {
    let pick = |sector: usize| if cut[sector] { new } else { old };
    (0..SECTORS).flat_map(|sector| pick(sector)[sector * SECTOR..][..SECTOR].to_vec()).collect()
}

/// Foreign variables that fill two thirds of a copy, around ours.
fn full_board() -> Board {
    let (before, after) = ("b".repeat(5000), "z".repeat(5000));
    let board = Board::with(&[("before", &before), ("zebra", &after), ("tern_active", "a")]);
    // Past the factory's equal flags, so that both copies are older and newer.
    let mut boot = board.start().unwrap();
    boot.write(&record(SlotName::A, Some((SlotName::B, 8, 1)))).unwrap();
    boot.write(&record(SlotName::A, None)).unwrap();
    board
}

#[test]
fn a_power_cut_at_any_sector_leaves_the_old_record_or_the_new_one() {
    let steps = [
        record(SlotName::A, Some((SlotName::B, 9, 2))),
        record(SlotName::A, Some((SlotName::B, 9, 1))),
        record(SlotName::B, None),
        record(SlotName::B, Some((SlotName::A, 10, 2))),
        record(SlotName::B, None),
    ];
    let board = full_board();
    let (mut old_ones, mut new_ones) = (0, 0);
    for new in steps {
        let old = UbootBoot::read(&board.config.medium).unwrap();
        let before = board.copies();
        board.start().unwrap().write(&new).unwrap();
        let after = board.copies();
        let written = usize::from(before[1] != after[1]);

        for cut in cuts() {
            let mut copies = before.clone();
            copies[written] = torn(&before[written], &after[written], &cut);
            board.put([&copies[0], &copies[1]]);

            let found = UbootBoot::read(&board.config.medium).unwrap();

            // Whole means whole: sectors that are the same before and after are there anyway.
            let whole = copies[written] == after[written];
            assert_eq!(found, if whole { new.clone() } else { old.clone() });
            *(if whole { &mut new_ones } else { &mut old_ones }) += 1;
            // The next decision is taken from there, whatever is left of the copy.
            let mut boot = board.start().unwrap();
            boot.write(&new).unwrap();
            assert_eq!(boot.record().unwrap(), new);
        }
        board.put([&after[0], &after[1]]);
    }
    assert!(old_ones > 100 && new_ones > 100, "{old_ones} {new_ones}");
}

/// The control: the same cuts over one copy alone do lose the record, so the test above can see it.
#[test]
fn with_one_copy_the_same_cuts_would_lose_the_record() {
    let board = full_board();
    let before = board.copies();
    let found = newest([&before[0], &before[1]]).unwrap();
    let counts = found.index;
    let put = |e: &mut Environment| variables::put(e, &record(SlotName::A, Some((SlotName::B, 9, 2))));
    let in_place = Newest { index: 1 - counts, ..found };
    let (index, new) = rewrite(in_place, SIZE, put).unwrap().unwrap();
    assert_eq!(index, counts, "the copy that counts is written over");

    let lost = cuts().into_iter().filter(|cut| {
        let only = torn(&before[counts], &new, cut);
        newest([&only, &[]]).is_none()
    });

    assert!(lost.count() > 20);
}
