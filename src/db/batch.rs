//! A batch under construction: events checked, interned and put into columns as they come.
//!
//! Invariant: an event that is refused leaves nothing in the batch.

mod copied;
mod waiting;

use super::{Db, Engine};
use crate::dictionary::{Dictionary, Reader, Sym};
use crate::error::{Error, Result};
use crate::event::{Event, Limits, is_name};
use crate::record::{Column, Columns, FRAME_COLUMNS_MAX, FRAME_EVENTS_MAX};
use crate::time::Timestamp;
use copied::Copied;
use std::sync::Arc;
use waiting::Waiting;

/// The number of the entities among the columns that wait; those of dimensions follow.
const ENTITY: usize = 0;
/// A chunk is closed when it has grown to this.
const CHUNK_BYTES_MAX: usize = 4 << 20;

/// More than [`Columns::bytes_estimate`] grows by with an event that brings no column and no payload.
const EVENT_BYTES_MAX: usize = Limits::NAME_BYTES
    + Limits::DIMENSIONS * Limits::VALUE_BYTES
    + 2 * Limits::ID_BYTES
    + 16 * FRAME_COLUMNS_MAX;

/// Events to be recorded together: the fast path. Made by [`Db::batch`], recorded by
/// [`Db::record_batch`], which empties it and keeps its allocations for the next round.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use quipu::{Db, Event};
///
/// let db = Db::open(dir.path().join("shop"))?;
/// let mut batch = db.batch();
/// for user in ["alice", "bob", "alice"] {
///     batch.push(&Event::new("visit").dim("user", user))?;
/// }
/// let outcome = db.record_batch(&mut batch)?;
/// assert_eq!((outcome.recorded, batch.len()), (3, 0));
/// # Ok::<(), quipu::Error>(())
/// ```
pub struct Batch {
    engine: Arc<Engine>,
    builder: Builder,
}

/// The columns of a batch, and what is needed to add to them.
pub(super) struct Builder {
    reader: Reader,
    form: Form,
    /// Values of the last events of chunk `at`.
    waiting: Waiting,
    /// Each becomes a frame. The ones behind `at` are empty.
    chunks: Vec<Columns>,
    at: usize,
    /// So many events that bring no column have room in the chunk for certain.
    room: usize,
    /// The time of events that have none; the clock's when it is first needed.
    now: Option<Timestamp>,
    /// When the first event came that has one, roughly: what is too far behind that is refused.
    begun: Option<Timestamp>,
    /// Times up to this one are not, for certain.
    accepted: Timestamp,
}

/// Behind no time that an event may have.
const NOTHING: Timestamp = Timestamp::from_micros(i64::MIN);

impl Batch {
    /// Adds an event. Its time, if it has none, is that of the first `push` since the batch was
    /// last empty.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) when the event can not be accepted
    /// ([`Event::check`]) or lies too far in the future; nothing of it is in the batch then. The
    /// caller decides whether to go on without it.
    pub fn push(&mut self, event: &Event<'_>) -> Result<()> {
        self.builder.push(&self.engine, event)
    }

    /// The number of events in the batch.
    #[inline]
    pub fn len(&self) -> usize {
        self.builder.len()
    }

    /// Whether it has no events.
    pub fn is_empty(&self) -> bool {
        self.builder.is_empty()
    }

    /// Forgets the events; the allocations stay.
    pub fn clear(&mut self) {
        self.builder.clear();
    }

    pub(super) fn builder_of(&mut self, engine: &Arc<Engine>) -> Result<&mut Builder> {
        if Arc::ptr_eq(&self.engine, engine) {
            return Ok(&mut self.builder);
        }
        Err(Error::invalid(
            "this batch was made by another Db; batches are recorded where they were made",
        ))
    }
}

impl Builder {
    pub(super) fn new(dictionary: &Dictionary) -> Self {
        let reader = dictionary.reader();
        Builder {
            reader,
            form: Form::default(),
            waiting: Waiting::default(),
            chunks: vec![Columns::default()],
            at: 0,
            room: 0,
            now: None,
            begun: None,
            accepted: NOTHING,
        }
    }

