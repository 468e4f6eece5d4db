//! Signatures on deltas: of the rollout role of every product that names the image.

use tern_protocol::delta::DeltaManifest;
use tern_protocol::delta::signed::{DELTA_SIGNATURES_MAX, open, sign};
use tern_protocol::tuf::key::SignError;
use tern_protocol::tuf::verify::Authority;
use tern_protocol::tuf::{Role, Signer};

use crate::core::service::DeltaKeys;

/// Returns those who are to sign a delta.
fn signers<'a>(manifest: &DeltaManifest, keys: &'a [DeltaKeys]) -> Vec<&'a DeltaKeys> {
    let naming = keys.iter().filter(|keys| keys.images.contains(&manifest.new.root));
    let mut signers: Vec<&DeltaKeys> = naming.collect();
    signers.sort_by_key(|keys| keys.signer.public().id());
    signers.dedup_by_key(|keys| keys.signer.public().id());
    signers.truncate(DELTA_SIGNATURES_MAX);
    signers
}

/// Signs a delta; nothing where no product names its image any more. Blocks: a key may be in another program.
pub(super) fn signed(manifest: &DeltaManifest, keys: &[DeltaKeys]) -> Result<Option<Vec<u8>>, SignError> {
    let signers = signers(manifest, keys);
    if signers.is_empty() {
        return Ok(None);
    }
    let signers: Vec<&dyn Signer> =
        signers.into_iter().map(|keys| keys.signer.as_ref() as &dyn Signer).collect();
    sign(manifest, &signers).map(Some)
}

/// Tells whether every product that names the image believes what was signed.
pub(super) fn is_believed(manifest: &DeltaManifest, bytes: &[u8], keys: &[DeltaKeys]) -> bool {
    signers(manifest, keys).into_iter().all(|keys| {
        let authority = Authority::delegated(&keys.targets.meta, Role::Rollout);
        authority.is_ok_and(|authority| open(bytes, authority).is_ok())
    })
}
