//! A bundle: records with the names of their origins, by themselves. What it needs is in it.
//!
//! ```text
//! offset size
//!  0      8   magic "QUIPUBDL"
//!  8      8   length of what follows
//! 16      -   a sealed value (`codec.rs`) under the key "bundle"
//! ```
//! Its payload, numbers LEB128, texts `length · UTF-8`:
//! ```text
//! since      id of a replica (16) · position; zeros for the beginning
//! upto       id of a replica (16) · position
//! texts      number · text*
//! frames     number · (number of events · length · body of an extended frame)*
//! ```
//! A body is one of the log (`record.rs`): its syms are places among the texts, its times count from 1970, and
//! it has an origin.
//!
//! Invariants, of every value of the type, wherever its bytes came from
//! 1. Every event in it is one that recording accepts, but that it may be ahead of the clock.
//! 2. No text is there twice, and no column of a frame; each column is of one event at least. So what reading
//!    takes is bounded by the number of bytes.
//! 3. A frame fits into a frame of a log, whatever that has defined.
//!
//! Next: `exchange/json.rs`.

use super::{Cursor, ReplicaId};
use crate::codec::{self, Malformed};
use crate::dictionary::Sym;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::record::{Column, Columns, FRAME_COLUMNS_MAX, FRAME_EVENTS_MAX, Form, Origin};
use crate::time::Timestamp;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{Read, Write};

const MAGIC: [u8; 8] = *b"QUIPUBDL";
const HEADER_BYTES: usize = 16;
/// The key of the sealed value.
const KEY: &[u8] = b"bundle";
/// What the events of a frame take at most, their texts included (invariant 3).
const FRAME_BYTES_MAX: usize = 32 << 20;

/// What one replica tells another: events, each under the name that it has everywhere, the replica that
/// recorded it and its position there. Made by [`Db::export`](crate::Db::export), taken in by
/// [`Db::import`](crate::Db::import), which takes each event once, however often and in whatever order
/// bundles come.
///
/// It is carried as bytes ([`to_bytes`](Bundle::to_bytes)) or as text: it serializes, to JSON for
/// example, and both forms hold the same. Several may lie behind each other in one file
/// ([`write_to`](Bundle::write_to), [`read_from`](Bundle::read_from)).
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use quipu::{Bundle, Cursor, Db, Event, View};
///
/// let phone = Db::open(dir.path().join("phone"))?;
/// phone.record(&Event::new("app_launch").times(3))?;
/// let bundle = phone.export(&Cursor::beginning())?;
/// let carried = bundle.to_bytes();
///
/// let laptop = Db::open(dir.path().join("laptop"))?;
/// laptop.define(View::new("launches").by(["event"]))?;
/// for _ in 0..2 {
///     laptop.import(&Bundle::from_bytes(&carried)?)?; // again changes nothing
/// }
/// let launches = laptop.query("launches")?.get(&["app_launch"])?.expect("it was launched");
/// assert_eq!(launches.count, 3);
/// // What is recorded from here on:
/// let next = phone.export(&bundle.cursor())?;
/// assert_eq!(next.events(), 0);
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone)]
pub struct Bundle {
    pub(super) since: Cursor,
    pub(super) upto: Cursor,
    texts: Vec<Box<str>>,
    frames: Vec<Packed>,
}

/// The events of a frame, as they are carried.
#[derive(Clone)]
struct Packed {
    events: usize,
    body: Vec<u8>,
}

impl Bundle {
    /// The cursor that it was exported since.
    pub fn since(&self) -> Cursor {
        self.since
    }

    /// The cursor of its end: what the replica that exported it records later is behind that.
    pub fn cursor(&self) -> Cursor {
        self.upto
    }

    /// The number of events in it; one that stands for several is one.
    pub fn events(&self) -> u64 {
        self.frames.iter().map(|frame| frame.events as u64).sum()
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let value = codec::seal(KEY, |out| self.encode(out));
        let length = (value.len() as u64).to_le_bytes();
        [&MAGIC[..], &length, &value].concat()
    }

