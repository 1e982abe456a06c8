//! All orders of a few threads in small parts of the engine, and all that they may see of a weakly
//! ordered memory.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --features simulation --lib models -- --nocapture`.
//! loom (after Norris and Demsky, "CDSChecker: checking concurrent data structures written with
//! C/C++ atomics", OOPSLA 2013) goes through every order of the operations that depend on each
//! other, and every value stored before that a load may give; where a model says so, through those
//! orders only in which a thread is interrupted a few times. Each model prints how many executions
//! that were. A thread that waits for ever is a failure, too. That they see something is shown by
//! `.ci/models`, which breaks the engine in one place after another.
//!
//! Large scenarios, in some orders only: `interleavings.rs`.

use super::{Fault, OperationKind, SimulatedDisk, Step, Stepped, Survival};
use crate::dictionary::Dictionary;
use crate::disk::{Disk, Filling};
use crate::log::Home;
use crate::log::writer::Writer;
use crate::manifest::{Manifest, StoreName};
use crate::record::{Column, Columns};
use crate::series::Series;
use crate::slots::Slots;
use crate::sync::atomic::AtomicU64;
use crate::sync::atomic::Ordering::{Relaxed, SeqCst};
use crate::sync::{Gate, OnceLock};
use crate::tier::apply::{Scratch, apply_all};
use crate::tier::shard::{Capture, Captured, Lookup};
use crate::tier::{Backfill, ViewTier};
use crate::time::TimeZone;
use crate::{Db, Durability, Event, Options, TestClock, Timestamp, View};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// Words; a thread of the engine needs more than loom's 32 KiB.
const STACK_WORDS: usize = 1 << 16;
/// More than any model takes: one that does is not explored to its end, and fails.
const EXECUTIONS_MAX: usize = 4_000_000;

/// Goes through all orders of `model`; through those only that take a thread off at most so many
/// times, if that is said.
#[expect(clippy::print_stdout, reason = "how much was explored is the result")]
fn explore(name: &str, preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let executions = Arc::new(AtomicUsize::new(0));
    let (model, counter) = (Arc::new(model), executions.clone());
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions.or(builder.preemption_bound);
    builder.max_branches = 100_000;
    builder.max_permutations = Some(EXECUTIONS_MAX);
    builder.checkpoint_interval = 1_000;
    builder.check(move || {
        counter.fetch_add(1, SeqCst);
        let model = model.clone();
        spawn(move || model()).join().expect("done");
    });
    let executions = executions.load(SeqCst);
    assert!(executions < EXECUTIONS_MAX - builder.checkpoint_interval, "{name}: not exhausted");
    let which = builder.preemption_bound.map_or("all orders".to_owned(), |bound| {
        format!("all orders with at most {bound} preemptions")
    });
    println!("{name}: {executions} executions, {which}");
}

fn spawn<T: Send + 'static>(
    run: impl FnOnce() -> T + Send + 'static,
) -> loom::thread::JoinHandle<T> {
    let thread = loom::thread::Builder::new().stack_size(STACK_WORDS);
    thread.spawn(run).expect("a thread")
}

/// Who finds a number sees what it stands for.
#[test]
fn a_number_is_found_after_what_it_stands_for() {
    explore("slots", None, || {
        let slots = Arc::new(Slots::with_room(1));
        let texts: Arc<[OnceLock<u32>; 2]> = Arc::new([OnceLock::new(), OnceLock::new()]);
        let inserter = {
            let (slots, texts) = (slots.clone(), texts.clone());
            // The same tag, so that the second lies behind the first.
            spawn(move || {
                for number in 0..2 {
                    texts[number as usize].set(number + 10).expect("set once");
                    slots.insert(7, number);
                }
            })
        };
        let find = |number: u32| {
            slots.find(7, |other| {
                let text = texts[other as usize].get().expect("set before it is found");
                *text == number + 10
            })
        };
        if find(1).is_some() {
            assert_eq!(find(0), Some(0), "in the order of insertion");
        }
        inserter.join().expect("done");
        assert_eq!((find(0), find(1)), (Some(0), Some(1)));
    });
}

