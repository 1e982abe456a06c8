//! The one error type: what went wrong, where, and what would have been right.
//!
//! Bytes, files, clocks and callers produce an [`Error`]; our own mistakes panic. A refusal by a
//! limit is not an error. Next: `options.rs`.

use std::fmt;
use std::path::{Path, PathBuf};

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong; the part of an [`Error`] that a program decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument, event or definition that can never be accepted as it is.
    Invalid,
    /// The directory holds other files than a Quipu directory does.
    NotQuipu,
    /// The directory does not exist and was not to be created.
    NotFound,
    /// Another process (or another `Db` of this one) has the directory open for writing.
    Locked,
    /// The directory was written by a later version of this software, or keeps what this program was built
    /// without.
    NewerFormat,
    /// A segment of the log that must be there is not.
    MissingSegment,
    /// Bytes that had been written and synced are not what was written.
    Corruption,
    /// The operating system refused an operation.
    Io,
    /// The file system is full.
    NoSpace,
    /// A write or sync failed earlier; nothing is acknowledged until the directory is reopened.
    Poisoned,
    /// The engine was closed.
    Closed,
    /// No view has that name.
    UnknownView,
    /// A view of that name exists with another definition.
    ViewConflict,
    /// The directory has another time zone than the one asked for.
    TimeZoneConflict,
    /// The directory's snapshot is in another [store](crate::storage) than the one asked for.
    StorageConflict,
    /// The view's backfill from the log is not complete yet.
    Backfilling,
    /// The part of the log that is needed was retired by the retention policy, or given up by a repair.
    LogRetired,
    /// A long call was stopped by its own progress callback.
    Stopped,
    /// The view keeps no buckets of this grain, or none that reach back so far.
    NotKept,
    /// No policy has this name.
    UnknownPolicy,
    /// The lease of a reservation is over.
    Expired,
}

/// An error: its [kind](Error::kind), a sentence for people, and what caused it.
///
/// ```
/// use quipu::{Db, ErrorKind, Options};
///
/// let error = Options::new().must_exist().open("no/such/place").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// assert!(error.to_string().contains("no/such/place"));
/// ```
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: Box<str>,
    place: Option<Box<Place>>,
    source: Option<Source>,
}

type Source = std::sync::Arc<dyn std::error::Error + Send + Sync + 'static>;

#[derive(Clone, Debug)]
struct Place {
    path: PathBuf,
    offset: Option<u64>,
}

impl Error {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The file or directory that the error is about, if it is about one.
    pub fn path(&self) -> Option<&Path> {
        self.place.as_ref().map(|place| place.path.as_path())
    }

    /// The byte offset in [`path`](Error::path) at which the trouble begins, if known.
    pub fn offset(&self) -> Option<u64> {
        self.place.as_ref().and_then(|place| place.offset)
    }

    /// What went wrong, without the place.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into().into_boxed_str(), place: None, source: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn corruption(path: &Path, offset: u64, message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Corruption, message).at(path, Some(offset))
    }

    /// An operating system error on `path` while `doing` something ("write", "sync", ...).
    pub(crate) fn io(doing: &str, path: &Path, source: std::io::Error) -> Self {
        Error::stream(doing, source).at(path, None)
    }

    /// An operating system error of something that has no path.
    pub(crate) fn stream(doing: &str, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                ErrorKind::NoSpace
            }
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        };
        let advice = match (kind, source.kind()) {
            (ErrorKind::NoSpace, _) => "; free some space and try again",
            (_, std::io::ErrorKind::PermissionDenied) => {
                "; the process needs permission to read and write there"
            }
            _ => "",
        };
        Error {
            kind,
            message: format!("cannot {doing}: {source}{advice}").into_boxed_str(),
            place: None,
            source: Some(std::sync::Arc::new(source)),
        }
    }

    /// An error of a [store](crate::storage) that a program brings along; `message` says what it could
    /// not do. What the engine decides by is the kind:
    ///
    /// | kind | what it means | what becomes of it |
    /// |---|---|---|
    /// | `Corruption` | what is stored is not what was committed | the question, opening or checkpoint that needs it fails; nothing is written over it |
    /// | `NoSpace` | there is no room for a commit | it is tried again |
    /// | `Io`, and any other | everything else | it is tried again, or whoever asked is told |
    ///
    /// ```
    /// use quipu::{Error, ErrorKind};
    ///
    /// fn read() -> quipu::Result<Vec<u8>> {
    ///     std::fs::read("no/such/file").map_err(|source| {
    ///         Error::of_storage(ErrorKind::Io, format!("cannot read: {source}")).because(source)
    ///     })
    /// }
    /// let error = read().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Io);
    /// assert!(std::error::Error::source(&error).is_some());
    /// ```
    pub fn of_storage(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error::new(kind, message)
    }

    /// The same with what caused it, for [`source`](std::error::Error::source).
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(std::sync::Arc::new(source));
        self
    }

    /// The same, about `what`.
    pub(crate) fn about(self, what: &str) -> Self {
        let kind = self.kind;
        self.told_of(kind, what)
    }

    /// The same of this kind, and about `what`.
    pub(crate) fn told_of(self, kind: ErrorKind, what: &str) -> Self {
        Error { kind, message: format!("{what}: {}", self.message).into_boxed_str(), ..self }
    }

    pub(crate) fn at(mut self, path: &Path, offset: Option<u64>) -> Self {
        self.place = Some(Box::new(Place { path: path.to_owned(), offset }));
        self
    }

    /// The same trouble, told to a caller who comes after it.
    pub(crate) fn poisoned(first: &Error) -> Self {
        Error {
            kind: ErrorKind::Poisoned,
            message: format!(
                "an earlier write or sync failed ({}), so nothing more is acknowledged; reopen the \
                 directory",
                first.message
            )
            .into_boxed_str(),
            place: first.place.clone(),
            source: first.source.clone(),
        }
    }

    pub(crate) fn closed() -> Self {
        Error::new(ErrorKind::Closed, "the engine was closed; open the directory again")
    }
}

impl std::error::Error for Error {
    // By hand: derived, it gives the `Arc`, which nobody can cast to the error that is in it.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{}", place.path.display())?;
            if let Some(offset) = place.offset {
                write!(f, " at byte {offset}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}: {self})", self.kind)
    }
}
