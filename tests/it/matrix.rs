//! The corruption matrix: a directory is damaged in one place after another, and each outcome is one
//! of three: everything is there, the unsynced tail was cut, or an error says where the damage is.
//! Never a wrong answer, never a panic, never a change of the evidence.
//!
//! `cargo test --test it matrix -- --nocapture` prints the figures of `durability.md`. With
//! `QUIPU_MATRIX=full` every bit of the log is flipped, and a bit of every byte of the snapshot's pages.
//!
//! Three directories are damaged: one whose log says all, one whose last events are in the stage
//! (`staged`), and one whose log was retired, so that nothing can be made again (`retired`).

mod large;
mod retired;
mod staged;

use crate::directory::frames;
use quipu::{
    Component, Db, Dedup, Depth, Durability, ErrorKind, Event, Grain, Keep, Options, Query, Repair,
    TestClock, Timestamp, View,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::time::Duration;

const NOW: i64 = 1_700_000_000;
/// Events before the first close, before the checkpoint, synced behind it, and not synced.
const PARTS: [u64; 4] = [14, 14, 12, 3];
const SYNCED: u64 = PARTS[0] + PARTS[1] + PARTS[2];
const ALL: u64 = SYNCED + PARTS[3];
const USERS: u64 = 5;

/// A file of a directory: its path below it, and its bytes.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn options() -> Options {
    Options::new()
        .clock(TestClock::at(Timestamp::from_secs(NOW)))
        .durability(Durability::Memory)
        .checkpoint_every(Duration::from_secs(1 << 30))
        .dedup(Dedup::Last(1_000))
        .segment_bytes(64 << 10)
}

fn views() -> [View; 3] {
    [
        View::new("by_user").by(["user"]).stats("value"),
        View::new("hours").by(["product"]).grain(Grain::Hour, Keep::All),
        View::new("pairs").by(["user", "product"]).only_events(["sale"]).stats("value"),
    ]
}

fn record(db: &Db, numbers: Range<u64>) {
    for n in numbers {
        let (user, product) = (format!("user {}", n % USERS), format!("product {}", n % 3));
        let (id, name) = (format!("id {n}"), if n % 4 == 0 { "view" } else { "sale" });
        let at = Timestamp::from_secs(NOW - 400_000 + n as i64 * 9_000);
        let event = Event::new(name).at(at).id(&id).dim("user", &user).dim("product", &product);
        db.record(&event.value(n as f64 / 4.0)).unwrap();
    }
}

/// Every answer that a directory can give.
fn answers_of(db: &Db) -> quipu::Result<String> {
    let mut out = views_say(&|view| db.query(view))?;
    writeln!(out, "{} events", db.statistics().events).unwrap();
    // What was seen is a duplicate, also of the stored window.
    for n in 0..SYNCED {
        let id = format!("id {n}");
        writeln!(out, "{}", db.record(&Event::new("view").id(&id))?.duplicate).unwrap();
    }
    Ok(out)
}

/// Every answer of every view, single keys first.
fn views_say(query: &dyn Fn(&str) -> quipu::Result<Query>) -> quipu::Result<String> {
    let mut out = String::new();
    for view in views().iter().chain([&late()]) {
        let query = query(view.name())?;
        for user in 0..=USERS {
            for product in 0..=3 {
                let (user, product) = (format!("user {user}"), format!("product {product}"));
                let key: Vec<&str> = match view.key() {
                    [only] if only == "user" => vec![&user],
                    [_] => vec![&product],
                    _ => vec![&user, &product],
                };
                writeln!(out, "{:?}", query.get(&key)?).unwrap();
                if !view.grains().is_empty() {
                    writeln!(out, "{:?}", query.buckets(&key, Grain::Hour)?).unwrap();
                }
            }
        }
        for row in query.rows()? {
            writeln!(out, "{:?}", row?).unwrap();
        }
        writeln!(out, "{:?} {}", query.totals()?, query.key_count()?).unwrap();
        writeln!(out, "{:?}", query.top(3, Component::LastSeen)?).unwrap();
        let mut count = 0;
        query.for_each(|row| {
            count += row.count;
            ControlFlow::Continue(())
        })?;
        writeln!(out, "{count}").unwrap();
    }
    Ok(out)
}

