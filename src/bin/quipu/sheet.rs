//! One way out for every command's rows: as a table, JSON, NDJSON, CSV or Markdown.
//!
//! 1. JSON, NDJSON and CSV stream: a row is written when it is given and nothing of it is kept.
//!    A table is laid out in pages of [`PAGE_ROWS`] rows, which bounds its memory as well.
//! 2. JSON and CSV carry every digit (the shortest text that reads back as the same number);
//!    what is missing or not finite is `null`, or empty in CSV.
//! 3. A line of NDJSON stays one line for every reader: U+0085, U+2028 and U+2029 inside of
//!    strings are escaped, since some readers break lines there.
//! 4. The key is one array in JSON (`key`), and one column a part everywhere else.

use std::io::{self, Write};
use std::time::Duration;

use clap::ValueEnum;
use quipu::Timestamp;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};
use serde_json::value::RawValue;

use crate::table::{self, Align, Style};

/// How many rows of a table are laid out together.
const PAGE_ROWS: usize = 5_000;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for people, as many as the terminal holds
    Table,
    /// One JSON document
    Json,
    /// One JSON object a line
    Ndjson,
    /// Comma-separated values with a header
    Csv,
    /// A Markdown table
    Markdown,
}

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Missing,
    Count(u64),
    Number(f64),
    /// `true` or `false`; yes or no in tables.
    Flag(bool),
    Time(Timestamp),
    /// Seconds everywhere but in tables; a column of it is called so at its end.
    Length(Duration),
    Text(String),
    /// A list of texts: an array in JSON, joined by `, ` elsewhere.
    Texts(Vec<String>),
}

/// One column behind the key.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    /// The field's name, the same in every format.
    pub(crate) name: &'static str,
    /// Where numbers stand in a table.
    pub(crate) align: Align,
    /// Which column a narrow terminal does without first: the highest. 0 always stays.
    pub(crate) rank: u8,
}

/// The columns of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Sheet {
    /// The names of the key's parts; `None` when the rows have no key at all.
    pub(crate) key: Option<Vec<String>>,
    pub(crate) columns: Vec<Column>,
}

impl Sheet {
    /// One row as a JSON object, to be part of a larger document.
    pub(crate) fn object(&self, key: &[String], cells: &[Cell]) -> Option<Box<RawValue>> {
        let mut text = Vec::new();
        json_row(&mut text, self, key, cells).ok()?;
        RawValue::from_string(String::from_utf8(text).ok()?).ok()
    }
}

/// Whether an answer is a list of rows or one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// A JSON document is an array.
    Many,
    /// A JSON document is the row itself.
    One,
}

/// Writes the rows of one answer.
pub(crate) struct SheetWriter<W: Write> {
    sheet: Sheet,
    form: Form<W>,
}

enum Form<W: Write> {
    Json { out: W, extent: Extent, rows: u64 },
    Ndjson(W),
    Csv(Box<csv::Writer<W>>),
    Paged { out: W, style: Style, page: Vec<Vec<Cell>>, pages: u64 },
}

impl<W: Write> SheetWriter<W> {
    /// Starts an answer. `width` is that of the terminal, where there is one.
    pub(crate) fn new(
        out: W,
        format: Format,
        sheet: Sheet,
        extent: Extent,
        width: Option<u16>,
    ) -> io::Result<Self> {
        let paged = |out, style| Form::Paged { out, style, page: Vec::new(), pages: 0 };
        let form = match format {
            Format::Json => Form::Json { out, extent, rows: 0 },
            Format::Ndjson => Form::Ndjson(out),
            Format::Csv => {
                let mut csv = csv::WriterBuilder::new().flexible(false).from_writer(out);
                let key = sheet.key.iter().flatten().map(String::as_str);
                let names = key.chain(sheet.columns.iter().map(|column| column.name));
                csv.write_record(names).map_err(csv_error)?;
                Form::Csv(Box::new(csv))
            }
            Format::Table => paged(out, Style::Terminal(width)),
            Format::Markdown => paged(out, Style::Markdown),
        };
        Ok(Self { sheet, form })
    }

