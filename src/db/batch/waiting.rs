//! Texts that wait to be looked up in the dictionary.
//!
//! A look-up is two cache misses away, one after the other. So the values that events bring are
//! copied here and looked up some dozens at a time: when a text comes, its place in the table is
//! asked for; when enough are together, the texts found there are asked for; then they are compared.
//!
//! Invariant: the values of a column are put into it in the order of its rows. A column of which
//! something waits gets nothing past that.

use crate::dictionary::{Dictionary, Reader, Sym, same_text};

/// As many texts as wait at most.
const WAITING_MAX: usize = 96;
/// The copied texts are forgotten when they take more than this.
const TEXT_BYTES_MAX: usize = 8 << 10;
const NOWHERE: u32 = u32::MAX;

#[derive(Default)]
pub(super) struct Waiting {
    texts: String,
    items: Vec<Item>,
    /// The text that came last, by column: events often repeat the value of the one before.
    last: Vec<Last>,
    syms: Vec<Sym>,
}

struct Item {
    column: u32,
    row: u32,
    tag: u32,
    /// The item whose text it is: this one, or the one before in the same column.
    of: u32,
    start: u32,
    end: u32,
}

#[derive(Clone, Copy)]
struct Last {
    start: u32,
    end: u32,
    /// [`Sym::NONE`] while it waits.
    sym: Sym,
    item: u32,
}

impl Last {
    const NONE: Last = Last { start: 0, end: 0, sym: Sym::NONE, item: NOWHERE };
}

impl Waiting {
    pub(super) fn is_full(&self) -> bool {
        self.items.len() >= WAITING_MAX
    }

    /// Notes the text of `row` in `column`; gives its sym if that is known and nothing of the column
    /// waits.
    #[inline]
    pub(super) fn push(
        &mut self,
        dictionary: &Dictionary,
        reader: &Reader,
        (column, row): (usize, usize),
        text: &str,
    ) -> Option<Sym> {
        if self.last.len() <= column {
            self.last.resize(column + 1, Last::NONE);
        }
        let (item, column_number) = (self.items.len() as u32, column as u32);
        let last = self.last[column];
        let mut new = Item {
            column: column_number,
            row: row as u32,
            tag: 0,
            of: last.item,
            start: 0,
            end: 0,
        };
        if last.item != NOWHERE
            && same_text(&self.texts[last.start as usize..last.end as usize], text)
        {
            if last.sym != Sym::NONE {
                return Some(last.sym);
            }
        } else {
            new.tag = dictionary.tag(text);
            reader.prefetch(new.tag);
            new.of = item;
            new.start = self.texts.len() as u32;
            self.texts.push_str(text);
            new.end = self.texts.len() as u32;
            self.last[column] = Last { start: new.start, end: new.end, sym: Sym::NONE, item };
        }
        self.items.push(new);
        None
    }

    /// Looks up what waits; `put` gets column, row and sym.
    pub(super) fn look_up(
        &mut self,
        dictionary: &Dictionary,
        reader: &mut Reader,
        mut put: impl FnMut(usize, usize, Sym),
    ) {
        let Waiting { texts, items, last, syms } = self;
        let own = |(i, item): &(usize, &Item)| item.of as usize == *i;
        for (_, item) in items.iter().enumerate().filter(own) {
            dictionary.approach(reader, item.tag);
        }
        syms.clear();
        for (i, item) in items.iter().enumerate() {
            let sym = if item.of as usize == i {
                let text = &texts[item.start as usize..item.end as usize];
                dictionary.intern_tagged(reader, item.tag, text)
            } else {
                syms[item.of as usize]
            };
            syms.push(sym);
            put(item.column as usize, item.row as usize, sym);
        }
        for last in last.iter_mut().filter(|last| last.item != NOWHERE && last.sym == Sym::NONE) {
            last.sym = syms[last.item as usize];
        }
        items.clear();
        if texts.len() > TEXT_BYTES_MAX {
            texts.clear();
            last.clear();
        }
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        if !self.items.is_empty() {
            *self = Waiting::default();
        }
    }
}
