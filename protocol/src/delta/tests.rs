//! Round trips, wrong old images, malformed packs.

use super::encode::Options;
use super::*;

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

fn decode(delta: &Delta, old: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut decoder = Decoder::new(&delta.manifest);
    let mut slot = Vec::new();
    for pack in &delta.packs {
        decoder.decode(pack, &old, &mut slot)?;
    }
    Ok(slot)
}

#[test]
fn an_edited_image_comes_out_as_it_is_in_every_profile() {
    let old = random(1, 300_000);
    let mut new = old.clone();
    new.splice(70_000..70_100, random(2, 3000));
    new.splice(200_000..210_000, []);
    (0..400).for_each(|i| new[i * 97] ^= 7);
    new.extend(random(3, 70_000));
    for profile in Profile::ALL {
        for pack in [16 * 1024, 64 * 1024] {
            let delta = encode(&old, &new, Options { pack, ..Options::new(profile) });

            assert!(decode(&delta, &old).unwrap() == new, "{profile:?}");
            assert!(delta.packs.iter().all(|p| p.len() <= pack + 49), "{profile:?}");
            assert!(delta.packs.iter().map(Vec::len).sum::<usize>() < 78_000);
        }
    }
}
