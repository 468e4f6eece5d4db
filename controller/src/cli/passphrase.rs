//! Asking for passphrases: on the terminal itself, without showing what is typed.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clap::Args;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

use super::Context;
use super::failure::Failure;
use crate::keys::{KeysError, Passphrase, Protection};

/// Exit codes of a program that a signal ends, as shells count them.
const HUNG_UP: i32 = 128 + 1;
const INTERRUPTED: i32 = 128 + 2;
const TERMINATED: i32 = 128 + 15;

/// How often a person may mistype a new passphrase.
const TRIES: u8 = 3;

/// How new keys are kept.
#[derive(Debug, Clone, Args)]
pub(super) struct NewKeys {
    /// Encrypt the keys with the first line of this file; once, or once for each holder [default: ask]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Vec<PathBuf>,
    /// Leave the keys unencrypted: whoever has the file has the key
    #[arg(long, conflicts_with = "passphrase_file")]
    no_passphrase: bool,
}

impl NewKeys {
    /// Returns how the keys of each folder are kept; asks twice for each where nothing else was said.
    pub(super) fn protections(
        &self,
        folders: &[PathBuf],
        context: &Context,
    ) -> Result<Vec<Protection>, Failure> {
        let files = &self.passphrase_file;
        if self.no_passphrase {
            return Ok(vec![Protection::Unencrypted; folders.len()]);
        }
        if files.len() > 1 && files.len() != folders.len() {
            let error = format!("{} passphrase files for {} holders", files.len(), folders.len());
            return Err(Failure::usage(error, "give one for all, or one for each in the same order"));
        }
        let mut protections = Vec::new();
        for (index, folder) in folders.iter().enumerate() {
            let passphrase = match files.get(index).or(files.first()) {
                Some(file) => Passphrase::read(file)?.checked()?,
                None => chosen(folder, context)?,
            };
            protections.push(Protection::Passphrase(passphrase));
        }
        Ok(protections)
    }
}

/// Asks for a new passphrase, and again if what was typed cannot be taken.
fn chosen(folder: &Path, context: &Context) -> Result<Passphrase, Failure> {
    let mut tries = TRIES;
    loop {
        tries -= 1;
        match chosen_once(folder)? {
            Ok(passphrase) => return Ok(passphrase),
            Err(error) if tries == 0 => return Err(error.into()),
            Err(error) => context.out.note(&format!("{error}; {}", error.hint())),
        }
    }
}

fn chosen_once(folder: &Path) -> Result<Result<Passphrase, KeysError>, Failure> {
    let Some(first) = typed(&format!("New passphrase for the keys in {}: ", folder.display())) else {
        let error = "there is no terminal to ask for a passphrase on";
        return Err(Failure::usage(error, "give --passphrase-file FILE, or --no-passphrase"));
    };
    let first = match Passphrase::chosen(first) {
        Ok(first) => first,
        Err(error) => return Ok(Err(error)),
    };
    let again = typed("The same once more: ").map(Passphrase::given);
    Ok(if again.as_ref() == Some(&first) { Ok(first) } else { Err(KeysError::PassphrasesDiffer) })
}

/// Returns what answers when a key is encrypted: the file, or whoever sits at the terminal.
pub(super) fn asker(file: Option<&Path>) -> impl Fn(&Path) -> Result<Passphrase, KeysError> {
    move |key| match file {
        Some(file) => Passphrase::read(file),
        None => typed(&format!("Passphrase of {}: ", key.display()))
            .map(Passphrase::given)
            .ok_or_else(|| KeysError::Sealed(key.to_owned())),
    }
}

/// Asks on the terminal, whatever standard input is; `None` where there is none.
fn typed(question: &str) -> Option<String> {
    static GUARD: OnceLock<Option<()>> = OnceLock::new();
    (*GUARD.get_or_init(|| give_echo_back().ok()))?;
    match rpassword::prompt_password(question) {
        Ok(line) => Some(line),
        // The same as when nobody had been asked: Ctrl-C ends the program.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => std::process::exit(INTERRUPTED),
        Err(_) => None,
    }
}

/// Has every signal that ends the program give the terminal back as it was found. The crate that asks switches echo
/// off and, on Ctrl-C, sends SIGINT before it switches it on again: without this the program would die in between.
fn give_echo_back() -> io::Result<()> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let found = tcgetattr(&terminal)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let heard = {
        let _inside = runtime.enter();
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal)
    };
    let [interrupt, terminate, hangup] = heard;
    let (mut interrupt, mut terminate, mut hangup) = (interrupt?, terminate?, hangup?);
    let listen = move || {
        let code = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => INTERRUPTED,
                _ = terminate.recv() => TERMINATED,
                _ = hangup.recv() => HUNG_UP,
            }
        });
        // A terminal that is gone needs nothing back.
        let _gone = tcsetattr(&terminal, OptionalActions::Flush, &found);
        std::process::exit(code);
    };
    // It ends with the process; nobody waits for it.
    drop(std::thread::Builder::new().name("signals".into()).spawn(listen)?);
    Ok(())
}
