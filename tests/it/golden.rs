//! Directories written by released versions, opened for ever; and the bytes that are written today.
//!
//! `tests/golden/v1` has two directories of one script: `closed` was closed cleanly, `killed` is what
//! a process left that was killed in the middle of a frame; `backup` is a backup of the first. `wide` and
//! `converted` are of other scripts, which write what the first one does not (`golden/wide.rs`). Their files are
//! compressed; beside them lie the answers. A directory is never written again once its version is
//! released: what is missing is written where `QUIPU_WRITE_GOLDEN` is set, what is there stays
//! (`guide/format.md`, *Versions*).

mod wide;

use crate::directory::{contents, crash_image, segments};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use quipu::{
    Db, Dedup, Durability, ErrorKind, Event, Grain, Keep, Options, ReadOnlyDb, TestClock,
    Timestamp, Upto, View,
};
use redb::{ReadableDatabase, TableDefinition};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

const NAMES: [&str; 4] = ["closed", "killed", "wide", "converted"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(name)
}

fn options(clock: &TestClock) -> Options {
    Options::new()
        .clock(clock.clone())
        .durability(Durability::Memory)
        .checkpoint_every(Duration::from_hours(1))
        .checkpoint_log_bytes(u64::MAX)
        .segment_bytes(64 << 10)
}

fn clock() -> TestClock {
    TestClock::at(Timestamp::parse_rfc3339("2026-02-28T23:30:00Z").unwrap())
}

fn views() -> [View; 6] {
    [
        View::new("by_user")
            .by(["user"])
            .stats("value")
            .grain(Grain::Hour, Keep::Last(48))
            .grain(Grain::Day, Keep::All),
        View::new("by_country_product")
            .by(["country", "product"])
            .only_events(["sale", "return"])
            .stats("value")
            .stats("weight"),
        View::new("filtered")
            .by(["product"])
            .where_equal("country", "FR")
            .where_in("product", ["cup", "pot", "Krüge"])
            .count(),
        View::new("all_grains")
            .stats("value")
            .grain(Grain::Minute, Keep::Last(100))
            .grain(Grain::Hour, Keep::All)
            .grain(Grain::Day, Keep::All)
            .grain(Grain::Week, Keep::Last(3))
            .grain(Grain::Month, Keep::All)
            .grain(Grain::Year, Keep::All),
        View::new("by_event").by(["event"]),
        View::new("gone").by(["user"]),
    ]
}

