//! Writes the seeds of the targets whose inputs are bytes of files into `corpus/`.
//!
//! `cargo run --manifest-path fuzz/Cargo.toml --example seeds`. Those of the other targets are what a
//! long run has kept; `src/guide/fuzzing.md` says how they are made.

use quipu::Cursor;
use quipu::aggregate::{Aggregate, CountMin, Distinct, Kll, Membership, Quantiles, Theta, Top};
use quipu_fuzz::directory::{file, lay, options, scratch, template};
use quipu_fuzz::log::{SEGMENT_HEADER_BYTES, frames};
use quipu_fuzz::pieces::{self, Piece};
use quipu_fuzz::store::{CATALOG, META, payload, rows};
use std::fs;
use std::path::Path;

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("makes the folder");
    fs::write(folder.join(format!("seed-{name}")), bytes).expect("writes");
}

/// The input of these pieces.
fn input(of: &[Piece<'_>]) -> Vec<u8> {
    let input = pieces::input(of);
    assert_eq!(pieces::pieces(&input), of);
    input
}

fn main() {
    let mut files = template().clone();
    segments(file(&mut files, "0000000001.qlog"));
    snapshot(file(&mut files, "state.redb"));
    imports();
    stages();
    bundles();
    states();
    distinct();
    quantiles();
    interchange();
}

/// What the Python package wrote, of each kind, and KLL sketches as they are stored.
fn interchange() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/datasketches/theirs");
    for (which, kind) in ["hll", "theta", "frequent", "kll"].iter().enumerate() {
        for file in fs::read_dir(&folder).expect("is there") {
            let path = file.expect("is read").path();
            let name = path.file_stem().and_then(|name| name.to_str()).expect("is text");
            if !name.starts_with(kind) || path.extension().is_none_or(|end| end != "sk") {
                continue;
            }
            let image = fs::read(&path).expect("reads");
            if image.len() < 700 {
                write("datasketches_decode", name, &[&[which as u8], image.as_slice()].concat());
            }
        }
    }
    for values in [0, 1, 9, 60] {
        let mut state = Kll::new(8).expect("a k");
        (0..values).for_each(|n| state.insert(f64::from(n * 7 % 13)));
        let mut bytes = vec![4];
        state.encode(&mut bytes);
        write("datasketches_decode", &format!("state-{values}"), &bytes);
    }
}

/// Two states one behind the other, in each form.
fn quantiles() {
    let of = |values: &[f64]| {
        let mut state = Quantiles::default();
        values.iter().for_each(|value| state.insert(*value));
        let mut out = Vec::new();
        state.encode(&mut out);
        out
    };
    let many: Vec<f64> = (-80..80).map(|n| 1.7_f64.powi(n) * f64::from(n)).collect();
    let few = of(&[-2.5, 0.0, 7.0]);
    write("stats_decode", "quantiles-few", &[few.clone(), of(&many)].concat());
    write("stats_decode", "quantiles-many", &[of(&many), few].concat());
}

/// Stored states, each alone and some with another one behind it.
fn states() {
    let encoded = |which: u8, states: &[&dyn Fn(&mut Vec<u8>)]| {
        let mut out = vec![which];
        states.iter().for_each(|encode| encode(&mut out));
        out
    };
    let top = |capacity: u32, items: u32| {
        let mut top = Top::new(capacity).expect("a capacity");
        for i in 0..items {
            let item = format!("item {}", i * i % 97).repeat(1 + (i % 3) as usize);
            top.insert(item.as_bytes(), u64::from(1 + i % 7) << (i % 30));
        }
        top
    };
    let (exact, purged) = (top(9, 6), top(3, 40));
    write("heavy_decode", "top-exact", &encoded(0, &[&|out| exact.encode(out)]));
    let two: [&dyn Fn(&mut Vec<u8>); 2] = [&|out| purged.encode(out), &|out| exact.encode(out)];
    write("heavy_decode", "top-purged", &encoded(0, &two));
    let counts = |width: u32, items: u64| {
        let mut counts = CountMin::new(width, 3).expect("a shape");
        (0..items).for_each(|i| counts.insert(&i.to_le_bytes(), i * i).expect("fits"));
        counts
    };
    let (few, all, other) = (counts(40, 3), counts(8, 30), counts(8, 9));
    write("heavy_decode", "counts-few", &encoded(1, &[&|out| few.encode(out)]));
    let two: [&dyn Fn(&mut Vec<u8>); 2] = [&|out| all.encode(out), &|out| other.encode(out)];
    write("heavy_decode", "counts-all", &encoded(1, &two));
    let seen = |expected: u64, items: u64| {
        let mut seen = Membership::new(expected, 0.01).expect("fits");
        (0..items).for_each(|i| {
            seen.insert(&i.to_le_bytes());
        });
        seen
    };
    let (hashes, filter) = (seen(200, 9), seen(60, 60));
    write("heavy_decode", "seen-hashes", &encoded(2, &[&|out| hashes.encode(out)]));
    let two: [&dyn Fn(&mut Vec<u8>); 2] = [&|out| filter.encode(out), &|out| hashes.encode(out)];
    write("heavy_decode", "seen-filter", &encoded(2, &two));
}

