//! Texts that wait to be looked up in the dictionary.
//!
//! A look-up is two cache misses away, one after the other. So the values that events bring are
//! copied here and looked up some dozens at a time: when a text comes, its place in the table is
//! asked for; when enough are together, the texts found there are asked for; then they are compared.
//! Of a dictionary that is small enough to be [near](Reader::is_near) they are looked up at once.
//!
//! Invariant: a column of which something waits has in its rows, from the first that does, numbers of what
//! waits in place of syms, until all of it is looked up.

use super::copied::Copied;
use crate::dictionary::{Dictionary, Reader, Sym};

/// As many texts as wait at most.
const WAITING_MAX: usize = 96;

pub(super) struct Waiting {
    /// The name of the last event.
    name: Last,
    expected: Expected,
    /// So many of the items wait; the others are there to be used again.
    len: usize,
    items: Vec<Item>,
    /// What came last, by column: events often repeat the value of the one before.
    last: Vec<Last>,
    syms: Vec<Sym>,
}

/// A text of the event that is being added whose sym is known: where it lies, and the sym, if there is one.
#[derive(Clone, Copy)]
struct Expected {
    address: usize,
    len: usize,
    sym: Sym,
}

impl Expected {
    const NOTHING: Expected = Expected { address: 0, len: 0, sym: Sym::NONE };
}

/// A text that waits.
struct Item {
    tag: u32,
    text: Copied,
}

struct Last {
    /// [`Copied::NOTHING`] where none came yet.
    text: Copied,
    /// What goes into the column for it: its number where it waits.
    sym: Sym,
    /// The row from which on something waits, if anything does.
    since: Option<usize>,
}

impl Last {
    const NONE: Last = Last { text: Copied::NOTHING, sym: Sym::NONE, since: None };
}

impl Default for Waiting {
    fn default() -> Self {
        let (items, last, syms) = (Vec::new(), Vec::new(), Vec::new());
        Waiting { name: Last::NONE, expected: Expected::NOTHING, len: 0, items, last, syms }
    }
}

impl Waiting {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The event that is added next has this text, whose sym is known; `None`: it is over.
    #[inline]
    pub(super) fn expect(&mut self, known: Option<(&str, Sym)>) {
        self.expected = known.map_or(Expected::NOTHING, |(text, sym)| Expected {
            address: text.as_ptr().addr(),
            len: text.len(),
            sym,
        });
    }

    /// The sym of an event's name. These do not wait: most are that of the event before.
    #[inline]
    pub(super) fn name(&mut self, dictionary: &Dictionary, reader: &mut Reader, name: &str) -> Sym {
        if let Some(sym) = self.known(name) {
            return sym;
        }
        if self.name.text.is(name) {
            return self.name.sym;
        }
        self.other_name(dictionary, reader, name)
    }

    #[inline(never)]
    fn other_name(&mut self, dictionary: &Dictionary, reader: &mut Reader, name: &str) -> Sym {
        self.name.sym = dictionary.intern(reader, name);
        self.name.text.set(name);
        self.name.sym
    }

    /// The sym of a text, if it is the one that was expected.
    #[inline]
    fn known(&self, text: &str) -> Option<Sym> {
        let Expected { address, len, sym } = self.expected;
        (text.as_ptr().addr() == address && text.len() == len && sym != Sym::NONE).then_some(sym)
    }

    pub(super) fn is_full(&self) -> bool {
        self.len >= WAITING_MAX
    }

    /// What goes into `column` for the text of this row: its sym, or its number if it waits.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "for each value of each event: a call costs as much")]
    pub(super) fn push(
        &mut self,
        dictionary: &Dictionary,
        reader: &mut Reader,
        (column, row): (usize, usize),
        text: &str,
    ) -> Sym {
        match self.last.get(column) {
            Some(last) if last.text.is(text) => last.sym,
            _ => self.push_other(dictionary, reader, (column, row), text),
        }
    }

    /// The same of one that is not the last of its column.
    #[inline(never)]
    fn push_other(
        &mut self,
        dictionary: &Dictionary,
        reader: &mut Reader,
        (column, row): (usize, usize),
        text: &str,
    ) -> Sym {
        let known = self.known(text);
        if self.last.len() <= column {
            self.last.resize_with(column + 1, || Last::NONE);
        }
        let last = &mut self.last[column];
        // Where something waits in the column, what is known has to wait, too.
        if let Some(sym) = known.filter(|_| last.since.is_none()) {
            return sym;
        }
        last.text.set(text);
        if last.since.is_none() && reader.is_near() {
            last.sym = dictionary.intern(reader, text);
        } else {
            last.since = last.since.or(Some(row));
            last.sym = Sym(self.len as u32);
            if self.len == self.items.len() {
                self.items.push(Item { tag: 0, text: Copied::EMPTY });
            }
            // In its place, for a copy would wait until the parts that the text was put in are together.
            let item = &mut self.items[self.len];
            self.len += 1;
            item.text.set(text);
            item.tag = dictionary.tag(text);
            reader.prefetch(item.tag);
        }
        last.sym
    }

    /// Looks up what waits, and puts it in the place of its numbers; `put` gets a column, the first row in
    /// which it has numbers, and what these stand for.
    pub(super) fn look_up(
        &mut self,
        dictionary: &Dictionary,
        reader: &mut Reader,
        mut put: impl FnMut(usize, usize, &[Sym]),
    ) {
        let Waiting { len, items, last, syms, .. } = self;
        let items = &items[..*len];
        syms.clear();
        syms.extend(items.iter().map(|item| dictionary.approach(reader, item.tag)));
        for (item, sym) in items.iter().zip(syms.iter_mut()) {
            *sym = dictionary.intern_approached(reader, *sym, item.tag, item.text.bytes());
        }
        for (column, last) in last.iter_mut().enumerate() {
            let Some(since) = last.since.take() else { continue };
            last.sym = syms[last.sym.0 as usize];
            put(column, since, syms);
        }
        *len = 0;
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        if self.len > 0 {
            *self = Waiting::default();
        }
    }
}
