//! Every wait of the agent, with the design's defaults.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tern_protocol::limits::GET_PACKS_MAX;

use crate::core;

/// Every wait of the agent. In the file, durations are seconds and may have a fraction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timing {
    /// Multiplies every duration here: below 1 for demonstrations and tests.
    pub scale: f64,
    /// First pause before a failed step is tried again; doubles.
    #[serde(with = "seconds")]
    pub retry_base: Duration,
    /// Longest such pause.
    #[serde(with = "seconds")]
    pub retry_max: Duration,
    /// How often one kind of failure is tried again before the attempt fails.
    pub retry_attempts: u32,
    /// First pause before an unanswered `ask` is repeated; doubles.
    #[serde(with = "seconds")]
    pub ask_first: Duration,
    /// Longest such pause.
    #[serde(with = "seconds")]
    pub ask_max: Duration,
    /// How long after its nonce was made an answer counts.
    #[serde(with = "seconds")]
    pub answer_valid: Duration,
    /// How long `started` may stay unanswered before the attempt is deferred.
    #[serde(with = "seconds")]
    pub started_timeout: Duration,
    /// How long all health probes together may take.
    #[serde(with = "seconds")]
    pub probe_deadline: Duration,
    /// How long a release must run well before it is confirmed.
    #[serde(with = "seconds")]
    pub soak: Duration,
    /// How long a release on trial may be without a connection before it is rolled back.
    #[serde(with = "seconds")]
    pub connect_deadline: Duration,
    /// By which part `connect_deadline` differs between devices, either way.
    pub connect_jitter: f64,
    /// First pause before an unanswered `get` is repeated; doubles.
    #[serde(with = "seconds")]
    pub get_repeat_first: Duration,
    /// Longest such pause.
    #[serde(with = "seconds")]
    pub get_repeat_max: Duration,
    /// How long retained files are waited for after subscribing.
    #[serde(with = "seconds")]
    pub retained_wait: Duration,
    /// Interval at which the controller publishes its heartbeat.
    #[serde(with = "seconds")]
    pub heartbeat: Duration,
    /// First pause before unacknowledged reports are sent again; doubles up to `get_repeat_max`.
    #[serde(with = "seconds")]
    pub resend_first: Duration,
    /// How long a deferral lasts before the device looks again.
    #[serde(with = "seconds")]
    pub deferral: Duration,
    /// Packs that one `get` asks for.
    pub window: u32,
    /// MQTT keep-alive.
    #[serde(with = "seconds")]
    pub keepalive: Duration,
    /// How long a broker may be silent where it owes CONNACK or SUBACK.
    #[serde(with = "seconds")]
    pub broker_silence: Duration,
    /// First ceiling on the pause between two connection attempts; doubles.
    #[serde(with = "seconds")]
    pub reconnect_first: Duration,
    /// Highest such ceiling.
    #[serde(with = "seconds")]
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
            deferral: seconds(900),
            window: 32,
            keepalive: seconds(1200),
            broker_silence: seconds(3),
            reconnect_first: Duration::from_millis(250),
            reconnect_max: seconds(300),
        }
    }
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
        for wait in self.waits() {
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
            deferral: ms(self.deferral),
            window: self.window,
        }
    }

    fn waits(&mut self) -> [&mut Duration; 19] {
        [
            &mut self.retry_base,
            &mut self.retry_max,
            &mut self.ask_first,
            &mut self.ask_max,
            &mut self.answer_valid,
            &mut self.started_timeout,
            &mut self.probe_deadline,
            &mut self.soak,
            &mut self.connect_deadline,
            &mut self.get_repeat_first,
            &mut self.get_repeat_max,
            &mut self.retained_wait,
            &mut self.heartbeat,
            &mut self.resend_first,
            &mut self.deferral,
            &mut self.keepalive,
            &mut self.broker_silence,
            &mut self.reconnect_first,
            &mut self.reconnect_max,
        ]
    }
}

/// Durations as seconds, whole or with a fraction.
pub(super) mod seconds {
    use std::time::Duration;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Ten years: beyond every sensible wait, and far below what could overflow when scaled.
    const MAX: f64 = 10.0 * 365.0 * 86_400.0;

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        checked(f64::deserialize(from)?).map_err(D::Error::custom)
    }

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
