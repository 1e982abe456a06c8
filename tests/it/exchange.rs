//! Replicas tell each other what they recorded: every event counts once, however it comes.

use crate::directory::{NOW, contents, crash_image, options, record_alone, segments};
use proptest::prelude::*;
use quipu::{
    Bucket, Bundle, Cursor, Db, Dedup, Depth, ErrorKind, Event, Grain, ImportOptions, Keep,
    Options, ReadOnlyDb, Repair, Retention, Row, TestClock, Timestamp, Upto, View,
};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

fn views() -> [View; 4] {
    [
        View::new("by_user").by(["user"]).stats("value"),
        View::new("counters").by(["event"]).grain(Grain::Hour, Keep::Last(48)),
        View::new("days")
            .stats("value")
            .grain(Grain::Minute, Keep::Last(90))
            .grain(Grain::Day, Keep::All),
        View::new("pots").by(["user", "product"]).where_equal("product", "pot"),
    ]
}

fn define(db: &Db, which: impl IntoIterator<Item = usize>) {
    for which in which {
        db.define(views()[which].clone()).unwrap();
    }
}

/// Events that have something of everything; the `n`th one of a device is the same wherever it is.
fn with_event<R>(device: u64, n: u64, take: impl FnOnce(Event<'_>) -> R) -> R {
    let (user, id) = (format!("user{}", n % 5), format!("{device}-{n}"));
    let payload = [n as u8; 3];
    let at = Timestamp::from_secs(NOW - 50_000 + (device * 7_919 + n * 613) as i64 % 49_000);
    let mut event = Event::new(["sale", "visit", "Größe"][(n % 3) as usize]).dim("user", &user);
    event = event.at_about(at, Duration::from_secs(if n % 7 == 6 { 90 } else { 0 }));
    if n.is_multiple_of(2) {
        event = event.dim("product", if n.is_multiple_of(4) { "pot" } else { "cup" });
    }
    if n % 3 != 1 {
        event = event.value(device as f64 * 0.1 + n as f64 * 1e-3);
    }
    if n.is_multiple_of(5) {
        event = event.times(1 + n % 11);
    }
    if n % 4 == 3 {
        event = event.id(&id).entity("cart").payload(&payload);
    }
    take(event)
}

/// Some alone, some in batches.
fn record(db: &Db, device: u64, events: Range<u64>) {
    let mut batch = db.batch();
    for n in events {
        with_event(device, n, |event| match n % 9 {
            0..3 => batch.push(&event).unwrap(),
            3 => {
                db.record_batch(&mut batch).unwrap();
                batch.push(&event).unwrap();
            }
            _ => {
                db.record(&event).unwrap();
            }
        });
    }
    db.record_batch(&mut batch).unwrap();
}

/// What the views answer that are there.
fn answers(db: &Db) -> Vec<(String, Vec<Row>, Vec<Vec<Bucket>>)> {
    let mut answers = Vec::new();
    for status in db.views().unwrap() {
        let query = db.query(status.view.name()).unwrap();
        let rows: Vec<Row> = query.rows().unwrap().map(Result::unwrap).collect();
        let of_key = |row: &Row| {
            let key: Vec<&str> = row.key.iter().map(String::as_str).collect();
            let grains = status.view.grains().iter();
            grains.map(|(grain, _)| query.buckets(&key, *grain).unwrap()).collect::<Vec<_>>()
        };
        let buckets = rows.iter().flat_map(of_key).collect();
        answers.push((status.view.to_string(), rows, buckets));
    }
    answers
}

/// Directories below one that is removed at the end.
struct Devices(TempDir);

impl Devices {
    fn new() -> Self {
        Devices(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open(&self, name: &str) -> Db {
        options().open(self.path(name)).unwrap()
    }

    /// One that was told everything in the simplest way.
    fn expected(&self, name: &str, views: Range<usize>, events: &[(u64, Range<u64>)]) -> Db {
        let db = self.open(name);
        define(&db, views);
        for (device, events) in events {
            record(&db, *device, events.clone());
        }
        db
    }
}

fn all(db: &Db) -> Bundle {
    db.export(&Cursor::beginning()).unwrap()
}

fn quietly(_: quipu::Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[track_caller]
fn is_intact(dir: &Path) {
    let report = quipu::verify(dir, Depth::Refold, |_| {}).unwrap();
    assert!(report.is_intact() && report.views.iter().all(|view| view.refolded), "{report:?}");
}

/// Every order of these.
fn orders(of: &[usize]) -> Vec<Vec<usize>> {
    let mut orders = Vec::new();
    let Some(last) = of.iter().max() else { return vec![Vec::new()] };
    for first in 0..=*last {
        if let Some(at) = of.iter().position(|one| *one == first) {
            let mut rest = of.to_vec();
            rest.remove(at);
            orders.extend(orders_of(first, &rest));
        }
    }
    orders
}

fn orders_of(first: usize, rest: &[usize]) -> Vec<Vec<usize>> {
    orders(rest).into_iter().map(|order| [&[first], order.as_slice()].concat()).collect()
}

#[test]
fn bundles_in_every_order_and_twice_leave_the_same_answers() {
    let devices = Devices::new();
    let counts = [40, 25, 33];
    let known: Vec<(u64, Range<u64>)> = counts.iter().zip(0..).map(|(n, d)| (d, 0..*n)).collect();
    let mut bundles = Vec::new();
    for (device, events) in &known {
        let db = devices.open(&format!("device{device}"));
        // Each has views of its own.
        define(&db, [0, 1, 2, 3].into_iter().skip(*device as usize));
        record(&db, *device, events.clone());
        bundles.push(all(&db).to_bytes());
    }
    let expected = answers(&devices.expected("expected", 0..4, &known));
    let orders = orders(&[0, 0, 1, 1, 2, 2]);
    assert_eq!(orders.len(), 90);
    for (n, order) in orders.iter().enumerate() {
        // A new one, and each of the three, as it was when it had met nobody.
        let receiver = n % 4;
        let name = format!("receiver{n}");
        if receiver < 3 {
            crash_image(&devices.path(&format!("device{receiver}")), &devices.path(&name));
        }
        let db = devices.open(&name);
        let (mut imported, mut there) = (0, 0);
        for which in order {
            let bundle = Bundle::from_bytes(&bundles[*which]).unwrap();
            let outcome = db.import(&bundle).unwrap();
            assert_eq!(outcome.imported + outcome.already_there, bundle.events());
            (imported, there) = (imported + outcome.imported, there + outcome.already_there);
        }
        let own = if receiver < 3 { counts[receiver] } else { 0 };
        assert_eq!((imported, there), (98 - own, 98 + own), "{order:?}");
        assert_eq!(db.statistics().events, 98);
        define(&db, 0..4);
        for view in views() {
            db.backfill(view.name(), quietly).unwrap();
        }
        let of = |mut answers: Vec<(String, Vec<Row>, Vec<Vec<Bucket>>)>| {
            answers.sort_by(|a, b| a.0.cmp(&b.0));
            answers
        };
        assert_eq!(of(answers(&db)), of(expected.clone()), "{order:?}");
        if n % 10 == 0 {
            db.close().unwrap();
            is_intact(&devices.path(&name));
        }
    }
}

/// Six tellings among three, in an order drawn from all 720, and each twice: then all know all.
#[test]
fn three_that_tell_each_other_in_any_order_and_twice_know_the_same() {
    let devices = Devices::new();
    let known: Vec<(u64, Range<u64>)> = [(0, 0..40), (1, 0..25), (2, 0..33)].to_vec();
    let expected = answers(&devices.expected("expected", 0..4, &known));
    for (device, events) in &known {
        let db = devices.open(&format!("device{device}"));
        define(&db, 0..4);
        record(&db, *device, events.clone());
    }
    let pairs = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)];
    let orders = orders(&[0, 1, 2, 3, 4, 5]);
    assert_eq!(orders.len(), 720);
    for (n, order) in orders.iter().step_by(89).enumerate() {
        let open = |device: usize| {
            let name = format!("order{n}device{device}");
            crash_image(&devices.path(&format!("device{device}")), &devices.path(&name));
            devices.open(&name)
        };
        let three = [open(0), open(1), open(2)];
        for _ in 0..2 {
            for which in order {
                let (from, to) = pairs[*which];
                let bundle = all(&three[from]);
                let first = three[to].import(&bundle).unwrap();
                let again = three[to].import(&bundle).unwrap();
                assert_eq!((again.imported, again.already_there), (0, bundle.events()));
                assert_eq!(first.imported + first.already_there, bundle.events());
            }
        }
        for db in &three {
            assert_eq!(answers(db), expected, "{order:?}");
            assert_eq!(db.statistics().events, 98);
        }
    }
}

#[test]
fn views_that_are_there_count_what_is_imported_at_once() {
    let devices = Devices::new();
    let (phone, laptop) = (devices.open("phone"), devices.open("laptop"));
    define(&laptop, 0..4);
    record(&phone, 1, 0..50);
    record(&laptop, 2, 0..50);
    let outcome = laptop.import(&all(&phone)).unwrap();
    assert_eq!((outcome.imported, outcome.already_there), (50, 0));
    assert_eq!(outcome.replicas, [phone.replica()]);
    assert_eq!(outcome.position, laptop.position());
    assert_eq!(laptop.durable_position(), laptop.position());
    let expected = devices.expected("expected", 0..4, &[(1, 0..50), (2, 0..50)]);
    assert_eq!(answers(&laptop), answers(&expected));
    // After a kill, from the log; then from the snapshot.
    crash_image(&devices.path("laptop"), &devices.path("image"));
    let image = devices.open("image");
    assert_eq!(answers(&image), answers(&expected));
    image.close().unwrap();
    is_intact(&devices.path("image"));
    let again = devices.open("image");
    assert_eq!(answers(&again), answers(&expected));
    let outcome = again.import(&all(&phone)).unwrap();
    assert_eq!((outcome.imported, outcome.already_there), (0, 50));
    assert_eq!(answers(&again), answers(&expected));
}

#[test]
fn bundles_travel_on_under_their_first_names() {
    let devices = Devices::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| devices.open(name));
    record(&a, 0, 0..20);
    record(&b, 1, 0..20);
    b.import(&all(&a)).unwrap();
    record(&b, 1, 20..30);
    let outcome = c.import(&all(&b)).unwrap();
    assert_eq!(outcome.imported, 50);
    assert_eq!(outcome.replicas.len(), 2);
    for from in [&a, &b] {
        assert_eq!(c.import(&all(from)).unwrap().imported, 0);
    }
    // And home again.
    let outcome = a.import(&all(&c)).unwrap();
    assert_eq!((outcome.imported, outcome.already_there), (30, 20));
    assert_eq!(b.import(&all(&a)).unwrap().imported, 0);
}

#[test]
fn an_export_goes_on_where_the_one_before_ended() {
    let devices = Devices::new();
    let b = devices.open("b");
    define(&b, 0..4);
    assert_eq!(all(&b).cursor().position(), b.position());
    assert_eq!(all(&devices.open("a")).cursor(), Cursor::beginning());
    let mut cursor = Cursor::beginning();
    for round in 0..6 {
        let db = devices.open("a");
        record(&db, 0, round * 10..round * 10 + 10);
        let text = cursor.to_string();
        let bundle = db.export(&text.parse().unwrap()).unwrap();
        assert_eq!((bundle.since(), bundle.events()), (cursor, 10), "round {round}");
        cursor = bundle.cursor();
        assert_eq!(cursor, db.cursor());
        assert_eq!(db.export(&cursor).unwrap().events(), 0);
        // The third one gets lost, and is told again with the fourth.
        if round != 2 {
            let since = if round == 3 { Cursor::beginning() } else { bundle.since() };
            b.import(&db.export(&since).unwrap()).unwrap();
        }
        define(&db, [round as usize % 4]);
        if round % 2 == 0 {
            db.close().unwrap();
        }
    }
    assert_eq!(answers(&b), answers(&devices.expected("expected", 0..4, &[(0, 0..60)])));
    let other = b.cursor();
    let a = devices.open("a");
    for (cursor, why) in [
        (other, "not one of this directory"),
        (format!("{}:9999", a.replica()).parse().unwrap(), "ahead"),
    ] {
        let error = a.export(&cursor).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn a_large_log_is_told_in_parts() {
    let devices = Devices::new();
    let (a, b) = (devices.open("a"), devices.open("b"));
    record(&a, 0, 0..2_000);
    let (mut cursor, mut parts) = (Cursor::beginning(), 0);
    let mut file = Vec::new();
    loop {
        let bundle = a.export_some(&cursor, 4_000).unwrap();
        if bundle.cursor() == cursor {
            break;
        }
        assert!(bundle.to_bytes().len() < 30_000);
        bundle.write_to(&mut file).unwrap();
        (cursor, parts) = (bundle.cursor(), parts + 1);
    }
    assert!(parts > 10, "{parts}");
    assert_eq!(cursor, a.cursor());
    let mut input = file.as_slice();
    while let Some(bundle) = Bundle::read_from(&mut input).unwrap() {
        b.import(&bundle).unwrap();
    }
    assert_eq!(b.statistics().events, 2_000);
    // Cut anywhere it is damaged, or whole bundles.
    for end in (0..file.len()).step_by(997) {
        let mut input = &file[..end];
        let mut whole = 0;
        while let Ok(Some(bundle)) = Bundle::read_from(&mut input) {
            whole += bundle.to_bytes().len();
        }
        assert!(whole <= end);
    }
}

#[test]
fn text_and_bytes_hold_the_same() {
    let devices = Devices::new();
    let a = devices.open("a");
    record(&a, 0, 0..100);
    for value in [1e300, -0.0, 5e-324, f64::MAX, 0.1, 1.0 / 3.0] {
        record_alone(&a, Event::new("exact").value(value).times(u64::MAX));
    }
    let bundle = all(&a);
    let text = serde_json::to_string(&bundle).unwrap();
    let read: Bundle = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    let carried = Bundle::from_bytes(&read.to_bytes()).unwrap();
    assert_eq!(serde_json::to_string(&carried).unwrap(), text);
    assert_eq!((carried.since(), carried.cursor()), (bundle.since(), bundle.cursor()));
    let (b, c) = (devices.open("b"), devices.open("c"));
    define(&b, 0..4);
    define(&c, 0..4);
    b.import(&bundle).unwrap();
    c.import(&carried).unwrap();
    assert_eq!(answers(&b), answers(&c));
    // Payloads and ids, too.
    assert_eq!(
        serde_json::to_value(all(&b)).unwrap()["frames"],
        serde_json::to_value(all(&c)).unwrap()["frames"]
    );
    assert_eq!(c.import(&bundle).unwrap().imported, 0);
}

#[test]
fn bytes_that_are_no_bundle_are_refused_and_change_nothing() {
    let devices = Devices::new();
    let a = devices.open("a");
    record(&a, 0, 0..12);
    let good = all(&a).to_bytes();
    let refused = |bytes: &[u8]| {
        let error = Bundle::from_bytes(bytes).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    };
    refused(b"");
    refused(b"{}");
    refused(&[&good[..], b"x"].concat());
    for end in 0..good.len() {
        refused(&good[..end]);
    }
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        refused(&bytes);
    }
    let mut newer = good.clone();
    newer[16] = 2;
    let mut sum = crc32fast::Hasher::new();
    sum.update(b"bundle");
    sum.update(&[2]);
    sum.update(&newer[21..]);
    newer[17..21].copy_from_slice(&sum.finalize().to_le_bytes());
    assert_eq!(Bundle::from_bytes(&newer).unwrap_err().kind(), ErrorKind::NewerFormat);

    let text = serde_json::to_string(&all(&a)).unwrap();
    let cases = [
        (text.replace("\"format\":1", "\"format\":2"), "newer"),
        (text.replace("\"format\":1", "\"format\":1,\"x\":0"), "unknown field"),
        (text.replace("\"first\":", "\"first\":0,\"was\":"), "unknown field"),
        (text.replace("\"event\":\"sale\"", "\"event\":\"\""), "name is empty"),
        (text.replace("\"user0\"", "\"user0\",\"event\":\"x\""), "event's own name"),
        (text.replace("\"user\":", "\"\":"), "name is empty"),
        (text.replace("\"times\":6", "\"times\":0"), "stands for 0"),
        (text.replace("\"0.005\"", "\"NaN\""), "finite"),
        (text.replace("\"0.005\"", "\"much\""), "no number"),
        (text.replace("\"replica\":\"", "\"replica\":\"0"), "no id of a replica"),
        (text.replace("\"030303\"", "\"0303031\""), "hexadecimal"),
        (text.replace("\"first\":1,", "\"first\":1,\"empty\":1,"), "the origin of a frame"),
        (text.replace("\"first\":1,", "\"first\":0,"), "the origin of a frame"),
        (text.replace("\"first\":1,", "\"first\":9223372036854775807,"), "the origin of a frame"),
    ];
    for (text, why) in cases {
        let error = serde_json::from_str::<Bundle>(&text).unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
    }
}

#[test]
fn events_of_the_future_are_refused_as_a_whole_unless_allowed() {
    let devices = Devices::new();
    let ahead = TestClock::at(Timestamp::from_secs(NOW + 10 * 86_400));
    let a = Options::new().clock(ahead).open(devices.path("a")).unwrap();
    record(&a, 0, 0..30);
    record_alone(&a, Event::new("sale").dim("user", "a"));
    let bundle = all(&a);
    let b = devices.open("b");
    define(&b, 0..4);
    let before = (answers(&b), contents(&devices.path("b")));
    let error = b.import(&bundle).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("future"), "{error}");
    assert_eq!((answers(&b), contents(&devices.path("b"))), before);
    let allowed = ImportOptions::new().allow_ahead();
    assert_eq!(b.import_with(&bundle, &allowed).unwrap().imported, 31);
    // What is here is not asked about again.
    assert_eq!(b.import(&bundle).unwrap().already_there, 31);
}

#[test]
fn the_window_of_ids_is_not_asked_about_events_of_others() {
    let devices = Devices::new();
    let open = |name| options().dedup(Dedup::Last(100)).open(devices.path(name)).unwrap();
    let (a, b) = (open("a"), open("b"));
    define(&b, [1]);
    for db in [&a, &b] {
        db.record(&Event::new("sale").id("order 1")).unwrap();
    }
    assert_eq!(b.import(&all(&a)).unwrap().imported, 1, "it is another event of that id");
    a.record(&Event::new("sale").id("order 2")).unwrap();
    b.import(&all(&a)).unwrap();
    for _ in 0..2 {
        // In the order of before and after a replay.
        assert!(b.record(&Event::new("sale").id("order 1")).unwrap().duplicate);
    }
    crash_image(&devices.path("b"), &devices.path("image"));
    let image = open("image");
    assert!(!image.record(&Event::new("sale").id("order 2")).unwrap().duplicate);
    assert!(!b.record(&Event::new("sale").id("order 2")).unwrap().duplicate);
}

#[test]
fn what_was_retired_cannot_be_told() {
    let devices = Devices::new();
    let dir = devices.path("a");
    let a = options().retention(Retention::Recovery).open(&dir).unwrap();
    record(&a, 0, 0..3_000);
    let half = a.export(&Cursor::beginning()).unwrap().cursor();
    a.checkpoint().unwrap();
    a.checkpoint().unwrap();
    record(&a, 0, 3_000..3_010);
    let error = a.export(&Cursor::beginning()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LogRetired, "{error}");
    assert!(error.to_string().contains("this export"), "{error}");
    assert_eq!(a.export(&half).unwrap().events(), 10);
}

#[test]
fn others_are_known_when_the_log_is_retired() {
    let devices = Devices::new();
    let a = devices.open("a");
    record(&a, 0, 0..2_000);
    let b = options().retention(Retention::Recovery).open(devices.path("b")).unwrap();
    define(&b, 0..4);
    b.import(&all(&a)).unwrap();
    b.close().unwrap();
    drop(b);
    let b = options().retention(Retention::Recovery).open(devices.path("b")).unwrap();
    record(&b, 1, 0..10);
    b.close().unwrap();
    drop(b);
    assert!(!devices.path("b").join("log/0000000001.qlog").exists());
    let b = devices.open("b");
    assert_eq!(b.import(&all(&a)).unwrap().imported, 0);
    assert_eq!(b.statistics().events, 2_010);
}

/// A device is lost, comes back from a backup, and goes on under a name of its own.
#[test]
fn a_restored_directory_is_another_replica_and_gets_back_what_others_know() {
    let devices = Devices::new();
    let (phone, laptop) = (devices.open("phone"), devices.open("laptop"));
    define(&phone, 0..4);
    define(&laptop, 0..4);
    record(&phone, 0, 0..30);
    laptop.import(&all(&phone)).unwrap();
    let backup = devices.path("backup");
    phone.backup(&backup, quietly).unwrap();
    let backed_up = phone.cursor();
    record(&phone, 0, 30..50);
    laptop.import(&all(&phone)).unwrap();
    let lost = phone.cursor();
    let was = phone.replica();
    drop(phone);

    let again = devices.path("again");
    let restored = quipu::restore(&backup, &again, Upto::Everything, quietly).unwrap();
    let phone = devices.open("again");
    assert_eq!(phone.position(), restored.position);
    assert_ne!(phone.replica(), was);
    assert_eq!(phone.cursor(), backed_up, "what was recorded before keeps its name");
    assert_eq!(phone.export(&lost).unwrap_err().kind(), ErrorKind::Invalid);
    // At positions that the lost one has given to others.
    record(&phone, 7, 0..25);
    assert_eq!(phone.cursor().replica(), Some(phone.replica()));
    let outcome = laptop.import(&phone.export(&backed_up).unwrap()).unwrap();
    assert_eq!((outcome.imported, outcome.already_there), (25, 0));
    let outcome = phone.import(&all(&laptop)).unwrap();
    assert_eq!((outcome.imported, outcome.already_there), (20, 55));
    let expected = devices.expected("expected", 0..4, &[(0, 0..50), (7, 0..25)]);
    for db in [&phone, &laptop] {
        assert_eq!(answers(db), answers(&expected));
        assert_eq!(db.statistics().events, 75);
    }
    // Closed and opened it is the same one.
    let id = phone.replica();
    phone.close().unwrap();
    is_intact(&again);
    let phone = devices.open("again");
    assert_eq!(phone.replica(), id);
    assert_eq!(laptop.import(&all(&phone)).unwrap().imported, 0);
}

#[test]
fn a_restored_directory_that_only_answers_is_not_written_to() {
    let devices = Devices::new();
    let db = devices.open("a");
    define(&db, 0..2);
    record(&db, 0, 0..20);
    db.close().unwrap();
    db_backup(&devices, "a");
    let again = devices.path("again");
    quipu::restore(devices.path("backup"), &again, Upto::Everything, quietly).unwrap();
    let before = contents(&again);
    let db = devices.open("again");
    assert_eq!(db.query("by_user").unwrap().key_count().unwrap(), 5);
    db.close().unwrap();
    let named = |all: &std::collections::BTreeMap<PathBuf, Option<Vec<u8>>>| {
        all.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(named(&contents(&again)), named(&before));
}

fn db_backup(devices: &Devices, name: &str) {
    ReadOnlyDb::open(devices.path(name)).unwrap().backup(devices.path("backup"), quietly).unwrap();
}

/// Where a restore cuts a frame in its middle, what is missing of it is imported, and nothing else.
#[test]
fn the_rest_of_a_frame_is_imported() {
    let devices = Devices::new();
    let (a, b) = (devices.open("a"), devices.open("b"));
    define(&b, 0..4);
    let mut batch = a.batch();
    for n in 0..100 {
        with_event(0, n, |event| batch.push(&event)).unwrap();
    }
    a.record_batch(&mut batch).unwrap();
    b.import(&all(&a)).unwrap();
    b.backup(devices.path("backup"), quietly).unwrap();
    for cut in [5, 40, 103] {
        let name = format!("cut{cut}");
        let upto = Upto::Position(cut.into());
        quipu::restore(devices.path("backup"), devices.path(&name), upto, quietly).unwrap();
        let db = devices.open(&name);
        let here = db.statistics().events;
        assert_eq!(here, cut - 4, "four views were defined before");
        let outcome = db.import(&all(&a)).unwrap();
        assert_eq!((outcome.imported, outcome.already_there), (100 - here, here));
        assert_eq!(answers(&db), answers(&b));
        db.close().unwrap();
        is_intact(&devices.path(&name));
    }
}

/// Events keep their names in a log that is written anew: what was left out comes back, once.
#[test]
fn as_of_an_event_time_names_are_kept() {
    let devices = Devices::new();
    let (a, b) = (devices.open("a"), devices.open("b"));
    define(&a, 0..4);
    record(&b, 1, 0..60);
    record(&a, 0, 0..60);
    a.import(&all(&b)).unwrap();
    a.backup(devices.path("backup"), quietly).unwrap();
    let upto = Upto::EventTime(Timestamp::from_secs(NOW - 25_000));
    quipu::restore(devices.path("backup"), devices.path("past"), upto, quietly).unwrap();
    let past = devices.open("past");
    let here = past.statistics().events;
    assert!((30..90).contains(&here), "{here}");
    assert_eq!(a.import(&all(&past)).unwrap().imported, 0, "all of it is there");
    let outcome = past.import(&all(&a)).unwrap();
    assert_eq!((outcome.imported, outcome.already_there), (120 - here, here));
    assert_eq!(answers(&past), answers(&a));
    past.close().unwrap();
    is_intact(&devices.path("past"));
}

#[test]
fn a_copy_is_found_out_and_helped_by_a_new_name() {
    let devices = Devices::new();
    let (a, third) = (devices.open("a"), devices.open("third"));
    define(&a, 0..4);
    record(&a, 0, 0..20);
    third.import(&all(&a)).unwrap();
    crash_image(&devices.path("a"), &devices.path("copy"));
    record(&a, 0, 20..40);
    let copy = devices.open("copy");
    third.import(&all(&a)).unwrap();
    let before = answers(&copy);
    let error = copy.import(&all(&third)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("two directories of one replica"), "{error}");
    assert_eq!(answers(&copy), before);
    let (was, id) = (copy.replica(), copy.new_replica().unwrap());
    assert_ne!(was, id);
    assert_eq!(copy.replica(), id);
    assert_eq!(copy.import(&all(&third)).unwrap().imported, 20);
    record(&copy, 5, 0..10);
    let again = copy.new_replica().unwrap();
    assert_ne!(again, id);
    record(&copy, 5, 10..20);
    let outcome = third.import(&all(&copy)).unwrap();
    assert_eq!(outcome.imported, 20);
    assert_eq!(outcome.replicas, [id, again]);
    a.import(&all(&third)).unwrap();
    assert_eq!(answers(&a), answers(&copy));
    copy.close().unwrap();
    is_intact(&devices.path("copy"));
    assert_eq!(devices.open("copy").replica(), again);
}

#[test]
fn a_repaired_directory_is_another_replica() {
    let devices = Devices::new();
    let dir = devices.path("a");
    let (a, b) = (devices.open("live"), devices.open("b"));
    define(&b, 0..4);
    for n in 0..6 {
        record(&a, 0, n * 10..n * 10 + 10);
        // It is synced.
        b.import(&all(&a)).unwrap();
    }
    let (was, told) = (a.replica(), a.position());
    crash_image(&devices.path("live"), &dir);
    // A frame is damaged, and the end of the log is gone, of which nothing speaks any more.
    let path = segments(&dir).remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    let frames = crate::directory::frames(&bytes);
    bytes[frames[1].start + 60] ^= 0x55;
    bytes[frames[1].start + 61] ^= 0x55;
    bytes[frames[frames.len() / 2].start..].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let report = quipu::repair(&dir, Repair::Apply, |_| {}).unwrap();
    assert!(report.records_given_up() > 0, "{report:?}");
    let a = devices.open("a");
    assert!(a.position() < told, "positions are given again");
    assert_ne!(a.replica(), was);
    record(&a, 9, 0..60);
    let outcome = b.import(&all(&a)).unwrap();
    assert_eq!(outcome.imported, 60, "no new event is taken for an old one");
    // What was given up in its middle is not known to have been nothing: others go on telling it.
    let c = devices.open("c");
    c.import(&all(&a)).unwrap();
    let outcome = c.import(&all(&b)).unwrap();
    assert!(outcome.imported > 0);
    assert_eq!(c.statistics().events, 120);
    assert_eq!(a.import(&all(&c)).unwrap().replicas, [was], "the end comes back");
}

#[test]
fn readers_see_and_tell_what_was_imported() {
    let devices = Devices::new();
    let (a, b) = (devices.open("a"), devices.open("b"));
    define(&b, 0..4);
    record(&b, 1, 0..10);
    let reader = ReadOnlyDb::open(devices.path("b")).unwrap();
    record(&a, 0, 0..30);
    b.import(&all(&a)).unwrap();
    reader.refresh().unwrap();
    assert_eq!(reader.statistics().events, 40);
    let told = reader.export_some(&Cursor::beginning(), u64::MAX).unwrap();
    let c = devices.open("c");
    c.import(&told).unwrap();
    // The last of what is shown may still be lost where no later frame says that it is durable.
    b.checkpoint().unwrap();
    record(&b, 1, 10..11);
    b.sync().unwrap();
    let reader = ReadOnlyDb::open(devices.path("b")).unwrap();
    let told = reader.export_some(&told.cursor(), u64::MAX).unwrap();
    c.import(&told).unwrap();
    assert!(c.statistics().events >= 40, "{}", c.statistics().events);
    c.import(&all(&b)).unwrap();
    assert_eq!(c.statistics().events, 41);
}

#[derive(Clone, Debug)]
enum Act {
    /// So many events at a device.
    Record(usize, u64),
    /// A device tells all, or what is new since it last told; the bundle is kept.
    Tell(usize, bool),
    /// A device takes in one of the bundles that there are.
    Take(usize, usize),
    Checkpoint(usize),
    Reopen(usize),
    /// Killed and opened again.
    Kill(usize),
    /// Becomes another replica.
    Rename(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let device = 0_usize..3;
    prop_oneof![
        4 => (device.clone(), 1_u64..40).prop_map(|(device, n)| Act::Record(device, n)),
        3 => (device.clone(), any::<bool>()).prop_map(|(device, all)| Act::Tell(device, all)),
        6 => (device.clone(), 0_usize..64).prop_map(|(device, which)| Act::Take(device, which)),
        1 => device.clone().prop_map(Act::Checkpoint),
        1 => device.clone().prop_map(Act::Reopen),
        1 => device.clone().prop_map(Act::Kill),
        1 => device.prop_map(Act::Rename),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_told_in_whatever_order_counts_once(acts in prop::collection::vec(act(), 1..40)) {
        let devices = Devices::new();
        let mut generation = 0;
        let mut names: Vec<String> = (0..3).map(|n| format!("device{n}")).collect();
        let mut dbs: Vec<Db> = names.iter().map(|name| devices.open(name)).collect();
        for (n, db) in dbs.iter().enumerate() {
            define(db, n..n + 2);
        }
        let mut recorded = [0_u64; 3];
        let mut cursors = [Cursor::beginning(); 3];
        let mut bundles: Vec<Vec<u8>> = Vec::new();
        for act in acts {
            match act {
                Act::Record(d, n) => {
                    record(&dbs[d], d as u64, recorded[d]..recorded[d] + n);
                    recorded[d] += n;
                }
                Act::Tell(d, all) => {
                    let since = if all { Cursor::beginning() } else { cursors[d] };
                    let bundle = dbs[d].export(&since).unwrap();
                    cursors[d] = bundle.cursor();
                    bundles.push(bundle.to_bytes());
                }
                Act::Take(d, which) => {
                    if let Some(which) = which.checked_rem(bundles.len()) {
                        let bundle = Bundle::from_bytes(&bundles[which]).unwrap();
                        dbs[d].import(&bundle).unwrap();
                        prop_assert_eq!(dbs[d].import(&bundle).unwrap().imported, 0);
                    }
                }
                Act::Checkpoint(d) => dbs[d].checkpoint().unwrap(),
                Act::Reopen(d) => {
                    dbs[d].close().unwrap();
                    dbs[d] = devices.open(&names[d]);
                }
                Act::Kill(d) => {
                    generation += 1;
                    let image = format!("{}-{generation}", names[d]);
                    crash_image(&devices.path(&names[d]), &devices.path(&image));
                    dbs[d] = devices.open(&image);
                    names[d] = image;
                }
                Act::Rename(d) => {
                    dbs[d].new_replica().unwrap();
                }
            }
        }
        // In the end everybody is told everything.
        let told: Vec<Bundle> = dbs.iter().map(all).collect();
        let mut known = Vec::new();
        for (d, n) in recorded.into_iter().enumerate() {
            known.push((d as u64, 0..n));
        }
        for (n, db) in dbs.iter().enumerate() {
            for bundle in &told {
                db.import(bundle).unwrap();
            }
            prop_assert_eq!(db.statistics().events, recorded.iter().sum::<u64>());
            let expected = devices.expected(&format!("expected{n}"), n..n + 2, &known);
            prop_assert_eq!(answers(db), answers(&expected));
            db.close().unwrap();
            is_intact(&devices.path(&names[n]));
        }
    }
}
