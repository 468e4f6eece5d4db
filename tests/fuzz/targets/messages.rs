//! Messages that are not signed files, as anybody at the broker may send them.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use p256::{PublicKey, SecretKey};
use tern_protocol::claim::ClaimProof;
use tern_protocol::id::FleetId;
use tern_protocol::mac::{Direction, MacKey, PairSecret, epoch_of, kid_of};
use tern_protocol::message::{
    Answer, Enrol, Get, Presence, Report, Reports, Revoked, SiteStatus, TimeAnswer,
};
use tern_protocol::topic::Topic;

static FLEET: LazyLock<FleetId> = LazyLock::new(|| "acme".parse().expect("a valid name"));

/// Keys of nobody in the corpus.
static PEER: LazyLock<PublicKey> =
    LazyLock::new(|| SecretKey::from_slice(&[78; 32]).expect("a key").public_key());
static KEY: LazyLock<MacKey> = LazyLock::new(|| {
    let own = SecretKey::from_slice(&[77; 32]).expect("a key");
    PairSecret::agree(&own, &PEER).key(Direction::Up, &FLEET, &"fuzz".parse().expect("a valid name"), 1, 1)
});

/// Reads as `T`; what was read must read the same after it was written.
fn reads<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(bytes) else { return };
    let text = serde_json::to_vec(&message).expect("our own messages serialise");
    assert_eq!(serde_json::from_slice::<T>(&text).expect("what we write we read"), message);
}

fuzz_target!(|bytes: &[u8]| {
    reads::<Report>(bytes);
    reads::<Reports>(bytes);
    reads::<Answer>(bytes);
    reads::<Enrol>(bytes);
    reads::<Presence>(bytes);
    reads::<SiteStatus>(bytes);
    if let Ok(get) = Get::read(bytes) {
        assert_eq!(Get::read(&get.write()).expect("what we write we read"), get);
    }
    if let Some(epoch) = epoch_of(bytes) {
        assert!(bytes.starts_with(format!("{{\"e\":{epoch},").as_bytes()) || bytes.starts_with(b"{\"e\":0"));
    }
    if let Some(kid) = kid_of(bytes) {
        let text = String::from_utf8_lossy(bytes);
        assert!(
            epoch_of(bytes).is_none()
                || text.contains(&format!(",\"k\":{kid},"))
                || text.contains(",\"k\":0")
        );
    }
    if let Ok(list) = Revoked::read(bytes) {
        assert_eq!(list.write(), bytes);
    }
    assert!(KEY.open(bytes).is_err(), "the fuzzer has no key");
    let (product, device) = (&"cam".parse().expect("a valid name"), &"fuzz".parse().expect("a valid name"));
    assert!(TimeAnswer::open(bytes, &PEER, &FLEET, product, device).is_err(), "nor that of time");
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(proof) = text.parse::<ClaimProof>()
    {
        assert!(proof.to_string().eq_ignore_ascii_case(text));
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(topic) = Topic::parse(&FLEET, text)
    {
        // Two spellings of one topic would pass a policy as one and be delivered as the other.
        assert_eq!(topic.render(&FLEET), text);
    }
});
