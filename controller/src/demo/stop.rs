//! Being stopped in the middle: the story ends where it looks next, and what it made goes with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// Whether somebody has asked the demo to stop.
#[derive(Clone)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens for SIGINT, SIGTERM and SIGHUP from here on; they no longer end the process by themselves.
    pub(super) fn listen() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("could not listen for signals")?;
        let heard = {
            let _inside = runtime.enter();
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal)
        };
        let [interrupt, terminate, hangup] = heard;
        let (mut interrupt, mut terminate, mut hangup) = (interrupt?, terminate?, hangup?);
        let stop = Self(Arc::default());
        let asked = stop.0.clone();
        let listen = move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
            });
            asked.store(true, Ordering::Relaxed);
        };
        // It ends with the process; nobody waits for it.
        drop(std::thread::Builder::new().name("signals".into()).spawn(listen)?);
        Ok(stop)
    }

    /// Tells whether somebody has asked.
    pub(super) fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Fails once somebody has asked.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.asked(), "the demo was stopped");
        Ok(())
    }
}
