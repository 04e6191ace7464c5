//! Passphrases of key files: from a file, from the environment or from the terminal, never from an
//! argument, which every process of the machine could read.

use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// The environment variable with a passphrase, for supervisors that keep secrets there.
pub(crate) const VARIABLE: &str = "DAYBOOK_KEY_PASSPHRASE";
/// Bytes of a passphrase at most: a wrong path to a large file is refused, not read.
const BYTES_MAX: u64 = 1024;
/// Where a person can be asked, whatever standard input and output are.
const TERMINAL: &str = "/dev/tty";

/// A passphrase. Wiped when dropped; never shown.
#[derive(Clone)]
pub(crate) struct Passphrase(Zeroizing<String>);

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

impl Passphrase {
    /// A passphrase of at least one character.
    pub(crate) fn new(text: &str) -> Option<Passphrase> {
        (!text.is_empty()).then(|| Passphrase(Zeroizing::new(text.to_owned())))
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Reads the first line of a file.
    pub(crate) fn from_file(path: &Path) -> Result<Passphrase, Failure> {
        let about = || format!("passphrase file {}", path.display());
        let system = |error: io::Error| Failure::system(about(), &error);
        let bad = |what: &str| Failure::usage(format!("{}: {what}", about()));
        let mut line = Zeroizing::new(String::new());
        let file = File::open(path).map_err(system)?.take(BYTES_MAX + 1);
        match BufReader::new(file).read_line(&mut line) {
            Ok(read) if read as u64 > BYTES_MAX => return Err(bad("too long for a passphrase")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(bad("not UTF-8"));
            }
            Err(error) => return Err(system(error)),
        }
        Passphrase::new(without_line_end(&line)).ok_or_else(|| bad("its first line is empty"))
    }
}

/// Where a passphrase may come from. The first that there is wins: the file, the environment
/// variable, the terminal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    pub(crate) file: Option<PathBuf>,
}

impl Source {
    /// The file that flags or settings name; an empty path is none.
    pub(crate) fn new(file: Option<&Path>) -> Source {
        Source {
            file: file
                .filter(|path| !path.as_os_str().is_empty())
                .map(Path::to_owned),
        }
    }

    /// What was given beforehand, without asking anybody.
    pub(crate) fn given(&self) -> Result<Option<Passphrase>, Failure> {
        if let Some(file) = &self.file {
            return Passphrase::from_file(file).map(Some);
        }
        match std::env::var_os(VARIABLE) {
            None => Ok(None),
            Some(text) => {
                let text = text
                    .into_string()
                    .map_err(|_| Failure::usage(format!("{VARIABLE} is not UTF-8")))?;
                let text = Zeroizing::new(text);
                Ok(Passphrase::new(&text))
            }
        }
    }

    /// The passphrase that opens `path`.
    pub(crate) fn to_open(&self, path: &Path) -> Result<Passphrase, Failure> {
        match self.given()? {
            Some(given) => Ok(given),
            None => ask(&format!("passphrase of {}: ", path.display()))
                .map_err(|_| missing(&format!("{} is encrypted", path.display()))),
        }
    }

    /// A new passphrase; a person types it twice.
    pub(crate) fn to_make(&self, path: &Path) -> Result<Passphrase, Failure> {
        match self.given()? {
            Some(given) => Ok(given),
            None => Source::typed(path),
        }
    }

    /// A new passphrase from the terminal, whatever the environment holds: the variable is the one
    /// that opened the file.
    pub(crate) fn typed(path: &Path) -> Result<Passphrase, Failure> {
        let what = format!("{} shall be encrypted", path.display());
        let first =
            ask(&format!("new passphrase of {}: ", path.display())).map_err(|_| missing(&what))?;
        let again = ask("the same again: ").map_err(|_| missing(&what))?;
        if first.bytes() != again.bytes() {
            return Err(Failure::usage("the two passphrases differ"));
        }
        Ok(first)
    }
}

/// A new password of a user, typed twice at the terminal.
pub(crate) fn new_password(user: &str) -> Result<Zeroizing<String>, Failure> {
    let asked = |question: &str| {
        ask(question).map_err(|_| {
            Failure::usage(format!(
                "there is no terminal to ask for the password of {user}: name a file with it, or - for standard input"
            ))
        })
    };
    let first = asked(&format!("new password of {user}: "))?;
    if first.bytes() != asked("the same again: ")?.bytes() {
        return Err(Failure::usage("the two passwords differ"));
    }
    Ok(first.0)
}

fn missing(what: &str) -> Failure {
    Failure::usage(format!(
        "{what} and there is no passphrase: name a file with it, set {VARIABLE}, or use a terminal"
    ))
}

/// Asks at the terminal, without showing what is typed.
fn ask(question: &str) -> io::Result<Passphrase> {
    let mut terminal = File::options().read(true).write(true).open(TERMINAL)?;
    terminal.write_all(question.as_bytes())?;
    let mut line = Zeroizing::new(String::new());
    let read = {
        let _silent = Silent::new(&terminal)?;
        BufReader::new((&terminal).take(BYTES_MAX)).read_line(&mut line)
    };
    // The line end that was typed was not shown either.
    terminal.write_all(b"\n")?;
    read?;
    Passphrase::new(without_line_end(&line)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// A terminal that does not show what is typed, as long as this lives.
struct Silent<'t> {
    terminal: &'t File,
    before: Termios,
}

impl Silent<'_> {
    fn new(terminal: &File) -> io::Result<Silent<'_>> {
        let before = tcgetattr(terminal)?;
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &modes)?;
        Ok(Silent { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no mending.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

fn without_line_end(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_first_line_of_a_file_is_the_passphrase() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        for (text, read) in [
            ("correct horse\n", "correct horse"),
            ("no line end", "no line end"),
            (" kept as it is \r\nsecond\n", " kept as it is "),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(
                Passphrase::from_file(&path).unwrap().bytes(),
                read.as_bytes()
            );
        }
        for text in ["", "\n", "\r\nx", &"x".repeat(2000)] {
            std::fs::write(&path, text).unwrap();
            Passphrase::from_file(&path).unwrap_err();
        }
    }

    #[test]
    fn a_passphrase_is_not_shown() {
        let passphrase = Passphrase::new("correct horse").unwrap();
        assert!(!format!("{passphrase:?}").contains("horse"));
    }
}