/// Everything that a record can have, in all the forms of its columns.
fn record(db: &Db, clock: &TestClock, from: u64, to: u64) {
    const USERS: [&str; 6] =
        ["alice", "bob", "Zoë", "a\0b", "", "ünïcødé, much longer than the rest"];
    const PRODUCTS: [&str; 4] = ["cup", "pot", "Krüge", "tea"];
    const VALUES: [f64; 6] = [0.1, -2.5, 1e300, -1e-300, 12_345.678, 0.0];
    let mut batch = db.batch();
    for n in from..to {
        let pick = |from: &[&'static str]| from[(n * 7 % from.len() as u64) as usize];
        let (id, entity) = (format!("id-{}", n % 40), format!("order-{}", n % 9));
        let payload = vec![n as u8; (n % 5) as usize * 300];
        let mut event = Event::new(["sale", "return", "visit"][(n % 3) as usize]);
        if n % 4 != 1 {
            let back = Duration::from_mins(n * n * 37 % 600_000);
            event = event.at(clock.at_present().saturating_sub(back));
        }
        if n % 6 != 5 && !pick(&USERS).is_empty() {
            event = event.dim("user", pick(&USERS));
        }
        event = event.dim("product", pick(&PRODUCTS));
        if n % 2 == 0 {
            event = event.dim("country", if n % 8 == 0 { "FR" } else { "DE" });
        }
        if n % 7 != 0 {
            event = event.value(VALUES[(n % 6) as usize]);
        }
        if n % 5 == 0 {
            event = event.measure("weight", n as f64 / 8.0);
        }
        if n % 3 == 0 {
            event = event.id(&id);
        }
        if n % 4 == 0 {
            event = event.entity(&entity);
        }
        if n % 5 != 0 {
            event = event.payload(&payload);
        }
        if n % 10 < 7 {
            batch.push(&event).unwrap();
            continue;
        }
        db.record_batch(&mut batch).unwrap();
        clock.advance(Duration::from_secs(61));
        db.record(&event).unwrap();
    }
    db.record_batch(&mut batch).unwrap();
}

trait AtPresent {
    fn at_present(&self) -> Timestamp;
}

impl AtPresent for TestClock {
    fn at_present(&self) -> Timestamp {
        quipu::Clock::now(self)
    }
}

/// Writes a directory as a process leaves it that dies at the end; gives its open engine, too.
fn script(dir: &Path, clock: &TestClock) -> Db {
    let db = options(clock).dedup(Dedup::Last(25)).open(dir).unwrap();
    for view in views() {
        db.define(view).unwrap();
    }
    record(&db, clock, 0, 150);
    db.checkpoint().unwrap();
    record(&db, clock, 150, 200);
    db.drop_view("gone").unwrap();
    db.close().unwrap();
    drop(db);
    clock.advance(Duration::from_hours(3));
    let db = options(clock).dedup(Dedup::For(Duration::from_mins(30))).open(dir).unwrap();
    db.define(View::new("late").by(["product"]).stats("weight").grain(Grain::Week, Keep::All))
        .unwrap();
    db.backfill("late", |_| ControlFlow::Continue(())).unwrap();
    record(&db, clock, 200, 330);
    db.define(View::new("unfilled")).unwrap();
    let mut steps = 0;
    let some = |_| {
        steps += 1;
        if steps < 9 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    db.backfill("unfilled", some).unwrap();
    db.checkpoint().unwrap();
    record(&db, clock, 330, 400);
    db
}

/// What there is to ask.
fn answers(dir: &Path) -> Value {
    let db = options(&clock()).open(dir).unwrap();
    let views = db.views().unwrap();
    let view = |status: &quipu::ViewStatus| {
        let query = match db.query(status.view.name()) {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Backfilling);
                return json!([status.view.to_string(), status.backfill]);
            }
            Ok(query) => query,
        };
        let rows: Vec<_> = query.rows().unwrap().map(Result::unwrap).collect();
        let buckets = |row: &quipu::Row| {
            let key: Vec<&str> = row.key.iter().map(String::as_str).collect();
            let grains = status.view.grains().iter();
            grains.map(|(grain, _)| query.buckets(&key, *grain).unwrap()).collect::<Vec<_>>()
        };
        let rows: Vec<Value> = rows.iter().map(|row| json!([row, buckets(row)])).collect();
        json!([
            status.view.to_string(),
            status.keys,
            status.defined_at,
            rows,
            query.totals().unwrap()
        ])
    };
    let views: Vec<Value> = views.iter().map(view).collect();
    let known = statistics(&db);
    let wide = wide::answers(&db);
    // What a window of ids has, and what came too late for it: asked of a copy, for it records.
    let copy = dir.with_extension("copy");
    crash_image(dir, &copy);
    let asked = options(&clock()).open(&copy).unwrap();
    let duplicates: Vec<usize> = (0..40)
        .filter(|n| asked.record(&Event::new("x").id(&format!("id-{n}"))).unwrap().duplicate)
        .collect();
    // The log has everything: what a view that comes late finds in it.
    asked
        .define(View::new("found").by(["user", "product"]).stats("value").stats("weight"))
        .unwrap();
    let found = asked.backfill("found", |_| ControlFlow::Continue(())).map(|_| {
        let found = asked.query("found").unwrap();
        found.rows().unwrap().map(Result::unwrap).collect::<Vec<_>>()
    });
    let found = found.map_err(|error| format!("{:?}", error.kind()));
    let filled = asked.backfill("unfilled", |_| ControlFlow::Continue(())).ok();
    let filled = filled.map(|_| asked.query("unfilled").unwrap().totals().unwrap());
    let told = wide::bundle_of(dir).exists().then(|| wide::told_again(&asked, dir));
    drop(asked);
    fs::remove_dir_all(&copy).unwrap();
    db.close().unwrap();
    exactly(json!({
        "views": views, "known": known, "duplicates": duplicates, "found": found, "filled": filled,
        "wide": [wide, told],
    }))
}

/// With floats as texts, which are read back exactly.
fn exactly(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => Value::String(number.to_string()),
        Value::Array(values) => Value::Array(values.into_iter().map(exactly).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (name, exactly(value))).collect())
        }
        value => value,
    }
}

fn statistics(db: &Db) -> Value {
    let known = db.statistics();
    json!([known.events, known.position, known.late, known.duplicates, known.last_checkpoint])
}

fn unpack(name: &str, to: &Path) {
    let from = golden(name);
    fs::create_dir_all(to.join("log")).unwrap();
    if name == "wide" {
        let mut bytes = Vec::new();
        let bundle = fs::File::open(golden("wide.bundle.gz")).unwrap();
        GzDecoder::new(bundle).read_to_end(&mut bytes).unwrap();
        fs::write(wide::bundle_of(to), bytes).unwrap();
    }
    for folder in ["", "log"] {
        for entry in fs::read_dir(from.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "gz") {
                let mut bytes = Vec::new();
                GzDecoder::new(fs::File::open(&path).unwrap()).read_to_end(&mut bytes).unwrap();
                let file = path.with_extension("");
                fs::write(to.join(folder).join(file.file_name().unwrap()), bytes).unwrap();
            }
        }
    }
}

