//! Files as `quipu load` reads them: any bytes as NDJSON or delimited fields, under any mapping,
//! plain or gzip. Two bytes of options come first.
//!
//! 1. However the bytes arrive, a few at a time or compressed, they are the same lines.
//! 2. A line that made an event, written by somebody else as the same format or as the other one,
//!    makes the same event.
//!
//! The readers are the command line's own modules, compiled into this target.
#![no_main]
#![allow(dead_code, reason = "the command line uses more of its modules than is used here")]

#[path = "../../src/bin/quipu/delimited.rs"]
mod delimited;
#[path = "../../src/bin/quipu/failure.rs"]
mod failure;
#[path = "../../src/bin/quipu/instant.rs"]
mod instant;
#[path = "../../src/bin/quipu/lines.rs"]
mod lines;
#[path = "../../src/bin/quipu/mapping.rs"]
mod mapping;
#[path = "../../src/bin/quipu/ndjson.rs"]
mod ndjson;
#[path = "../../src/bin/quipu/reading.rs"]
mod reading;
#[path = "../../src/bin/quipu/source.rs"]
mod source;

use flate2::Compression;
use flate2::write::GzEncoder;
use instant::{Reading, Unit, Zone};
use libfuzzer_sys::fuzz_target;
use mapping::{Mapping, Name, Pair, Value, Wanted};
use reading::{Layout, Stop};
use std::convert::Infallible;
use std::io::{Cursor, Read, Write};

/// An event as text, or why there is none, and the line; what stopped the reading comes last.
type Lines = Vec<(u64, Result<String, String>)>;

fn mapping(options: u8) -> Mapping {
    let pairs = |texts: &[&str]| {
        Some(texts.iter().map(|text| Pair::parse(text).expect("a pair")).collect::<Vec<_>>())
    };
    let unit = [None, Some(Unit::S), Some(Unit::Ms), Some(Unit::Us), Some(Unit::Ns)];
    let reading = Reading {
        unit: unit[usize::from(options >> 3 & 7) % unit.len()],
        zone: if options & 64 == 0 { Zone::Required } else { Zone::Utc },
    };
    let wanted = match options & 7 {
        0 => Wanted::default(),
        1 => Wanted { name: Some(Name::Constant("sale".to_owned())), ..Wanted::default() },
        2 => Wanted {
            dims: pairs(&["a=user", "b=user", "event name=event"]),
            entity: Some("user".to_owned()),
            ..Wanted::default()
        },
        3 => Wanted {
            measures: pairs(&["value", "twice=value", "time=ts"]),
            id: Some("ts".to_owned()),
            ..Wanted::default()
        },
        4 => Wanted {
            name: Some(Name::Field("user".to_owned())),
            time: Some("user".to_owned()),
            dims: Some(Vec::new()),
            measures: Some(Vec::new()),
            ..Wanted::default()
        },
        _ => Wanted {
            time: Some("value".to_owned()),
            entity: Some("id".to_owned()),
            times: Some("id".to_owned()),
            dims: pairs(&["product"]),
            ..Wanted::default()
        },
    };
    Mapping::new(Wanted { reading, ..wanted }).expect("a mapping that can be")
}

/// Reads all of it, handing each line's values to `see`, too.
fn lines(
    input: impl Read + 'static,
    layout: Layout<'_>,
    mapping: &Mapping,
    see: &mut dyn FnMut(&[Value<'_>]),
) -> Lines {
    let mut lines = Vec::new();
    let read = source::decoded(input).map_err(|error| Stop::Unreadable(0, error));
    let read = read.and_then(|input| {
        reading::read(input, layout, mapping, &mut |line, values| {
            let event = values.and_then(|values| {
                let event = format!("{:?}", mapping.event(&values)?);
                see(&values);
                Ok(event)
            });
            lines.push((line, event));
            Ok::<(), Infallible>(())
        })
    });
    match read {
        Ok(()) => {}
        Err(Stop::Unreadable(_, error)) => lines.push((0, Err(error.to_string()))),
        Err(Stop::Columns(why)) => lines.push((0, Err(why))),
        Err(Stop::Taker(never)) => match never {},
    }
    lines
}

/// Gives some bytes at a time.
struct Drops(Cursor<Vec<u8>>, usize);

impl Read for Drops {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let many = self.1.min(buffer.len());
        self.0.read(&mut buffer[..many])
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// The values as JSON, or as quoted fields of which none can be empty and there.
#[derive(Default)]
struct Written {
    ndjson: Vec<u8>,
    csv: Option<Vec<u8>>,
}

impl Written {
    fn add(&mut self, mapping: &Mapping, values: &[Value<'_>]) {
        let (mut json, mut fields) = (Vec::new(), Vec::new());
        for ((name, _), value) in mapping.fields().zip(values) {
            let (as_json, as_text) = match value {
                Value::Missing => ("null".to_owned(), ""),
                Value::Text(text) => (serde_json::to_string(text).expect("a text"), text.as_ref()),
                Value::Number(text) | Value::Truth(text) => ((*text).to_owned(), *text),
                Value::Nested => ("[]".to_owned(), ""),
            };
            if as_text.is_empty() && !matches!(value, Value::Missing) {
                self.csv = None;
            }
            json.push(format!("{name:?}:{as_json}"));
            fields.push(format!("\"{}\"", as_text.replace('"', "\"\"")));
        }
        self.ndjson.extend(format!("{{{}}}\n", json.join(", ")).bytes());
        if let Some(csv) = &mut self.csv {
            csv.extend(format!("{}\r\n", fields.join(",")).bytes());
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let [how, fields, content @ ..] = input else { return };
    let mapping = mapping(*fields);
    let names: Vec<String> = mapping.fields().map(|(field, _)| field.to_owned()).collect();
    let columns = (how & 4 != 0).then_some(names.as_slice());
    let layout = match how & 3 {
        0 => Layout::Ndjson,
        1 => Layout::Delimited { delimiter: b',', columns },
        2 => Layout::Delimited { delimiter: b'\t', columns },
        _ => Layout::Delimited { delimiter: b';', columns },
    };
    let header = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(",");
    let mut written =
        Written { csv: Some(format!("{header}\n").into_bytes()), ..Written::default() };
    let whole = lines(Cursor::new(content.to_vec()), layout, &mapping, &mut |values| {
        written.add(&mapping, values);
    });
    let drops = Drops(Cursor::new(content.to_vec()), 1 + usize::from(how >> 3));
    assert_eq!(lines(drops, layout, &mapping, &mut |_| ()), whole, "a few at a time");
    if !content.starts_with(&[0x1f, 0x8b]) {
        let compressed = Cursor::new(gzip(content));
        assert_eq!(lines(compressed, layout, &mapping, &mut |_| ()), whole, "compressed");
    }
    let events: Vec<_> = whole.into_iter().filter_map(|(_, event)| event.ok()).collect();
    let read = |bytes: Vec<u8>, layout| -> Vec<String> {
        let lines = lines(Cursor::new(bytes), layout, &mapping, &mut |_| ());
        lines.into_iter().map(|(_, event)| event.expect("it was one before")).collect()
    };
    assert_eq!(read(written.ndjson, Layout::Ndjson), events, "as NDJSON");
    if let Some(csv) = written.csv {
        let layout = Layout::Delimited { delimiter: b',', columns: None };
        assert_eq!(read(csv, layout), events, "as CSV");
    }
});
