//! The site's own broker hears what the site heard: retained, byte for byte.

use std::sync::Arc;

use crate::front::Shared;
use crate::front::frame::{Packet, Publish};
use crate::front::upstream::{Upstream, UpstreamWriter};

use super::Site;

/// Keeps a connection to the embedded broker, and says to it what `site` has.
pub(super) async fn run(shared: Arc<Shared>, site: Arc<Site>) {
    loop {
        let broker = shared.broker.clone();
        // On a task of its own, for a half-made connection must not be dropped.
        let attached = match tokio::spawn(async move { broker.attach().await }).await {
            Ok(Ok(attached)) => attached,
            other => {
                tracing::error!(?other, "the site has no connection to its own broker");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                continue;
            }
        };
        for (topic, payload) in site.mirror.bundles() {
            say(&site.local, topic, payload);
        }
        let (mut read, mut writer) = (attached.read, UpstreamWriter::new(attached.write));
        tokio::select! {
            error = writer.run(&site.local) => tracing::warn!(%error, "the site's own broker closed its connection"),
            () = async { while read.next().await.is_ok() {} } => {}
            () = crate::front::pings(&site.local) => {}
        }
        shared.broker.detached(attached.id);
    }
}

/// Says a bundle to the embedded broker; an empty one clears the topic.
pub(super) fn say(local: &Upstream, topic: String, payload: Vec<u8>) {
    local.push(&Packet::Publish(Publish { retain: true, topic, payload, ..Publish::default() }));
}
