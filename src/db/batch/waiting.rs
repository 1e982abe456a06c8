//! Texts that wait to be looked up in the dictionary.
//!
//! A look-up is two cache misses away, one after the other. So the values that events bring are
//! copied here and looked up some dozens at a time: when a text comes, its place in the table is
//! asked for; when enough are together, the texts found there are asked for; then they are compared.
//! Of a dictionary that is small enough to be [near](Reader::is_near) they are looked up at once.
//!
//! Invariant: the values of a column are put into it in the order of its rows. A column of which
//! something waits gets nothing past that.

use super::copied::Copied;
use crate::dictionary::{Dictionary, Reader, Sym, same_text};

/// As many texts as wait at most.
const WAITING_MAX: usize = 96;
const NOWHERE: u32 = u32::MAX;

pub(super) struct Waiting {
    /// The name of the last event.
    name: Last,
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
    /// [`Copied::NOTHING`] where one waits, or none came yet.
    text: Copied,
    sym: Sym,
    /// The item whose text it is, [`NOWHERE`] where none waits.
    item: u32,
}

impl Last {
    const NONE: Last = Last { text: Copied::NOTHING, sym: Sym::NONE, item: NOWHERE };
}

impl Default for Waiting {
    fn default() -> Self {
        let (items, last, syms) = (Vec::new(), Vec::new(), Vec::new());
        Waiting { name: Last::NONE, expected: Sym::NONE, items, last, syms }
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
        if self.name.text.is(name) {
            return self.name.sym;
        }
        self.other_name(dictionary, reader, name)
    }

    #[inline(never)]
    fn other_name(&mut self, dictionary: &Dictionary, reader: &mut Reader, name: &str) -> Sym {
        let known = self.known(dictionary, name);
        self.name.sym = known.unwrap_or_else(|| dictionary.intern(reader, name));
        self.name.text.set(name);
        self.name.sym
    }

    /// The sym of what was expected, if the text is that.
    #[inline]
    fn known(&self, dictionary: &Dictionary, text: &str) -> Option<Sym> {
        // Of a batch's events nothing is.
        if self.expected == Sym::NONE { None } else { self.expected_if(dictionary, text) }
    }

    #[inline(never)]
    fn expected_if(&self, dictionary: &Dictionary, text: &str) -> Option<Sym> {
        let expected = dictionary.text(self.expected);
        same_text(expected.as_bytes(), text.as_bytes()).then_some(self.expected)
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
            Some(last) if last.text.is(text) => Some(last.sym),
            _ => {
                let sym = self.push_other(dictionary, reader, place, text);
                (sym != Sym::NONE).then_some(sym)
            }
        }
    }

    /// The same of one that is not the last of its column, or not known to be; [`Sym::NONE`] where it
    /// waits.
    #[inline(never)]
    fn push_other(
        &mut self,
        dictionary: &Dictionary,
        reader: &mut Reader,
        place: (usize, usize),
        text: &str,
    ) -> Sym {
        let known = self.known(dictionary, text);
        match self.last.get_mut(place.0) {
            Some(last) if last.item == NOWHERE && (known.is_some() || reader.is_near()) => {
                last.sym = known.unwrap_or_else(|| dictionary.intern(reader, text));
                last.text.set(text);
                last.sym
            }
            Some(_) => self.wait(dictionary, reader, place, text),
            None => {
                self.last.resize_with(place.0 + 1, || Last::NONE);
                self.push_other(dictionary, reader, place, text)
            }
        }
    }

    /// Has the text wait, or the place if the one before in its column waits and is the same.
    #[inline(never)]
    fn wait(
        &mut self,
        dictionary: &Dictionary,
        reader: &Reader,
        (column, row): (usize, usize),
        text: &str,
    ) -> Sym {
        let item = self.items.len() as u32;
        let last = &mut self.last[column];
        let (column, row) = (column as u32, row as u32);
        let item = if last.item != NOWHERE && self.items[last.item as usize].text.is(text) {
            Item { column, row, tag: 0, of: last.item, text: Copied::EMPTY }
        } else {
            *last = Last { item, ..Last::NONE };
            let tag = dictionary.tag(text);
            reader.prefetch(tag);
            Item { column, row, tag, of: item, text: Copied::new(text) }
        };
        self.items.push(item);
        Sym::NONE
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
            last.text = std::mem::replace(&mut items[item].text, Copied::EMPTY);
            last.sym = syms[item];
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
