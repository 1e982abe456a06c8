//! Records: what the log holds, as columns in memory and as bytes in a frame.
//!
//! Invariants
//! 1. All events of a frame are columns of equal length; a missing value is [`Sym::NONE`] or NaN,
//!    which no event can carry.
//! 2. The body of an events frame names strings by sym only. The definitions part of the same or
//!    an earlier frame *of the same segment* gives each sym's text before its first use, so every
//!    segment can be read alone.
//! 3. Decoding is total: any bytes give columns or [`Malformed`], with allocations bounded by the
//!    input's length times a constant.
//!
//! Body of an events frame (integers LEB128, signed ones zigzag):
//! ```text
//! names     column of syms
//! times     n differences of microseconds, the first to the frame's own time
//! dims      number · (dimension sym · column of syms)*
//! measures  number · (measure sym · presence · 8-byte floats of those present)*
//! entities  column of syms
//! ids       presence · (length · bytes)* of those present
//! payloads  presence · (length · bytes)* of those present
//! extras    what few events have, in an extended frame only (`record/extras.rs`)
//! ```
//! A column of syms is a form byte and its values: 0 none present, 1 all present (n syms), 2 some
//! (a bitmap of n bits, then the syms of those present), 3 all the same (one sym). Presence is the
//! same form byte (0, 1 or 2) and, for 2, the bitmap.
//!
//! Definitions: `(sym · length · UTF-8)*` to the end. A last one of the number of [`Sym::NONE`] defines
//! nothing; its text is a checksum of those before it ([`seal_definitions`]). Control body: bincode of
//! [`Control`].
//!
//! An event by itself, as it lies in the stage, is in `record/single.rs`. Next: `log/frame.rs`.

mod extras;
mod gather;
mod single;

pub(crate) use extras::{Extras, Origin};
pub(crate) use gather::order_of;
pub(crate) use single::{put_event, take_event};

use crate::codec::{self, Malformed};
use crate::dictionary::{Dictionary, Sym};
use crate::event::{Event, Times};
use crate::options::Dedup;
use crate::policy::Policy;
use crate::time::Timestamp;
use crate::view::View;
use std::ops::Range;

/// Events in one frame at most. A larger batch becomes several frames.
pub(crate) const FRAME_EVENTS_MAX: usize = 8_192;
/// Columns of dimensions, and of measures, in one frame at most.
pub(crate) const FRAME_COLUMNS_MAX: usize = 256;

/// A control record: a change of the catalog, in its place among the events.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) enum Control {
    /// From here on the view counts. The number is its id, never used again.
    ViewDefined {
        id: u32,
        view: View,
    },
    ViewDropped {
        id: u32,
    },
    /// From here on ids are remembered by this rule.
    DedupRule(Dedup),
    /// The records from before the view's definition are to be folded into it.
    BackfillAsked {
        id: u32,
    },
    /// They are in; a replay that has them not folds them in before it ends.
    BackfillDone {
        id: u32,
    },
    /// Views defined from here on have the calendar of this time zone, given by its name.
    TimeZone {
        name: String,
    },
    /// From here on records are of this replica; those before were of the other.
    Replica {
        id: u128,
        before: u128,
    },
    /// From here on a view counts that is to take the place of the one of its name; what that one
    /// holds from before is to be folded into it.
    SuccessorDefined {
        id: u32,
        view: View,
    },
    /// It is in (or a replay folds it in before it ends): the view before it is dropped.
    SuccessorDone {
        id: u32,
    },
    /// From here on a view counts that is to take the place of the one of its name; the buckets that
    /// that one keeps are being converted into it, which is in the snapshot when it is done.
    SuccessorConverted {
        id: u32,
        view: View,
    },
    /// From here on the policy is this one.
    PolicySet {
        policy: Policy,
    },
    PolicyRemoved {
        name: String,
    },
}

/// How the body of a frame is written: a kind of frame each (`log/frame.rs`), so that software that does
/// not know extras refuses a frame that has some, as of a newer format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// Columns, and nothing behind them.
    #[default]
    Plain,
    /// Columns and extras.
    Extended,
}