    /// Writes one row: the parts of its key (none where the sheet has none) and its cells.
    pub(crate) fn row(&mut self, key: &[String], cells: &[Cell]) -> io::Result<()> {
        match &mut self.form {
            Form::Json { out, extent, rows } => {
                if *extent == Extent::Many {
                    out.write_all(if *rows == 0 { b"[\n" } else { b",\n" })?;
                }
                *rows += 1;
                json_row(out, &self.sheet, key, cells)
            }
            Form::Ndjson(out) => {
                json_row(out, &self.sheet, key, cells)?;
                out.write_all(b"\n")
            }
            Form::Csv(csv) => {
                for part in key {
                    csv.write_field(part).map_err(csv_error)?;
                }
                for cell in cells {
                    csv.write_field(csv_field(cell)).map_err(csv_error)?;
                }
                csv.write_record(None::<&[u8]>).map_err(csv_error)
            }
            Form::Paged { page, .. } => {
                let parts = key.iter().map(|part| Cell::Text(part.clone()));
                page.push(parts.chain(cells.iter().cloned()).collect());
                if page.len() == PAGE_ROWS { self.turn_page() } else { Ok(()) }
            }
        }
    }

    /// Writes what is left and flushes.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.turn_page()?;
        match self.form {
            Form::Json { mut out, extent, rows } => {
                match (extent, rows) {
                    (Extent::Many, 0) => out.write_all(b"[]\n")?,
                    (Extent::Many, _) => out.write_all(b"\n]\n")?,
                    (Extent::One, _) => out.write_all(b"\n")?,
                }
                out.flush()
            }
            Form::Ndjson(mut out) | Form::Paged { mut out, .. } => out.flush(),
            Form::Csv(mut csv) => csv.flush(),
        }
    }

    /// Lays out the rows of the page at hand; the first page even when it is empty.
    fn turn_page(&mut self) -> io::Result<()> {
        let Form::Paged { out, style, page, pages } = &mut self.form else { return Ok(()) };
        if page.is_empty() && *pages > 0 {
            return Ok(());
        }
        if *pages > 0 {
            out.write_all(b"\n")?;
        }
        *pages += 1;
        let text = table::layout(&self.sheet, page, *style);
        page.clear();
        out.write_all(text.as_bytes())
    }
}

fn json_row(out: &mut impl Write, sheet: &Sheet, key: &[String], cells: &[Cell]) -> io::Result<()> {
    let mut separator: &[u8] = b"{";
    if sheet.key.is_some() {
        out.write_all(b"{\"key\":")?;
        json(out, key)?;
        separator = b",";
    }
    for (column, cell) in sheet.columns.iter().zip(cells) {
        out.write_all(separator)?;
        separator = b",";
        json(out, column.name)?;
        out.write_all(b":")?;
        match cell {
            Cell::Missing => out.write_all(b"null")?,
            Cell::Count(n) => json(out, n)?,
            // serde_json writes null for what is not finite (2).
            Cell::Number(x) => json(out, x)?,
            Cell::Flag(is) => json(out, is)?,
            Cell::Time(at) => write!(out, "\"{}\"", millis(*at))?,
            Cell::Length(length) => json(out, &length.as_secs_f64())?,
            Cell::Text(text) => json(out, text)?,
            Cell::Texts(texts) => json(out, texts)?,
        }
    }
    out.write_all(b"}")
}

/// Writes one JSON value on one line (3).
pub(crate) fn json<T: Serialize + ?Sized>(out: &mut impl Write, value: &T) -> io::Result<()> {
    Ok(value.serialize(&mut Serializer::with_formatter(out, OneLine(CompactFormatter)))?)
}

/// JSON without any of the characters that end a line for some reader (3).
struct OneLine(CompactFormatter);