fn pack(dir: &Path, name: &str) {
    let put = |path: &Path, bytes: &[u8]| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = fs::File::create_new(path).unwrap();
        let mut out = GzEncoder::new(file, Compression::best());
        out.write_all(bytes).unwrap();
        out.finish().unwrap();
    };
    for (path, bytes) in contents(dir) {
        let file = path.strip_prefix(dir).unwrap().to_str().unwrap();
        if let Some(bytes) = bytes.filter(|_| file != "LOCK") {
            put(&golden(name).join(format!("{file}.gz")), &bytes);
        }
    }
    match name {
        "backup" => return,
        "wide" => put(&golden("wide.bundle.gz"), &fs::read(wide::bundle_of(dir)).unwrap()),
        _ => {}
    }
    let answers = serde_json::to_string(&answers(dir)).unwrap();
    put(&golden(&format!("{name}.answers.json.gz")), answers.as_bytes());
}

fn expected(name: &str) -> Value {
    let file = fs::File::open(golden(&format!("{name}.answers.json.gz"))).unwrap();
    serde_json::from_reader(GzDecoder::new(file)).unwrap()
}

/// Writes the directories that are missing.
fn write_missing() {
    let root = tempfile::tempdir().unwrap();
    let quietly = |_| ControlFlow::Continue(());
    for name in NAMES.into_iter().chain(["backup"]).filter(|name| !golden(name).exists()) {
        let (dir, image, clock) =
            (root.path().join(name), root.path().join(format!("{name} image")), clock());
        let script = match name {
            "wide" => wide::script,
            "converted" => wide::converted,
            _ => script,
        };
        let db = script(&dir, &clock);
        if name != "killed" && name != "backup" {
            db.close().unwrap();
            pack(&dir, name);
            continue;
        }
        if name == "backup" {
            db.close().unwrap();
            ReadOnlyDb::open(&dir).unwrap().backup(&image, quietly).unwrap();
            pack(&image, name);
            continue;
        }
        crash_image(&dir, &image);
        // A frame of which the first half is there.
        let before = used(&image);
        record(&db, &clock, 400, 407);
        fs::remove_dir_all(&image).unwrap();
        crash_image(&dir, &image);
        let (path, mut bytes, end) = used(&image);
        assert!(path == before.0 && end > before.2 + 200, "the frame is in the same segment");
        bytes[usize::midpoint(before.2, end)..].fill(0);
        fs::write(&path, bytes).unwrap();
        pack(&image, name);
    }
}

/// The last segment that is not blank, and where its bytes end.
fn used(dir: &Path) -> (PathBuf, Vec<u8>, usize) {
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        (path, bytes, end)
    };
    segments(dir).into_iter().map(read).rfind(|(_, _, end)| *end > 64).unwrap()
}

#[test]
fn what_released_versions_wrote_is_opened_with_every_answer() {
    if std::env::var_os("QUIPU_WRITE_GOLDEN").is_some() {
        write_missing();
    }
    for name in NAMES {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("db");
        unpack(name, &dir);
        let expected = expected(name);
        let reader = ReadOnlyDb::open(&dir).unwrap();
        for view in reader.views().unwrap() {
            let text = view.view.to_string();
            let views = expected["views"].as_array().unwrap();
            let there = views.iter().find(|there| there[0] == json!(text)).unwrap();
            if view.backfill.is_none() {
                let totals = reader.query(view.view.name()).unwrap().totals().unwrap();
                let got = exactly(json!([view.keys, totals]));
                assert_eq!(got, json!([there[1], there[4]]), "{text}");
            }
        }
        drop(reader);
        let got = answers(&dir);
        for part in ["views", "known", "duplicates", "found", "filled", "wide"] {
            assert!(got[part] == expected[part], "{part} of {name}: {}", got[part]);
        }
        // And again, now that this version has written to it.
        let again = answers(&dir);
        assert!(again["views"] == expected["views"], "{name}: {}", again["views"]);
        let backup = root.path().join("backup");
        let db = options(&clock()).open(&dir).unwrap();
        record(&db, &clock(), 0, 30);
        db.backup(&backup, |_| ControlFlow::Continue(())).unwrap();
    }
    let root = tempfile::tempdir().unwrap();
    let (backup, dir) = (root.path().join("backup"), root.path().join("db"));
    unpack("backup", &backup);
    quipu::restore(&backup, &dir, Upto::Everything, |_| ControlFlow::Continue(())).unwrap();
    assert!(answers(&dir) == expected("closed"), "what was backed up was the one that was closed");
    let views = expected("closed")["views"].as_array().unwrap().len();
    assert_eq!(views, 7, "one was dropped, two came late");
}

