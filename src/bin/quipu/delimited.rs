//! CSV and its relatives: records of fields, and a record into the slots of a [`Mapping`].
//!
//! 1. A record knows the line that it starts on, also behind quoted fields with line ends.
//! 2. No record holds more than [`LINE_BYTES_MAX`]. A quote that is not closed within that, or
//!    before the end of the file, makes bad the one line that it stands in: reading goes on with
//!    the next line.
//! 3. Blank lines are passed over. An empty field is a missing value, quoted or not.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, BufRead};

use csv_core::ReadRecordResult;

use crate::lines::{LINE_BYTES_MAX, Line, Lines};
use crate::mapping::{Mapping, Need, Value, Values};

/// Reads records.
pub(crate) struct Records<R> {
    lines: Lines<R>,
    parser: csv_core::Reader,
    /// The line being taken apart, how far, and its number.
    line: Vec<u8>,
    at: usize,
    number: u64,
    /// Lines that were read while a quote was open, and belong to no record (2).
    returned: VecDeque<(u64, Option<Vec<u8>>)>,
    text: Vec<u8>,
    ends: Vec<usize>,
}

/// One record, and the line it starts on.
pub(crate) struct Record<'a> {
    pub(crate) line: u64,
    pub(crate) fields: Result<Fields<'a>, String>,
}

/// The fields of one record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    text: &'a str,
    ends: &'a [usize],
}

impl<'a> Fields<'a> {
    /// The fields in order.
    pub(crate) fn iter(self) -> impl Iterator<Item = &'a str> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let field = &self.text[start..*end];
            start = *end;
            field
        })
    }
}

/// What came of a piece of input.
enum Fed {
    /// The record ended behind so many bytes.
    Record(usize),
    /// All was taken and the record goes on.
    Open,
}

/// What the next line was.
enum Next {
    Line,
    TooLong,
    End,
}

impl<R: BufRead> Records<R> {
    pub(crate) fn new(input: R, delimiter: u8) -> Self {
        Self {
            lines: Lines::new(input),
            parser: csv_core::ReaderBuilder::new().delimiter(delimiter).build(),
            line: Vec::new(),
            at: 0,
            number: 0,
            returned: VecDeque::new(),
            text: vec![0; 1024],
            ends: vec![0; 32],
        }
    }

