//! Telling the service manager how the agent fares: sd_notify, one datagram a word, without its library.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long a start may take, as the unit of `deploy/` has it too.
const START: Duration = Duration::from_secs(15 * 60);

/// The service manager's ear.
#[derive(Debug)]
pub struct Notify {
    socket: UnixDatagram,
    address: SocketAddr,
    /// The longest silence of the loop that it suffers.
    silence: Option<Duration>,
}

impl Notify {
    /// Returns the ear that the environment names, if any: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    pub fn from_environment() -> Option<Self> {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let name = std::env::var_os("NOTIFY_SOCKET")?;
        // A watchdog that is meant for another process is none of ours.
        let ours = std::env::var_os("WATCHDOG_PID").is_none()
            || number("WATCHDOG_PID") == Some(u64::from(std::process::id()));
        let silence = number("WATCHDOG_USEC").filter(|_| ours).map(Duration::from_micros);
        match Self::new(&name, silence) {
            Ok(notify) => Some(notify),
            Err(error) => {
                tracing::warn!(%error, socket = ?name, "cannot talk to the service manager");
                None
            }
        }
    }

    /// Speaks to the socket `name`: a path, or `@` and the name of an abstract one. The manager suffers no silence
    /// longer than `silence`.
    pub fn new(name: &OsStr, silence: Option<Duration>) -> io::Result<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not listen must not hold up the loop.
        socket.set_nonblocking(true)?;
        let silence = silence.filter(|silence| silence.as_micros() > 1);
        Ok(Self { socket, address, silence })
    }

    /// Returns how often `WATCHDOG=1` is to be said: twice in the silence that the manager suffers.
    pub fn every(&self) -> Option<Duration> {
        self.silence.map(|silence| silence / 2)
    }

    /// Says that the agent is up, and has the manager be as patient as it is set to.
    pub fn ready(&self) {
        self.say("READY=1");
        if let Some(silence) = self.silence {
            self.suffer(silence);
        }
    }

    /// Has the manager suffer a longer silence: a new process image checks slots before its loop turns.
    pub fn replaced(&self) {
        if let Some(silence) = self.silence {
            self.suffer(silence.max(START));
        }
    }

    fn suffer(&self, silence: Duration) {
        self.say(&format!("WATCHDOG_USEC={}", silence.as_micros()));
    }

    /// Says something such as `READY=1`; tells whether it was heard.
    pub fn say(&self, words: &str) -> bool {
        self.socket.send_to_addr(words.as_bytes(), &self.address).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut words = [0; 100];
        let length = socket.recv(&mut words).unwrap();
        String::from_utf8(words[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_socket_is_found_by_its_path_and_by_its_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("tern-notify-{}", std::process::id());
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();

        assert!(Notify::new(path.as_os_str(), None).unwrap().say("READY=1"));
        assert!(Notify::new(format!("@{name}").as_ref(), None).unwrap().say("STOPPING=1"));

        assert_eq!((heard(&by_path), heard(&by_name)), ("READY=1".into(), "STOPPING=1".into()));
    }

    #[test]
    fn a_manager_that_does_not_read_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let deaf = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::new(path.as_os_str(), None).unwrap();

        assert!((0..100_000).any(|_| !notify.say("WATCHDOG=1")), "its queue is full at some time");
        drop(deaf);
        assert!(!notify.say("WATCHDOG=1"));
    }

    #[test]
    fn the_loop_is_heard_twice_in_the_silence_that_is_suffered() {
        let every = |micros| Notify::new("/x".as_ref(), Some(Duration::from_micros(micros))).unwrap().every();

        assert_eq!(every(180_000_000), Some(Duration::from_secs(90)));
        assert_eq!(every(0), None);
        assert_eq!(Notify::new("/x".as_ref(), None).unwrap().every(), None);
        assert!(Notify::new("x".repeat(200).as_ref(), None).is_err(), "longer than the system's names");
    }
}