/// Two threads that give numbers to the same strings, one of which makes the table grow, and one
/// that asks: equal strings have equal numbers, and a number has its text.
#[test]
fn a_string_has_one_number_while_the_table_grows() {
    explore("dictionary", Some(3), || {
        let dictionary = Arc::new(Dictionary::new(0));
        let mut reader = dictionary.reader();
        // One more is the last before the table grows.
        for text in ["1", "2", "3", "4"] {
            dictionary.intern(&mut reader, text);
        }
        let threads = [["a", "b"], ["b", "a"]].map(|texts| {
            let dictionary = dictionary.clone();
            spawn(move || {
                let mut reader = dictionary.reader();
                texts.map(|text| {
                    let sym = dictionary.intern(&mut reader, text);
                    assert_eq!(dictionary.text(sym), text);
                    sym
                })
            })
        });
        for text in ["b", "4"] {
            let found = dictionary.find(text);
            assert!(found.is_some() || text == "b");
            assert!(found.is_none_or(|sym| dictionary.text(sym) == text));
        }
        let [[a, b], [b_too, a_too]] = threads.map(|thread| thread.join().expect("done"));
        assert_eq!((a, b, dictionary.len()), (a_too, b_too, 6));
        assert_eq!((dictionary.find("a"), dictionary.find("b")), (Some(a), Some(b)));
    });
}

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// A log with one record, which is synced.
fn log(disk: &SimulatedDisk) -> Writer {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    shared.create_dir(Path::new("log")).expect("made");
    let manifest = Manifest::create(shared.clone(), Path::new("log"), StoreName::REDB, NOW);
    let manifest = manifest.expect("made");
    let home = Home { disk: shared, dir: "log".into(), identity: 1, filling: Filling::Written };
    let writer =
        Writer::start(home, Arc::new(manifest), Arc::new(Dictionary::new(0)), 1 << 14, 0, 1);
    writer.append_control(b"first", NOW).expect("appended");
    writer.sync().expect("synced");
    writer
}

/// The records that a power cut now would leave for certain, each in a frame of its own.
fn synced(disk: &SimulatedDisk) -> u64 {
    let files = disk.power_cut(Survival::None).files();
    let bytes = &files[Path::new("log/0000000001.qlog")];
    bytes.windows(4).filter(|bytes| *bytes == crate::log::frame::MAGIC).count() as u64
}

/// A record and a wait until it is durable; the positions up to it are, then.
fn record_durably(writer: &Writer, disk: &SimulatedDisk) -> crate::Result<()> {
    let position = writer.append_control(b"record", NOW)?.last;
    writer.sync_to(position)?;
    assert!(writer.durable() >= position);
    assert!(synced(disk) >= position, "acknowledged and not synced");
    Ok(())
}

fn group_commit(name: &str, threads: usize, preemptions: Option<usize>) {
    explore(name, preemptions, move || {
        let disk = SimulatedDisk::new(1);
        let writer = Arc::new(log(&disk));
        let others: Vec<_> = (1..threads)
            .map(|_| {
                let (writer, disk) = (writer.clone(), disk.clone());
                spawn(move || record_durably(&writer, &disk).expect("recorded"))
            })
            .collect();
        record_durably(&writer, &disk).expect("recorded");
        for thread in others {
            thread.join().expect("done");
        }
        assert_eq!(writer.durable(), 1 + threads as u64);
    });
}

#[test]
fn two_that_share_a_sync_are_acknowledged_when_it_is_done() {
    group_commit("group commit of two", 2, None);
}

#[test]
fn three_that_share_a_sync_are_acknowledged_when_it_is_done() {
    group_commit("group commit of three", 3, Some(2));
}

/// The first sync of the group fails: those who wait are told so, and whoever comes later; nobody
/// waits for ever.
#[test]
fn a_sync_that_fails_is_nobodys_success() {
    explore("a failing sync", None, || {
        let disk = SimulatedDisk::new(2);
        let writer = Arc::new(log(&disk));
        let syncs = AtomicUsize::new(0);
        disk.plan(move |operation| {
            let first = operation.kind == OperationKind::Sync && syncs.fetch_add(1, SeqCst) == 0;
            first.then_some(Fault::Error(std::io::ErrorKind::Other))
        });
        let other = {
            let (writer, disk) = (writer.clone(), disk.clone());
            spawn(move || record_durably(&writer, &disk).is_err())
        };
        let failed = record_durably(&writer, &disk).is_err();
        let failed = [failed, other.join().expect("done")];
        // The other one may find its record refused, or lost with the sync.
        assert_eq!(failed, [true; 2], "the first sync fails, and no other one is made");
        assert!(writer.check_poison().is_err() && writer.sync_to(1).is_ok());
        assert!(writer.append_control(b"later", NOW).is_err());
    });
}

