//! Why a command stopped, and the exit code that says so.
//!
//! 1. Exit codes are part of the interface: 1 error, 2 usage, 3 corruption, 4 locked, 5 denied by a
//!    limit; 130 and 143 are the signals' (`interrupt`).
//! 2. A reader that went away (`quipu list .. | head`) is no failure: nothing is said, exit 0.
//! 3. Only standard output's errors convert with `?` from [`io::Error`]; a file's error is made
//!    with [`Failure::file`], so that it names the file.

use std::fmt;
use std::io;

use quipu::ErrorKind;

/// What stops a command.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine refused or failed.
    Engine(quipu::Error),
    /// Standard output could not be written.
    Output(io::Error),
    /// Anything else, already said in one sentence.
    Said { code: u8, message: String },
    /// A limit denied it, which was said as the answer.
    Denied,
}

/// Exit code of a plain error.
const ERROR: u8 = 1;
/// Exit code of a command line that asks for something impossible.
const USAGE: u8 = 2;
/// Exit code of damaged data.
const CORRUPTION: u8 = 3;
/// Exit code of a directory that another process has open.
const LOCKED: u8 = 4;
/// Exit code of an answer that is no: what a limit does not allow, what was not seen.
const DENIED: u8 = 5;

impl Failure {
    /// A plain error.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::Said { code: ERROR, message: message.into() }
    }

    /// A command line that clap could not see through.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Said { code: USAGE, message: message.into() }
    }

    /// The answer is no, where a script asked for an exit code that says so.
    pub(crate) fn no(message: impl Into<String>) -> Self {
        Self::Said { code: DENIED, message: message.into() }
    }

    /// Data that is damaged, as was said in full already.
    pub(crate) fn damaged(message: impl Into<String>) -> Self {
        Self::Said { code: CORRUPTION, message: message.into() }
    }

    /// A file that could not be opened or read.
    pub(crate) fn file(name: &str, error: &io::Error) -> Self {
        Self::new(format!("{name}: {error}"))
    }

    /// The same failure with a sentence behind it.
    pub(crate) fn because(self, context: &str) -> Self {
        let code = self.code();
        match self {
            Self::Output(error) => Self::Output(error),
            other => Self::Said { code, message: format!("{other}\n{context}") },
        }
    }

    /// The process's exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Said { code, .. } => *code,
            Self::Output(_) => ERROR,
            Self::Denied => DENIED,
            Self::Engine(error) => match error.kind() {
                ErrorKind::Corruption | ErrorKind::MissingSegment => CORRUPTION,
                ErrorKind::Locked => LOCKED,
                _ => ERROR,
            },
        }
    }

    /// Whether the reader of our output went away (2).
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Output(error) => write!(f, "standard output: {error}"),
            Self::Said { message, .. } => f.write_str(message),
            Self::Denied => f.write_str("a limit does not allow it"),
        }
    }
}

impl From<quipu::Error> for Failure {
    fn from(error: quipu::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_told_from_other_output_errors() {
        assert!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).is_closed_pipe());
        assert!(!Failure::from(io::Error::from(io::ErrorKind::StorageFull)).is_closed_pipe());
        assert!(!Failure::file("x", &io::ErrorKind::BrokenPipe.into()).is_closed_pipe());
    }

    #[test]
    fn context_keeps_the_code() {
        let failure = Failure::usage("no").because("and so");
        assert_eq!(failure.code(), USAGE);
        assert_eq!(failure.to_string(), "no\nand so");
    }
}
