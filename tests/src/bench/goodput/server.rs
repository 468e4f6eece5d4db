//! A file over HTTP/1.1 as a static web server gives it: connections stay, ranges are answered.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

/// Serves the file at any path, until the process ends.
pub(super) fn serve(file: &Path) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let file = file.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let file: PathBuf = file.clone();
            // A client that goes away ends it.
            std::thread::spawn(move || answer(&stream, &file));
        }
    });
    address
}

fn answer(stream: &TcpStream, file: &Path) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut requests = BufReader::new(stream);
    let mut to = stream;
    loop {
        let mut range = None;
        loop {
            let mut line = String::new();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(text) = line.trim().strip_prefix("Range: bytes=") {
                let (from, until) = text.split_once('-').unwrap_or((text, ""));
                range = Some((from.parse().unwrap_or(0), until.parse::<u64>().ok()));
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut file = File::open(file)?;
        let all = file.metadata()?.len();
        let (from, until) = range.unwrap_or((0, None));
        let end = until.map_or(all, |last| (last + 1).min(all)).max(from);
        let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
        file.seek(SeekFrom::Start(from))?;
        write!(to, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", end - from)?;
        std::io::copy(&mut file.take(end - from), &mut to)?;
    }
}
