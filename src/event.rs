//! Events: what happened, as the caller says it, and the limits on what may be said.
//!
//! Invariants
//! 1. An [`Event`] borrows everything; it is checked as a whole by [`Event::check`] before any
//!    part of it reaches the log or a view.
//! 2. The dimension `event` is the event's own name: views may use it, events may not set it.
//!
//! Next: `record.rs`.

use crate::error::{Error, Result};
use crate::time::Timestamp;
use std::ops::Deref;
use std::time::Duration;

/// The dimension under which views see the event's name.
pub const EVENT_DIMENSION: &str = "event";
/// The measure that [`Event::value`] sets.
pub const DEFAULT_MEASURE: &str = "value";

/// The largest sizes that are accepted; everything over them is refused with
/// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid). Lengths are in bytes of UTF-8.
#[derive(Debug)]
pub struct Limits;

impl Limits {
    /// Names of events, dimensions, measures, views.
    pub const NAME_BYTES: usize = 255;
    /// A dimension's value.
    pub const VALUE_BYTES: usize = 1_024;
    /// Entities and ids.
    pub const ID_BYTES: usize = 255;
    /// A payload.
    pub const PAYLOAD_BYTES: usize = 1 << 20;
    /// Dimensions of one event.
    pub const DIMENSIONS: usize = 32;
    /// Measures of one event.
    pub const MEASURES: usize = 32;
    /// Key dimensions of a view.
    pub const KEY_PARTS: usize = 8;
    /// Different measures that one view keeps statistics of.
    pub const VIEW_MEASURES: usize = 32;
    /// Sketches that one view keeps.
    pub const VIEW_SKETCHES: usize = 16;
    /// Values in one of a view's conditions.
    pub const CONDITION_VALUES: usize = 1_000;
    /// A view's whole definition.
    pub const VIEW_BYTES: usize = 32 << 10;
    /// Views of one directory.
    pub const VIEWS: usize = 1_000;
    /// Policies of one directory.
    pub const POLICIES: usize = 10_000;
    /// Spans of hours, ranges of dates and excepted ranges of dates of one schedule, together.
    pub const SCHEDULE_PARTS: usize = 1_000;
    /// By how much an event may have been earlier or later than its time: all of the accepted times.
    pub const HALF_WIDTH: Duration =
        Duration::from_micros(Timestamp::MAX.micros().abs_diff(Timestamp::MIN.micros()));
}

/// For how many events one stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Times(pub(crate) u64);

impl Default for Times {
    #[inline]
    fn default() -> Self {
        Times(1)
    }
}

/// A list of mostly few values, which lie in place up to `N` of them.
///
/// Nothing in here is called with the address of the list: as long as nothing is, a chain of an
/// event's setters is a handful of stores for the compiler, and else a copy of the whole event each.
#[derive(Clone, Debug)]
pub(crate) struct Few<T, const N: usize> {
    first: [T; N],
    len: usize,
    /// All of them, when there are more than `N`.
    #[expect(clippy::box_collection, reason = "one word, which a call can be given by value")]
    all: Option<Box<Vec<T>>>,
}

impl<T: Copy + Default, const N: usize> Few<T, N> {
    #[inline]
    fn push(mut self, value: T) -> Self {
        if self.len < N {
            self.first[self.len] = value;
        } else {
            self.all = Few::<T, N>::more(self.all, self.first, value);
        }
        self.len += 1;
        self
    }

    #[cold]
    #[inline(never)]
    #[expect(clippy::box_collection, clippy::unnecessary_wraps, reason = "as in the field")]
    fn more(all: Option<Box<Vec<T>>>, first: [T; N], value: T) -> Option<Box<Vec<T>>> {
        let mut all = all.unwrap_or_else(|| Box::new(first.to_vec()));
        all.push(value);
        Some(all)
    }
}

impl<T: Copy + Default, const N: usize> Default for Few<T, N> {
    #[inline]
    fn default() -> Self {
        Few { first: [T::default(); N], len: 0, all: None }
    }
}

impl<T, const N: usize> Deref for Few<T, N> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        self.all.as_deref().map_or(&self.first[..self.len.min(N)], Vec::as_slice)
    }
}

impl<T: PartialEq, const N: usize> PartialEq for Few<T, N> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