/// Defined when there are records, and filled from the log.
fn late() -> View {
    View::new("late").by(["product"]).stats("value")
}

fn read(dir: &Path) -> Files {
    fn walk(root: &Path, dir: &Path, files: &mut Files) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, files);
            } else {
                files.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    let mut files = Files::new();
    walk(dir, dir, &mut files);
    files
}

fn write(dir: &Path, files: &Files) {
    if dir.exists() {
        fs::remove_dir_all(dir).unwrap();
    }
    fs::create_dir_all(dir.join("log")).unwrap();
    for (path, bytes) in files {
        fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
        fs::write(dir.join(path), bytes).unwrap();
    }
}

/// In memory, where the system has such a place: nothing here is about the disk.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

struct Template {
    /// Killed: sealed segments, a snapshot, an active segment with an unsynced end.
    files: Files,
    /// As it was at the checkpoint, and before the last events.
    older: Files,
    /// Another directory with the same in it.
    other: Files,
    /// The answers by the number of events, from those of the checkpoint on.
    answers: BTreeMap<u64, String>,
    /// Events that were synced, and all.
    synced: u64,
    all: u64,
    options: fn() -> Options,
    ask: fn(&Db) -> quipu::Result<String>,
}

fn build(root: &Path, events: u64) -> (Files, Files, String) {
    let dir = root.join("build");
    let _ = fs::remove_dir_all(&dir);
    let db = options().open(&dir).unwrap();
    for view in views() {
        db.define(view).unwrap();
    }
    record(&db, 0..PARTS[0]);
    db.close().unwrap();
    let db = options().open(&dir).unwrap();
    db.define(late()).unwrap();
    db.backfill("late", |_| ControlFlow::Continue(())).unwrap();
    record(&db, PARTS[0]..PARTS[0] + PARTS[1]);
    db.checkpoint().unwrap();
    let older = read(&dir);
    record(&db, PARTS[0] + PARTS[1]..SYNCED.min(events));
    db.sync().unwrap();
    // The next frame claims the sync; the witness is not left to the background.
    record(&db, SYNCED..events);
    let mut files = read(&dir);
    // One that the background made in advance may be there or not; what it is not is in use.
    let unused = PathBuf::from("log/0000000003.qlog");
    assert!(files.get(&unused).is_none_or(|bytes| bytes[64..].iter().all(|byte| *byte == 0)));
    let named = u64::from_le_bytes(files[Path::new("MANIFEST")][40..48].try_into().unwrap());
    if named < 3 {
        files.remove(&unused);
    }
    files.retain(|path, _| !path.to_string_lossy().ends_with(".new"));
    let copy = root.join("copy");
    write(&copy, &files);
    let answers = answers_of(&options().open(&copy).unwrap()).unwrap();
    (files, older, answers)
}

fn template(root: &Path) -> Template {
    let (files, older, all) = build(root, ALL);
    let (other, _, same) = build(root, ALL);
    assert!(all == same && files != other);
    let mut answers = BTreeMap::from([(ALL, all)]);
    for events in PARTS[0] + PARTS[1]..ALL {
        answers.insert(events, build(root, events).2);
    }
    Template { files, older, other, answers, synced: SYNCED, all: ALL, options, ask: answers_of }
}

const ACTIVE: &str = "log/0000000002.qlog";
const SEALED: &str = "log/0000000001.qlog";

#[derive(Default, Debug, Clone, Copy)]
struct Tally {
    cases: u64,
    recovered: u64,
    cut: u64,
    reported: u64,
    /// Found by `verify`, and no answer was wrong.
    verified_only: u64,
}

struct Matrix<'a> {
    template: &'a Template,
    dir: PathBuf,
    tallies: BTreeMap<&'static str, Tally>,
    cases: u64,
}