    pub(super) fn push(&mut self, engine: &Engine, event: &Event<'_>) -> Result<()> {
        let is_plain = event.is_plain();
        let is_known = is_plain && is_name(event.name) && self.form.has_plain(event);
        if !is_known {
            event.check().inspect_err(|_| engine.tallies.refused.add(1))?;
        }
        let time = match event.time {
            Some(time) if (Timestamp::MIN..=self.accepted).contains(&time) => time,
            _ => self.check_time(engine, event)?,
        };
        if !is_known && !self.form.has(event) {
            self.learn(&engine.dictionary, event);
        }
        self.add_known(&engine.dictionary, event, time, is_plain);
        Ok(())
    }

    /// Checks the time of an event, and gives it.
    #[inline(never)]
    fn check_time(&mut self, engine: &Engine, event: &Event<'_>) -> Result<Timestamp> {
        let clock = &engine.options.clock;
        if event.time.is_none() {
            self.now.get_or_insert_with(|| clock.now());
        } else {
            self.begun.get_or_insert_with(|| clock.now_roughly());
        }
        // The batch may have been begun long ago.
        let begun = self.begun.or(self.now).unwrap_or_default();
        let (time, latest) = check_time(engine, event, self.now, begun)
            .inspect_err(|_| engine.tallies.refused.add(1))?;
        self.begun = self.begun.and(latest).or(self.begun);
        let skew = engine.options.future_skew;
        let latest = |begun: Timestamp| begun.saturating_add(skew).min(Timestamp::MAX);
        self.accepted = self.begun.map_or(NOTHING, latest);
        Ok(time)
    }

    /// Adds an event that was checked.
    pub(super) fn add(&mut self, dictionary: &Dictionary, event: &Event<'_>) {
        self.add_at(dictionary, event, event.time.or(self.now).unwrap_or_default());
    }

    /// Adds an event that was checked and happened at `time`. Of one of its texts the sym is known.
    #[inline]
    pub(super) fn add_with(
        &mut self,
        dictionary: &Dictionary,
        event: &Event<'_>,
        time: Timestamp,
        known: Option<(&str, Sym)>,
    ) {
        self.waiting.expect(known);
        self.add_at(dictionary, event, time);
        self.waiting.expect(None);
    }

    /// Adds an event that was checked and happened at `time`.
    pub(super) fn add_at(&mut self, dictionary: &Dictionary, event: &Event<'_>, time: Timestamp) {
        if !self.form.has(event) {
            self.learn(dictionary, event);
        }
        self.add_known(dictionary, event, time, event.is_plain());
    }

    /// Takes the form of an event that was checked.
    #[inline(never)]
    fn learn(&mut self, dictionary: &Dictionary, event: &Event<'_>) {
        let Builder { form, reader, .. } = self;
        let mut intern = |text: &str| dictionary.intern(reader, text);
        form.dims.take(event.dims.iter().map(|(name, _)| *name), &mut intern);
        form.measures.take(event.measures.iter().map(|(name, _)| *name), &mut intern);
    }

    /// Adds an event that was checked, has the form, and happened at `time`.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call for each event, from two places")]
    fn add_known(
        &mut self,
        dictionary: &Dictionary,
        event: &Event<'_>,
        time: Timestamp,
        is_plain: bool,
    ) {
        if self.room == 0 || self.waiting.is_full() {
            self.make_room(dictionary, event);
        }
        self.room = self.room.saturating_sub(1);
        let Builder { reader, form, waiting, chunks, at, room, .. } = self;
        let columns = &mut chunks[*at];
        let row = columns.len();
        columns.names.push(waiting.name(dictionary, reader, event.name));
        columns.times.push(time.micros());
        columns.text_bytes += event.name.len();
        for ((_, value), name) in event.dims.iter().zip(&mut form.dims.all) {
            columns.text_bytes += value.len();
            let column = match columns.dims.get_mut(name.column) {
                Some(column) if column.name == name.sym => column,
                _ => name.find_column(&mut columns.dims, room),
            };
            let place = (name.column + 1, row);
            column.put(row, waiting.push(dictionary, reader, place, value), Sym::NONE);
        }
        for ((_, value), name) in event.measures.iter().zip(&mut form.measures.all) {
            let column = match columns.measures.get_mut(name.column) {
                Some(column) if column.name == name.sym => column,
                _ => name.find_column(&mut columns.measures, room),
            };
            column.put(row, *value, f64::NAN);
        }
        if !is_plain {
            self.add_rare(dictionary, row, event);
        }
    }

