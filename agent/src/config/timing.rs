//! Every wait of the agent, with the design's defaults.

use std::time::Duration;

use serde::Serialize;
use tern_protocol::limits::GET_PACKS_MAX;

use super::section::Section;
use crate::core;

/// Every wait of the agent. In the file, durations are seconds and may have a fraction.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timing {
    /// Multiplies every duration here: below 1 for demonstrations and tests.
    pub scale: f64,
    /// First pause before a failed step is tried again; doubles.
    #[serde(serialize_with = "seconds::serialize")]
    pub retry_base: Duration,
    /// Longest such pause.
    #[serde(serialize_with = "seconds::serialize")]
    pub retry_max: Duration,
    /// How often one kind of failure is tried again before the attempt fails.
    pub retry_attempts: u32,
    /// First pause before an unanswered `ask` is repeated; doubles.
    #[serde(serialize_with = "seconds::serialize")]
    pub ask_first: Duration,
    /// Longest such pause.
    #[serde(serialize_with = "seconds::serialize")]
    pub ask_max: Duration,
    /// How long after its nonce was made an answer counts.
    #[serde(serialize_with = "seconds::serialize")]
    pub answer_valid: Duration,
    /// How long `started` may stay unanswered before the attempt is deferred.
    #[serde(serialize_with = "seconds::serialize")]
    pub started_timeout: Duration,
    /// How long all health probes together may take.
    #[serde(serialize_with = "seconds::serialize")]
    pub probe_deadline: Duration,
    /// How long a release must run well before it is confirmed.
    #[serde(serialize_with = "seconds::serialize")]
    pub soak: Duration,
    /// How long a release on trial may be without a connection before it is rolled back.
    #[serde(serialize_with = "seconds::serialize")]
    pub connect_deadline: Duration,
    /// By which part `connect_deadline` differs between devices, either way.
    pub connect_jitter: f64,
    /// First pause before an unanswered `get` is repeated; doubles.
    #[serde(serialize_with = "seconds::serialize")]
    pub get_repeat_first: Duration,
    /// Longest such pause.
    #[serde(serialize_with = "seconds::serialize")]
    pub get_repeat_max: Duration,
    /// How long retained files are waited for after subscribing.
    #[serde(serialize_with = "seconds::serialize")]
    pub retained_wait: Duration,
    /// Interval at which the controller publishes its heartbeat.
    #[serde(serialize_with = "seconds::serialize")]
    pub heartbeat: Duration,
    /// First pause before unacknowledged reports are sent again; doubles up to `get_repeat_max`.
    #[serde(serialize_with = "seconds::serialize")]
    pub resend_first: Duration,
    /// How long a change of state waits for something to be reported with.
    #[serde(serialize_with = "seconds::serialize")]
    pub report_gather: Duration,
    /// How long a deferral lasts before the device looks again.
    #[serde(serialize_with = "seconds::serialize")]
    pub deferral: Duration,
    /// Packs on their way at once, at most; how many the link needs is measured.
    pub window: u32,
    /// MQTT keep-alive.
    #[serde(serialize_with = "seconds::serialize")]
    pub keepalive: Duration,
    /// How long a broker may be silent where it owes CONNACK or SUBACK.
    #[serde(serialize_with = "seconds::serialize")]
    pub broker_silence: Duration,
    /// First ceiling on the pause between two connection attempts; doubles.
    #[serde(serialize_with = "seconds::serialize")]
    pub reconnect_first: Duration,
    /// Highest such ceiling.
    #[serde(serialize_with = "seconds::serialize")]
    pub reconnect_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            scale: 1.0,
            retry_base: seconds(30),
            retry_max: seconds(3600),
            retry_attempts: 5,
            ask_first: seconds(60),
            ask_max: seconds(600),
            answer_valid: seconds(120),
            started_timeout: seconds(600),
            probe_deadline: seconds(600),
            soak: seconds(900),
            connect_deadline: seconds(2100),
            connect_jitter: 0.2,
            get_repeat_first: seconds(10),
            get_repeat_max: seconds(600),
            retained_wait: seconds(10),
            heartbeat: seconds(21_600),
            resend_first: seconds(10),
            report_gather: seconds(1),
            deferral: seconds(900),
            window: 96,
            keepalive: seconds(1200),
            broker_silence: seconds(3),
            reconnect_first: Duration::from_millis(250),
            reconnect_max: seconds(300),
        }
    }
}

/// The keys that are no durations.
const NUMBERS: [&str; 4] = ["scale", "retry_attempts", "connect_jitter", "window"];

/// Reads `[timing]`; nothing is scaled yet.
pub(super) fn timing(section: Section) -> Result<Timing, String> {
    let mut timing = Timing::default();
    let waits = timing.waits().map(|(key, _)| key);
    let mut section = section.with_keys("timing", &[&NUMBERS[..], &waits].concat())?;
    for (key, wait) in timing.waits() {
        *wait = section.duration(key, *wait)?;
    }
    for (key, number) in [("scale", &mut timing.scale), ("connect_jitter", &mut timing.connect_jitter)] {
        *number = section.number(key)?.unwrap_or(*number);
    }
    for (key, count) in [("retry_attempts", &mut timing.retry_attempts), ("window", &mut timing.window)] {
        // What is beyond 32 bits is as good as the most of them.
        let found = section.whole(key)?;
        *count = found.map_or(*count, |found| u32::try_from(found).unwrap_or(u32::MAX));
    }
    Ok(timing)
}

