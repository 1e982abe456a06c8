//! Bits that are read wrongly, though they lie there right: no answer is wrong, nothing wrong is
//! written, and as soon as they are read right everything is there.

use crate::number;
use crate::run::{History, Mark, Run, Weather};
use crate::script::{self, Script, Setup};
use quipu::simulation::{Fault, Operation, OperationKind, SimulatedDisk, Stepped};
use quipu::{Db, Error, ErrorKind, Event};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

/// All that an engine says of what is recorded.
#[derive(Debug)]
struct Answers {
    position: u64,
    views: Vec<String>,
}

/// As JSON, without the heavy hitters, whose bounds depend on the order in which keys are merged.
fn told(answer: &impl serde::Serialize) -> String {
    fn leave_out(value: &mut Value) {
        match value {
            Value::Array(values) => {
                values.retain(|value| value.get("top").is_none());
                values.iter_mut().for_each(leave_out);
            }
            Value::Object(fields) => fields.values_mut().for_each(leave_out),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(answer).unwrap();
    leave_out(&mut value);
    value.to_string()
}

impl Answers {
    /// What others say otherwise, in short.
    fn are(&self, others: &Answers, what: &str) {
        assert_eq!(
            (self.position, self.views.len()),
            (others.position, others.views.len()),
            "{what}"
        );
        for (is, was) in self.views.iter().zip(&others.views) {
            if let Some(at) = is.bytes().zip(was.bytes()).position(|(a, b)| a != b) {
                let near = |text: &str| {
                    text.chars().skip(at.saturating_sub(40)).take(120).collect::<String>()
                };
                panic!("{what}: answers differ\n  {}\n  {}", near(is), near(was));
            }
            assert_eq!(is.len(), was.len(), "{what}: answers differ");
        }
    }

    fn of(db: &Db) -> Result<Self, Error> {
        let mut views = Vec::new();
        for status in db.views()? {
            let name = status.view.name();
            let query = match db.query(name) {
                Err(error) if error.kind() == ErrorKind::Backfilling => {
                    views.push(format!("{name} is backfilled"));
                    continue;
                }
                query => query?,
            };
            let rows = query.rows()?.collect::<Result<Vec<_>, _>>()?;
            for row in rows.iter().rev() {
                let key: Vec<&str> = row.key.iter().map(String::as_str).collect();
                assert!(query.get(&key)?.as_ref() == Some(row), "{name}, {key:?}");
                for (grain, _) in status.view.grains() {
                    views.push(told(&query.buckets(&key, *grain)?));
                }
            }
            let (keys, totals) = (query.key_count()?, query.totals()?);
            views.push(format!("{name}: {keys} {} {}", told(&rows), told(&totals)));
        }
        Ok(Answers { position: db.position().get(), views })
    }
}

/// Adds to a stored key of each view, which is merged with its row then.
fn add(db: &Db) -> Result<(), Error> {
    for status in db.views()? {
        let Ok(query) = db.query(status.view.name()) else { continue };
        let Some(row) = query.rows()?.next() else { continue };
        let row = row?;
        let mut event = Event::new("sale").value(0.5);
        for (dimension, value) in status.view.key().iter().zip(&row.key) {
            if dimension != quipu::EVENT_DIMENSION {
                event = event.dim(dimension, value);
            }
        }
        db.record(&event)?;
    }
    Ok(())
}

/// What happens while one bit is read wrongly.
struct Session {
    /// What was answered before and after more was recorded.
    before: Result<Answers, Error>,
    /// Whether all that was to be recorded was, and the checkpoint made.
    done: Result<(), Error>,
}

fn open(setup: &Setup, disk: &SimulatedDisk) -> Result<Stepped, Error> {
    Stepped::open(setup.options(&Setup::clock(0)), disk, "db")
}

fn session(setup: &Setup, disk: &SimulatedDisk) -> Session {
    let engine = match open(setup, disk) {
        Ok(engine) => engine,
        Err(error) => return Session { before: Err(error), done: Ok(()) },
    };
    let db = engine.db();
    let before = Answers::of(db);
    let done = add(db).and_then(|()| db.checkpoint()).and_then(|()| db.close());
    Session { before, done }
}

/// What an error may say of a bit that is not what it was.
fn is_honest(error: &Error) -> bool {
    use ErrorKind::{Corruption, Io, MissingSegment, NewerFormat, NotQuipu, Poisoned, Stopped};
    matches!(
        error.kind(),
        Corruption | Io | MissingSegment | NewerFormat | NotQuipu | Poisoned | Stopped
    )
}

/// A disk on which the engine of a script was closed.
fn closed(script: &Script) -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    let (begin, weather) = (Mark::default(), Weather::Fair);
    let mut run = Run::open(&script.setup, &disk, History::new(), &begin, weather).unwrap();
    for act in &script.acts {
        run.act(act).unwrap();
    }
    run.end();
    disk
}

/// Reads of a disk, counted; of these one is wrong in a bit. The first few are short, which changes
/// nothing but which bit it is.
struct Reads {
    seen: u64,
    short: u64,
    wrong: Option<u64>,
}

impl Reads {
    fn plan(mut self, disk: &SimulatedDisk, all: &Arc<AtomicU64>) {
        let all = Arc::clone(all);
        disk.plan(move |op: &Operation| {
            if op.kind != OperationKind::Read {
                return None;
            }
            self.seen += 1;
            all.store(self.seen, SeqCst);
            if self.seen <= self.short {
                return Some(Fault::Short);
            }
            (self.wrong == Some(self.seen)).then_some(Fault::FlippedBit)
        });
    }
}

/// Has every read be wrong in so many bits, one at a time; gives how often that was, and how often it was
/// noticed.
fn flip(script: &Script, bits: u64) -> (u64, u64) {
    let closed = closed(script);
    let (right, reads) = (closed.kill(), Arc::new(AtomicU64::new(0)));
    Reads { seen: 0, short: 0, wrong: None }.plan(&right, &reads);
    let fair = session(&script.setup, &right);
    fair.done.unwrap();
    let expected = fair.before.unwrap();
    let reads = reads.load(SeqCst);
    let of_image = |image: &SimulatedDisk| {
        let engine = open(&script.setup, image)?;
        let answers = Answers::of(engine.db())?;
        engine.db().close()?;
        Ok::<_, Error>(answers)
    };
    let whole = of_image(&right.kill()).unwrap();

    let (mut flips, mut noticed) = (0, 0);
    for (short, wrong) in (0..bits).flat_map(|short| (1..=reads).map(move |n| (short, short + n))) {
        let place = format!("{}, read {wrong} behind {short} short ones", script.name);
        let image = closed.kill();
        Reads { seen: 0, short, wrong: Some(wrong) }.plan(&image, &Arc::default());
        let Session { before, done } = session(&script.setup, &image);
        flips += 1;
        noticed += u64::from(before.is_err() || done.is_err());
        for error in [before.as_ref().err(), done.as_ref().err()].into_iter().flatten() {
            assert!(is_honest(error), "{place}: {:?}: {error}", error.kind());
        }
        if let Ok(answers) = &before {
            answers.are(&expected, &place);
        }
        let left = of_image(&image.kill()).unwrap_or_else(|error| panic!("{place}: {error}"));
        if before.is_ok() && done.is_ok() {
            left.are(&whole, &format!("{place}: what was recorded"));
        }
        let some = expected.position..=whole.position;
        assert!(some.contains(&left.position), "{place}: {} of {some:?}", left.position);
        if left.position == expected.position {
            left.are(&expected, &format!("{place}: what there was"));
        }
    }
    (flips, noticed)
}

#[test]
fn a_bit_read_wrongly_makes_no_answer_wrong_and_nothing_that_is_written() {
    let bits = number("QUIPU_EXPLORE_FLIPS", 4);
    let (mut flips, mut noticed) = (0, 0);
    for script in script::fixed_scripts() {
        let (of, seen) = flip(&script, bits);
        (flips, noticed) = (flips + of, noticed + seen);
    }
    assert!(flips > 300 * bits / 2 && noticed > flips / 20, "{noticed} of {flips} were noticed");
    println!("{flips} bits were read wrongly, of which {noticed} were noticed");
}
