//! Trials: files are copied, a bit is flipped, a store is opened and asked, and what it says is
//! compared with what was written.
//!
//! Next: `report.rs`, the table of what came out.

use crate::stores::Store;
use crate::{Generator, Record, Result, records};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The records that are written.
    pub records: usize,
    /// The bits that are flipped, one at a time; zero or more.
    pub trials: usize,
    /// Of the generator that chooses byte and bit.
    pub seed: u64,
}

impl Default for Plan {
    /// What the figures of the guide are of.
    fn default() -> Self {
        Plan { records: 2_000, trials: 60, seed: 1 }
    }
}

/// In which state the files were copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// While the store was open, as a killed process leaves them.
    Killed,
    /// When it had been closed.
    Closed,
}

/// What became of the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The store could not be opened.
    OpeningFailed(Failure),
    /// It was opened, and said an error when the records were asked for.
    ReadingFailed(Failure),
    /// Every record is there as it was written, and no other.
    AllRight,
    /// So many records are gone, and the others as they were written. Nothing was said.
    Lost(usize),
    /// So many records were never written as they are told, others may be gone. Nothing was said.
    Wrong(usize),
}

/// How a store failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// By an error, which says this.
    Error(String),
    /// By a panic.
    Panic,
}

/// What came out for one store.
#[derive(Clone, Debug)]
pub struct Trials {
    /// The store.
    pub store: Store,
    /// How its files were left.
    pub left: Left,
    /// The bytes of all places where a record stands.
    pub bytes: usize,
    /// What is said of the files as they were left, with no bit flipped.
    pub control: Outcome,
    /// What is said after each of the flips.
    pub outcomes: Vec<Outcome>,
}

/// A directory: paths below it, and what is in the files.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Writes the records into a new store, and does the trials on what a killed process leaves and on
/// what is there after closing.
///
/// # Errors
/// Where the undamaged store fails, or files do.
pub fn trials(store: Store, plan: Plan) -> Result<[Trials; 2]> {
    let written = records(plan.records);
    let dir = tempfile::tempdir()?;
    let opened = (store.open)(dir.path())?;
    for record in &written {
        opened.write(record)?;
    }
    let mut killed = Files::new();
    copy(dir.path(), dir.path(), &mut killed)?;
    drop(opened);
    let mut closed = Files::new();
    copy(dir.path(), dir.path(), &mut closed)?;
    Ok([
        on_files(store, plan, &written, Left::Killed, &mut killed)?,
        on_files(store, plan, &written, Left::Closed, &mut closed)?,
    ])
}

fn on_files(
    store: Store,
    plan: Plan,
    written: &[Record],
    left: Left,
    files: &mut Files,
) -> Result<Trials> {
    let places = places(files, written)?;
    let bytes = places.iter().map(|(_, range)| range.len()).sum();
    let control = outcome(store, written, files)?;
    let mut generator = Generator::new(plan.seed);
    let mut outcomes = Vec::new();
    for trial in 0..plan.trials {
        let part = trial * bytes / plan.trials..(trial + 1) * bytes / plan.trials;
        let nth = part.start + generator.below(part.len().max(1) as u64) as usize;
        let bit = 1 << generator.below(8);
        let (path, at) = byte(&places, nth).ok_or("there are more trials than bytes")?;
        let mut flip = || files.get_mut(path).map(|bytes| bytes[at] ^= bit);
        flip();
        let outcome = outcome(store, written, files);
        let mut flip = || files.get_mut(path).map(|bytes| bytes[at] ^= bit);
        flip(); // back again
        outcomes.push(outcome?);
    }
    Ok(Trials { store, left, bytes, control, outcomes })
}

/// The `nth` byte of all places: its file, and where in it.
fn byte(places: &[(PathBuf, Range<usize>)], mut nth: usize) -> Option<(&Path, usize)> {
    for (path, range) in places {
        if nth < range.len() {
            return Some((path, range.start + nth));
        }
        nth -= range.len();
    }
    None
}

/// Where names and texts stand, by file and offset.
///
/// # Errors
/// Where one of the texts stands nowhere: the trials would then not be of all records. (A name may
/// be nowhere: an ordered store need not write down what it shares with the one before it.)
fn places(files: &Files, written: &[Record]) -> Result<Vec<(PathBuf, Range<usize>)>> {
    let names: BTreeSet<&[u8]> = written.iter().map(|record| record.name.as_slice()).collect();
    let texts: BTreeSet<&[u8]> = written.iter().map(|record| record.text.as_slice()).collect();
    let (name_bytes, text_bytes) = match written.first() {
        Some(record) => (record.name.len(), record.text.len()),
        None => return Ok(Vec::new()),
    };
    let mut missing = texts.clone();
    let mut places = Vec::new();
    for (path, bytes) in files {
        let mut at = 0;
        while at < bytes.len() {
            let is = |set: &BTreeSet<&[u8]>, len| {
                bytes.get(at..at + len).filter(|piece| set.contains(piece))
            };
            let found = match bytes[at] {
                b'n' => is(&names, name_bytes),
                b't' => is(&texts, text_bytes),
                _ => None,
            };
            if let Some(piece) = found {
                missing.remove(piece);
                places.push((path.clone(), at..at + piece.len()));
            }
            at += found.map_or(1, <[u8]>::len);
        }
    }
    match missing.first() {
        None => Ok(places),
        Some(text) => Err(format!("no file has {:?}", String::from_utf8_lossy(text)).into()),
    }
}

/// What a store says of a fresh copy of these files.
fn outcome(store: Store, written: &[Record], files: &Files) -> Result<Outcome> {
    let dir = tempfile::tempdir()?;
    for (path, bytes) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap_or(dir.path()))?;
        fs::write(path, bytes)?;
    }
    let opened = match caught(|| (store.open)(dir.path())) {
        Ok(opened) => opened,
        Err(failure) => return Ok(Outcome::OpeningFailed(failure)),
    };
    let read = caught(|| opened.read());
    // What it does when it is closed is no matter here, but must not end the run.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(opened)));
    Ok(match read {
        Ok(read) => compared(written, read),
        Err(failure) => Outcome::ReadingFailed(failure),
    })
}

fn caught<T>(what: impl FnOnce() -> Result<T>) -> std::result::Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(what)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::Error(error.to_string())),
        Err(_) => Err(Failure::Panic),
    }
}

/// A record that is told twice, or that nobody wrote, is wrong.
fn compared(written: &[Record], read: Vec<Record>) -> Outcome {
    let mut left: BTreeSet<&Record> = written.iter().collect();
    let wrong: Vec<Record> = read.into_iter().filter(|record| !left.remove(record)).collect();
    match (wrong.len(), left.len()) {
        (0, 0) => Outcome::AllRight,
        (0, lost) => Outcome::Lost(lost),
        (wrong, _) => Outcome::Wrong(wrong),
    }
}

/// Reads the files below `dir` into `files`, by their paths from `root`.
fn copy(root: &Path, dir: &Path, files: &mut Files) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            copy(root, &path, files)?;
        } else {
            files.insert(path.strip_prefix(root)?.to_owned(), fs::read(&path)?);
        }
    }
    Ok(())
}