impl Timing {
    /// Checks that the values make sense together, and applies the scale.
    pub(super) fn checked(mut self) -> Result<Self, String> {
        if !(self.scale > 0.0 && self.scale <= 100.0) {
            return Err(format!("timing.scale is {}; it must be above 0 and at most 100", self.scale));
        }
        if !(0.0..=0.5).contains(&self.connect_jitter) {
            return Err(format!("timing.connect_jitter is {}; it must be 0 to 0.5", self.connect_jitter));
        }
        if !(1..=GET_PACKS_MAX).contains(&self.window) {
            return Err(format!("timing.window is {}; it must be 1 to {GET_PACKS_MAX}", self.window));
        }
        // A zero pause is a busy loop on a battery; a ceiling below its start is a mistake.
        for (name, first, most) in [
            ("retry_base", self.retry_base, self.retry_max),
            ("ask_first", self.ask_first, self.ask_max),
            ("get_repeat_first", self.get_repeat_first, self.get_repeat_max),
            ("resend_first", self.resend_first, self.get_repeat_max),
            ("reconnect_first", self.reconnect_first, self.reconnect_max),
        ] {
            if first.is_zero() || first > most {
                return Err(format!(
                    "timing.{name} is {first:?}; it must be above 0 and at most its maximum, {most:?}"
                ));
            }
        }
        for (name, wait) in [("broker_silence", self.broker_silence), ("answer_valid", self.answer_valid)] {
            if wait.is_zero() {
                return Err(format!("timing.{name} is 0; nothing could ever arrive in time"));
            }
        }
        let scale = self.scale;
        for (_, wait) in self.waits() {
            *wait = wait.mul_f64(scale);
        }
        Ok(self)
    }

    /// Returns the waits that the core keeps. `jitter`, −1 to 1 and this device's own, says where in the range of
    /// `connect_jitter` its deadline lies.
    pub fn core(&self, jitter: f64) -> core::timing::Timing {
        // A wait of zero would spin: a millisecond is the least. Ten years times a hundred fit 64 bits.
        let ms = |wait: Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
        let share = 1.0 + self.connect_jitter * jitter.clamp(-1.0, 1.0);
        core::timing::Timing {
            retry_first: ms(self.retry_base),
            retry_most: ms(self.retry_max),
            retry_tries: self.retry_attempts,
            ask_first: ms(self.ask_first),
            ask_most: ms(self.ask_max),
            answer_valid: ms(self.answer_valid),
            started_timeout: ms(self.started_timeout),
            soak: ms(self.soak),
            connect_deadline: ms(self.connect_deadline.mul_f64(share)),
            get_first: ms(self.get_repeat_first),
            get_most: ms(self.get_repeat_max),
            retained_wait: ms(self.retained_wait),
            heartbeat: ms(self.heartbeat),
            resend_first: ms(self.resend_first),
            gather: ms(self.report_gather),
            deferral: ms(self.deferral),
            window: self.window,
        }
    }

    /// Every duration, by its key.
    fn waits(&mut self) -> [(&'static str, &mut Duration); 20] {
        [
            ("retry_base", &mut self.retry_base),
            ("retry_max", &mut self.retry_max),
            ("ask_first", &mut self.ask_first),
            ("ask_max", &mut self.ask_max),
            ("answer_valid", &mut self.answer_valid),
            ("started_timeout", &mut self.started_timeout),
            ("probe_deadline", &mut self.probe_deadline),
            ("soak", &mut self.soak),
            ("connect_deadline", &mut self.connect_deadline),
            ("get_repeat_first", &mut self.get_repeat_first),
            ("get_repeat_max", &mut self.get_repeat_max),
            ("retained_wait", &mut self.retained_wait),
            ("heartbeat", &mut self.heartbeat),
            ("resend_first", &mut self.resend_first),
            ("report_gather", &mut self.report_gather),
            ("deferral", &mut self.deferral),
            ("keepalive", &mut self.keepalive),
            ("broker_silence", &mut self.broker_silence),
            ("reconnect_first", &mut self.reconnect_first),
            ("reconnect_max", &mut self.reconnect_max),
        ]
    }
}

/// Durations as seconds, whole or with a fraction.
pub(super) mod seconds {
    use std::time::Duration;

    use serde::Serializer;

    /// Ten years: beyond every sensible wait, and far below what could overflow when scaled.
    const MAX: f64 = 10.0 * 365.0 * 86_400.0;

    pub(in crate::config) fn checked(seconds: f64) -> Result<Duration, String> {
        if (0.0..=MAX).contains(&seconds) {
            return Ok(Duration::from_secs_f64(seconds));
        }
        Err(format!("{seconds} is no duration; write seconds, 0 to {MAX}"))
    }

    pub(in crate::config) fn serialize<S: Serializer>(wait: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(wait.as_secs_f64())
    }
}