    /// Adds what few events have.
    #[inline(never)]
    fn add_rare(&mut self, dictionary: &Dictionary, row: usize, event: &Event<'_>) {
        let Builder { reader, waiting, chunks, at, room, .. } = self;
        let columns = &mut chunks[*at];
        if let Some(entity) = event.entity {
            columns.text_bytes += entity.len();
            columns.put_entity(row, waiting.push(dictionary, reader, (ENTITY, row), entity));
        }
        if let Some(id) = event.id {
            columns.ids.set(row, id.as_bytes());
        }
        if let Some(payload) = event.payload {
            columns.payloads.set(row, payload);
            *room = 0;
        }
        columns.extras.put(row, event.times, event.half_width);
    }

    /// Goes on to the next chunk if this one must not take the event.
    #[inline(never)]
    fn make_room(&mut self, dictionary: &Dictionary, event: &Event<'_>) {
        if self.waiting.is_full() {
            self.look_up(dictionary);
        }
        // The next one may have as many columns from the last time.
        while self.is_full_for(event) {
            self.look_up(dictionary);
            self.next_chunk();
        }
        let columns = &self.chunks[self.at];
        let bytes = CHUNK_BYTES_MAX.saturating_sub(columns.bytes_estimate());
        let has_columns = columns.dims.len() + Limits::DIMENSIONS <= FRAME_COLUMNS_MAX
            && columns.measures.len() + Limits::MEASURES <= FRAME_COLUMNS_MAX;
        self.room = match bytes / EVENT_BYTES_MAX {
            events if has_columns => events.min(FRAME_EVENTS_MAX - columns.len()),
            _ => 0,
        };
    }

