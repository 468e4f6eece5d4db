//! `PUT /v1/images`: the bytes of an image, streamed to a file before anybody looks at them.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use tern_protocol::limits::{CHUNK, CHUNKS_MAX};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::sync::SemaphorePermit;

use super::answer::{Answer, Failure, good};
use super::routes::Shared;
use super::types::StoredImage;

/// The largest image.
const IMAGE_MAX: u64 = CHUNK as u64 * CHUNKS_MAX as u64;
/// How long a sender may say nothing.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long a refused image is read on, in all, and while nothing comes.
const DRAIN: Duration = Duration::from_secs(10);
const DRAIN_PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn put(State(state): State<Shared>, request: Request) -> Answer<StoredImage> {
    if announced(request.headers()).is_some_and(|length| length > IMAGE_MAX) {
        return Err(too_large());
    }
    let asks_first = asks_first(request.headers());
    let mut body = request.into_body();
    let refused = match open(&state).await {
        Ok(open) => match store(&state, open, &mut body).await {
            Ok(stored) => return good(stored),
            Err(refused) => refused,
        },
        // The sender waits for a word before it sends anything; reading would ask for the bytes.
        Err(refused) if asks_first => return Err(refused),
        Err(refused) => refused,
    };
    drain(&mut body).await;
    Err(refused)
}

/// Reads on after a refusal, for a while: a sender that meets a closed connection never reads the reason.
async fn drain(body: &mut Body) {
    let rest = async { while let Ok(Ok(Some(_))) = tokio::time::timeout(DRAIN_PAUSE, next(body)).await {} };
    // Whoever sends for longer than this loses the reason, not more.
    if tokio::time::timeout(DRAIN, rest).await.is_err() {
        tracing::debug!("a refused image was still coming");
    }
}

/// Takes a turn and makes a file to write to, before a byte of the image is read.
async fn open(state: &Shared) -> Result<(SemaphorePermit<'_>, Staged, File), Failure> {
    let Ok(turn) = state.uploads.try_acquire() else {
        let hint = "try again when another upload has ended";
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "too many images at once", hint));
    };
    let staged = Staged::new(state.api.images.staging())?;
    let file = File::create_new(&staged.0).await.map_err(not_stored)?;
    Ok((turn, staged, file))
}

async fn store(
    state: &Shared,
    (_turn, staged, mut file): (SemaphorePermit<'_>, Staged, File),
    body: &mut Body,
) -> Result<StoredImage, Failure> {
    let mut length = 0u64;
    while let Some(bytes) = next(body).await? {
        length += bytes.len() as u64;
        if length > IMAGE_MAX {
            return Err(too_large());
        }
        file.write_all(&bytes).await.map_err(not_stored)?;
    }
    if length == 0 {
        let hint = "send the image's bytes as the body";
        return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "the image is empty", hint));
    }
    file.flush().await.map_err(not_stored)?;
    drop(file);
    let images = state.api.images.clone();
    let added = tokio::task::spawn_blocking(move || images.add(&staged.0)).await;
    added.map_err(Failure::internal)?.map_err(not_stored)
}

/// A full disk is for the operator to mend; anything else is for the log.
fn not_stored(error: io::Error) -> Failure {
    let text = format!("could not store the image: {error}");
    tracing::warn!("{text}");
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        let hint = "free room on the disk of the service's data folder, then send the image again";
        return Failure::new(StatusCode::INSUFFICIENT_STORAGE, text, hint);
    }
    if error.kind() == io::ErrorKind::NotFound {
        let hint = "the data folder or its folder `staging` is gone; put it back, or restart the service";
        return Failure::new(StatusCode::INTERNAL_SERVER_ERROR, text, hint);
    }
    Failure::internal(text)
}

/// A file that goes away with the upload, unless the images took it.
struct Staged(PathBuf);

impl Staged {
    fn new(folder: PathBuf) -> Result<Self, Failure> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(Failure::internal)?;
        Ok(Self(folder.join(format!("upload-{}.part", hex::encode(name)))))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Mostly it is gone already; what stays behind wastes space and nothing else.
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(file = %self.0.display(), %error, "could not remove an upload");
        }
    }
}

async fn next(body: &mut Body) -> Result<Option<Bytes>, Failure> {
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
        let frame = tokio::time::timeout(PAUSE_MAX, frame).await.map_err(|_| {
            Failure::new(StatusCode::REQUEST_TIMEOUT, "the image stopped coming", "send it again")
        })?;
        let broken = |e: axum::Error| {
            let error = format!("the image was cut short: {e}");
            Failure::new(StatusCode::BAD_REQUEST, error, "send it again")
        };
        match frame.transpose().map_err(broken)? {
            None => return Ok(None),
            // Anything but data is a trailer, which says nothing here.
            Some(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Tells whether the sender waits for `100 Continue`, which the first look into the body sends.
fn asks_first(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large() -> Failure {
    let error = format!("the image is larger than {IMAGE_MAX} B");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, error, "split the release into components")
}