/// A view by user in memory.
fn tier(dictionary: &Arc<Dictionary>, stored_rows: u64) -> Arc<ViewTier> {
    let view = View::new("by_user").by(["user"]);
    Arc::new(ViewTier::new(
        1,
        view,
        TimeZone::UTC,
        0,
        Backfill::NotAsked,
        dictionary,
        stored_rows,
        0,
    ))
}

/// A single event of each of some users, to be applied one after the other.
fn events(dictionary: &Dictionary, users: &[&str]) -> Vec<Columns> {
    let mut reader = dictionary.reader();
    let mut sym = |text: &str| dictionary.intern(&mut reader, text);
    let (name, dimension) = (sym("event"), sym("user"));
    let mut event = |user: &&str| Columns {
        names: vec![name],
        times: vec![NOW.micros()],
        dims: vec![Column { name: dimension, values: vec![sym(user)] }],
        ..Columns::default()
    };
    users.iter().map(&mut event).collect()
}

fn captured_count(captured: &Captured, tier: &ViewTier) -> u64 {
    let series = match &captured.what {
        Capture::Whole(rows) => Series::decode_row(&rows.series, &tier.plan.shape).expect("whole"),
        Capture::Delta { delta, .. } => return delta.series.as_ref().total().count(),
    };
    series.as_ref().total().count()
}

/// A thread records while a checkpoint makes its cut, walks and settles: it takes every series as it
/// was at the cut, once, and with what the next one takes it is all that was recorded.
fn first_touch(name: &str, stored_rows: u64) {
    const USERS: [&str; 2] = ["a", "b"];
    explore(name, None, move || {
        let dictionary = Arc::new(Dictionary::new(0));
        let tier = tier(&dictionary, stored_rows);
        let events = Arc::new(events(&dictionary, &USERS));
        let syms = USERS.map(|user| dictionary.find(user).expect("recorded"));
        let recorded = Arc::new(Gate::new([0, 0].map(AtomicU64::new)));
        let record = {
            let (tier, events, recorded) = (tier.clone(), events, recorded.clone());
            move |user: usize| {
                let recorded = recorded.enter();
                recorded[user].fetch_add(1, Relaxed);
                apply_all(std::slice::from_ref(&tier), &events[user], &mut Scratch::default());
            }
        };
        let cut = |number: u64| {
            let gate = recorded.close();
            for shard in tier.shards() {
                shard.lock().cut(number);
            }
            [0, 1].map(|user: usize| gate[user].load(Relaxed))
        };
        let walk = |number: u64| {
            let mut captured = Vec::new();
            for shard in tier.shards() {
                let before = captured.len();
                while shard.lock().walk(1, &mut captured) {}
                let slots: Vec<u32> = captured[before..].iter().map(|one| one.slot).collect();
                shard.lock().settle(slots.into_iter(), number, false);
            }
            syms.map(|sym| {
                let of_user = captured.iter().filter(|captured| captured.key.as_slice() == [sym]);
                of_user.map(|captured| captured_count(captured, &tier)).collect::<Vec<u64>>()
            })
        };
        // Both are dirty when the cut comes.
        (record(0), record(1));
        let recorder = spawn({
            let record = record.clone();
            move || [1, 0, 1].map(record)
        });
        let at_cut = cut(1);
        let first = walk(1);
        assert_eq!(first, at_cut.map(|count| vec![count]), "as they were at the cut, once");
        recorder.join().expect("done");
        assert_eq!(cut(2), [2, 3]);
        let second = walk(2);
        for user in [0, 1] {
            let all = [2, 3][user];
            let rest = match stored_rows {
                0 => all,
                // What was captured of a part went out of it.
                _ => all - at_cut[user],
            };
            let expected = if at_cut[user] == all { vec![] } else { vec![rest] };
            assert_eq!(second[user], expected, "{}: what came behind the cut", USERS[user]);
        }
    });
}

