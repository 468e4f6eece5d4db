//! A web server for the files of releases, which answers ranges over connections that stay open; and servers that do otherwise.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What a server does to the requests that it is not well at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ill {
    /// Changes a byte in the middle of what it sends.
    Lies,
    /// Answers with this status and nothing else.
    Status(u16),
    /// Leads to the same file at another address, where it is.
    Leads(SocketAddr),
    /// Sends half of what it should, and then nothing, for ever.
    Hangs,
    /// Sends half of what it should, and hangs up.
    BreaksOff,
    /// Says that a chunk follows, and then another, for ever.
    NeverEnds,
}

/// A web server on loopback.
pub struct WebServer {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    folder: PathBuf,
    counts: Mutex<Counts>,
    /// Whoever hangs waits for this.
    over: Condvar,
}

#[derive(Default)]
struct Counts {
    is_over: bool,
    ill: Option<Ill>,
    /// Requests that are answered well before the illness shows.
    well: usize,
    requests: Vec<String>,
    bytes: u64,
}

impl WebServer {
    /// Shows what is in a folder.
    pub fn start(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (counts, over) = (Mutex::default(), Condvar::new());
        let state = Arc::new(State { folder: folder.to_owned(), counts, over });
        let theirs = state.clone();
        std::thread::spawn(move || {
            for device in listener.incoming().flatten() {
                let state = theirs.clone();
                // A device that hangs up has heard enough.
                std::thread::spawn(move || drop(state.serve(&device)));
            }
        });
        Self { address, state }
    }

    /// Falls ill after so many requests from now on.
    pub fn falls(&self, ill: Ill, well: usize) {
        let mut counts = self.state.lock();
        counts.ill = Some(ill);
        counts.well = well;
    }

    /// Is well again.
    pub fn recovers(&self) {
        self.state.lock().ill = None;
    }

    /// Returns the prefix that a device is configured with.
    pub fn prefix(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns what was asked for so far: path and range.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().requests.clone()
    }

    /// Returns how many bytes of files were sent so far.
    pub fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.state.lock().is_over = true;
        self.state.over.notify_all();
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers what comes over one connection.
    fn serve(&self, device: &TcpStream) -> io::Result<()> {
        let mut lines = BufReader::new(device.try_clone()?).lines();
        loop {
            let Some(first) = lines.next().transpose()? else { return Ok(()) };
            let mut range = String::new();
            while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
                if let Some((name, value)) = line.split_once(':')
                    && name.eq_ignore_ascii_case("range")
                {
                    value.trim().clone_into(&mut range);
                }
            }
            let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
            let ill = {
                let mut counts = self.lock();
                counts.requests.push(format!("{path} {range}"));
                let is_well = counts.well > 0;
                counts.well = counts.well.saturating_sub(1);
                counts.ill.clone().filter(|_| !is_well)
            };
            self.answer(device, &path, &range, ill)?;
        }
    }

    fn answer(&self, mut device: &TcpStream, path: &str, range: &str, ill: Option<Ill>) -> io::Result<()> {
        let file = File::open(self.folder.join(path.trim_start_matches('/')));
        let asked = range.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
        let asked = asked.and_then(|(from, to)| Some((from.parse::<u64>().ok()?, to.parse::<u64>().ok()?)));
        let (Ok(file), Some((from, to))) = (file, asked) else {
            return write!(device, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        };
        let whole = file.metadata()?.len();
        if from > to || to >= whole {
            return write!(device, "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n");
        }
        let length = to + 1 - from;
        let mut bytes = vec![0; usize::try_from(length).expect("files fit into memory")];
        file.read_exact_at(&mut bytes, from)?;
        let half = bytes.len() / 2;
        let content = format!("Content-Range: bytes {from}-{to}/{whole}\r\nContent-Length: {length}\r\n\r\n");
        let mut send = |bytes: &[u8]| {
            self.lock().bytes += bytes.len() as u64;
            device.write_all(bytes)
        };
        match ill {
            None => {
                send(format!("HTTP/1.1 206 Partial Content\r\n{content}").as_bytes())?;
                send(&bytes)
            }
            Some(Ill::Lies) => {
                bytes[half] ^= 1;
                send(format!("HTTP/1.1 206 Partial Content\r\n{content}").as_bytes())?;
                send(&bytes)
            }
            Some(Ill::Status(status)) => {
                send(format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n").as_bytes())
            }
            Some(Ill::Leads(other)) => {
                let place = format!("Location: http://{other}{path}\r\n");
                send(format!("HTTP/1.1 302 Found\r\n{place}Content-Length: 0\r\n\r\n").as_bytes())
            }
            Some(Ill::BreaksOff) => {
                send(format!("HTTP/1.1 206 Partial Content\r\n{content}").as_bytes())?;
                send(&bytes[..half])?;
                device.shutdown(std::net::Shutdown::Both)
            }
            Some(Ill::Hangs) => {
                send(format!("HTTP/1.1 206 Partial Content\r\n{content}").as_bytes())?;
                send(&bytes[..half])?;
                let counts = self.over.wait_while(self.lock(), |counts| !counts.is_over);
                drop(counts.unwrap_or_else(PoisonError::into_inner));
                Err(io::ErrorKind::TimedOut.into())
            }
            Some(Ill::NeverEnds) => {
                let head = content.split("Content-Length").next().unwrap_or_default();
                send(
                    format!("HTTP/1.1 206 Partial Content\r\n{head}Transfer-Encoding: chunked\r\n\r\n")
                        .as_bytes(),
                )?;
                loop {
                    // Until the device hangs up.
                    send(format!("{:x}\r\n", bytes.len()).as_bytes())?;
                    send(&bytes)?;
                    send(b"\r\n")?;
                }
            }
        }
    }
}
