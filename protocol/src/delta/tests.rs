//! Round trips, wrong old images, malformed packs.

use std::io;

use proptest::prelude::*;

use super::encode::Options;
use super::*;

/// Bytes that nobody can compress.
fn random(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 24) as u8
        })
        .collect()
}

/// Something like a program: words from a small set, addresses that grow, a stretch of zeros.
fn program(seed: u32, length: usize) -> Vec<u8> {
    let words = random(seed, 256);
    let mut out = Vec::with_capacity(length + 8);
    for (i, choice) in random(seed ^ 0x5555, length / 4 + 1).into_iter().enumerate() {
        match choice {
            0..100 => out.extend_from_slice(&words[usize::from(choice)..][..4]),
            100..200 => out.extend_from_slice(&(0x0800_0000 + i as u32 * 4).to_le_bytes()),
            200..230 => out.extend_from_slice(&[0xe8, choice, words[3], 0, 0]),
            _ => out.extend_from_slice(&[0; 4]),
        }
    }
    out.truncate(length);
    out
}

/// A slot that takes nothing but its chunks, in their order and whole.
#[derive(Default)]
struct Strict {
    bytes: Vec<u8>,
    length: u64,
    chunk: u64,
}

impl Strict {
    fn of(manifest: &DeltaManifest) -> Self {
        Self { bytes: Vec::new(), length: manifest.new.length, chunk: 1 << manifest.chunk_log2 }
    }
}

impl ReadAt for Strict {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.bytes.read_at(offset, into)
    }
}

impl Slot for Strict {
    fn write_chunk(&mut self, chunk: u32, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert_eq!(offset, u64::from(chunk) * self.chunk, "a chunk in another's place");
        assert_eq!(bytes.len() as u64, self.chunk.min(self.length - offset), "a write past the chunk's end");
        self.bytes.write_chunk(chunk, offset, bytes)
    }
}

fn decode(delta: &Delta, old: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut decoder = Decoder::new(&delta.manifest);
    let mut slot = Strict::of(&delta.manifest);
    for pack in &delta.packs {
        decoder.decode(pack, &old, &mut slot)?;
    }
    Ok(slot.bytes)
}

fn edited(old: &[u8]) -> Vec<u8> {
    let mut new = old.to_vec();
    new.splice(70_000..70_100, random(2, 3000));
    new.splice(200_000..210_000, []);
    (0..400).for_each(|i| new[i * 97] ^= 7);
    new.extend(random(3, 70_000));
    new
}

#[test]
fn an_edited_image_comes_out_as_it_is_in_every_profile() {
    for old in [random(1, 300_000), program(1, 300_000)] {
        let new = edited(&old);
        for profile in Profile::ALL {
            for pack in [16 * 1024, 64 * 1024] {
                let delta = encode(&old, &new, Options { pack, ..Options::new(profile) });

                assert!(decode(&delta, &old).unwrap() == new, "{profile:?}");
                assert!(delta.packs.iter().all(|p| p.len() <= pack + 49), "{profile:?}");
                assert!(delta.packs.iter().map(Vec::len).sum::<usize>() < 78_000);
            }
        }
    }
}

#[test]
fn images_at_the_edges_come_out_as_they_are() {
    let (some, other) = (program(7, 150_000), random(8, 90_000));
    let cut = &some[..99_999];
    let nothing: &[u8] = &[];
    for (old, new) in [
        (nothing, nothing),
        (nothing, &some[..]),
        (&some[..], nothing),
        (&some[..], &some[..]),
        (&some[..], cut),
        (cut, &some[..]),
        (&some[..], &other[..]),
        (&[1][..], &[2][..]),
    ] {
        let delta = encode(old, new, Options::new(Profile::SmallLinux));

        assert!(decode(&delta, old).unwrap() == new, "{} to {} bytes", old.len(), new.len());
        assert_eq!(delta.manifest.new.length, new.len() as u64);
    }
}

#[test]
fn nothing_to_say_takes_a_few_bytes() {
    let image = random(1, 1 << 20);

    let delta = encode(&image, &image, Options::new(Profile::Linux));

    assert_eq!(delta.packs.len(), 1);
    assert!(delta.packs[0].len() < 20, "{}", delta.packs[0].len());
}

#[test]
fn packs_do_not_depend_on_the_number_of_threads() {
    let (old, new) = (random(1, 200_000), random(5, 3_500_000));
    let with = |threads| encode(&old, &new, Options { threads, ..Options::new(Profile::Fast) }).packs;

    let one = with(1);

    assert!(one.len() > 50 && one == with(3));
}

#[test]
fn a_pack_may_be_decoded_again_and_after_any_other() {
    let old = program(3, 400_000);
    let new: Vec<u8> = [&random(9, 150_000)[..], &edited(&old)].concat();
    let delta = encode(&old, &new, Options { pack: 16 * 1024, ..Options::new(Profile::Mcu) });
    let mut decoder = Decoder::new(&delta.manifest);
    let mut slot = vec![0; new.len()];
    assert!(delta.packs.len() > 5);

    for pack in delta.packs.iter().chain(delta.packs.iter().rev()) {
        decoder.decode(pack, &old, &mut slot).unwrap();
    }

    assert!(slot == new);
}