/// How much a case may cost.
#[derive(Clone, Copy, PartialEq)]
enum Loss {
    /// All that was synced must be there, or an error.
    Synced,
    /// Synced events may be gone together with all that proves them; a prefix of them is there.
    WithItsProof,
}

impl Matrix<'_> {
    /// One damaged directory: verified, opened, asked. What an error is about.
    fn case(
        &mut self,
        group: &'static str,
        what: &str,
        files: &Files,
        loss: Loss,
    ) -> Option<PathBuf> {
        self.cases += 1;
        write(&self.dir, files);
        let dir = self.dir.clone();
        let verified = quipu::verify(&dir, Depth::Refold, |_| {});
        assert!(read(&dir) == *files, "{what}: verify changed a file");
        let Template { options, ask, synced, all, .. } = *self.template;
        let opened = options().must_exist().open(&dir);
        let outcome = match opened {
            Err(error) => {
                assert!(error.path().is_some(), "{what}: {error}");
                assert!(read(&dir) == *files, "{what}: changed by {error}");
                Err(error)
            }
            Ok(db) => ask(&db),
        };
        let tally = self.tallies.entry(group).or_default();
        tally.cases += 1;
        let damaged = match &verified {
            Ok(report) => !report.is_intact(),
            Err(_) => true,
        };
        match &outcome {
            Err(error) => {
                let fitting = matches!(
                    error.kind(),
                    ErrorKind::Corruption | ErrorKind::MissingSegment | ErrorKind::NotQuipu
                );
                assert!(fitting && error.path().is_some(), "{what}: {error}");
                assert!(damaged, "{what}: verify does not see why: {error}");
                tally.reported += 1;
            }
            Ok(answers) => {
                let known = &self.template.answers;
                let prefix = known.iter().find(|(n, known)| {
                    *known == answers && (**n >= synced || loss == Loss::WithItsProof)
                });
                match prefix {
                    Some((n, _)) if *n == all && damaged => tally.verified_only += 1,
                    Some((n, _)) if *n == all => tally.recovered += 1,
                    Some(_) => tally.cut += 1,
                    None => panic!("{what}: a wrong answer; verify: {verified:?}"),
                }
            }
        }
        outcome.err().and_then(|error| error.path().map(Path::to_owned))
    }

    /// After a repair the directory opens and is intact; where nothing is given up all answers are
    /// there.
    fn repaired(&mut self, what: &str, files: &Files, lossless: bool) {
        write(&self.dir, files);
        let plan = quipu::repair(&self.dir, Repair::DryRun, |_| {});
        assert!(read(&self.dir) == *files, "{what}: a dry run changed a file");
        let done = quipu::repair(&self.dir, Repair::Apply, |_| {});
        let (plan, done) = match (plan, done) {
            (Ok(plan), Ok(done)) => (plan, done),
            (plan, done) => {
                let kind = done.map(|_| ()).unwrap_err().kind();
                let named = [ErrorKind::Corruption, ErrorKind::NotQuipu];
                assert!(plan.is_err() && named.contains(&kind), "{what}: {kind:?}");
                assert!(!lossless, "{what}: {kind:?}");
                return;
            }
        };
        assert_eq!(plan.steps, done.steps, "{what}");
        // Every damaged file is as it was, in its place or in the quarantine.
        if let Some(place) = &done.quarantine {
            for step in &done.steps {
                let name = step.path.file_name().unwrap();
                if let Some(original) = files.get(step.path.strip_prefix(&self.dir).unwrap()) {
                    let kept = fs::read(place.join(name)).unwrap();
                    assert!(kept == *original, "{what}: {}", name.display());
                }
            }
        }
        let again = quipu::verify(&self.dir, Depth::Refold, |_| {}).unwrap();
        assert!(again.is_intact(), "{what}: {done:?}\n{:?}", again.findings);
        let Template { options, ask, synced, .. } = *self.template;
        let db = options().must_exist().open(&self.dir);
        let db = db.unwrap_or_else(|error| panic!("{what}: {error}\n{done:?}"));
        match ask(&db) {
            Ok(answers) => {
                let known = self.template.answers.range(synced..);
                assert!(
                    !lossless || known.into_iter().any(|(_, known)| *known == answers),
                    "{what}"
                );
            }
            // A definition was among what was given up.
            Err(error) => {
                let gone = matches!(error.kind(), ErrorKind::UnknownView | ErrorKind::Backfilling);
                assert!(gone && !lossless, "{what}: {error}\n{done:?}");
            }
        }
        db.close().unwrap();
        let again = quipu::verify(&self.dir, Depth::Refold, |_| {}).unwrap();
        assert!(again.is_intact(), "{what}: {:?}", again.findings);
    }
}

