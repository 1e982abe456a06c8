//! Lines of bytes, each of bounded length.
//!
//! 1. However long a line is, no more than [`LINE_BYTES_MAX`] of it are held.
//! 2. A byte order mark before the first line is not part of it. Nor is the line feed that ends a
//!    line; a carriage return is left to the format.

use std::io::{self, BufRead, Read};

/// The longest line there may be.
pub(crate) const LINE_BYTES_MAX: usize = 1 << 20;

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    Bytes(&'a [u8]),
    /// Longer than [`LINE_BYTES_MAX`].
    TooLong,
}

/// Reads lines.
pub(crate) struct Lines<R> {
    input: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, line: Vec::with_capacity(1024), number: 0 }
    }

    /// The number of the line last read, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The next line, or `None` behind the last.
    pub(crate) fn read(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        if self.input.by_ref().take(limit).read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if self.line.len() > LINE_BYTES_MAX {
            self.input.skip_until(b'\n')?;
            return Ok(Some(Line::TooLong));
        }
        let line = self.line.as_slice();
        let marked = if self.number == 1 { line.strip_prefix(b"\xef\xbb\xbf") } else { None };
        Ok(Some(Line::Bytes(marked.unwrap_or(line))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8]) -> Vec<Result<Vec<u8>, ()>> {
        let mut lines = Lines::new(io::BufReader::with_capacity(7, input));
        let mut found = Vec::new();
        while let Some(line) = lines.read().unwrap() {
            found.push(match line {
                Line::Bytes(bytes) => Ok(bytes.to_vec()),
                Line::TooLong => Err(()),
            });
        }
        assert_eq!(lines.number(), found.len() as u64);
        found
    }

    #[test]
    fn the_last_line_needs_no_end() {
        assert_eq!(all(b"a\n\nb"), [Ok(b"a".to_vec()), Ok(vec![]), Ok(b"b".to_vec())]);
        assert_eq!(all(b"a\n"), [Ok(b"a".to_vec())]);
        assert_eq!(all(b""), []);
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_once() {
        assert_eq!(
            all(b"\xef\xbb\xbfa\n\xef\xbb\xbfb"),
            [Ok(b"a".to_vec()), Ok(b"\xef\xbb\xbfb".to_vec())]
        );
    }

    #[test]
    fn an_endless_line_is_one_bad_line_and_not_all_memory() {
        let mut input = vec![b'x'; LINE_BYTES_MAX];
        input.extend(b"\n");
        assert_eq!(all(&input)[0].as_ref().map(Vec::len), Ok(LINE_BYTES_MAX));
        let mut input = vec![b'x'; 3 * LINE_BYTES_MAX];
        input.extend(b"\nnext\n");
        assert_eq!(all(&input), [Err(()), Ok(b"next".to_vec())]);
        let mut lines = Lines::new(io::BufReader::new(io::repeat(b'x').take(1 << 25)));
        assert_eq!(lines.read().unwrap(), Some(Line::TooLong));
        assert!(lines.line.capacity() <= 2 * LINE_BYTES_MAX + 2, "{}", lines.line.capacity());
    }
}