/// Something that happened: a name, a time, dimensions, measures.
///
/// All text is borrowed; building an event of up to four dimensions and two measures allocates
/// nothing.
///
/// ```
/// use quipu::{Event, Timestamp};
///
/// let event = Event::new("sale")
///     .at(Timestamp::from_millis(1_291_191_960_000))
///     .dim("user", "alice")
///     .dim("product", "teapot")
///     .value(15.3)
///     .id("order-17/1");
/// assert_eq!(event.dimension("user"), Some("alice"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event<'a> {
    pub(crate) name: &'a str,
    pub(crate) time: Option<Timestamp>,
    pub(crate) dims: Few<(&'a str, &'a str), 4>,
    pub(crate) measures: Few<(&'a str, f64), 2>,
    pub(crate) entity: Option<&'a str>,
    pub(crate) id: Option<&'a str>,
    pub(crate) payload: Option<&'a [u8]>,
    pub(crate) times: Times,
    /// By how many microseconds it may have been earlier or later.
    pub(crate) half_width: u64,
}

impl<'a> Event<'a> {
    /// An event of this name, of the moment at which it will be recorded.
    #[inline]
    pub fn new(name: &'a str) -> Self {
        Event { name, ..Event::default() }
    }

    /// Says when it happened; without it, the store's clock does when it is recorded.
    #[inline]
    pub fn at(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self.half_width = 0;
        self
    }

    /// Says roughly when it happened: at `time`, or earlier or later by at most `half_width`. It is
    /// counted in the buckets of `time`; when a key was first and last seen is known as roughly as this.
    ///
    /// ```
    /// use quipu::{Event, Timestamp};
    /// use std::time::Duration;
    ///
    /// // Some time on 2010-12-01.
    /// let noon = Timestamp::parse_rfc3339("2010-12-01T12:00:00Z")?;
    /// let event = Event::new("sale").at_about(noon, Duration::from_hours(12));
    /// assert_eq!((event.time(), event.half_width()), (Some(noon), Duration::from_hours(12)));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    #[inline]
    pub fn at_about(mut self, time: Timestamp, half_width: Duration) -> Self {
        self.time = Some(time);
        // Never more exactly than was said.
        let micros = half_width.as_nanos().div_ceil(1_000);
        self.half_width = u64::try_from(micros).unwrap_or(u64::MAX);
        self
    }