/// Counts of different items and samples in each form, two of them together, too.
fn distinct() {
    fn bytes(state: &impl Aggregate) -> Vec<u8> {
        let mut out = Vec::new();
        state.encode(&mut out);
        out
    }
    let count = |precision: u8, items: u64| {
        let mut state = Distinct::new(precision).expect("a precision");
        (0..items).for_each(|item| state.insert(&item.to_le_bytes()));
        bytes(&state)
    };
    let sample = |k: u16, items: u64| {
        let mut state = Theta::new(k).expect("a size");
        (0..items).for_each(|item| state.insert(&item.to_le_bytes()));
        bytes(&state)
    };
    let write = |name, bytes: &[Vec<u8>]| write("distinct_decode", name, &bytes.concat());
    write("empty", &[count(12, 0), count(14, 0)]);
    write("tokens", &[count(10, 40), count(12, 3)]);
    write("registers", &[count(6, 2_000), count(4, 1_025)]);
    write("both", &[count(8, 1_030), count(14, 20)]);
    write("sample", &[sample(64, 40), sample(64, 64)]);
    write("sample-full", &[sample(64, 1_000), sample(70, 300)]);
}

/// Bundles of the template's events, in each form, and a file of tiny-counter's.
fn bundles() {
    let home = scratch();
    lay(&home.path().join("db"), template());
    let db = options().open(home.path().join("db")).expect("the template opens");
    let some = db.export_some(&Cursor::beginning(), 600).expect("exports");
    let bytes = some.to_bytes();
    write("bundle", "payload", &[&[0], &bytes[16 + 5..]].concat());
    write("bundle", "whole", &[&[1], bytes.as_slice()].concat());
    let text = serde_json::to_string(&some).expect("is plain");
    write("bundle", "text", &[&[2], text.as_bytes()].concat());
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let ring = |unit: u32, counts: &[u32], starts: &str| {
        let counts: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
        let number = counts.len() as u64 / 4;
        [&unit.to_le_bytes()[..], &number.to_le_bytes(), &counts, &text(starts)].concat()
    };
    let now = text("2023-11-14T22:13:20.5Z");
    let rings = [
        ring(2, &[1, 0, 2], "2023-11-14T22:00:00Z"),
        ring(3, &[3, 0, 4], "2023-11-14T00:00:00Z"),
        ring(4, &[7, 5], "2023-11-13T00:00:00Z"),
        ring(5, &[9, 6], "2023-11-01T00:00:00Z"),
    ];
    let file = [now, 4_u64.to_le_bytes().to_vec(), rings.concat(), vec![1]].concat();
    write("bundle", "tiny-counter", &[&[3], file.as_slice()].concat());
}

