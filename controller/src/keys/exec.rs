//! A signer outside: a program that gets the bytes on standard input and gives back the signature in DER.
//!
//! Covers tokens, hardware modules and key services without linking any of their libraries. The program keeps the
//! terminal's standard error, so that it can ask for a PIN or a touch.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Bytes of a signature; P-256 in DER has at most 72.
const SIGNATURE_MAX: usize = 1024;
/// Time for a person to find the token, type the PIN and touch it.
pub(super) const DEADLINE: Duration = Duration::from_secs(120);
/// How often it is asked whether the program has ended, once it closed its output.
const LOOK: Duration = Duration::from_millis(20);
/// How long it may take to end after that.
const LOOKS: u32 = 250;

/// A program that signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSigner {
    program: String,
    arguments: Vec<String>,
    deadline: Duration,
}

/// Says why a program did not sign.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It could not be started or asked.
    #[error("could not run {program}")]
    Run {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It took too long.
    #[error("{program} gave no signature within {} s", deadline.as_secs_f32())]
    Late {
        /// The program.
        program: String,
        /// How long it had.
        deadline: Duration,
    },
    /// It said that it failed.
    #[error("{program} ended with {status}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
    },
    /// It printed more than a signature, or nothing.
    #[error("{program} printed {length} B; a signature in DER has 1 to {SIGNATURE_MAX}")]
    Size {
        /// The program.
        program: String,
        /// Bytes that were read.
        length: usize,
    },
}

impl ExecSigner {
    /// Takes a program and its arguments, separated by blanks; `None` without a program. There is no quoting: put
    /// what needs it into a script.
    pub fn parse(words: &str) -> Option<Self> {
        let mut words = words.split_whitespace().map(str::to_owned);
        Some(Self { program: words.next()?, arguments: words.collect(), deadline: DEADLINE })
    }

    /// Gives it another deadline.
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Returns the program's name.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Hands `message` to the program and returns what it printed. Whose signature that is, is not known yet.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ExecError> {
        let io = |source| ExecError::Run { program: self.program.clone(), source };
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(io)?;
        let result = self.talk(&mut child, message.to_vec());
        if result.is_err() {
            // It may have ended already; the first error is the one to report.
            drop(child.kill());
        }
        drop(child.wait());
        result
    }

    fn talk(&self, child: &mut Child, message: Vec<u8>) -> Result<Vec<u8>, ExecError> {
        let io = |source| ExecError::Run { program: self.program.clone(), source };
        let mut input = child.stdin.take().expect("its input is a pipe");
        let output = child.stdout.take().expect("its output is a pipe");
        // A program may print before it has read everything, and may not read at all.
        thread::spawn(move || drop(input.write_all(&message)));
        let (done, printed) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let most = SIGNATURE_MAX as u64 + 1;
            let read = output.take(most).read_to_end(&mut bytes).map(|_| bytes);
            // Nobody waits any more after the deadline.
            drop(done.send(read));
        });
        let late = || ExecError::Late { program: self.program.clone(), deadline: self.deadline };
        let bytes = printed.recv_timeout(self.deadline).map_err(|_| late())?.map_err(io)?;
        let size = || ExecError::Size { program: self.program.clone(), length: bytes.len() };
        if bytes.len() > SIGNATURE_MAX {
            return Err(size());
        }
        for _ in 0..LOOKS {
            match child.try_wait().map_err(io)? {
                Some(status) if status.success() && bytes.is_empty() => return Err(size()),
                Some(status) if status.success() => return Ok(bytes),
                Some(status) => {
                    return Err(ExecError::Failed {
                        program: self.program.clone(),
                        status: status.to_string(),
                    });
                }
                None => thread::sleep(LOOK),
            }
        }
        Err(late())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> Result<Vec<u8>, ExecError> {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("signer.sh");
        std::fs::write(&path, script).unwrap();
        let signer = ExecSigner::parse(&format!("sh {}", path.display())).unwrap();
        signer.within(Duration::from_secs(2)).sign(&[b'm'; 200_000])
    }

    #[test]
    fn a_program_gets_the_bytes_and_its_answer_has_a_size_and_a_deadline() {
        assert_eq!(run("wc -c | tr -d ' \\n'").unwrap(), b"200000");
        // It need not read what it is given.
        assert_eq!(run("printf signature").unwrap(), b"signature");
        assert!(matches!(run("cat"), Err(ExecError::Size { length: 1025, .. })));
        assert!(matches!(run("yes"), Err(ExecError::Size { .. })));
        assert!(matches!(run("true"), Err(ExecError::Size { length: 0, .. })));
        assert!(matches!(run("printf x; exit 3"), Err(ExecError::Failed { .. })));
        assert!(matches!(run("exec sleep 60"), Err(ExecError::Late { .. })));
        assert!(ExecSigner::parse("  ").is_none());
    }
}