    /// Whether the present chunk takes another event for certain.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.room > 0
    }

    /// Whether the present chunk must not take the event.
    pub(super) fn is_full_for(&self, event: &Event<'_>) -> bool {
        let columns = &self.chunks[self.at];
        columns.len() >= FRAME_EVENTS_MAX
            || columns.dims.len() + event.dims.len() > FRAME_COLUMNS_MAX
            || columns.measures.len() + event.measures.len() > FRAME_COLUMNS_MAX
            || columns.bytes_estimate() > CHUNK_BYTES_MAX
    }

    #[cold]
    fn next_chunk(&mut self) {
        if self.chunks[self.at].is_empty() {
            // Full of columns that earlier events had.
            self.chunks[self.at] = Columns::default();
            return;
        }
        self.at += 1;
        if self.at == self.chunks.len() {
            self.chunks.push(Columns::default());
        }
    }

    /// Puts the values that wait into their columns.
    #[inline]
    fn look_up(&mut self, dictionary: &Dictionary) {
        if !self.waiting.is_empty() {
            self.look_up_all(dictionary);
        }
    }

    #[inline(never)]
    fn look_up_all(&mut self, dictionary: &Dictionary) {
        let columns = &mut self.chunks[self.at];
        self.waiting.look_up(dictionary, &mut self.reader, |column, since, syms| {
            let values = match column {
                ENTITY => &mut columns.entities,
                _ => &mut columns.dims[column - 1].values,
            };
            for sym in values[since..].iter_mut().filter(|sym| **sym != Sym::NONE) {
                *sym = syms[sym.0 as usize];
            }
        });
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        match &*self.chunks {
            [columns] => columns.len(),
            chunks => chunks.iter().map(Columns::len).sum(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.iter().all(Columns::is_empty)
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.chunks.iter_mut().for_each(Columns::clear);
        self.at = 0;
        self.room = 0;
        self.now = None;
        self.begun = None;
        self.accepted = NOTHING;
    }

    pub(super) fn chunks(&mut self, dictionary: &Dictionary) -> &mut [Columns] {
        self.look_up(dictionary);
        let chunks = &mut self.chunks[..=self.at];
        chunks.iter_mut().for_each(Columns::square);
        chunks
    }

    /// The columns of events of which there are few enough for one frame.
    pub(super) fn only_chunk(&mut self, dictionary: &Dictionary) -> &mut Columns {
        let [columns] = self.chunks(dictionary) else {
            unreachable!("a group of staged events is smaller than a frame in every respect")
        };
        columns
    }

    /// Whether another event leaves it with no more than so many columns of a kind.
    #[inline]
    pub(super) fn has_columns_for(&self, event: &Event<'_>, max: usize) -> bool {
        let columns = &self.chunks[self.at];
        columns.dims.len() + event.dims.len() <= max
            && columns.measures.len() + event.measures.len() <= max
    }

    /// Forgets the events, and the columns as well if there are more than so many of a kind.
    pub(super) fn clear_within(&mut self, columns_max: usize) {
        self.clear();
        let columns = &mut self.chunks[0];
        if columns.dims.len().max(columns.measures.len()) > columns_max {
            *columns = Columns::default();
        }
    }

    /// Takes the events of parts that have room in a frame together: by their times, those of each part in its order.
    /// It is empty before.
    pub(super) fn put_together(&mut self, dictionary: &Dictionary, parts: &mut [&mut Builder]) {
        let parts: Vec<_> = parts.iter_mut().map(|part| &*part.only_chunk(dictionary)).collect();
        self.room = 0;
        self.chunks[0].gather(&parts);
    }

    /// When the first event came, roughly.
    pub(super) fn begun(&self) -> Option<Timestamp> {
        self.begun.or(self.now)
    }
}

/// Checks an event that comes by itself, at `now`, which is known roughly where the event says when it
/// happened; gives its time.
#[inline]
pub(super) fn check_single(
    engine: &Engine,
    event: &Event<'_>,
    now: Timestamp,
) -> Result<Timestamp> {
    let checked = event.check().and_then(|()| check_time(engine, event, None, now));
    checked.map(|(time, _)| time).inspect_err(|_| engine.tallies.refused.add(1))
}

/// Checks the time of an event, which happened at `now` if it does not say when, and comes not before
/// `begun`. Gives its time, and the present if that had to be asked for.
#[inline]
fn check_time(
    engine: &Engine,
    event: &Event<'_>,
    now: Option<Timestamp>,
    begun: Timestamp,
) -> Result<(Timestamp, Option<Timestamp>)> {
    let skew = engine.options.future_skew;
    let checked = |time, present: Timestamp| {
        event.check_time(time, present.saturating_add(skew), skew).map(|()| time)
    };
    let Some(time) = event.time else {
        let now = now.unwrap_or(begun);
        return checked(now, now).map(|time| (time, None));
    };
    if let Ok(time) = checked(time, begun) {
        return Ok((time, None));
    }
    let present = engine.options.clock.now();
    checked(time, present).map(|time| (time, Some(present)))
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// The form of an event: its dimensions and measures, in their order; all of one event, so it has none of
/// them twice. Events mostly have the form of the one before, or its first parts, and then comparing texts
/// is all there is to do.
#[derive(Default)]
struct Form {
    dims: Names,
    measures: Names,
}

/// The names of its dimensions, or of its measures.
#[derive(Default)]
struct Names {
    /// Those behind it are of earlier events.
    len: usize,
    all: Vec<Named>,
}

struct Named {
    text: Copied,
    sym: Sym,
    /// Where its column was, which is looked at first.
    column: usize,
}

impl Default for Named {
    fn default() -> Self {
        Named { text: Copied::NOTHING, sym: Sym::NONE, column: 0 }
    }
}

impl Named {
    fn take(&mut self, text: &str, intern: &mut impl FnMut(&str) -> Sym) {
        if !self.text.is(text) {
            self.text.set(text);
            self.sym = intern(text);
        }
    }

    /// Its column, which is made when missing, and where that is.
    #[inline(never)]
    fn find_column<'c, T: Copy>(
        &mut self,
        columns: &'c mut Vec<Column<T>>,
        room: &mut usize,
    ) -> &'c mut Column<T> {
        let found = columns.iter().position(|column| column.name == self.sym);
        self.column = found.unwrap_or(columns.len());
        if found.is_none() {
            columns.push(Column::empty(self.sym));
            *room = 0;
        }
        &mut columns[self.column]
    }
}