/// Events as a stage has them: plain, with everything, for several, and one of unknown flags.
fn stages() {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let time = 1_699_990_000_000_000_i64.to_le_bytes();
    let value = 2.5_f64.to_le_bytes();
    let begin = |flags: u8| [&time[..], &[flags], &text("sale")].concat();
    let plain = [begin(0), vec![1], text("user"), text("user 1"), vec![1], text("value")].concat();
    let plain = [&plain[..], &value].concat();
    let all = [begin(7), vec![0, 0], text("cart"), text("event 1"), text("payload")].concat();
    let several = [begin(8 | 16), vec![0, 0, 0xff, 1, 0x80, 0x89, 0x7a]].concat();
    let strange = [begin(32), vec![0, 0]].concat();
    const RIGHT: u8 = 1 | 2;
    let write = |name, pieces: &[Piece<'_>]| write("stage", name, &input(pieces));
    write("two", &[(RIGHT, &plain), (RIGHT, &all)]);
    write("short", &[(RIGHT, &plain), (RIGHT | 4, &all)]);
    write("several", &[(RIGHT, &several), (RIGHT, &plain)]);
    write("strange", &[(RIGHT, &strange)]);
    write("apart", &[(1 | 3 << 4, &plain), (1, &plain), (0, &all)]);
}

/// A whole log, the frames of one over several segments, and one that was never written to.
fn segments(segment: &[u8]) {
    const RIGHT: u8 = 1 | 2 | 4;
    const ROOM: u8 = 8;
    let found = frames(segment);
    let (header, third) = (&segment[..SEGMENT_HEADER_BYTES], found.len() / 3);
    let part = |from: usize, to: usize| -> Vec<u8> {
        let frames = found[from..to].iter().flat_map(|frame| &segment[frame.clone()]).copied();
        header.iter().copied().chain(frames).collect()
    };
    let (few, first, rest) = (part(0, 6), part(0, third), part(third, 2 * third));
    let write = |name, pieces: &[Piece<'_>]| write("segments", name, &input(pieces));
    write("few", &[(RIGHT | ROOM, &few)]);
    write("two", &[(RIGHT, &few), (RIGHT | ROOM, &few)]);
    write("third", &[(RIGHT | ROOM, &first)]);
    write("damaged", &[(1, &few), (RIGHT, &rest), (RIGHT | ROOM, header)]);
    write("blank", &[(RIGHT | ROOM, header)]);
}

/// A file in each format, under options that suit it.
fn imports() {
    let ndjson = concat!(
        r#"{"event":"sale","ts":1431857103000,"user":"al\u00e4ce","product":"pot","value":12.5,"id":"a"}"#,
        "\n",
        r#"{"event":"sale","ts":"2010-12-01T08:26:00Z","category":true,"value":"3e2","x":{"a":[1]}}"#,
        "\n\n{\"event\":null}\n[{}]\n",
    );
    let csv = concat!(
        "event,ts,user,product,category,value,id\n",
        "sale,1431857103000,alice,\"tea \"\"pot\"\", big\",x,12.5,a1\r\n",
        "sale,2010-12-01T08:26:00Z,\"two\nlines\",,,1,\n",
        "sale,2010-12-01 08:26,\"open,,,1,\n",
    );
    let columns = "sale\t1431857103\tbob\t\t\t-0.25\t\n";
    for (mapping, name) in [(0, "defaults"), (1, "named"), (2, "renamed"), (3, "twice")] {
        write("import", &format!("ndjson-{name}"), &[&[0, mapping], ndjson.as_bytes()].concat());
        write("import", &format!("csv-{name}"), &[&[1, mapping], csv.as_bytes()].concat());
        // Columns by option, seconds, times without a zone.
        let options = [2 | 4, mapping | 1 << 3 | 64];
        write("import", &format!("tsv-{name}"), &[&options, columns.as_bytes()].concat());
    }
}

/// Each kind of row by itself and under another key, and the catalog.
fn snapshot(state: &[u8]) {
    let tables = rows(state);
    for (table, rows) in tables.iter().enumerate() {
        for (number, (key, value)) in rows.iter().enumerate().take(3) {
            if key == CATALOG {
                write("catalog", "real", &payload(value)[17..]);
                continue;
            }
            let numbered = [&[number as u8], payload(value)].concat();
            let mut other = key.clone();
            *other.last_mut().expect("a key has bytes") ^= 1;
            let named = [&[key.len() as u8], other.as_slice(), payload(value)].concat();
            let flags = table as u8;
            let pieces: [Piece<'_>; 2] = [(flags | 4, &numbered), (flags, &named)];
            write("snapshot_rows", &format!("{table}-{number}"), &input(&pieces));
        }
    }
    assert_eq!(tables[META].len(), 1, "the catalog is alone in its table");
}
