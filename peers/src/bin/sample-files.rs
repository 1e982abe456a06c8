//! Writes small files of tiny-counter 0.1.0, of events that are known, for tests of what reads them.
//!
//! Run as `cargo run --bin sample-files DIR`; with `--no-default-features` it writes the sample of
//! tiny-counter without `calendar` and no other. It prints what it recorded, and which buckets are
//! there according to tiny-counter. `tests/data/tiny-counter/README.md` in the package has that too.
//!
//! Every event is recorded when the clock shows its time, and none afterwards, so that no file
//! depends on where tiny-counter puts an event of the past. The order of the grains in a file is by
//! chance: it is that of a hash map.

use chrono::{DateTime, Utc};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use tiny_counter::storage::FilePerEvent;
use tiny_counter::{EventStore, TestClock, TimeUnit};

/// What is recorded: time, id, count; in the order of time.
type Events = &'static [(&'static str, &'static str, u32)];

struct Sample {
    name: &'static str,
    /// The zone of the process that writes it; nothing in the file says so.
    zone: &'static str,
    /// Grains and numbers of buckets where it is not the default ones.
    kept: &'static [(TimeUnit, usize)],
    calendar: bool,
    form: Form,
    events: Events,
}

enum Form {
    /// A directory with a file for each id, in bincode.
    Files,
    /// One file, a JSON object of all ids.
    Export,
}

const SAMPLES: [Sample; 4] = [
    Sample {
        name: "utc",
        zone: "UTC",
        kept: &[],
        calendar: true,
        form: Form::Files,
        events: LAUNCHES,
    },
    Sample {
        name: "new-york",
        zone: "America/New_York",
        kept: &[],
        calendar: true,
        form: Form::Files,
        events: ERRORS,
    },
    Sample {
        name: "export.json",
        zone: "UTC",
        kept: &[(TimeUnit::Seconds, 30), (TimeUnit::Hours, 6), (TimeUnit::Days, 3)],
        calendar: true,
        form: Form::Export,
        events: SALES,
    },
    Sample {
        name: "uniform",
        zone: "UTC",
        kept: &[],
        calendar: false,
        form: Form::Files,
        events: LAUNCHES,
    },
];

const LAUNCHES: Events = &[
    ("2023-02-28T23:59:59Z", "app_launch", 3),
    ("2025-12-31T23:59:59Z", "app_launch", 1),
    ("2026-01-01T00:00:00Z", "app_launch", 2),
    ("2026-05-17T18:45:00Z", "app_launch", 4),
    ("2026-06-24T06:00:00Z", "app_launch", 5),
    ("2026-06-29T23:30:00Z", "app_launch", 6),
    ("2026-06-30T08:45:00Z", "app_launch", 7),
    ("2026-06-30T12:00:00Z", "app_launch", 8),
    ("2026-06-30T12:34:56.789Z", "app_launch", 9),
];

/// Around midnights of New York: before and after its clocks go forward (2026-03-08), and in the
/// evening of its last day of March.
const ERRORS: Events = &[
    ("2026-03-08T04:59:00Z", "api/v1:errors café 100%", 1),
    ("2026-03-08T05:01:00Z", "api/v1:errors café 100%", 2),
    ("2026-03-09T03:59:00Z", "api/v1:errors café 100%", 4),
    ("2026-03-09T04:01:00Z", "api/v1:errors café 100%", 8),
    ("2026-04-01T02:00:00Z", "api/v1:errors café 100%", 16),
];

/// Counts of `refund` are more than 32 bits hold, together.
const SALES: Events = &[
    ("2026-06-28T10:00:00Z", "sale", 10),
    ("2026-06-30T11:59:59.5Z", "sale", 11),
    ("2026-06-30T12:00:01Z", "sale", 12),
    ("2026-06-30T12:00:02Z", "refund", u32::MAX - 1),
    ("2026-06-30T12:00:02.000000001Z", "refund", 3),
];

const UNITS: [TimeUnit; 7] = [
    TimeUnit::Seconds,
    TimeUnit::Minutes,
    TimeUnit::Hours,
    TimeUnit::Days,
    TimeUnit::Weeks,
    TimeUnit::Months,
    TimeUnit::Years,
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [dir] => {
            let this = std::env::current_exe().expect("a path");
            for sample in SAMPLES.iter().filter(|it| it.calendar == cfg!(feature = "calendar")) {
                // A process takes its zone once.
                let mut command = Command::new(&this);
                let status = command.env("TZ", sample.zone).args([dir, sample.name]).status();
                assert!(status.expect("started").success(), "{}", sample.name);
            }
            ExitCode::SUCCESS
        }
        [dir, name] => {
            let sample = SAMPLES.iter().find(|sample| sample.name == name);
            write(sample.expect("the name of a sample"), Path::new(dir));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: sample-files DIR");
            ExitCode::FAILURE
        }
    }
}

fn write(sample: &Sample, dir: &Path) {
    let path = dir.join(sample.name);
    let time = |text: &str| text.parse::<DateTime<Utc>>().expect("a time");
    let clock = TestClock::build_for_testing_at(time(sample.events[0].0));
    let mut builder = EventStore::builder().with_clock(Arc::new(clock.clone()));
    for (unit, n) in sample.kept {
        builder = match unit {
            TimeUnit::Seconds => builder.track_seconds(*n),
            TimeUnit::Hours => builder.track_hours(*n),
            TimeUnit::Days => builder.track_days(*n),
            _ => unreachable!("a sample keeps one of these"),
        };
    }
    if let Form::Files = sample.form {
        builder = builder.with_storage(FilePerEvent::new(&path, ".bin").expect("a directory"));
    }
    let store = builder.build().expect("a valid configuration");

    println!("\n{}, written in the zone {}\n\n```text", sample.name, sample.zone);
    for (at, id, count) in sample.events {
        clock.set(time(at));
        store.record_count(*id, *count);
        println!("recorded  {at:<30}  {id:?} x {count}");
    }
    let mut counters: Vec<_> = store.export_all().expect("exported").into_iter().collect();
    counters.sort_by(|a, b| a.0.cmp(&b.0));
    for (id, counter) in &counters {
        let told = serde_json::to_value(counter).expect("JSON");
        println!("kept      {id:?}, starting_instant {}", told["starting_instant"]);
        for unit in UNITS {
            let interval = &told["intervals"][format!("{unit:?}")];
            let Some(buckets) = interval["data"].as_array() else { continue };
            let busy = buckets.iter().enumerate().filter(|(_, count)| **count != 0);
            let busy: Vec<String> = busy.map(|(at, count)| format!("{at}: {count}")).collect();
            let (n, start) = (buckets.len(), &interval["interval_start"]);
            println!("          {unit:?}, {n} from {start} backwards: {}", busy.join(", "));
        }
    }
    println!("```");
    match sample.form {
        Form::Files => store.persist().expect("written"),
        Form::Export => {
            let export = serde_json::to_vec(&store.export_all().expect("exported"));
            std::fs::create_dir_all(dir).expect("a directory");
            std::fs::write(&path, export.expect("JSON")).expect("written");
        }
    }
}
