//! An input from its first line to its last, whatever its format.
//!
//! 1. Every line that is not blank is given once, with its number, in order: as its values, or as
//!    what is wrong with it.
//! 2. A line that is wrong stops nothing. What stops a reading is a [`Stop`].

use std::io::{self, BufRead};

use crate::delimited::{Columns, Records};
use crate::lines::{LINE_BYTES_MAX, Line, Lines};
use crate::mapping::{Mapping, Values};
use crate::ndjson;

/// How an input is laid out.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Layout<'a> {
    /// One JSON object a line.
    Ndjson,
    /// Fields between delimiters. Without `columns` the first record names them.
    Delimited { delimiter: u8, columns: Option<&'a [String]> },
}

/// Why a reading ended before the input did.
#[derive(Debug)]
pub(crate) enum Stop<E> {
    /// It cannot be read from this line on.
    Unreadable(u64, io::Error),
    /// It has not the columns that are needed.
    Columns(String),
    /// Whoever takes the lines wants no more.
    Taker(E),
}

/// Takes a line by its number: its values, or what is wrong with it.
pub(crate) type Taker<'a, E> = dyn FnMut(u64, Result<Values<'_>, String>) -> Result<(), E> + 'a;

/// Gives every line of `input` to `take`, by its number.
pub(crate) fn read<E>(
    input: impl BufRead,
    layout: Layout<'_>,
    mapping: &Mapping,
    take: &mut Taker<'_, E>,
) -> Result<(), Stop<E>> {
    match layout {
        Layout::Ndjson => read_ndjson(Lines::new(input), mapping, take),
        Layout::Delimited { delimiter, columns } => {
            read_delimited(Records::new(input, delimiter), columns, mapping, take)
        }
    }
}

fn read_ndjson<E>(
    mut lines: Lines<impl BufRead>,
    mapping: &Mapping,
    take: &mut Taker<'_, E>,
) -> Result<(), Stop<E>> {
    loop {
        let number = lines.number() + 1;
        let values = match lines.read().map_err(|error| Stop::Unreadable(number, error))? {
            None => return Ok(()),
            Some(Line::Bytes(bytes)) if bytes.trim_ascii().is_empty() => continue,
            Some(Line::Bytes(bytes)) => ndjson::parse(bytes, mapping),
            Some(Line::TooLong) => Err(format!("longer than {LINE_BYTES_MAX} bytes")),
        };
        take(number, values).map_err(Stop::Taker)?;
    }
}

fn read_delimited<E>(
    mut records: Records<impl BufRead>,
    columns: Option<&[String]>,
    mapping: &Mapping,
    take: &mut Taker<'_, E>,
) -> Result<(), Stop<E>> {
    let mut line = 1;
    let columns = match columns {
        Some(names) => Columns::new(names, mapping).map_err(Stop::Columns)?,
        None => match records.read().map_err(|error| Stop::Unreadable(line, error))? {
            None => return Ok(()),
            Some(header) => {
                let said = |why| Stop::Columns(format!("the header: {why}"));
                let header = header.fields.map_err(said)?;
                let names: Vec<_> = header.iter().map(|name| name.trim().to_owned()).collect();
                Columns::new(&names, mapping).map_err(Stop::Columns)?
            }
        },
    };
    while let Some(record) = records.read().map_err(|error| Stop::Unreadable(line, error))? {
        line = record.line;
        let values = record.fields.and_then(|fields| columns.values(fields, mapping));
        take(line, values).map_err(Stop::Taker)?;
    }
    Ok(())
}