    /// Reads [`to_bytes`](Bundle::to_bytes).
    ///
    /// # Errors
    /// `Invalid` for bytes that are no bundle, or damaged, or one with something that cannot be
    /// recorded; `NewerFormat`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut rest = bytes;
        let bundle = Bundle::read_from(&mut rest)?;
        match bundle {
            Some(bundle) if rest.is_empty() => Ok(bundle),
            Some(_) => {
                Err(Error::invalid("something lies behind the bundle; read one after another"))
            }
            None => Err(Error::invalid("an empty file is no bundle")),
        }
    }

    /// Whether these are the first bytes of a bundle's.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC)
    }

    /// Writes its bytes; another one may follow.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_to(&self, mut out: impl Write) -> Result<()> {
        out.write_all(&self.to_bytes()).map_err(|e| Error::stream("write a bundle", e))
    }

    /// Reads the next of the bundles that were written one behind the other; `None` at the end.
    ///
    /// # Errors
    /// As [`from_bytes`](Bundle::from_bytes); `Io`.
    pub fn read_from(mut input: impl Read) -> Result<Option<Self>> {
        let fail = |e| Error::stream("read a bundle", e);
        let mut header = Vec::new();
        let limit = |bytes: usize| bytes as u64;
        input.by_ref().take(limit(HEADER_BYTES)).read_to_end(&mut header).map_err(fail)?;
        if header.is_empty() {
            return Ok(None);
        }
        let mut rest = header.as_slice();
        let length = rest.strip_prefix(&MAGIC).map(|length| {
            rest = length;
            codec::take_array(&mut rest).map(u64::from_le_bytes)
        });
        let Some(length) = length else {
            return Err(Error::invalid("this is no bundle: it does not begin as one"));
        };
        let length = length.map_err(|_| damaged(Malformed("it is cut short")))?;
        let mut value = Vec::new();
        input.take(length).read_to_end(&mut value).map_err(fail)?;
        if value.len() as u64 != length {
            return Err(damaged(Malformed("it is cut short")));
        }
        if codec::is_newer(KEY, &value) {
            let message = "the bundle was written by newer software; use that";
            return Err(Error::new(ErrorKind::NewerFormat, message));
        }
        let payload = codec::unseal(KEY, &value).map_err(damaged)?;
        Bundle::decode(payload).map(Some).map_err(damaged)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for cursor in [self.since, self.upto] {
            out.extend_from_slice(&cursor.replica.map_or(0, |id| id.0).to_le_bytes());
            codec::put_u64(out, cursor.position);
        }
        codec::put_u64(out, self.texts.len() as u64);
        self.texts.iter().for_each(|text| codec::put_bytes(out, text.as_bytes()));
        codec::put_u64(out, self.frames.len() as u64);
        for frame in &self.frames {
            codec::put_u64(out, frame.events as u64);
            codec::put_bytes(out, &frame.body);
        }
    }

    fn decode(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes = &mut bytes;
        let mut cursor = || {
            let replica = u128::from_le_bytes(codec::take_array(bytes)?);
            let position = codec::take_u64(bytes)?;
            if (replica == 0) != (position == 0) {
                return Err(Malformed("a cursor is none that there can be"));
            }
            Ok(Cursor { replica: (replica != 0).then_some(ReplicaId(replica)), position })
        };
        let (since, upto) = (cursor()?, cursor()?);
        let mut texts = Vec::new();
        for _ in 0..codec::take_count(bytes, 1)? {
            let text = std::str::from_utf8(codec::take_bytes(bytes)?);
            texts.push(Box::from(text.map_err(|_| Malformed("a text is not UTF-8"))?));
        }
        if texts.iter().collect::<HashSet<_>>().len() < texts.len() {
            return Err(Malformed("a text is there twice"));
        }
        let mut bundle = Bundle { since, upto, texts, frames: Vec::new() };
        let mut columns = Columns::default();
        for _ in 0..codec::take_count(bytes, 2)? {
            let events = codec::take_u64(bytes)? as usize;
            let frame = Packed { events, body: codec::take_bytes(bytes)?.to_vec() };
            bundle.unpack(&frame, &mut columns)?;
            bundle.check(&columns, frame.body.len())?;
            bundle.frames.push(frame);
        }
        codec::finished(bytes)?;
        Ok(bundle)
    }

    /// The events of a frame as columns, whose syms are places among the texts.
    fn unpack(&self, frame: &Packed, columns: &mut Columns) -> Result<(), Malformed> {
        let translate = |place: u32| {
            let is_there = (place as usize) < self.texts.len();
            if is_there {
                Ok(Sym(place))
            } else {
                Err(Malformed("a text is used that is not there"))
            }
        };
        columns.decode(Form::Extended, frame.events, 0, &frame.body, &translate)
    }

    /// Calls `take` with the events of each frame, in their order.
    pub(crate) fn each_frame(
        &self,
        mut take: impl FnMut(&mut Columns) -> Result<()>,
    ) -> Result<()> {
        let mut columns = Columns::default();
        for frame in &self.frames {
            // It was, when the bundle came into being.
            self.unpack(frame, &mut columns).map_err(damaged)?;
            take(&mut columns)?;
        }
        Ok(())
    }

    /// The number of its frames.
    pub(super) fn frames(&self) -> usize {
        self.frames.len()
    }

    pub(crate) fn text(&self, sym: Sym) -> &str {
        &self.texts[sym.0 as usize]
    }

    pub(crate) fn texts(&self) -> &[Box<str>] {
        &self.texts
    }

    /// Checks the invariants of a frame.
    fn check(&self, columns: &Columns, body_bytes: usize) -> Result<(), Malformed> {
        if columns.extras.origin.is_none() {
            return Err(Malformed("it does not say whose events they are"));
        }
        let mut names = HashSet::new();
        let dims = columns.dims.iter().map(|column| column.name);
        if !dims.clone().all(|name| names.insert(name)) {
            return Err(Malformed("a dimension has two columns"));
        }
        names.clear();
        if !columns.measures.iter().all(|column| names.insert(column.name)) {
            return Err(Malformed("a measure has two columns"));
        }
        // They would cost whoever reads it more than whoever wrote it.
        if !(columns.dims.iter().all(Column::has_syms)
            && columns.measures.iter().all(Column::has_floats))
        {
            return Err(Malformed("a column is of no event"));
        }
        names.clear();
        let mut bytes = body_bytes;
        columns.each_sym(|sym| {
            if names.insert(sym) {
                bytes += self.text(sym).len() + 20;
            }
        });
        if bytes > FRAME_BYTES_MAX {
            return Err(Malformed("a frame is larger than one may be"));
        }
        for row in 0..columns.len() {
            let event = columns.event(row, &|sym| self.text(sym))?;
            check_event(&event).map_err(|_| Malformed("an event is none that is accepted"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("since", &self.since)
            .field("cursor", &self.upto)
            .field("events", &self.events())
            .finish_non_exhaustive()
    }
}

/// Checks all of an event but whether it is ahead of the clock.
fn check_event(event: &Event<'_>) -> Result<()> {
    event.check()?;
    let time = event.time().unwrap_or_default();
    event.check_time(time, Timestamp::MAX, std::time::Duration::ZERO)
}

fn damaged(malformed: Malformed) -> Error {
    Error::invalid(format!("the bundle is damaged: {malformed}; nothing of it was taken in"))
}

/// Puts a bundle together.
pub(crate) struct Packer {
    bundle: Bundle,
    places: HashMap<Box<str>, u32, foldhash::fast::RandomState>,
    bytes: usize,
}

impl Packer {
    pub(crate) fn new(since: Cursor) -> Self {
        let bundle = Bundle { since, upto: since, texts: Vec::new(), frames: Vec::new() };
        Packer { bundle, places: HashMap::default(), bytes: 0 }
    }

    /// The place of a text.
    pub(crate) fn place(&mut self, text: &str) -> Sym {
        if let Some(place) = self.places.get(text) {
            return Sym(*place);
        }
        let place = self.bundle.texts.len() as u32;
        self.bytes += text.len() + 2;
        self.bundle.texts.push(text.into());
        self.places.insert(text.into(), place);
        Sym(place)
    }

    /// Takes in the events of a frame, whose syms are [places](Packer::place), with their origin.
    pub(crate) fn push(&mut self, columns: &Columns) {
        let mut body = Vec::new();
        columns.encode(0, &mut body);
        self.bytes += body.len() + 8;
        self.bundle.frames.push(Packed { events: columns.len(), body });
    }

    /// Takes in events that recording would accept, at consecutive positions of a replica.
    ///
    /// # Errors
    /// `Invalid` where it would not, or where there are none or too many for a frame.
    pub(super) fn push_events<'a>(
        &mut self,
        origin: Origin,
        events: impl IntoIterator<Item = Event<'a>>,
    ) -> Result<()> {
        let mut columns = Columns::default();
        for (row, event) in events.into_iter().enumerate() {
            check_event(&event)?;
            self.add(&mut columns, row, &event);
            if columns.dims.len().max(columns.measures.len()) > FRAME_COLUMNS_MAX {
                return Err(Error::invalid("the events of a frame have too many dimensions"));
            }
        }
        columns.square();
        columns.extras.origin = Some(origin);
        let events = columns.len();
        if events == 0 || events > FRAME_EVENTS_MAX {
            let message =
                format!("a frame has {events} events; 1 to {FRAME_EVENTS_MAX} are allowed");
            return Err(Error::invalid(message));
        }
        self.push(&columns);
        // As if it was read: what is wrong with the origin shows there.
        let frame = self.bundle.frames.last().ok_or_else(|| damaged(Malformed("it is empty")))?;
        self.bundle.unpack(frame, &mut columns).map_err(damaged)?;
        self.bundle.check(&columns, frame.body.len()).map_err(damaged)
    }

    fn add(&mut self, columns: &mut Columns, row: usize, event: &Event<'_>) {
        columns.names.push(self.place(event.name));
        columns.times.push(event.time().unwrap_or_default().micros());
        for (name, value) in event.dims.iter() {
            let (name, value) = (self.place(name), self.place(value));
            column(&mut columns.dims, name).put(row, value, Sym::NONE);
        }
        for (name, value) in event.measures.iter() {
            column(&mut columns.measures, self.place(name)).put(row, *value, f64::NAN);
        }
        if let Some(entity) = event.entity {
            columns.put_entity(row, self.place(entity));
        }
        if let Some(id) = event.id {
            columns.ids.set(row, id.as_bytes());
        }
        if let Some(payload) = event.payload {
            columns.payloads.set(row, payload);
        }
        columns.extras.put(row, event.times, event.half_width);
    }

    /// The bytes that are in it, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bundle, which ends at a cursor.
    pub(crate) fn finish(self, upto: Cursor) -> Bundle {
        Bundle { upto, ..self.bundle }
    }
}

/// The column of this name, made when it is missing.
fn column<T: Copy>(columns: &mut Vec<Column<T>>, name: Sym) -> &mut Column<T> {
    let at = columns.iter().position(|column| column.name == name).unwrap_or_else(|| {
        columns.push(Column::empty(name));
        columns.len() - 1
    });
    &mut columns[at]
}