/// A named column, one value an event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Column<T> {
    pub(crate) name: Sym,
    pub(crate) values: Vec<T>,
}

/// Texts or bytes of some events: `ends[i]` is where the `i`th one's end.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Blobs {
    present: Vec<bool>,
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

/// Events as columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Columns {
    pub(crate) names: Vec<Sym>,
    /// Event times in microseconds.
    pub(crate) times: Vec<i64>,
    pub(crate) dims: Vec<Column<Sym>>,
    pub(crate) measures: Vec<Column<f64>>,
    /// Empty when no event has an entity, else one an event.
    pub(crate) entities: Vec<Sym>,
    /// Empty when no event has an id.
    pub(crate) ids: Blobs,
    /// Empty when no event has a payload.
    pub(crate) payloads: Blobs,
    pub(crate) extras: Extras,
    /// Bytes of the texts of the events, each counted as often as it occurs: a bound on what their
    /// definitions can take. Not part of the bytes.
    pub(crate) text_bytes: usize,
}

impl Blobs {
    /// Sets the blob of event `row`, the blobs of rows before it being set already or missing.
    pub(crate) fn set(&mut self, row: usize, blob: &[u8]) {
        self.pad(row);
        self.present.push(true);
        self.bytes.extend_from_slice(blob);
        self.ends.push(self.bytes.len() as u32);
    }

    fn pad(&mut self, rows: usize) {
        self.present.resize(rows, false);
        self.ends.resize(rows, self.bytes.len() as u32);
    }

