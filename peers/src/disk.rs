//! Disk a key of 10,000 keys with one event each, after everything is closed.

use crate::common::measure::files;
use crate::common::report::Target;
use crate::engines::{KEYS, keys, quipu, temporary_directory, tiny_on};
use crate::record::{singly, tiny};
use crate::report::{Figures, heading};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub(crate) fn run() {
    let keys = keys(KEYS);
    let calls: Vec<&str> = keys.iter().map(String::as_str).collect();
    let empty = quipu();
    empty.db.close().expect("closed");
    let store = quipu();
    singly(&store.db, &calls);
    store.db.close().expect("closed");
    let dir = temporary_directory();
    let peer = tiny_on(dir.path());
    tiny(&peer, &calls);
    peer.close().expect("written");

    heading(&format!("disk, {KEYS} keys with one event each, after closing"));
    let each = |bytes: u64| bytes as f64 / KEYS as f64;
    let line = |label: &str, bytes, target| {
        Figures::exact(label, "bytes/key", each(bytes)).line(target);
    };
    let ours = Size::of(store.db.directory());
    line("Quipu, state.redb", Size::named(store.db.directory(), "state.redb"), Target::None);
    line("Quipu, everything (the log, too, which has the events)", ours.bytes, at_most());
    line("Quipu, everything, as blocks of the file system", ours.blocks, at_most());
    let theirs = Size::of(dir.path());
    line("tiny-counter, a file for each key", theirs.bytes, Target::None);
    line("tiny-counter, as blocks of the file system", theirs.blocks, Target::None);
    let ratio = |label: &str, of: u64, to: u64| {
        Figures::exact(label, "", of as f64 / to as f64).line(Target::None);
    };
    ratio("tiny-counter / Quipu, bytes", theirs.bytes, ours.bytes);
    ratio("tiny-counter / Quipu, blocks", theirs.blocks, ours.blocks);
    let nothing = Size::of(empty.db.directory());
    Figures::exact("Quipu with no key at all: bytes in all", "bytes", nothing.bytes as f64)
        .line(Target::None);
    Figures::exact(
        "  of them state.redb",
        "bytes",
        Size::named(empty.db.directory(), "state.redb") as f64,
    )
    .line(Target::None);
}

fn at_most() -> Target {
    Target::AtMost(120.0)
}

#[derive(Clone, Copy)]
struct Size {
    bytes: u64,
    /// What the file system has set aside, in bytes; directories are not counted.
    blocks: u64,
}

impl Size {
    fn of(dir: &Path) -> Self {
        let files = files(dir);
        let blocks = files.iter().map(|(path, _)| path.metadata().expect("there").blocks() * 512);
        Size { bytes: files.iter().map(|(_, bytes)| bytes).sum(), blocks: blocks.sum() }
    }

    fn named(dir: &Path, name: &str) -> u64 {
        dir.join(name).metadata().map_or(0, |metadata| metadata.len())
    }
}
