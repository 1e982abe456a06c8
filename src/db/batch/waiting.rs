//! Texts that wait to be looked up in the dictionary.
//!
//! A look-up is two cache misses away, one after the other. So the values that events bring are
//! copied here and looked up some dozens at a time: when a text comes, its place in the table is
//! asked for; when enough are together, the texts found there are asked for; then they are compared.
//! Of a dictionary that is small enough to be [near](Reader::is_near) they are looked up at once.
//!
//! Invariant: the values of a column are put into it in the order of its rows. A column of which
//! something waits gets nothing past that.

use crate::codec;
use crate::dictionary::{Dictionary, Reader, Sym, same_text};

/// As many texts as wait at most.
const WAITING_MAX: usize = 96;
const NOWHERE: u32 = u32::MAX;

pub(super) struct Waiting {
    /// The name of the last event.
    name: Known,
    /// What a text may be that comes next.
    expected: Sym,
    items: Vec<Item>,
    /// What came last, by column: events often repeat the value of the one before.
    last: Vec<Last>,
    syms: Vec<Sym>,
}

struct Item {
    column: u32,
    row: u32,
    tag: u32,
    /// The item whose text it is: this one, or the one before in the same column.
    of: u32,
    text: Copied,
}

struct Last {
    /// The item whose text it is, [`NOWHERE`] where none waits.
    item: u32,
    /// Where none waits.
    known: Known,
}

impl Last {
    const NONE: Last = Last { item: NOWHERE, known: Known::NOTHING };
}

/// A text and its sym, [`Sym::NONE`] where there was none yet.
struct Known {
    text: Copied,
    sym: Sym,
}

impl Known {
    const NOTHING: Known = Known { text: Copied::EMPTY, sym: Sym::NONE };

    #[inline]
    fn is(&self, text: &str) -> bool {
        self.sym != Sym::NONE && same_text(self.text.bytes(), text.as_bytes())
    }
}

/// A text that most often lies in place.
enum Copied {
    Short { bytes: [u8; SHORT_BYTES], len: u8 },
    Long(Box<str>),
}

const SHORT_BYTES: usize = 22;

impl Copied {
    const EMPTY: Copied = Copied::Short { bytes: [0; SHORT_BYTES], len: 0 };

    #[inline]
    fn new(text: &str) -> Self {
        let from = text.as_bytes();
        let mut bytes = [0; SHORT_BYTES];
        match codec::short_bytes(from) {
            Some(short) => bytes[..codec::SHORT_BYTES].copy_from_slice(&short),
            None if from.len() <= SHORT_BYTES => bytes[..from.len()].copy_from_slice(from),
            None => return Copied::Long(text.into()),
        }
        Copied::Short { bytes, len: from.len() as u8 }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Copied::Short { bytes, len } => &bytes[..*len as usize],
            Copied::Long(text) => text.as_bytes(),
        }
    }
}

impl Default for Waiting {
    fn default() -> Self {
        let (items, last, syms) = (Vec::new(), Vec::new(), Vec::new());
        Waiting { name: Known::NOTHING, expected: Sym::NONE, items, last, syms }
    }
}

impl Waiting {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// A text that comes next may be this one.
    #[inline]
    pub(super) fn expect(&mut self, sym: Sym) {
        self.expected = sym;
    }

    /// The sym of an event's name. These do not wait: most are that of the event before.
    #[inline]
    pub(super) fn name(&mut self, dictionary: &Dictionary, reader: &mut Reader, name: &str) -> Sym {
        if !self.name.is(name) {
            let sym =
                self.known(dictionary, name).unwrap_or_else(|| dictionary.intern(reader, name));
            self.name = Known { text: Copied::new(name), sym };
        }
        self.name.sym
    }

    /// The sym of what was expected, if the text is that.
    #[inline]
    fn known(&self, dictionary: &Dictionary, text: &str) -> Option<Sym> {
        let expected = self.expected;
        let is_so = expected != Sym::NONE
            && same_text(dictionary.text(expected).as_bytes(), text.as_bytes());
        is_so.then_some(expected)
    }

    pub(super) fn is_full(&self) -> bool {
        self.items.len() >= WAITING_MAX
    }

    /// Notes the text of `row` in `column`; gives its sym if that is known and nothing of the column
    /// waits.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "for each value of each event: a call costs as much")]
    pub(super) fn push(
        &mut self,
        dictionary: &Dictionary,
        reader: &mut Reader,
        place: (usize, usize),
        text: &str,
    ) -> Option<Sym> {
        match self.last.get(place.0) {
            Some(last) if last.known.is(text) => Some(last.known.sym),
            _ => self.push_other(dictionary, reader, place, text),
        }
    }

    /// The same of one that is not the last of its column, or not known to be.
    #[inline(never)]
    fn push_other(
        &mut self,
        dictionary: &Dictionary,
        reader: &mut Reader,
        (column, row): (usize, usize),
        text: &str,
    ) -> Option<Sym> {
        if self.last.len() <= column {
            self.last.resize_with(column + 1, || Last::NONE);
        }
        let item = self.items.len() as u32;
        let known = self.known(dictionary, text);
        let last = &mut self.last[column];
        if last.item == NOWHERE {
            if known.is_some() || reader.is_near() {
                let sym = known.unwrap_or_else(|| dictionary.intern(reader, text));
                last.known = Known { text: Copied::new(text), sym };
                return Some(sym);
            }
        } else if same_text(self.items[last.item as usize].text.bytes(), text.as_bytes()) {
            let (column, row) = (column as u32, row as u32);
            self.items.push(Item { column, row, tag: 0, of: last.item, text: Copied::EMPTY });
            return None;
        }
        *last = Last { item, known: Known::NOTHING };
        let tag = dictionary.tag(text);
        reader.prefetch(tag);
        let (column, row) = (column as u32, row as u32);
        self.items.push(Item { column, row, tag, of: item, text: Copied::new(text) });
        None
    }

    /// Looks up what waits; `put` gets column, row and sym.
    pub(super) fn look_up(
        &mut self,
        dictionary: &Dictionary,
        reader: &mut Reader,
        mut put: impl FnMut(usize, usize, Sym),
    ) {
        let Waiting { items, last, syms, .. } = self;
        let own = |(i, item): &(usize, &Item)| item.of as usize == *i;
        for (_, item) in items.iter().enumerate().filter(own) {
            dictionary.approach(reader, item.tag);
        }
        syms.clear();
        for (i, item) in items.iter().enumerate() {
            let sym = if item.of as usize == i {
                dictionary.intern_tagged(reader, item.tag, item.text.bytes())
            } else {
                syms[item.of as usize]
            };
            syms.push(sym);
            put(item.column as usize, item.row as usize, sym);
        }
        for last in last.iter_mut().filter(|last| last.item != NOWHERE) {
            let item = std::mem::replace(&mut last.item, NOWHERE) as usize;
            let text = std::mem::replace(&mut items[item].text, Copied::EMPTY);
            last.known = Known { text, sym: syms[item] };
        }
        items.clear();
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        if !self.items.is_empty() {
            *self = Waiting::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_says_what_the_text_did() {
        for len in 0..40 {
            let text: String = ('a'..='z').cycle().take(len).collect();
            assert_eq!(Copied::new(&text).bytes(), text.as_bytes());
        }
    }
}