    pub(crate) fn get(&self, row: usize) -> Option<&[u8]> {
        if !self.present.get(row).copied().unwrap_or(false) {
            return None;
        }
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        Some(&self.bytes[start..self.ends[row] as usize])
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    fn part(&self, rows: &Range<usize>) -> Self {
        let mut part = Blobs::default();
        for (to, from) in rows.clone().enumerate() {
            if let Some(blob) = self.get(from) {
                part.set(to, blob);
            }
        }
        if !part.is_empty() {
            part.pad(rows.len());
        }
        part
    }

    fn clear(&mut self) {
        self.present.clear();
        self.ends.clear();
        self.bytes.clear();
    }
}

impl Columns {
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Forgets the events and keeps the allocations. (Of a column that no event had the next time that is
    /// forgotten, too: [`square`](Columns::square).)
    pub(crate) fn clear(&mut self) {
        if self.names.is_empty() {
            return;
        }
        self.text_bytes = 0;
        self.names.clear();
        self.times.clear();
        self.dims.iter_mut().for_each(|column| column.values.clear());
        self.measures.iter_mut().for_each(|column| column.values.clear());
        self.entities.clear();
        self.ids.clear();
        self.payloads.clear();
        self.extras.clear();
    }

    /// Makes every column as long as there are events; those that none of them has are left out.
    pub(crate) fn square(&mut self) {
        let n = self.len();
        self.dims.retain(|column| n == 0 || !column.values.is_empty());
        self.measures.retain(|column| n == 0 || !column.values.is_empty());
        self.dims.iter_mut().for_each(|column| column.values.resize(n, Sym::NONE));
        self.measures.iter_mut().for_each(|column| column.values.resize(n, f64::NAN));
        if !self.entities.is_empty() {
            self.entities.resize(n, Sym::NONE);
        }
        if !self.ids.is_empty() {
            self.ids.pad(n);
        }
        if !self.payloads.is_empty() {
            self.payloads.pad(n);
        }
        self.extras.square(n);
    }

    /// How the body is written.
    pub(crate) fn form(&self) -> Form {
        if self.extras.is_used() { Form::Extended } else { Form::Plain }
    }

    /// Sets the entity of event `row`, those of rows before it being set already or missing.
    pub(crate) fn put_entity(&mut self, row: usize, entity: Sym) {
        self.entities.resize(row, Sym::NONE);
        self.entities.push(entity);
    }

    /// The time of the newest of the events.
    pub(crate) fn newest(&self) -> Timestamp {
        self.times.iter().max().map_or(Timestamp::MIN, |micros| Timestamp::from_micros(*micros))
    }

    /// A rough size of the encoded body, in bytes.
    pub(crate) fn bytes_estimate(&self) -> usize {
        self.len() * (6 + 4 * self.dims.len() + 8 * self.measures.len())
            + self.ids.bytes.len()
            + self.payloads.bytes.len()
            + self.text_bytes
    }

    /// Removes the events for which `keep` says no; the columns are square before and after.
    pub(crate) fn retain(&mut self, keep: &[bool]) {
        sift(&mut self.names, keep);
        sift(&mut self.times, keep);
        self.dims.iter_mut().for_each(|column| sift(&mut column.values, keep));
        self.measures.iter_mut().for_each(|column| sift(&mut column.values, keep));
        if !self.entities.is_empty() {
            sift(&mut self.entities, keep);
        }
        self.extras.retain(keep);
        for blobs in [&mut self.ids, &mut self.payloads] {
            if !blobs.is_empty() {
                let old = std::mem::take(blobs);
                for (kept, row) in (0..keep.len()).filter(|row| keep[*row]).enumerate() {
                    match old.get(row) {
                        Some(blob) => blobs.set(kept, blob),
                        None => blobs.pad(kept + 1),
                    }
                }
            }
        }
    }

    /// Calls `take` with each run of neighbours that `keep` says yes to, and their origin, if they have one.
    pub(crate) fn each_run<E>(
        &mut self,
        keep: &[bool],
        mut take: impl FnMut(&mut Columns) -> Result<(), E>,
    ) -> Result<(), E> {
        if keep.iter().all(|keep| *keep) {
            return take(self);
        }
        let mut rows = 0..0;
        while let Some(begin) = keep[rows.end..].iter().position(|keep| *keep) {
            let begin = rows.end + begin;
            let length = keep[begin..].iter().position(|keep| !*keep);
            rows = begin..length.map_or(keep.len(), |length| begin + length);
            take(&mut self.part(rows.clone()))?;
        }
        Ok(())
    }

    /// The events of these rows.
    fn part(&self, rows: Range<usize>) -> Columns {
        fn column<T: Copy>(column: &Column<T>, rows: &Range<usize>) -> Column<T> {
            Column { name: column.name, values: column.values[rows.clone()].to_vec() }
        }
        Columns {
            names: self.names[rows.clone()].to_vec(),
            times: self.times[rows.clone()].to_vec(),
            dims: self.dims.iter().map(|dim| column(dim, &rows)).collect(),
            measures: self.measures.iter().map(|measure| column(measure, &rows)).collect(),
            entities: self.entities.get(rows.clone()).map(<[Sym]>::to_vec).unwrap_or_default(),
            ids: self.ids.part(&rows),
            payloads: self.payloads.part(&rows),
            text_bytes: self.text_bytes,
            extras: self.extras.part(&rows),
        }
    }

    /// Calls `see` with every sym that the columns use; a repeated one may come repeatedly, though
    /// not for every event of a run that has it.
    pub(crate) fn each_sym(&self, mut see: impl FnMut(Sym)) {
        let mut each = |syms: &[Sym]| {
            let mut before = Sym::NONE;
            let mut each_of = |some: &[Sym]| {
                for &sym in some {
                    if sym != before {
                        before = sym;
                        if sym != Sym::NONE {
                            see(sym);
                        }
                    }
                }
                before
            };
            // Most columns have long runs: several syms are compared at once.
            let (blocks, rest) = syms.as_chunks::<8>();
            let mut last = Sym::NONE;
            for block in blocks {
                if block.iter().fold(0, |other, sym| other | (sym.0 ^ last.0)) != 0 {
                    last = each_of(block);
                }
            }
            each_of(rest);
        };
        each(&self.names);
        each(&self.entities);
        for column in &self.dims {
            each(&[column.name]);
            each(&column.values);
        }
        self.measures.iter().for_each(|column| each(&[column.name]));
    }

    /// Forgets the columns that none of the events has.
    pub(crate) fn drop_empty(&mut self) {
        self.dims.retain(Column::has_syms);
        self.measures.retain(Column::has_floats);
    }

    /// Puts every sym through `translate`.
    pub(crate) fn translate(&mut self, mut translate: impl FnMut(Sym) -> Sym) {
        let mut each = |syms: &mut [Sym]| {
            syms.iter_mut().filter(|sym| **sym != Sym::NONE).for_each(|sym| *sym = translate(*sym));
        };
        each(&mut self.names);
        each(&mut self.entities);
        for column in &mut self.dims {
            each(std::slice::from_mut(&mut column.name));
            each(&mut column.values);
        }
        self.measures.iter_mut().for_each(|c| each(std::slice::from_mut(&mut c.name)));
    }

    /// Event `row` as it was recorded; `text` says what a sym stands for.
    pub(crate) fn event<'a>(
        &'a self,
        row: usize,
        text: &impl Fn(Sym) -> &'a str,
    ) -> Result<Event<'a>, Malformed> {
        let mut event = Event::new(text(self.names[row]));
        event.time = Some(Timestamp::from_micros(self.times[row]));
        for column in self.dims.iter().filter(|column| column.values[row] != Sym::NONE) {
            event = event.dim(text(column.name), text(column.values[row]));
        }
        for column in self.measures.iter().filter(|column| !column.values[row].is_nan()) {
            event = event.measure(text(column.name), column.values[row]);
        }
        if let Some(entity) = self.entities.get(row).filter(|entity| **entity != Sym::NONE) {
            event = event.entity(text(*entity));
        }
        if let Some(id) = self.ids.get(row) {
            let id = std::str::from_utf8(id).map_err(|_| Malformed("an id is not UTF-8"))?;
            event = event.id(id);
        }
        if let Some(payload) = self.payloads.get(row) {
            event = event.payload(payload);
        }
        event.times = Times(self.extras.times(row));
        event.half_width = self.extras.half_width(row);
        Ok(event)
    }