#[test]
fn a_wrong_old_image_is_caught_at_the_chunk_that_it_spoils() {
    let old = program(4, 400_000);
    let mut new = old.clone();
    (0..new.len()).step_by(5000).for_each(|i| new[i] ^= 0x55);
    let delta = encode(&old, &new, Options::new(Profile::Linux));

    for spoilt in [10_007, 140_007, 399_990] {
        let mut wrong = old.clone();
        wrong[spoilt] ^= 1;
        let mut slot = Strict::of(&delta.manifest);
        let failed = Decoder::new(&delta.manifest).decode(&delta.packs[0], &wrong, &mut slot).unwrap_err();

        assert!(
            matches!(failed, DecodeError::WrongChunk { chunk } if chunk as usize == spoilt >> 16),
            "{failed}"
        );
        assert!(slot.bytes == new[..spoilt >> 16 << 16], "chunks before it stand");
    }
    let short = &old[..300_000];
    let failed = Decoder::new(&delta.manifest).decode(&delta.packs[0], &short, &mut Vec::new());
    assert!(matches!(failed, Err(DecodeError::Read { .. })));
}

#[test]
fn a_pack_of_another_delta_or_format_is_refused() {
    let old = program(4, 100_000);
    let delta = encode(&old, &edited(&program(4, 300_000)), Options::new(Profile::Mcu));
    let refused = |at: usize, value: u8| {
        let mut pack = delta.packs[0].clone();
        pack[at] = value;
        let refused = Decoder::new(&delta.manifest).decode(&pack, &old, &mut Strict::of(&delta.manifest));
        matches!(refused, Err(DecodeError::Unknown))
    };

    assert!(refused(0, 2) && refused(1, 1) && refused(1, 77) && refused(2, 12) && refused(2, 64));
    assert!(refused(6, 1) && refused(10, 1), "chunks past the image's end");
    let mut decoder = Decoder::new(&delta.manifest);
    for length in 0..11 {
        assert!(decoder.decode(&delta.packs[0][..length], &old, &mut Vec::new()).is_err());
    }
}

/// Whatever a broken pack says: an error, or other bytes in chunks that carry no digest.
#[test]
fn a_broken_pack_neither_panics_nor_writes_outside_its_chunks() {
    let old = program(4, 120_000);
    let delta = encode(&old, &edited(&program(4, 300_000)), Options::new(Profile::Mcu));
    let mut decoder = Decoder::new(&delta.manifest);
    let pack = &delta.packs[0];
    let mut failed = 0;
    for n in 0..300u32 {
        let mut broken = pack.clone();
        let dice = random(n * 7 + 1, 8);
        let at = 11 + (usize::from(dice[0]) << 8 | usize::from(dice[1])) % (broken.len() - 11);
        match n % 4 {
            0 => broken[at] ^= 1 << (dice[2] % 8),
            1 => broken.truncate(at),
            2 => broken[11..].copy_from_slice(&random(n, pack.len() - 11)),
            _ => broken[at..].fill(dice[3]),
        }
        let mut slot = Strict::of(&delta.manifest);
        failed += u32::from(decoder.decode(&broken, &old, &mut slot).is_err());
        assert!(slot.bytes.len() <= 1 << 20);
    }
    assert!(failed > 290, "{failed} of 300 were noticed");
    assert!(
        decoder.decode(pack, &old, &mut Strict::of(&delta.manifest)).is_ok(),
        "and the next pack is fine"
    );
}

#[derive(Debug, Clone)]
enum Edit {
    Change { at: usize, bytes: Vec<u8> },
    Insert { at: usize, bytes: Vec<u8> },
    Remove { at: usize, length: usize },
    Move { from: usize, length: usize, to: usize },
    Shift { at: usize, by: u32 },
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..600);
    let place = || 0usize..200_000;
    let edit = prop_oneof![
        (place(), bytes()).prop_map(|(at, bytes)| Edit::Change { at, bytes }),
        (place(), bytes()).prop_map(|(at, bytes)| Edit::Insert { at, bytes }),
        (place(), 0usize..30_000).prop_map(|(at, length)| Edit::Remove { at, length }),
        (place(), 0usize..30_000, place()).prop_map(|(from, length, to)| Edit::Move { from, length, to }),
        (place(), any::<u32>()).prop_map(|(at, by)| Edit::Shift { at, by }),
    ];
    prop::collection::vec(edit, 0..20)
}