impl Names {
    /// Whether these are all of them, or the first ones, with values that are fine.
    #[inline]
    fn begin_with<V>(&self, parts: &[(&str, V)], is_fine: impl Fn(&V) -> bool) -> bool {
        let mut all = parts.iter().zip(&self.all);
        parts.len() <= self.len
            && all.all(|((name, value), known)| known.text.is(name) && is_fine(value))
    }

    fn take<'n>(
        &mut self,
        names: impl ExactSizeIterator<Item = &'n str>,
        intern: &mut impl FnMut(&str) -> Sym,
    ) {
        self.len = names.len();
        self.all.resize_with(self.len.max(self.all.len()), Named::default);
        self.all.iter_mut().zip(names).for_each(|(known, name)| known.take(name, intern));
    }
}

impl Form {
    /// Whether the event has it, or the first of its dimensions and measures.
    #[inline]
    fn has(&self, event: &Event<'_>) -> bool {
        self.dims.begin_with(&event.dims, |_| true)
            && self.measures.begin_with(&event.measures, |_| true)
    }

    /// The same, and that nothing is wrong with the values of its dimensions and measures.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "for each event")]
    fn has_plain(&self, event: &Event<'_>) -> bool {
        self.dims.begin_with(&event.dims, |value| value.len() <= Limits::VALUE_BYTES)
            && self.measures.begin_with(&event.measures, |value| value.is_finite())
    }
}

impl Db {
    /// An empty batch of this engine.
    pub fn batch(&self) -> Batch {
        let builder = Builder::new(&self.engine().dictionary);
        Batch { engine: self.engine().clone(), builder }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Values of an event's dimensions and measures by their names, and an entity.
    type Told = (usize, Vec<(usize, String)>, Vec<(usize, f64)>, Option<String>);

    const NAMES: [&str; 6] =
        ["user", "product", "category", "country", "a", "of a longer name yet"];

    fn told() -> impl Strategy<Value = Told> {
        // Few values, so that they repeat; of all lengths that are copied in ways of their own.
        let value = || {
            prop::sample::select(vec!["", "a", "b", "xyz", "12345", "123456789", "x"])
                .prop_flat_map(|text| (1_usize..9).prop_map(move |times| text.repeat(times)))
        };
        let dims =
            prop::sample::subsequence((0..NAMES.len()).collect::<Vec<_>>(), 0..4).prop_shuffle();
        let dims = dims.prop_flat_map(move |names| {
            let of = names.len();
            (Just(names), prop::collection::vec(value(), of))
                .prop_map(|(names, values)| names.into_iter().zip(values).collect::<Vec<_>>())
        });
        let measures = prop::sample::subsequence(vec![0_usize, 1, 4], 0..3)
            .prop_map(|names| names.into_iter().map(|name| (name, name as f64 + 0.5)).collect());
        (0..NAMES.len(), dims, measures, prop::option::weighted(0.2, value()))
    }

    fn event((name, dims, measures, entity): &Told) -> Event<'_> {
        let mut event = Event::new(NAMES[*name]).at(Timestamp::from_secs(*name as i64));
        for (name, value) in dims {
            event = event.dim(NAMES[*name], value);
        }
        for (name, value) in measures {
            event = event.measure(NAMES[*name], *value);
        }
        match entity {
            Some(entity) => event.entity(entity),
            None => event,
        }
    }