    /// Appends the body's bytes; `base` is the frame's own time.
    pub(crate) fn encode(&self, base: i64, out: &mut Vec<u8>) {
        debug_assert!(self.dims.iter().all(|column| column.values.len() == self.len()));
        put_syms(out, &self.names);
        let mut previous = base;
        let steps = self.times.iter().map(|time| {
            let step = time.wrapping_sub(previous);
            previous = *time;
            codec::zigzag(step)
        });
        codec::put_all(out, steps);
        codec::put_u64(out, self.dims.len() as u64);
        for column in &self.dims {
            codec::put_u64(out, u64::from(column.name.0));
            put_syms(out, &column.values);
        }
        codec::put_u64(out, self.measures.len() as u64);
        for column in &self.measures {
            codec::put_u64(out, u64::from(column.name.0));
            put_floats(out, &column.values);
        }
        put_syms(out, &self.entities);
        for blobs in [&self.ids, &self.payloads] {
            let n = if blobs.is_empty() { 0 } else { self.len() };
            put_presence(out, &blobs.present[..n], |present| *present);
            (0..n).filter_map(|row| blobs.get(row)).for_each(|blob| codec::put_bytes(out, blob));
        }
        self.extras.encode(out);
    }

    /// Reads [`encode`](Columns::encode)'s bytes of `n` events, of this form, into `self`, which is
    /// overwritten. Each sym found is put through `translate`.
    pub(crate) fn decode(
        &mut self,
        form: Form,
        n: usize,
        base: i64,
        mut bytes: &[u8],
        translate: &impl Fn(u32) -> Result<Sym, Malformed>,
    ) -> Result<(), Malformed> {
        let bytes = &mut bytes;
        if n == 0 || n > FRAME_EVENTS_MAX {
            return Err(Malformed("a frame counts more events than a frame may hold"));
        }
        self.clear();
        take_syms(bytes, n, translate, &mut self.names)?;
        if self.names.len() != n || self.names.contains(&Sym::NONE) {
            return Err(Malformed("an event has no name"));
        }
        let mut time = base;
        self.times.reserve(n);
        for _ in 0..n {
            time = time.wrapping_add(codec::take_i64(bytes)?);
            self.times.push(time);
        }
        self.dims.resize_with(take_columns(bytes)?, || Column::empty(Sym::NONE));
        for column in &mut self.dims {
            column.name = translate(codec::take_u32(bytes)?)?;
            take_syms(bytes, n, translate, &mut column.values)?;
            column.values.resize(n, Sym::NONE);
        }
        self.measures.resize_with(take_columns(bytes)?, || Column::empty(Sym::NONE));
        for column in &mut self.measures {
            column.name = translate(codec::take_u32(bytes)?)?;
            column.values.clear();
            column.values.reserve(n);
            let presence = Presence::take(bytes, n)?;
            for row in 0..n {
                column.values.push(if presence.has(row) {
                    let value = f64::from_le_bytes(codec::take_array(bytes)?);
                    if !value.is_finite() {
                        return Err(Malformed("a measure is not a finite number"));
                    }
                    value
                } else {
                    f64::NAN
                });
            }
        }
        take_syms(bytes, n, translate, &mut self.entities)?;
        for blobs in [&mut self.ids, &mut self.payloads] {
            let presence = Presence::take(bytes, n)?;
            blobs.clear();
            for row in (0..n).filter(|row| presence.has(*row)) {
                blobs.set(row, codec::take_bytes(bytes)?);
            }
            if !blobs.is_empty() {
                blobs.pad(n);
            }
        }
        if form == Form::Extended {
            self.extras.decode(n, bytes)?;
        }
        codec::finished(bytes)
    }
}