impl Formatter for OneLine {
    fn write_string_fragment<W>(&mut self, out: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        if fragment.is_ascii() {
            return out.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some(at) = rest.find(['\u{85}', '\u{2028}', '\u{2029}']) {
            let (before, behind) = rest.split_at(at);
            out.write_all(before.as_bytes())?;
            let mut behind = behind.chars();
            if let Some(c) = behind.next() {
                write!(out, "\\u{:04x}", u32::from(c))?;
            }
            rest = behind.as_str();
        }
        out.write_all(rest.as_bytes())
    }
}

/// The error of the output itself, so that a closed pipe is known as one.
fn csv_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// A time to the millisecond, which is how every format has it.
pub(crate) fn millis(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(at.millis())
}

fn csv_field(cell: &Cell) -> String {
    match cell {
        Cell::Number(x) if x.is_finite() => format!("{x:?}"),
        Cell::Missing | Cell::Number(_) => String::new(),
        Cell::Count(n) => n.to_string(),
        Cell::Flag(is) => is.to_string(),
        Cell::Time(at) => millis(*at).to_string(),
        Cell::Length(length) => format!("{:?}", length.as_secs_f64()),
        Cell::Text(text) => text.clone(),
        Cell::Texts(texts) => texts.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(key: &[&str]) -> Sheet {
        let column = |name| Column { name, align: Align::Right, rank: 0 };
        Sheet {
            key: Some(key.iter().map(ToString::to_string).collect()),
            columns: vec![column("count"), column("sum"), column("last_seen")],
        }
    }

    fn written(format: Format, extent: Extent, rows: &[(&str, [Cell; 3])]) -> String {
        let mut out = Vec::new();
        let mut writer =
            SheetWriter::new(&mut out, format, sheet(&["user"]), extent, None).unwrap();
        for (key, cells) in rows {
            writer.row(&[(*key).to_owned()], cells).unwrap();
        }
        writer.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    fn row(sum: f64) -> [Cell; 3] {
        [Cell::Count(2), Cell::Number(sum), Cell::Time(Timestamp::from_millis(1_291_191_960_000))]
    }

    #[test]
    fn ndjson_has_one_object_a_line_with_the_key_as_an_array() {
        assert_eq!(
            written(Format::Ndjson, Extent::Many, &[("a", row(0.1)), ("b", row(f64::INFINITY))]),
            "{\"key\":[\"a\"],\"count\":2,\"sum\":0.1,\"last_seen\":\"2010-12-01T08:26:00.000Z\"}\n\
             {\"key\":[\"b\"],\"count\":2,\"sum\":null,\"last_seen\":\"2010-12-01T08:26:00.000Z\"}\n"
        );
    }

    #[test]
    fn json_is_one_document_of_many_or_of_one() {
        let many = written(Format::Json, Extent::Many, &[("a", row(1.0)), ("b", row(2.0))]);
        let many: serde_json::Value = serde_json::from_str(&many).unwrap();
        assert_eq!(many[1]["key"][0], "b");
        let one = written(Format::Json, Extent::One, &[("a", row(1.0))]);
        let one: serde_json::Value = serde_json::from_str(&one).unwrap();
        assert_eq!(one["count"], 2);
        assert_eq!(written(Format::Json, Extent::Many, &[]), "[]\n");
    }

    #[test]
    fn a_line_stays_a_line_for_every_reader() {
        let text = "a\u{85}b\u{2028}c\u{2029}\n\"";
        let mut out = Vec::new();
        json(&mut out, text).unwrap();
        let line = String::from_utf8(out).unwrap();
        assert_eq!(line, r#""a\u0085b\u2028c\u2029\n\"""#);
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }

    #[test]
    fn csv_names_the_key_by_its_dimension_and_quotes_what_needs_it() {
        assert_eq!(
            written(Format::Csv, Extent::Many, &[("a,b", row(1e300)), ("c", row(f64::NAN))]),
            "user,count,sum,last_seen\n\
             \"a,b\",2,1e300,2010-12-01T08:26:00.000Z\n\
             c,2,,2010-12-01T08:26:00.000Z\n"
        );
    }

    #[test]
    fn an_empty_answer_still_has_its_header() {
        assert_eq!(written(Format::Csv, Extent::Many, &[]), "user,count,sum,last_seen\n");
        assert!(written(Format::Table, Extent::Many, &[]).contains("last_seen"));
        assert_eq!(written(Format::Ndjson, Extent::Many, &[]), "");
    }

    #[test]
    fn a_long_table_comes_in_pages() {
        let rows: Vec<_> = (0..=PAGE_ROWS).map(|_| ("k", row(1.0))).collect();
        let text = written(Format::Table, Extent::Many, &rows);
        assert_eq!(text.matches("last_seen").count(), 2);
    }
}