#[test]
fn a_whole_series_is_captured_as_it_was_at_the_cut() {
    first_touch("first touch, whole series", 0);
}

#[test]
fn a_part_of_a_series_is_captured_as_it_was_at_the_cut() {
    first_touch("first touch, parts of series", 1);
}

/// Two users, one after the other, are recorded while another thread reads them: whose version is current
/// then is as it was read, and who sees that the second was recorded sees that the first was.
#[test]
fn a_version_is_current_while_what_was_read_is_so() {
    explore("versions", None, || {
        let dictionary = Arc::new(Dictionary::new(0));
        let tier = tier(&dictionary, 0);
        let users = ["a", "b"];
        let events = events(&dictionary, &users);
        let syms = users.map(|user| dictionary.find(user).expect("recorded"));
        let record = |tier: &Arc<ViewTier>, event: &Columns| {
            apply_all(std::slice::from_ref(tier), event, &mut Scratch::default());
        };
        events.iter().for_each(|event| record(&tier, event));
        let recorder = {
            let tier = tier.clone();
            spawn(move || events.iter().for_each(|event| record(&tier, event)))
        };
        let read = syms.map(|sym| {
            let mut count = 0;
            let found = tier.read_at_version(&[sym], |series| {
                count = series.total().count();
                true
            });
            let Lookup::Here(Some(version)) = found else { panic!("it is here") };
            (count, version)
        });
        let is_current = |(_, version)| tier.versions().is_current(version);
        if read[1].0 == 2 || !is_current(read[1]) {
            assert!(read[0].0 == 2 || !is_current(read[0]), "recorded before");
        }
        recorder.join().expect("done");
        assert_eq!(read.map(is_current), read.map(|(count, _)| count == 2));
    });
}

fn open(disk: &SimulatedDisk) -> Stepped {
    let options = Options::new().clock(TestClock::default()).durability(Durability::Memory);
    let options = options.tiny_segments(2_048).view(View::new("all"));
    Stepped::open(options, disk, "db").expect("opens")
}

fn count(db: &Db) -> u64 {
    db.query("all").expect("a view").totals().expect("read").count
}

/// A single event, which is staged.
fn record(db: &Db) {
    db.record(&Event::new("e")).expect("recorded");
}

/// An event that goes into the log and the views at once.
fn record_batch(db: &Db) {
    let mut batch = db.batch();
    batch.push(&Event::new("e")).expect("accepted");
    db.record_batch(&mut batch).expect("recorded");
}

/// The whole engine, one record against one checkpoint: the snapshot and the log behind it are
/// everything once, whichever came first.
fn a_record_and_a_checkpoint(name: &str, record: fn(&Db)) {
    explore(name, Some(2), move || {
        let disk = SimulatedDisk::new(3);
        let engine = open(&disk);
        record(engine.db());
        let db = engine.db().clone();
        let recorder = spawn(move || record(&db));
        engine.run(Step::Checkpoint).expect("written");
        recorder.join().expect("done");
        assert_eq!(count(engine.db()), 2);
        let recovered = open(&disk.kill());
        assert_eq!((count(recovered.db()), recovered.db().statistics().events), (2, 2));
    });
}

#[test]
fn a_batch_is_before_the_cut_or_behind_it() {
    a_record_and_a_checkpoint("a batch and a checkpoint", record_batch);
}

#[test]
fn a_staged_event_is_before_the_cut_or_behind_it() {
    a_record_and_a_checkpoint("a staged event and a checkpoint", record);
}

/// Whoever brings in a staged event, who asks behind its acknowledgement has it in the answer.
#[test]
fn a_question_sees_what_was_staged_before_it() {
    explore("a question, and a staged event that is brought in", Some(2), || {
        let engine = open(&SimulatedDisk::new(4));
        record(engine.db());
        let db = engine.db().clone();
        let bringer = spawn(move || db.sync().expect("synced"));
        assert_eq!(count(engine.db()), 1);
        bringer.join().expect("done");
        assert_eq!(count(engine.db()), 1);
    });
}