fn sift<T>(values: &mut Vec<T>, keep: &[bool]) {
    let mut row = 0;
    values.retain(|_| {
        row += 1;
        keep[row - 1]
    });
}

impl Column<Sym> {
    /// Whether some event has it.
    pub(crate) fn has_syms(&self) -> bool {
        self.values.iter().any(|sym| *sym != Sym::NONE)
    }
}

impl Column<f64> {
    /// Whether some event has it.
    pub(crate) fn has_floats(&self) -> bool {
        self.values.iter().any(|value| !value.is_nan())
    }
}

impl<T: Copy> Column<T> {
    pub(crate) fn empty(name: Sym) -> Self {
        Column { name, values: Vec::new() }
    }

    /// Sets the value of event `row`; those between the last one set and it get `none`.
    #[inline]
    pub(crate) fn put(&mut self, row: usize, value: T, none: T) {
        if self.values.len() < row {
            self.pad(row, none);
        }
        self.values.push(value);
    }

    #[inline(never)]
    fn pad(&mut self, rows: usize, none: T) {
        self.values.resize(rows, none);
    }
}

const NONE_PRESENT: u8 = 0;
const ALL_PRESENT: u8 = 1;
const SOME_PRESENT: u8 = 2;
const ALL_SAME: u8 = 3;

/// Says which values there are; gives whether all are.
#[inline]
fn put_presence<T>(out: &mut Vec<u8>, values: &[T], is_present: impl Fn(&T) -> bool) -> bool {
    let count = values.iter().filter(|value| is_present(*value)).count();
    match count {
        0 => out.push(NONE_PRESENT),
        _ if count == values.len() => {
            out.push(ALL_PRESENT);
            return true;
        }
        _ => {
            out.push(SOME_PRESENT);
            let bit = |(i, value): (usize, &T)| u8::from(is_present(value)) << i;
            let bits =
                |values: &[T]| values.iter().enumerate().map(bit).fold(0, |all, bit| all | bit);
            out.extend(values.chunks(8).map(bits));
        }
    }
    false
}

fn put_syms(out: &mut Vec<u8>, syms: &[Sym]) {
    if let [first, rest @ ..] = syms
        && *first != Sym::NONE
        && rest.iter().all(|sym| sym == first)
    {
        out.push(ALL_SAME);
        codec::put_u64(out, u64::from(first.0));
        return;
    }
    let number = |sym: &Sym| u64::from(sym.0);
    if put_presence(out, syms, |sym| *sym != Sym::NONE) {
        codec::put_all(out, syms.iter().map(number));
    } else {
        codec::put_all(out, syms.iter().filter(|sym| **sym != Sym::NONE).map(number));
    }
}