    /// The next record, or `None` behind the last.
    pub(crate) fn read(&mut self) -> io::Result<Option<Record<'_>>> {
        while self.line[self.at..].trim_ascii().is_empty() {
            match self.next_line()? {
                Next::Line => {}
                Next::End => return Ok(None),
                Next::TooLong => {
                    let fields = Err(format!("longer than {LINE_BYTES_MAX} bytes"));
                    return Ok(Some(Record { line: self.number, fields }));
                }
            }
        }
        let line = self.number;
        let (mut text_len, mut fields) = (0, 0);
        // The lines of this record, for when its quote turns out not to be closed.
        let mut taken: Vec<(u64, Option<Vec<u8>>)> = Vec::new();
        let mut taken_bytes = 0;
        loop {
            if let Fed::Record(used) = self.feed(&mut text_len, &mut fields) {
                self.at += used;
                break;
            }
            taken_bytes += self.line.len();
            taken.push((self.number, Some(self.line.clone())));
            let next = if taken_bytes > LINE_BYTES_MAX { Next::TooLong } else { self.next_line()? };
            let within = match next {
                Next::Line => continue,
                Next::End => "before the end of the file".to_owned(),
                Next::TooLong => {
                    if self.number > taken.last().map_or(0, |(number, _)| *number) {
                        taken.push((self.number, None));
                    }
                    format!("within {LINE_BYTES_MAX} bytes")
                }
            };
            self.parser.reset();
            for returned in taken.drain(1..).rev() {
                self.returned.push_front(returned);
            }
            self.line.clear();
            self.at = 0;
            let fields = Err(format!("a quote that is opened here is not closed {within}"));
            return Ok(Some(Record { line, fields }));
        }
        let fields = std::str::from_utf8(&self.text[..text_len])
            .map(|text| Fields { text, ends: &self.ends[..fields] })
            .map_err(|_| "not UTF-8".to_owned());
        Ok(Some(Record { line, fields }))
    }

    fn next_line(&mut self) -> io::Result<Next> {
        self.at = 0;
        self.line.clear();
        if let Some((number, line)) = self.returned.pop_front() {
            self.number = number;
            return Ok(match line {
                Some(line) => {
                    self.line = line;
                    Next::Line
                }
                None => Next::TooLong,
            });
        }
        let next = match self.lines.read()? {
            None => return Ok(Next::End),
            Some(Line::TooLong) => Next::TooLong,
            Some(Line::Bytes(bytes)) => {
                self.line.extend_from_slice(bytes);
                Next::Line
            }
        };
        self.number = self.lines.number();
        Ok(next)
    }

    /// Gives the parser the rest of the line and the line feed behind it.
    fn feed(&mut self, text_len: &mut usize, fields: &mut usize) -> Fed {
        let rest = self.line.len() - self.at;
        for (input, before) in [(&self.line[self.at..], 0), (b"\n".as_slice(), rest)] {
            let mut used = 0;
            // Empty input would tell the parser that the file ends.
            while used < input.len() {
                let (result, read, wrote, ended) = self.parser.read_record(
                    &input[used..],
                    &mut self.text[*text_len..],
                    &mut self.ends[*fields..],
                );
                used += read;
                *text_len += wrote;
                *fields += ended;
                match result {
                    ReadRecordResult::InputEmpty => {}
                    ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
                    ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                    ReadRecordResult::Record | ReadRecordResult::End => {
                        return Fed::Record((before + used).min(rest));
                    }
                }
            }
        }
        Fed::Open
    }
}

/// Which column goes into which slot.
#[derive(Debug)]
pub(crate) struct Columns(Vec<Option<usize>>);

impl Columns {
    /// Finds the mapped fields among the columns; a field that was asked for must be there.
    pub(crate) fn new(names: &[String], mapping: &Mapping) -> Result<Self, String> {
        let columns: Vec<_> = names.iter().map(|name| mapping.slot(name)).collect();
        for (slot, (field, need)) in mapping.fields().enumerate() {
            let times = columns.iter().filter(|column| **column == Some(slot)).count();
            if times > 1 {
                return Err(format!("column {field:?} stands twice in the header"));
            }
            if times == 0 && need != Need::Optional {
                let hint = if names.len() == 1 { "; is it another --delimiter?" } else { "" };
                return Err(format!(
                    "there is no column {field:?}; the columns are {}{hint}",
                    names.join(", ")
                ));
            }
        }
        Ok(Self(columns))
    }