    /// Makes it stand for so many events that are alike: it counts for as many, and its measures
    /// are observed as often. It is one record of the log, with one position and at most one id, and
    /// costs what one event does. 0 is refused.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Db, Event, View};
    ///
    /// let db = Db::open(dir.path().join("shop"))?;
    /// db.define(View::new("cups").stats("value"))?;
    /// db.record(&Event::new("sale").value(2.5).times(1_000))?;
    /// let totals = db.query("cups")?.totals()?;
    /// assert_eq!((totals.count, totals.summary().unwrap().sum), (1_000, 2_500.0));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    #[inline]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Times(times);
        self
    }

    /// Adds a dimension: a text by which views group and filter. An empty value is a value.
    #[inline]
    pub fn dim(mut self, dimension: &'a str, value: &'a str) -> Self {
        self.dims = self.dims.push((dimension, value));
        self
    }

    /// Adds the measure `value`.
    #[inline]
    pub fn value(self, value: f64) -> Self {
        self.measure(DEFAULT_MEASURE, value)
    }

    /// Adds a named measure: a finite number that views sum up.
    #[inline]
    pub fn measure(mut self, measure: &'a str, value: f64) -> Self {
        self.measures = self.measures.push((measure, value));
        self
    }

    /// Names the entity (stream) to whose history the event belongs.
    #[inline]
    pub fn entity(mut self, entity: &'a str) -> Self {
        self.entity = Some(entity);
        self
    }

    /// Gives the id by which a repeated event is recognised, where the store has a deduplication
    /// window ([`Dedup`](crate::Dedup)).
    #[inline]
    pub fn id(mut self, id: &'a str) -> Self {
        self.id = Some(id);
        self
    }

    /// Attaches bytes that are kept in the log and not looked into.
    #[inline]
    pub fn payload(mut self, payload: &'a [u8]) -> Self {
        self.payload = Some(payload);
        self
    }

    /// The event's name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// When it happened, if that was said.
    pub fn time(&self) -> Option<Timestamp> {
        self.time
    }

    /// By how much it may have been earlier or later than its time, in whole microseconds.
    pub fn half_width(&self) -> Duration {
        Duration::from_micros(self.half_width)
    }

    /// For how many events it stands.
    pub fn count(&self) -> u64 {
        self.times.0
    }

    /// The value of a dimension, if the event has it.
    pub fn dimension(&self, dimension: &str) -> Option<&'a str> {
        self.dims.iter().find(|(name, _)| *name == dimension).map(|(_, value)| *value)
    }

    /// Its part of a key by this dimension: a value, or its name.
    #[inline]
    pub(crate) fn part(&self, dimension: &str) -> Option<&'a str> {
        if dimension == EVENT_DIMENSION { Some(self.name) } else { self.dimension(dimension) }
    }

    /// Checks everything that does not depend on the store: names, lengths, numbers.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), naming the event and the part that is
    /// wrong.
    #[inline]
    pub fn check(&self) -> Result<()> {
        if self.is_plainly_valid() { Ok(()) } else { self.check_closely() }
    }

    /// Whether nothing is wrong with it, found out with the least to do. What few events have is left to
    /// [`check_closely`](Event::check_closely), which tells what is wrong.
    #[inline]
    pub(crate) fn is_plainly_valid(&self) -> bool {
        let (dims, measures) = (&*self.dims, &*self.measures);
        let is_plain = is_name(self.name) && !self.has_rare() && self.times.0 != 0;
        if !is_plain || dims.len() > Limits::DIMENSIONS {
            return false;
        }
        let are_dims = dims.iter().enumerate().all(|(i, (name, value))| {
            // Of other names' lengths, most often: then no text is compared.
            let is_other = |other: &str| other.len() != name.len() || other != *name;
            is_name(name)
                && value.len() <= Limits::VALUE_BYTES
                && is_other(EVENT_DIMENSION)
                && dims[..i].iter().all(|(other, _)| is_other(other))
        });
        are_dims
            && match measures {
                [] => true,
                [(name, value)] => is_name(name) && value.is_finite(),
                _ => false,
            }
    }

    /// Whether it has nothing that few events do.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        !self.has_rare() && self.times == Times(1)
    }

    #[inline]
    fn has_rare(&self) -> bool {
        self.entity.is_some() | self.id.is_some() | self.payload.is_some() || self.half_width != 0
    }

    #[inline(never)]
    fn check_closely(&self) -> Result<()> {
        if !is_name(self.name) {
            return Err(self.refuse_name("event name", self.name));
        }
        if self.dims.len() > Limits::DIMENSIONS {
            return Err(self.refuse(&format!(
                "has {} dimensions; {} are allowed",
                self.dims.len(),
                Limits::DIMENSIONS
            )));
        }
        if self.measures.len() > Limits::MEASURES {
            return Err(self.refuse(&format!(
                "has {} measures; {} are allowed",
                self.measures.len(),
                Limits::MEASURES
            )));
        }
        for (i, &(name, value)) in self.dims.iter().enumerate() {
            if !is_name(name) {
                return Err(self.refuse_name("dimension name", name));
            }
            if value.len() > Limits::VALUE_BYTES {
                return Err(self.refuse(&format!(
                    "dimension {name:?} is {} bytes long; {} are allowed",
                    value.len(),
                    Limits::VALUE_BYTES
                )));
            }
            if name == EVENT_DIMENSION {
                return Err(self.refuse(
                    "sets the dimension \"event\", which is the event's own name; use another name",
                ));
            }
            if self.dims[..i].iter().any(|(other, _)| *other == name) {
                return Err(self.refuse(&format!("sets the dimension {name:?} twice")));
            }
        }
        for (i, &(name, value)) in self.measures.iter().enumerate() {
            if !is_name(name) {
                return Err(self.refuse_name("measure name", name));
            }
            if !value.is_finite() {
                return Err(self.refuse(&format!(
                    "measure {name:?} is {value}; only finite numbers can be summed"
                )));
            }
            if self.measures[..i].iter().any(|(other, _)| *other == name) {
                return Err(self.refuse(&format!("sets the measure {name:?} twice")));
            }
        }
        for (what, text) in [("entity", self.entity), ("id", self.id)] {
            if let Some(text) = text
                && (text.is_empty() || text.len() > Limits::ID_BYTES)
            {
                return Err(self.refuse_name(what, text));
            }
        }
        if let Some(payload) = self.payload
            && payload.len() > Limits::PAYLOAD_BYTES
        {
            return Err(self.refuse(&format!(
                "payload is {} bytes; {} are allowed",
                payload.len(),
                Limits::PAYLOAD_BYTES
            )));
        }
        if self.times.0 == 0 {
            return Err(
                self.refuse("stands for 0 events; leave it out, or let it stand for 1 or more")
            );
        }
        if self.half_width > Limits::HALF_WIDTH.as_micros() as u64 {
            return Err(self.refuse(&format!(
                "may have been earlier or later by {:?}; {:?} are allowed",
                self.half_width(),
                Limits::HALF_WIDTH
            )));
        }
        Ok(())
    }

    /// Checks the event time against the accepted range and against `latest`, the present moment
    /// and the allowed skew.
    pub(crate) fn check_time(
        &self,
        time: Timestamp,
        latest: Timestamp,
        skew: Duration,
    ) -> Result<()> {
        if time < Timestamp::MIN || time > Timestamp::MAX {
            return Err(self.refuse(&format!(
                "event time {} is out of range; times from {} to {} are accepted (is the unit \
                 right?)",
                time.micros(),
                Timestamp::MIN,
                Timestamp::MAX
            )));
        }
        if time > latest {
            return Err(self.refuse(&format!(
                "event time {time} is further in the future than the allowed skew of {skew:?}"
            )));
        }
        Ok(())
    }

    fn refuse(&self, what: &str) -> Error {
        Error::invalid(format!("event {}: {what}", abridged(self.name)))
    }

    fn refuse_name(&self, what: &str, text: &str) -> Error {
        let limit =
            if matches!(what, "entity" | "id") { Limits::ID_BYTES } else { Limits::NAME_BYTES };
        self.refuse(&if text.is_empty() {
            format!("{what} is empty")
        } else {
            format!("{what} {} is {} bytes long; {limit} are allowed", abridged(text), text.len())
        })
    }
}