fn put_floats(out: &mut Vec<u8>, floats: &[f64]) {
    if put_presence(out, floats, |float| !float.is_nan()) {
        let start = out.len();
        out.resize(start + size_of_val(floats), 0);
        let (room, _) = out[start..].as_chunks_mut();
        room.iter_mut().zip(floats).for_each(|(room, float)| *room = float.to_le_bytes());
        return;
    }
    for float in floats.iter().filter(|float| !float.is_nan()) {
        out.extend_from_slice(&float.to_le_bytes());
    }
}

enum Presence<'a> {
    None,
    All,
    Some(&'a [u8]),
}

impl<'a> Presence<'a> {
    fn take(bytes: &mut &'a [u8], n: usize) -> Result<Self, Malformed> {
        match codec::take_array::<1>(bytes)? {
            [NONE_PRESENT] => Ok(Presence::None),
            [ALL_PRESENT] => Ok(Presence::All),
            [SOME_PRESENT] => Presence::bitmap(bytes, n),
            _ => Err(Malformed("a column has an unknown form")),
        }
    }

    fn bitmap(bytes: &mut &'a [u8], n: usize) -> Result<Self, Malformed> {
        codec::take(bytes, n.div_ceil(8)).map(Presence::Some)
    }

    fn has(&self, row: usize) -> bool {
        match self {
            Presence::None => false,
            Presence::All => true,
            Presence::Some(bits) => bits[row / 8] >> (row % 8) & 1 == 1,
        }
    }
}

fn take_columns(bytes: &mut &[u8]) -> Result<usize, Malformed> {
    match codec::take_count(bytes, 2)? {
        n if n <= FRAME_COLUMNS_MAX => Ok(n),
        _ => Err(Malformed("a frame has more columns than a frame may hold")),
    }
}

/// Reads a column of syms into `out`, which is overwritten; it stays empty when none is present.
fn take_syms(
    bytes: &mut &[u8],
    n: usize,
    translate: &impl Fn(u32) -> Result<Sym, Malformed>,
    out: &mut Vec<Sym>,
) -> Result<(), Malformed> {
    out.clear();
    match codec::take_array::<1>(bytes)? {
        [NONE_PRESENT] => {}
        [ALL_PRESENT] => {
            out.reserve(n);
            for _ in 0..n {
                out.push(translate(codec::take_u32(bytes)?)?);
            }
        }
        [ALL_SAME] => out.resize(n, translate(codec::take_u32(bytes)?)?),
        [SOME_PRESENT] => {
            let presence = Presence::bitmap(bytes, n)?;
            for row in 0..n {
                let sym =
                    if presence.has(row) { translate(codec::take_u32(bytes)?)? } else { Sym::NONE };
                out.push(sym);
            }
        }
        _ => return Err(Malformed("a column has an unknown form")),
    }
    Ok(())
}

/// An id that was seen: the row of it in the snapshot store.
///
/// Key: `position (8, big-endian)`; payload: `written at (8) · XXH3-128 of the id (16)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) position: u64,
    pub(crate) written_at: i64,
    pub(crate) hash: u128,
}

impl Seen {
    pub(crate) fn row_key(position: u64) -> Vec<u8> {
        position.to_be_bytes().to_vec()
    }

    pub(crate) fn row(&self) -> (Vec<u8>, Vec<u8>) {
        let key = Seen::row_key(self.position);
        let value = codec::seal(&key, |out| {
            out.extend_from_slice(&self.written_at.to_le_bytes());
            out.extend_from_slice(&self.hash.to_le_bytes());
        });
        (key, value)
    }

    pub(crate) fn from_row(key: &[u8], value: &[u8]) -> Result<Self, Malformed> {
        let mut payload = codec::unseal(key, value)?;
        let mut rest = key;
        let position = u64::from_be_bytes(codec::take_array(&mut rest)?);
        let written_at = i64::from_le_bytes(codec::take_array(&mut payload)?);
        let hash = u128::from_le_bytes(codec::take_array(&mut payload)?);
        Ok(Seen { position, written_at, hash })
    }
}