/// A frame as `guide/format.md` has it.
#[derive(Clone, Debug, PartialEq)]
struct Frame {
    kind: u32,
    records: u32,
    position: u64,
    synced: u64,
    written_at: u64,
    body: Vec<u8>,
    definitions: Vec<u8>,
}

/// The frames with records of all segments of a closed directory.
fn frames(dir: &Path) -> Vec<Frame> {
    let mut frames = Vec::new();
    for path in segments(dir) {
        let bytes = fs::read(path).unwrap();
        assert!(bytes.starts_with(b"QUIPULOG\x01\0\0\0"));
        let mut at = 64;
        while at < bytes.len() {
            let word = |offset: usize| {
                u32::from_le_bytes(bytes[at + offset..at + offset + 4].try_into().unwrap())
            };
            let wide = |offset: usize| u64::from(word(offset)) | u64::from(word(offset + 4)) << 32;
            assert_eq!((&bytes[at..at + 4], word(48) as usize * 8), (&b"QFR1"[..], at));
            let body_end = at + 56 + word(12) as usize;
            let end = body_end + word(16) as usize;
            frames.push(Frame {
                kind: word(52),
                records: word(20),
                position: wide(24),
                synced: wide(32),
                written_at: wide(40),
                body: bytes[at + 56..body_end].to_vec(),
                definitions: bytes[body_end..end].to_vec(),
            });
            at = end.next_multiple_of(8);
        }
    }
    frames.retain(|frame| frame.records > 0);
    frames
}

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// The rows of a table of the snapshot.
fn table(dir: &Path, name: &str) -> Rows {
    let copy = dir.join("state.copy");
    fs::copy(dir.join("state.redb"), &copy).unwrap();
    let store = redb::Database::open(&copy).unwrap();
    let definition = TableDefinition::<&[u8], &[u8]>::new(name);
    let rows = store.begin_read().unwrap().open_table(definition).unwrap();
    let rows = rows.range::<&[u8]>(..).unwrap().map(Result::unwrap);
    let rows = rows.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).collect();
    drop(store);
    fs::remove_file(copy).unwrap();
    rows
}

/// Frames that are in the first segment however many witnesses there are.
const FIRST_FRAMES: usize = 60;

/// Which segment a frame is in, its salt and identity are of chance; all else is the same bytes.
#[test]
fn the_bytes_written_today_are_those_of_the_format() {
    let root = tempfile::tempdir().unwrap();
    let (then, now) = (root.path().join("then"), root.path().join("now"));
    let others =
        [("wide", wide::script as fn(&Path, &TestClock) -> Db), ("converted", wide::converted)];
    for (name, script) in others {
        unpack(name, &then);
        script(&now, &clock()).close().unwrap();
        for rows in ["series", "buckets"] {
            let (now, then) = (table(&now, rows), table(&then, rows));
            assert!(now == then && now.len() > 1, "{} {rows} of {name}", then.len());
        }
        for dir in [&then, &now] {
            fs::remove_dir_all(dir).unwrap();
        }
    }
    unpack("closed", &then);
    script(&now, &clock()).close().unwrap();
    let (then_frames, now_frames) = (frames(&then), frames(&now));
    assert_eq!(now_frames.len(), then_frames.len());
    assert!(now_frames.len() > 100);
    for (n, (now, then)) in now_frames.iter().zip(&then_frames).enumerate() {
        // A witness that a slow machine has time to write moves the end of a segment by a frame, and
        // the next one defines its strings again from there. The first segment is as it was.
        let definitions = if n < FIRST_FRAMES { &then.definitions } else { &now.definitions };
        assert_eq!(now, &Frame { definitions: definitions.clone(), ..then.clone() });
    }
    for (name, least) in [("series", 15), ("buckets", 15), ("ids", 3)] {
        let (now, then) = (table(&now, name), table(&then, name));
        assert!(then.len() > least, "{} rows of {name}", then.len());
        assert_eq!(now, then, "{name}");
    }
    assert_eq!(table(&now, "meta").len(), 1);
    let manifest = |dir: &Path| {
        let bytes = fs::read(dir.join("MANIFEST")).unwrap();
        // Without checksum, identity and the number of segments, one of which is made in advance.
        [&bytes[..12], &bytes[32..40], &bytes[48..]].concat()
    };
    assert_eq!(manifest(&now), manifest(&then));
}
