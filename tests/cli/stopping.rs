//! A load that takes long: what came is recorded soon, and a signal stops it in order.

use std::io::Write as _;
use std::process::{Child, ChildStdin, Stdio};

use quipu::{Db, ReadOnlyDb};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Run, Shop};

fn line(n: u64) -> String {
    format!("{{\"event\":\"e\",\"ts\":1291191960000,\"value\":{n}}}\n")
}

/// A load of standard input, which is not at its end yet.
struct Running {
    child: Child,
    input: ChildStdin,
}

impl Running {
    fn start(shop: &Shop, args: &[&str]) -> Self {
        let mut command = shop.command(&[&["load", "-"], args].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        Self { child, input }
    }

    fn send(&mut self, text: impl AsRef<[u8]>) {
        self.input.write_all(text.as_ref()).unwrap();
        self.input.flush().unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What it gave. Standard input stays open until it has ended.
    fn end(self) -> Run {
        let Self { child, input } = self;
        let run = child.wait_with_output().unwrap().into();
        drop(input);
        run
    }
}

/// Waits until so many events can be seen from outside. There is no other end to this than that they
/// are: what never comes is ended by the test runner's patience.
fn wait_for(shop: &Shop, events: u64) {
    let reader = loop {
        match ReadOnlyDb::open(shop.dir()) {
            Ok(reader) => break reader,
            Err(_) => std::thread::yield_now(),
        }
    };
    while reader.statistics().events < events {
        // It may be in the middle of its beginning.
        let _ = reader.refresh();
        std::thread::yield_now();
    }
}

#[test]
fn what_came_is_recorded_although_the_batch_is_not_full() {
    let shop = Shop::new();
    let mut load = Running::start(&shop, &["--quiet"]);
    for n in 1..=3 {
        load.send(line(n));
        wait_for(&shop, n);
    }
    // Half a line is nothing yet.
    load.send(&line(4)[..20]);
    load.send(&line(4)[20..]);
    wait_for(&shop, 4);
    drop(load.input);
    Run::from(load.child.wait_with_output().unwrap()).ok();
    assert_eq!(shop.row("by_event", &["e"])["sum"], 10.0);
}

#[test]
fn gzip_that_comes_in_pieces_is_recorded_as_it_comes() {
    let shop = Shop::new();
    let mut load = Running::start(&shop, &["--quiet"]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for n in 1..=2 {
        gzip.write_all(line(n).as_bytes()).unwrap();
        gzip.flush().unwrap();
        load.send(std::mem::take(gzip.get_mut()));
        wait_for(&shop, n);
    }
    load.send(gzip.finish().unwrap());
    drop(load.input);
    Run::from(load.child.wait_with_output().unwrap()).ok();
}

#[test]
fn a_signal_stops_a_load_in_order() {
    for (signal, code, name) in [(Signal::INT, 130, "SIGINT"), (Signal::TERM, 143, "SIGTERM")] {
        let shop = Shop::new();
        let mut load = Running::start(&shop, &[]);
        load.send((1..=3).map(line).collect::<String>());
        load.send("not an event\n");
        wait_for(&shop, 3);
        // Recorded with the stop, or before it.
        load.send(line(4));
        load.send("{\"event\":");
        load.signal(signal);
        let run = load.end();
        let last = run.err.lines().last().unwrap();
        assert_eq!(run.code, Some(code), "{run:?}");
        assert_eq!(run.out, "", "there is no report of a part");
        assert!(last.starts_with(&format!("quipu: stopped by {name}; ")), "{run:?}");
        let db = Db::open(shop.dir()).unwrap();
        let events = db.statistics().events;
        assert!((3..=4).contains(&events), "{events}");
        let lines = events + 1;
        assert!(last.contains(&format!("standard input is recorded up to line {lines}")), "{last}");
        assert!(last.contains(&format!("{events} events in all")), "{last}");
        assert!(last.ends_with(&format!("load it from line {} on", lines + 1)), "{last}");
        assert_eq!(db.statistics().replayed, 0, "it was closed");
    }
}

#[test]
fn with_ids_all_of_it_can_be_loaded_again() {
    let shop = Shop::new();
    let mut load = Running::start(&shop, &[]);
    let line = |n| format!("{{\"event\":\"e\",\"ts\":1291191960000,\"id\":\"{n}\"}}\n");
    load.send((0..10).map(line).collect::<String>());
    wait_for(&shop, 10);
    load.signal(Signal::INT);
    let run = load.end();
    run.failed(130, "or load it whole: events whose ids are remembered are passed over");
    let again = shop.run_with(&(0..20).map(line).collect::<String>(), &["load", "-", "-q"]);
    again.ok();
    assert_eq!(shop.row("by_hour", &[])["count"], 20);
}

#[test]
fn a_second_signal_does_not_wait() {
    let shop = Shop::new();
    let mut load = Running::start(&shop, &[]);
    load.send(line(1));
    wait_for(&shop, 1);
    load.signal(Signal::INT);
    load.signal(Signal::INT);
    // In order, or at once: it ends, and says which signal it was.
    assert_eq!(load.end().code, Some(130));
    assert_eq!(Db::open(shop.dir()).unwrap().statistics().events, 1);
}

/// How often a load is killed: 10 times, or as `QUIPU_CRASH_ROUNDS` says.
fn rounds() -> u64 {
    std::env::var("QUIPU_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10)
}

#[test]
fn a_load_that_is_killed_anywhere_leaves_a_beginning_of_its_input() {
    let lines = 60_000;
    let text: String = (1..=lines).map(line).collect();
    for round in 0..rounds() {
        let shop = Shop::new();
        let mut load = Running::start(&shop, &["--quiet"]);
        // At another place in each round, at no time by the clock: what the program has read of it
        // by then is between that and a pipe's content before.
        let sent = (round * 7_919 * 37) as usize % text.len();
        load.send(&text[..sent]);
        let acknowledged = match round % 3 {
            // While it begins, most often.
            0 => 0,
            // While it works.
            1 => ReadOnlyDb::open(shop.dir()).map_or(0, |reader| reader.statistics().events),
            // When everything whole was recorded.
            _ => {
                let whole = text[..sent].lines().count() as u64;
                let whole = whole - u64::from(!text[..sent].ends_with('\n') && whole > 0);
                wait_for(&shop, whole);
                whole
            }
        };
        load.child.kill().unwrap();
        load.end();
        let Ok(db) = Db::open(shop.dir()) else {
            assert_eq!(acknowledged, 0, "round {round}");
            continue;
        };
        let events = db.statistics().events;
        assert!((acknowledged..=lines).contains(&events), "round {round}: {events}");
        let sum = (events * (events + 1) / 2) as f64;
        for status in db.views().unwrap() {
            let totals = db.query(status.view.name()).unwrap().totals().unwrap();
            // Of those views that are keyed by what no line has, none has an event.
            let Some(summary) = totals.summary().filter(|_| totals.count > 0) else { continue };
            assert_eq!((totals.count, summary.sum), (events, sum), "round {round}");
        }
        drop(db);
        assert!(quipu::verify(shop.dir(), quipu::Depth::Refold, |_| {}).unwrap().is_intact());
    }
}