/// Appends the definition of `sym`.
pub(crate) fn put_definition(out: &mut Vec<u8>, sym: Sym, dictionary: &Dictionary) {
    codec::put_u64(out, u64::from(sym.0));
    codec::put_bytes(out, dictionary.text(sym).as_bytes());
}

/// Definitions beside a body of at least so many bytes are sealed: a page. A shorter frame is seldom damaged
/// in its body alone, and a seal would cost it more.
pub(crate) const SEALED_BODY_BYTES: usize = 4_096;
/// Number, length and text of a seal: the checksum in fives of seven bits, the lowest first.
const SEAL_BYTES: usize = 11;

fn seal_of(definitions: &[u8]) -> [u8; SEAL_BYTES] {
    let sum = crc32fast::hash(definitions);
    let mut seal = [0xff, 0xff, 0xff, 0xff, 0x0f, 5, 0, 0, 0, 0, 0];
    for (at, byte) in seal[6..].iter_mut().enumerate() {
        *byte = (sum >> (7 * at)) as u8 & 0x7f;
    }
    seal
}

/// Seals the definitions that `out` has behind `from`: they can be trusted by themselves then, where the
/// body of their frame is damaged. To a reader that does not know of seals it is a string nobody uses.
pub(crate) fn seal_definitions(out: &mut Vec<u8>, from: usize) {
    let seal = seal_of(&out[from..]);
    out.extend_from_slice(&seal);
}

/// Whether these definitions are sealed, and are what was sealed.
pub(crate) fn are_sealed(definitions: &[u8]) -> bool {
    let split = definitions.split_last_chunk();
    split.is_some_and(|(sealed, seal)| *seal == seal_of(sealed))
}