    /// As columns tell it: dimensions and measures in any order.
    fn sorted(event: &Event<'_>) -> (String, Vec<String>, Vec<String>, Option<String>) {
        let mut dims: Vec<_> = event.dims.iter().map(|dim| format!("{dim:?}")).collect();
        let mut measures: Vec<_> = event.measures.iter().map(|one| format!("{one:?}")).collect();
        dims.sort_unstable();
        measures.sort_unstable();
        (event.name.to_owned(), dims, measures, event.entity.map(str::to_owned))
    }

    proptest! {
        /// Of a dictionary that is near and of one that is not, which becomes either in between.
        #[test]
        fn a_builder_tells_the_events_that_were_added(
            rounds in prop::collection::vec(
                (
                    prop::collection::vec((told(), any::<bool>(), prop::bool::weighted(0.7)), 0..150),
                    prop::bool::weighted(0.2),
                ),
                1..5,
            ),
        ) {
            let dictionary = Dictionary::new(0);
            let mut builder = Builder::new(&dictionary);
            for (told, is_forgotten) in &rounds {
                for (told, is_expected, is_far) in told {
                    let reader = dictionary.reader();
                    builder.reader = if *is_far { reader.far() } else { reader };
                    let event = event(told);
                    let known = event.dims.first().filter(|_| *is_expected).and_then(|(_, value)| {
                        dictionary.find(value).map(|sym| (*value, sym))
                    });
                    let time = event.time.unwrap();
                    builder.add_with(&dictionary, &event, time, known);
                }
                if *is_forgotten {
                    // With what waits.
                    builder.clear();
                    continue;
                }
                let chunks = builder.chunks(&dictionary);
                let text = |sym: Sym| dictionary.text(sym);
                let rows = chunks.iter().flat_map(|columns| (0..columns.len()).map(move |row| (columns, row)));
                let found: Vec<_> =
                    rows.map(|(columns, row)| sorted(&columns.event(row, &text).unwrap())).collect();
                let wanted: Vec<_> = told.iter().map(|(told, ..)| sorted(&event(told))).collect();
                prop_assert_eq!(found, wanted);
                builder.clear();
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        /// What has room for certain is not looked at for each event; the chunks are as if it were.
        #[test]
        fn a_chunk_ends_where_it_is_full(
            runs in prop::collection::vec(
                (0_usize..400, 1_usize..33, 0_usize..=Limits::VALUE_BYTES, 0_usize..200),
                1..60,
            ),
        ) {
            let dictionary = Dictionary::new(0);
            let mut builder = Builder::new(&dictionary);
            let names: Vec<_> = (0..440).map(|i| format!("dim{i}")).collect();
            let payload = vec![0; Limits::PAYLOAD_BYTES / 4];
            for (first, dims, value_bytes, events) in runs {
                let value = "v".repeat(value_bytes);
                let names = &names[first..first + dims];
                let event = names.iter().fold(Event::new("e"), |event, name| event.dim(name, &value));
                for i in 0..events {
                    let event = event.clone();
                    let event = if i % 150 == 140 { event.payload(&payload) } else { event };
                    let (at, is_full) = (builder.at, builder.is_full_for(&event));
                    builder.add(&dictionary, &event);
                    prop_assert_eq!(builder.at - at, usize::from(is_full));
                }
            }
        }
    }

    #[test]
    fn columns_beyond_a_frames_begin_another_chunk() {
        let dictionary = Dictionary::new(0);
        let mut builder = Builder::new(&dictionary);
        let names: Vec<String> = (0..FRAME_COLUMNS_MAX + 40).map(|i| format!("dim{i}")).collect();
        let events = || {
            names.chunks(7).map(|names| {
                names.iter().fold(Event::new("e"), |event, name| event.dim(name, name))
            })
        };
        events().for_each(|event| builder.add(&dictionary, &event));
        let chunks = builder.chunks(&dictionary);
        assert_eq!(chunks.len(), 2);
        let text = |sym: Sym| dictionary.text(sym);
        let rows =
            chunks.iter().flat_map(|columns| (0..columns.len()).map(move |row| (columns, row)));
        let found: Vec<_> =
            rows.map(|(columns, row)| sorted(&columns.event(row, &text).unwrap())).collect();
        assert_eq!(found, events().map(|event| sorted(&event)).collect::<Vec<_>>());
    }
}
