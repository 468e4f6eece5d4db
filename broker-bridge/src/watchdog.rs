//! Finds a broker that is dead but looks alive: connects, subscribes and hears itself, again and again.
//!
//! A new connection each time, for a poisoned listener goes on serving those it has.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::broker::EmbeddedBroker;
use crate::front::frame::{Packet, Publish};

/// Together below ten seconds: that soon a dead broker is reported.
const EVERY: Duration = Duration::from_secs(4);
const DEADLINE: Duration = Duration::from_secs(5);
const TOPIC: &str = "tern/watchdog";

/// Returns when the broker no longer does its work, and says why.
pub(crate) async fn watch(broker: Arc<EmbeddedBroker>) -> String {
    loop {
        tokio::time::sleep(EVERY).await;
        match timeout(DEADLINE, probe(&broker)).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => return reason,
            Err(_) => return "the embedded broker does not pass messages on any more".into(),
        }
    }
}

async fn probe(broker: &Arc<EmbeddedBroker>) -> Result<(), String> {
    let own = broker.clone();
    let attach = tokio::spawn(async move { own.attach().await }).await;
    let mut link = attach.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    let mut bytes = Packet::Subscribe { id: 1, filters: vec![(TOPIC.into(), 0)] }.to_bytes();
    let message = Publish { topic: TOPIC.into(), payload: b"here".to_vec(), ..Publish::default() };
    message.write(&mut bytes);
    let broken =
        |e: &dyn std::error::Error| format!("the embedded broker closed the watchdog's connection: {e}");
    link.write.write_all(&bytes).await.map_err(|e| broken(&e))?;
    loop {
        match link.read.next().await {
            Ok(Packet::Publish(_)) => break,
            Ok(_) => {}
            Err(error) => return Err(broken(&error)),
        }
    }
    link.write.shutdown().await.map_err(|e| broken(&e))?;
    while link.read.next().await.is_ok() {}
    broker.detached(link.id);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn broker() -> Arc<EmbeddedBroker> {
        Arc::new(EmbeddedBroker::start(&"acme".parse().unwrap(), 100).await.unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_listener_that_died_is_reported_within_ten_seconds() {
        let broker = broker().await;
        // What the front never lets pass: an id that the router rejects, twice, poisons the listener's lock.
        for _ in 0..2 {
            drop(timeout(Duration::from_secs(1), broker.handshake("a/b".into())).await);
        }

        let reason = timeout(Duration::from_secs(10), watch(broker)).await.expect("reported in time");

        assert!(!reason.is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_broker_that_is_well_passes_every_probe() {
        let broker = broker().await;
        for _ in 0..20 {
            probe(&broker).await.unwrap();
        }
    }
}