/// Calls `define` with each definition in `bytes`.
pub(crate) fn each_definition(
    mut bytes: &[u8],
    mut define: impl FnMut(u32, &str) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !bytes.is_empty() {
        let sym = codec::take_u32(&mut bytes)?;
        let text = std::str::from_utf8(codec::take_bytes(&mut bytes)?)
            .map_err(|_| Malformed("a defined string is not UTF-8"))?;
        if sym != Sym::NONE.0 {
            define(sym, text)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sealed_definitions_are_those_that_were_sealed(
            texts in prop::collection::vec(".{0,9}", 0..9),
            at: prop::sample::Index,
            change in 1..=255_u8,
        ) {
            let dictionary = Dictionary::new(0);
            let mut reader = dictionary.reader();
            let syms: Vec<Sym> =
                texts.iter().map(|text| dictionary.intern(&mut reader, text)).collect();
            let mut out = b"before".to_vec();
            for sym in &syms {
                put_definition(&mut out, *sym, &dictionary);
            }
            prop_assert!(!are_sealed(&out[6..]));
            seal_definitions(&mut out, 6);
            let mut definitions = out.split_off(6);
            prop_assert!(are_sealed(&definitions));
            let mut read = Vec::new();
            let whole = each_definition(&definitions, |sym, text| {
                read.push((Sym(sym), text.to_owned()));
                Ok(())
            });
            prop_assert_eq!(whole, Ok(()));
            prop_assert_eq!(read, syms.into_iter().zip(texts).collect::<Vec<_>>());
            let at = at.index(definitions.len());
            definitions[at] ^= change;
            prop_assert!(!are_sealed(&definitions));
        }
    }

    fn sym() -> impl Strategy<Value = Sym> {
        prop_oneof![3 => (0_u32..300).prop_map(Sym), 1 => Just(Sym::NONE)]
    }

    prop_compose! {
        pub(in crate::record) fn columns()(n in 1_usize..40)(
            names in prop::collection::vec((0_u32..9).prop_map(Sym), n),
            times in prop::collection::vec(any::<i64>(), n),
            dims in prop::collection::vec(prop::collection::vec(sym(), n), 0..4),
            measures in prop::collection::vec(prop::collection::vec(
                prop_oneof![(-9.0..9.0_f64), Just(f64::NAN)], n), 0..3),
            entities in prop::collection::vec(sym(), n),
            ids in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..9)), n),
            counts in prop::collection::vec(prop_oneof![4 => Just(1), 1 => 2..=u64::MAX], n),
            half_widths in prop::collection::vec(prop_oneof![4 => Just(0), 1 => 1..9_999_999_u64], n),
            extended in any::<(bool, bool)>(),
        ) -> Columns {
            let name = |i: usize| Sym(1_000 + i as u32);
            let mut columns = Columns { names, times, ..Columns::default() };
            columns.dims = dims.into_iter().enumerate()
                .map(|(i, values)| Column { name: name(i), values }).collect();
            columns.measures = measures.into_iter().enumerate()
                .map(|(i, values)| Column { name: name(i), values }).collect();
            if entities.iter().any(|sym| *sym != Sym::NONE) {
                columns.entities = entities;
            }
            for (row, id) in ids.iter().enumerate() {
                if let Some(id) = id {
                    columns.ids.set(row, id);
                }
            }
            for row in 0..columns.len() {
                let times = Times(if extended.0 { counts[row] } else { 1 });
                columns.extras.put(row, times, if extended.1 { half_widths[row] } else { 0 });
            }
            columns.square();
            columns
        }
    }

    /// NaN marks absence, so columns are compared by their text.
    fn text(columns: &Columns) -> String {
        format!("{columns:?}")
    }

    proptest! {
        #[test]
        fn columns_come_back(columns in columns(), base: i64) {
            let mut bytes = Vec::new();
            columns.encode(base, &mut bytes);
            let mut back = Columns::default();
            let (form, translate) = (columns.form(), |sym| Ok(Sym(sym)));
            back.decode(form, columns.len(), base, &bytes, &translate).expect("own bytes");
            prop_assert_eq!(text(&back), text(&columns));
            // What reads plain frames only refuses extras, and an extended frame has some.
            let other = if form == Form::Plain { Form::Extended } else { Form::Plain };
            prop_assert!(back.decode(other, columns.len(), base, &bytes, &translate).is_err());
        }

        #[test]
        fn retained_events_are_those_asked_for(columns in columns(), keep in prop::collection::vec(any::<bool>(), 40)) {
            let keep = &keep[..columns.len()];
            let mut kept = columns.clone();
            kept.retain(keep);
            let rows: Vec<usize> = (0..columns.len()).filter(|row| keep[*row]).collect();
            prop_assert_eq!(kept.len(), rows.len());
            for (to, from) in rows.into_iter().enumerate() {
                prop_assert_eq!(kept.times[to], columns.times[from]);
                prop_assert_eq!(kept.ids.get(to), columns.ids.get(from));
                prop_assert_eq!(kept.extras.times(to), columns.extras.times(from));
                prop_assert_eq!(kept.extras.half_width(to), columns.extras.half_width(from));
                for (a, b) in kept.dims.iter().zip(&columns.dims) {
                    prop_assert_eq!(a.values[to], b.values[from]);
                }
            }
        }

        #[test]
        fn hostile_bodies_are_refused_without_a_panic(bytes: Vec<u8>, n in 0_usize..50) {
            let mut columns = Columns::default();
            for form in [Form::Plain, Form::Extended] {
                let _ = columns.decode(form, n, 0, &bytes, &|sym| Ok(Sym(sym)));
            }
            let _ = each_definition(&bytes, |_, _| Ok(()));
        }

        #[test]
        fn a_changed_body_is_refused_or_still_square(columns in columns(), at: prop::sample::Index, to: u8) {
            let mut bytes = Vec::new();
            columns.encode(0, &mut bytes);
            let at = at.index(bytes.len());
            bytes[at] = to;
            let mut back = Columns::default();
            if back.decode(columns.form(), columns.len(), 0, &bytes, &|sym| Ok(Sym(sym))).is_ok() {
                prop_assert!((0..columns.len()).all(|row| back.extras.times(row) > 0));
                prop_assert!(back.dims.iter().all(|c| c.values.len() == columns.len()));
                prop_assert!(back.measures.iter().all(|c| c.values.len() == columns.len()));
            }
        }
    }
}