fn full() -> bool {
    std::env::var("QUIPU_MATRIX").is_ok_and(|value| value == "full")
}

fn flipped(files: &Files, path: &str, byte: usize, bit: u32) -> Files {
    let mut files = files.clone();
    files.get_mut(Path::new(path)).unwrap()[byte] ^= 1 << bit;
    files
}

/// A bit of a byte that differs from byte to byte.
fn bits_of(byte: usize, all: bool) -> Range<u32> {
    let one = (byte as u32).wrapping_mul(0x9e37_79b1) >> 29;
    if all { 0..8 } else { one..one + 1 }
}

/// redb panics on some damaged pages. That is caught; the tests' output is not to be full of it.
fn forgive_what_is_caught() {
    use std::sync::Once;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !panic.location().is_some_and(|place| place.file().contains("/redb-")) {
                hook(panic);
            }
        }));
    });
}

#[expect(clippy::print_stdout, reason = "the table of the guide comes from here")]
fn with_matrix_of(template: fn(&Path) -> Template, run: impl FnOnce(&mut Matrix<'_>)) {
    forgive_what_is_caught();
    let root = scratch();
    let template = template(root.path());
    let dir = root.path().join("case");
    let mut matrix = Matrix { template: &template, dir, tallies: BTreeMap::new(), cases: 0 };
    run(&mut matrix);
    for (group, tally) in &matrix.tallies {
        println!("{group}: {tally:?}");
    }
}

fn with_matrix(run: impl FnOnce(&mut Matrix<'_>)) {
    with_matrix_of(template, run);
}

#[test]
fn a_flipped_bit_in_the_log_or_the_manifest_is_reported_and_repaired_without_loss() {
    with_matrix(|matrix| {
        let files = matrix.template.files.clone();
        for (path, group) in [("MANIFEST", "manifest"), (SEALED, "sealed"), (ACTIVE, "active")] {
            let bytes = &files[Path::new(path)];
            let is_segment = path != "MANIFEST";
            let last = if is_segment { frames(bytes) } else { Vec::new() };
            // The frames behind the last sync: one of them claims it, the last three do not.
            let synced_end = match path {
                ACTIVE => last[last.len() - PARTS[3] as usize].start,
                SEALED => last[last.len() - 1].end,
                _ => bytes.len(),
            };
            let used_end = last.last().map_or(bytes.len(), |frame| frame.end);
            for byte in 0..used_end {
                for bit in bits_of(byte, (byte < 64 && path != ACTIVE) || full()) {
                    let what = format!("{path}, byte {byte}, bit {bit}");
                    let damaged = flipped(&files, path, byte, bit);
                    matrix.case(group, &what, &damaged, Loss::Synced);
                    if byte < synced_end && (byte % 11 == 0 || full()) {
                        matrix.repaired(&what, &damaged, true);
                    }
                }
            }
        }
        let tally = |group| matrix.tallies[group];
        // What the snapshot has is not read at opening; verify finds it, and the answers are right.
        assert_eq!(tally("sealed").verified_only, tally("sealed").cases);
        assert_eq!(tally("manifest").reported, tally("manifest").cases);
        assert!(tally("active").reported > 0 && tally("active").cut > 0);
    });
}

#[test]
fn without_a_snapshot_a_flipped_bit_anywhere_in_what_was_synced_is_reported() {
    with_matrix(|matrix| {
        let mut files = matrix.template.files.clone();
        files.remove(Path::new("state.redb"));
        matrix.case("no snapshot", "no snapshot", &files, Loss::Synced);
        assert_eq!(matrix.tallies["no snapshot"].recovered, 1, "rebuilt from the log");
        for path in [SEALED, ACTIVE] {
            let frames = frames(&files[Path::new(path)]);
            let unsynced = if path == ACTIVE { PARTS[3] as usize } else { 0 };
            for byte in 0..frames[frames.len() - 1 - unsynced].end {
                for bit in bits_of(byte, full()) {
                    let what = format!("no snapshot, {path}, byte {byte}, bit {bit}");
                    let damaged = flipped(&files, path, byte, bit);
                    matrix.case("log alone", &what, &damaged, Loss::Synced);
                    if byte % 13 == 0 || full() {
                        matrix.repaired(&what, &damaged, true);
                    }
                }
            }
        }
        let tally = matrix.tallies["log alone"];
        assert_eq!(tally.reported, tally.cases, "never taken for the end of the log");
    });
}

#[test]
fn a_flipped_bit_in_the_snapshot_gives_no_wrong_answer_and_is_repaired_without_loss() {
    with_matrix(|matrix| {
        let files = matrix.template.files.clone();
        let path = "state.redb";
        let bytes = &files[Path::new(path)];
        // Every byte of the first page, which says where all others are; of the others some, and one
        // at least where there is anything.
        let step = if full() { 1 } else { 61 };
        for byte in (0..bytes.len()).filter(|byte| {
            let page =
                &bytes[byte / 4_096 * 4_096..(byte / 4_096 * 4_096 + 4_096).min(bytes.len())];
            *byte < 512 || byte % 4_096 == 0 || (byte % step == 0 && page.iter().any(|b| *b != 0))
        }) {
            for bit in bits_of(byte, byte < 512 && full()) {
                let what = format!("{path}, byte {byte}, bit {bit}");
                let damaged = flipped(&files, path, byte, bit);
                matrix.case("snapshot", &what, &damaged, Loss::Synced);
                if byte % 17 == 0 {
                    matrix.repaired(&what, &damaged, true);
                }
            }
        }
        assert_eq!(matrix.tallies["snapshot"].cut, 0);
    });
}

/// The active segment cut at every length of its last three records, short and filled up with zeros,
/// with and without the frames behind the cut.
#[test]
fn the_last_records_torn_at_every_length_leave_a_prefix() {
    with_matrix(|matrix| {
        let files = matrix.template.files.clone();
        let original = files[Path::new(ACTIVE)].clone();
        let frames = frames(&original);
        let set = |bytes: Vec<u8>| {
            let mut files = files.clone();
            files.insert(PathBuf::from(ACTIVE), bytes);
            files
        };
        let last_three = &frames[frames.len() - 3..];
        for cut in last_three[0].start..=last_three[2].end {
            let what = format!("cut at {cut}");
            let short = original[..cut].to_vec();
            matrix.case("cut short", &what, &set(short.clone()), Loss::Synced);
            let mut zeros = short;
            zeros.resize(original.len(), 0);
            matrix.case("cut to zeros", &what, &set(zeros), Loss::Synced);
            // Stale frames behind the torn one, as sectors written out of order leave them.
            let frame = frames.iter().find(|frame| frame.contains(&cut));
            if let Some(frame) = frame {
                let mut torn = original.clone();
                torn[cut..frame.end].fill(0);
                matrix.case("stale behind", &what, &set(torn), Loss::Synced);
            }
        }
        // All of the synced ones, frame by frame: with the frames go the claims that they were synced.
        for frame in &frames {
            let what = format!("cut before {}", frame.start);
            let cut = set(original[..frame.start].to_vec());
            matrix.case("synced cut off", &what, &cut, Loss::WithItsProof);
            matrix.repaired(&what, &cut, false);
        }
        let tally = |group| matrix.tallies[group];
        for group in ["cut short", "cut to zeros", "stale behind"] {
            assert_eq!(tally(group).reported, 0, "{group}");
        }
        // Up to the checkpoint the snapshot proves it.
        assert!(tally("synced cut off").reported > 0 && tally("synced cut off").cut > 0);
    });
}

#[test]
fn files_that_are_lost_swapped_older_or_of_another_directory_are_told_or_made_good() {
    with_matrix(|matrix| {
        let Template { files, older, other, .. } = matrix.template;
        let without = |path: &str| {
            let mut files = files.clone();
            files.remove(Path::new(path)).unwrap();
            files
        };
        let with = |path: &str, bytes: &[u8]| {
            let mut files = files.clone();
            files.insert(PathBuf::from(path), bytes.to_vec());
            files
        };
        let take = |from: &Files, path: &str| from[Path::new(path)].clone();
        // What is given up only where the log was the only place that had it.
        let cases: Vec<(&'static str, &str, Files, bool)> = vec![
            ("lost", "LOCK", without("LOCK"), true),
            ("lost", "MANIFEST", without("MANIFEST"), true),
            ("lost", SEALED, without(SEALED), false),
            ("lost", ACTIVE, without(ACTIVE), false),
            ("lost", "state.redb", without("state.redb"), true),
            ("emptied", "MANIFEST", with("MANIFEST", b""), true),
            ("emptied", SEALED, with(SEALED, b""), false),
            ("emptied", ACTIVE, with(ACTIVE, b""), false),
            ("emptied", "state.redb", with("state.redb", b""), true),
            ("older", ACTIVE, with(ACTIVE, &take(older, ACTIVE)), false),
            ("older", "state.redb", with("state.redb", &take(older, "state.redb")), true),
            ("other", "MANIFEST", with("MANIFEST", &take(other, "MANIFEST")), true),
            ("other", SEALED, with(SEALED, &take(other, SEALED)), false),
            ("other", ACTIVE, with(ACTIVE, &take(other, ACTIVE)), false),
            ("other", "state.redb", with("state.redb", &take(other, "state.redb")), true),
        ];
        for (group, path, damaged, lossless) in &cases {
            let what = format!("{path} {group}");
            let is_active = *path == ACTIVE && *group == "older";
            let loss = if is_active { Loss::WithItsProof } else { Loss::Synced };
            matrix.case(group, &what, damaged, loss);
            matrix.repaired(&what, damaged, *lossless);
        }
        let mut swapped = files.clone();
        swapped.insert(PathBuf::from(SEALED), take(files, ACTIVE));
        swapped.insert(PathBuf::from(ACTIVE), take(files, SEALED));
        matrix.case("swapped", "two segments", &swapped, Loss::Synced);
        // To give up two whole segments would be wrong: the error says what is to be renamed.
        write(&matrix.dir, &swapped);
        let error = quipu::repair(&matrix.dir, Repair::Apply, |_| {}).unwrap_err();
        assert!(error.to_string().contains("rename it"), "{error}");
        assert!(read(&matrix.dir) == swapped);
        assert_eq!(matrix.tallies["lost"].reported, 3, "the manifest and both segments");
        assert_eq!(matrix.tallies["emptied"].reported, 2);
    });
}

#[test]
fn damage_of_any_size_in_any_place_is_repaired_to_what_is_good() {
    with_matrix(|matrix| {
        let files = matrix.template.files.clone();
        for with_snapshot in [true, false] {
            let mut files = files.clone();
            if !with_snapshot {
                files.remove(Path::new("state.redb"));
            }
            for path in [SEALED, ACTIVE] {
                let bytes = files[Path::new(path)].clone();
                let frames = frames(&bytes);
                let end = frames.last().unwrap().end;
                for (at, frame) in frames.iter().enumerate() {
                    for len in [2, 40, frame.len(), 3 * frame.len()] {
                        let mut damaged = bytes.clone();
                        damaged[frame.start..(frame.start + len).min(end)].fill(0xa5);
                        let mut files = files.clone();
                        files.insert(PathBuf::from(path), damaged);
                        let what = format!("{path}, frame {at}, {len} bytes, {with_snapshot}");
                        matrix.case("overwritten", &what, &files, Loss::WithItsProof);
                        matrix.repaired(&what, &files, false);
                    }
                }
            }
        }
    });
}