/// Whether a text is as long as a name can be.
#[inline]
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= Limits::NAME_BYTES
}

/// `text` in quotes, cut after 40 characters, for messages.
pub(crate) fn abridged(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Names of dimensions and measures, good ones and bad.
    fn names() -> impl Strategy<Value = String> {
        let good = prop::sample::select(vec!["a", "b", "user", "event", "evens", "value", ""]);
        let long = (Limits::NAME_BYTES - 1..Limits::NAME_BYTES + 2).prop_map(|len| "n".repeat(len));
        prop_oneof![9 => good.prop_map(str::to_owned), 1 => long]
    }

    fn lengths_about(limit: usize) -> impl Strategy<Value = usize> {
        prop_oneof![3 => 0_usize..3, 1 => limit - 1..limit + 2]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        /// That what is found out shortly is what looking closely finds.
        #[test]
        fn an_event_that_is_plainly_valid_is_valid(
            name in names(),
            dims in prop::collection::vec((names(), lengths_about(Limits::VALUE_BYTES)), 0..6),
            more in prop_oneof![5 => Just(0_usize), 1 => 27_usize..34],
            measures in prop::collection::vec((names(), any::<f64>()), 0..3),
            rare in prop::option::weighted(0.2, (0..3, lengths_about(Limits::ID_BYTES))),
            times in 0_u64..3,
            half_width in prop_oneof![5 => Just(0_u64), 1 => 0_u64..9, 1 => Just(u64::MAX)],
        ) {
            let values: Vec<_> = dims.iter().map(|(_, len)| "v".repeat(*len)).collect();
            let others: Vec<_> = (0..more).map(|i| format!("other{i}")).collect();
            let text = "t".repeat(rare.map_or(0, |(_, len)| len));
            let mut event = Event::new(&name);
            for ((name, _), value) in dims.iter().zip(&values) {
                event = event.dim(name, value);
            }
            for other in &others {
                event = event.dim(other, "v");
            }
            for (name, value) in &measures {
                event = event.measure(name, *value);
            }
            event = match rare {
                Some((0, _)) => event.entity(&text),
                Some((1, _)) => event.id(&text),
                Some(_) => event.payload(text.as_bytes()),
                None => event,
            };
            (event.times, event.half_width) = (Times(times), half_width);
            prop_assert_eq!(event.check().is_ok(), event.check_closely().is_ok());
        }
    }
}
