//! Asking for passphrases: on the terminal itself, without showing what is typed.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::failure::Failure;
use crate::keys::{KeysError, Passphrase, Protection};

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
    pub(super) fn protections(&self, folders: &[PathBuf]) -> Result<Vec<Protection>, Failure> {
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
                None => chosen(folder)?,
            };
            protections.push(Protection::Passphrase(passphrase));
        }
        Ok(protections)
    }
}

fn chosen(folder: &Path) -> Result<Passphrase, Failure> {
    let shown = folder.display();
    let Some(first) = typed(&format!("New passphrase for the keys in {shown}: ")) else {
        let error = "there is no terminal to ask for a passphrase on";
        return Err(Failure::usage(error, "give --passphrase-file FILE, or --no-passphrase"));
    };
    let first = Passphrase::chosen(first)?;
    let again = typed("The same once more: ").map(Passphrase::given);
    match again {
        Some(again) if again == first => Ok(first),
        _ => Err(KeysError::PassphrasesDiffer.into()),
    }
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
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
    let shown = tcgetattr(&terminal).ok()?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    hidden.local_modes.insert(LocalModes::ECHONL);
    terminal.write_all(question.as_bytes()).and_then(|()| terminal.flush()).ok()?;
    tcsetattr(&terminal, OptionalActions::Flush, &hidden).ok()?;
    let mut line = String::new();
    let read = BufReader::new(&terminal).read_line(&mut line);
    // Whatever was typed, the next command must be seen again.
    let restored = tcsetattr(&terminal, OptionalActions::Flush, &shown);
    let complete = read.is_ok_and(|count| count > 0) && restored.is_ok();
    complete.then(|| line.trim_end_matches(['\r', '\n']).to_owned())
}