fn apply(image: &mut Vec<u8>, edit: &Edit) {
    let end = image.len();
    match edit {
        Edit::Change { at, bytes } => {
            let at = (*at).min(end);
            image.splice(at..(at + bytes.len()).min(end), bytes.iter().copied());
        }
        Edit::Insert { at, bytes } => {
            let at = (*at).min(end);
            image.splice(at..at, bytes.iter().copied());
        }
        Edit::Remove { at, length } => {
            let at = (*at).min(end);
            image.drain(at..(at + length).min(end));
        }
        Edit::Move { from, length, to } => {
            let from = (*from).min(end);
            let moved: Vec<u8> = image.drain(from..(from + length).min(end)).collect();
            let to = (*to).min(image.len());
            image.splice(to..to, moved);
        }
        // As a linker does it: every word from here on that looks like an address.
        Edit::Shift { at, by } => {
            for word in image[(*at).min(end) & !3..].chunks_exact_mut(4) {
                if word[3] == 8 {
                    let old = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                    word.copy_from_slice(&old.wrapping_add(by & 0xffff).to_le_bytes());
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_was_edited_comes_out_as_it_is(
        seed in 1u32..9999, length in 0usize..180_000, edits in edits(), profile in 0usize..4, narrow: bool,
        wrong in any::<u32>(),
    ) {
        let old = program(seed, length);
        let mut new = old.clone();
        edits.iter().for_each(|edit| apply(&mut new, edit));
        let profile = Profile::ALL[profile];
        let pack = if narrow { 16 * 1024 } else { 64 * 1024 };
        let delta = encode(&old, &new, Options { pack, ..Options::new(profile) });

        prop_assert!(decode(&delta, &old).unwrap() == new);
        prop_assert_eq!(&DeltaManifest::read(&delta.manifest.write()).unwrap(), &delta.manifest);

        // And over a damaged image: as it is, or noticed, unless in what was only moved.
        if !old.is_empty() {
            let mut damaged = old;
            let at = wrong as usize % damaged.len();
            damaged[at] ^= 0x40;
            if let Ok(out) = decode(&delta, &damaged) {
                prop_assert!(out.iter().zip(&new).filter(|(a, b)| a != b).count() < 64);
            }
        }
    }
}

/// The image that the fuzz target decodes against.
fn fuzzed_against() -> Vec<u8> {
    (0..150_000u64).map(|i| ((i * i) >> 7) as u8 ^ i as u8).collect()
}

/// What the fuzz target starts from: `cargo test -p tern-protocol --features delta-encode corpus -- --ignored` writes it anew.
#[test]
#[ignore = "writes files of the repository"]
fn the_corpus_of_the_fuzz_target() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/delta");
    std::fs::create_dir_all(&folder).unwrap();
    let old = fuzzed_against();
    let mut touched = old.clone();
    (0..40).for_each(|i| touched[i * 997] ^= 5);
    let mut moved = old[50_000..].to_vec();
    moved.extend(&old[..49_000]);
    moved.extend(random(4, 1000));
    for (name, new) in [("equal", &old), ("touched", &touched), ("moved", &moved)] {
        let delta = encode(&old, new, Options::new(Profile::Mcu));
        assert_eq!((delta.manifest.chunk_log2, new.len()), (14, 150_000));
        for (number, pack) in delta.packs.iter().enumerate() {
            assert!(pack.len() <= 6000, "{name}: {}", pack.len());
            std::fs::write(folder.join(format!("{name}-{number}")), pack).unwrap();
        }
        std::fs::write(folder.join(format!("{name}-manifest")), delta.manifest.write()).unwrap();
    }
}

#[test]
fn the_fuzz_target_starts_from_packs_that_are_whole() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/delta");
    let old = fuzzed_against();
    let mut whole = 0;
    for file in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let bytes = std::fs::read(file.path()).unwrap();
        if DeltaManifest::read(&bytes).is_ok() {
            continue;
        }
        let image = ImageId { length: 150_000, root: crate::digest::Digest::of(&[]) };
        let manifest = DeltaManifest {
            profile: Profile::Mcu,
            chunk_log2: 14,
            old: image,
            new: image,
            packs: 0,
            bytes: 0,
            root: image.root,
        };
        let decoded = Decoder::new(&manifest).decode(&bytes, &old, &mut Strict::of(&manifest));
        whole += usize::from(decoded.is_ok());
    }
    assert!(whole >= 3, "{whole}");
}

/// A file that is written anew in its own blocks, as in an image of a file system: what stands behind it has not moved.
#[test]
fn what_is_replaced_in_its_place_costs_what_it_weighs_and_nothing_behind_it() {
    let old = random(1, 600_000);
    for (length, places) in [
        (3_000, &[50_000, 200_000, 400_000][..]),
        (20_480, &[100_000]),
        (60_000, &[0, 100_000, 540_000]),
        (150_000, &[300_000]),
    ] {
        let mut new = old.clone();
        for (n, at) in places.iter().enumerate() {
            new[*at..at + length].copy_from_slice(&random(7 + n as u32, length));
        }
        let delta = encode(&old, &new, Options::new(Profile::Linux));
        let replaced = length * places.len();
        let bytes = delta.manifest.bytes as usize;
        assert!(bytes < replaced + replaced / 50 + 1_000, "{bytes} B for {replaced} B at {places:?}");
        assert_eq!(decode(&delta, &old).unwrap(), new);
    }
}