    /// Puts the fields of a record into their slots.
    pub(crate) fn values<'a>(
        &self,
        fields: Fields<'a>,
        mapping: &Mapping,
    ) -> Result<Values<'a>, String> {
        if fields.ends.len() != self.0.len() {
            return Err(format!(
                "{} fields where the header has {}",
                fields.ends.len(),
                self.0.len()
            ));
        }
        let mut values: Values<'a> = smallvec::smallvec![Value::Missing; mapping.slots()];
        for (slot, field) in self.0.iter().zip(fields.iter()) {
            if let (Some(slot), false) = (slot, field.is_empty()) {
                values[*slot] = Value::Text(Cow::Borrowed(field));
            }
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Wanted;

    /// Every record as its line and its fields joined by `|`, or what was wrong.
    fn all(input: &[u8]) -> Vec<(u64, String)> {
        let mut records = Records::new(io::BufReader::with_capacity(5, input), b',');
        let mut found = Vec::new();
        while let Some(record) = records.read().unwrap() {
            let fields = match record.fields {
                Ok(fields) => fields.iter().collect::<Vec<_>>().join("|"),
                Err(why) => format!("! {why}"),
            };
            found.push((record.line, fields));
        }
        found
    }

    fn check(input: &str, want: &[(u64, &str)]) {
        let want: Vec<_> = want.iter().map(|(line, text)| (*line, (*text).to_owned())).collect();
        assert_eq!(all(input.as_bytes()), want, "{input:?}");
    }

    #[test]
    fn records_know_their_line() {
        check("a,b\n1,2\n", &[(1, "a|b"), (2, "1|2")]);
        check("a,b\r\n\r\n1,2", &[(1, "a|b"), (3, "1|2")]);
        check("a\rb\n\nc\n", &[(1, "a"), (1, "b"), (3, "c")]);
        check("\"a\nb\",\"c\"\"d\"\nx,\n", &[(1, "a\nb|c\"d"), (3, "x|")]);
        check("\"a\n\n\r\nb\"\nx\n", &[(1, "a\n\n\r\nb"), (5, "x")]);
        check("\u{feff}a,b\n", &[(1, "a|b")]);
        check("5\" pipe,b\n", &[(1, "5\" pipe|b")]);
        check("", &[]);
        check("\n \n", &[]);
    }

    #[test]
    fn a_quote_left_open_costs_its_own_line_only() {
        let open = "! a quote that is opened here is not closed before the end of the file";
        check("a,b\n\"1,2\n3,4\n5,6\n", &[(1, "a|b"), (2, open), (3, "3|4"), (4, "5|6")]);
        check("\"a", &[(1, open)]);
        let mut input = b"\"open\n".to_vec();
        let line = [b"x".repeat(99), vec![b'\n']].concat();
        input.extend(line.repeat(2 * LINE_BYTES_MAX / line.len()));
        let found = all(&input);
        assert!(found[0].1.contains("not closed within"), "{}", found[0].1);
        assert_eq!(found.len(), input.len().div_ceil(100));
        assert!(found[1..].iter().zip(2..).all(|(record, line)| record.0 == line));
    }

    #[test]
    fn a_line_too_long_is_bad_inside_and_outside_of_quotes() {
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        let found = all(format!("a\n{long}\nb\n\"c\n{long}\nd\n").as_bytes());
        let lines: Vec<_> = found.iter().map(|(line, text)| (*line, &text[..1])).collect();
        assert_eq!(lines, [(1, "a"), (2, "!"), (3, "b"), (4, "!"), (5, "!"), (6, "d")]);
    }

    #[test]
    fn many_and_long_fields_fit() {
        let wide = vec!["0123456789".repeat(50); 300].join(",");
        check(&wide, &[(1, &wide.replace(',', "|"))]);
        assert_eq!(all(b"a,\xff\n"), [(1, "! not UTF-8".to_owned())]);
    }

    #[test]
    fn columns_find_their_slots() {
        let mapping = Mapping::new(Wanted::default()).unwrap();
        let names = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let columns = Columns::new(&names("ts,other,event,value"), &mapping).unwrap();
        let mut records = Records::new(b"1,x,sale,\n1,2\n".as_slice(), b',');
        let record = records.read().unwrap().unwrap();
        let values = columns.values(record.fields.unwrap(), &mapping).unwrap();
        assert_eq!(values[0], Value::Text("sale".into()));
        assert_eq!(values[mapping.slot("value").unwrap()], Value::Missing);
        drop(values);
        let record = records.read().unwrap().unwrap();
        let error = columns.values(record.fields.unwrap(), &mapping).unwrap_err();
        assert_eq!(error, "2 fields where the header has 4");
        assert!(Columns::new(&names("ts,value"), &mapping).unwrap_err().contains("\"event\""));
        assert!(Columns::new(&names("ts,ts,event"), &mapping).unwrap_err().contains("twice"));
        assert!(Columns::new(&names("ts;event"), &mapping).unwrap_err().contains("--delimiter"));
    }
}
