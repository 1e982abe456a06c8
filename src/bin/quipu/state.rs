//! What a directory holds and how it is: `views`, `stats` and `checkpoint`.
//!
//! 1. `stats` shows every figure that the engine has, by the engine's own names; a figure that is
//!    added there appears here by itself.
//! 2. Units come from the end of a name (`_bytes`, `_micros`), and only tables use them.

use std::io::{self, BufWriter, Write};

use clap::Args;
use quipu::{Successor, TimeZone, ViewStatus};
use serde_json::Value;

use crate::args::{Output, Place};
use crate::failure::Failure;
use crate::number;
use crate::sheet::{self, Cell, Column, Extent, Format, Sheet};
use crate::table::Align;

const VIEWS_EXAMPLES: &str = "\
Examples:
  quipu views --dir shop";

const STATS_EXAMPLES: &str = "\
Examples:
  quipu stats --dir shop
  quipu stats --format json --dir shop | jq .log_bytes";

const CHECKPOINT_EXAMPLES: &str = "\
Examples:
  quipu checkpoint --dir shop

Every command checkpoints when it ends; this one does nothing else.";

/// The views, their keys and their definitions
#[derive(Debug, Args)]
#[command(after_help = VIEWS_EXAMPLES)]
pub(crate) struct ViewsArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

/// The engine's figures of itself: log, memory, checkpoints
#[derive(Debug, Args)]
#[command(after_help = STATS_EXAMPLES)]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

/// Write all changed series to the snapshot now
#[derive(Debug, Args)]
#[command(after_help = CHECKPOINT_EXAMPLES)]
pub(crate) struct CheckpointArgs {
    #[command(flatten)]
    place: Place,
}

/// Runs `views`.
pub(crate) fn views(args: &ViewsArgs) -> Result<(), Failure> {
    let db = args.place.open_to_ask()?;
    let column = |name, align, rank| Column { name, align, rank };
    let sheet = Sheet {
        key: None,
        columns: vec![
            column("name", Align::Left, 0),
            column("key", Align::Left, 3),
            column("keys", Align::Right, 0),
            column("state", Align::Left, 2),
            column("defined_at", Align::Right, 5),
            column("time_zone", Align::Left, 4),
            column("definition", Align::Wrapped, 1),
        ],
    };
    let mut writer = args.output.start(sheet, Extent::Many)?;
    let format = args.output.format();
    let zone = db.time_zone();
    for status in db.views()? {
        writer.row(&[], &view_cells(&status, zone, format))?;
    }
    writer.finish()?;
    Ok(db.close()?)
}

fn view_cells(status: &ViewStatus, zone: TimeZone, format: Format) -> [Cell; 7] {
    let definition = status.view.to_string();
    // A table has the name already, some columns to the left.
    let name = status.view.name();
    let names = [format!("{name}: "), format!("{name:?}: ")];
    let text = names.iter().find_map(|name| definition.strip_prefix(name));
    let definition = match text.filter(|_| format == Format::Table) {
        Some(text) => text.to_owned(),
        None => definition,
    };
    let state = match &status.backfill {
        None => "ready".to_owned(),
        Some(progress) => format!("backfilled {} of {}", progress.done, progress.total),
    };
    let state = match &status.successor {
        None => state,
        Some(Successor { progress, .. }) => {
            format!("{state}, redefined {} of {}", progress.done, progress.total)
        }
    };
    let inexact = status.exact_from.iter().filter_map(|(grain, from)| Some((grain, (*from)?)));
    let state =
        inexact.fold(state, |state, (grain, from)| format!("{state}, by {grain} from {from}"));
    [
        Cell::Text(status.view.name().to_owned()),
        Cell::Texts(status.view.key().to_vec()),
        Cell::Count(status.keys),
        Cell::Text(state),
        Cell::Count(status.defined_at.get()),
        Cell::Text(zone.name().to_owned()),
        Cell::Text(definition),
    ]
}

/// Runs `stats`.
pub(crate) fn stats(args: &StatsArgs) -> Result<(), Failure> {
    let db = args.place.open_to_ask()?;
    let statistics = serde_json::to_value(db.statistics())
        .map_err(|error| Failure::new(format!("statistics: {error}")))?;
    let format = args.output.format();
    if matches!(format, Format::Json | Format::Ndjson) {
        let mut out = BufWriter::new(io::stdout().lock());
        sheet::json(&mut out, &statistics)?;
        out.write_all(b"\n")?;
        out.flush()?;
        return Ok(db.close()?);
    }
    let column = |name, align| Column { name, align, rank: 0 };
    let columns = vec![column("figure", Align::Left), column("value", Align::Right)];
    let mut writer = args.output.start(Sheet { key: None, columns }, Extent::Many)?;
    let mut figures = Vec::new();
    flatten("", &statistics, &mut figures);
    for (name, value) in figures {
        let text = match format {
            Format::Csv => exact(value),
            _ => with_unit(&name, value),
        };
        writer.row(&[], &[Cell::Text(name), Cell::Text(text)])?;
    }
    writer.finish()?;
    Ok(db.close()?)
}

/// Every figure by its name, those of an inner object behind the outer one's name and a dot.
fn flatten<'a>(name: &str, value: &'a Value, figures: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let dot = if name.is_empty() { "" } else { "." };
                flatten(&format!("{name}{dot}{field}"), value, figures);
            }
        }
        value => figures.push((name.to_owned(), value)),
    }
}

fn exact(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// A figure for people (2).
fn with_unit(name: &str, value: &Value) -> String {
    match value.as_u64() {
        Some(n) if name.ends_with("_bytes") || name == "bytes" => number::bytes(n),
        Some(n) if name.ends_with("_micros") => number::micros(n),
        Some(n) => number::grouped(n),
        None => match value {
            Value::Null => "-".to_owned(),
            Value::Number(x) => x.as_f64().map_or_else(|| x.to_string(), number::alone),
            Value::String(text) if text.ends_with('Z') => number::instant(text),
            value => exact(value),
        },
    }
}

/// Runs `checkpoint`.
pub(crate) fn checkpoint(args: &CheckpointArgs) -> Result<(), Failure> {
    let db = args.place.open()?;
    db.checkpoint()?;
    Ok(db.close()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_flat_and_have_units() {
        let statistics = serde_json::json!({
            "events": 1_234_567, "log_bytes": 123_456_789, "ratio": 0.25, "none": null,
            "last": { "duration_micros": 12_345, "time": "2010-12-01T08:26:00.000Z" },
        });
        let mut figures = Vec::new();
        flatten("", &statistics, &mut figures);
        let text: Vec<_> = figures
            .iter()
            .map(|(name, value)| format!("{name}={}", with_unit(name, value)))
            .collect();
        assert_eq!(
            text,
            [
                "events=1,234,567",
                "last.duration_micros=12.3 ms",
                "last.time=2010-12-01 08:26:00",
                "log_bytes=117.7 MiB",
                "none=-",
                "ratio=0.25"
            ]
        );
    }
}
