//! Queries: one key, all keys, the top of them, totals; and the way into time ([`SeriesQuery`]).
//!
//! Invariants
//! 1. Orders are total: values by `f64::total_cmp`, counts as integers, ties by key; so an answer
//!    does not depend on the order in which keys are met.
//! 2. A query reads through [`Source`]; it knows neither files nor shards.
//! 3. No two series are read at once: who asks two reads one after the other.
//!
//! Next: `query/series.rs`, then `query/range.rs`.

mod across;
mod answer;
mod component;
mod counted;
mod even;
mod not_kept;
mod range;
mod series;
mod several;
mod source;
mod span;
mod window;

pub use across::Across;
pub use answer::{Bucket, Estimate, Row, Seen, SpanTotal, Total};
pub use component::{Component, Percent};
pub(crate) use counted::{Around, Back, Keyed, Part, Summed, check_kept};
pub(crate) use even::{Even, Standing};
pub use range::RangeQuery;
pub use series::SeriesQuery;
pub use several::{Balance, Trend};
pub(crate) use source::{AskedKey, Depth, KeyRef, Source};
pub use span::SpanQuery;

use crate::aggregate::{Approx, Kinds, Sketch, Sketches, StatesRef, Summary};
use crate::error::{Error, Result};
use crate::series::{Cell, CellRef, SeriesRef, Sum};
use crate::time::{Grain, TimeZone, Timestamp};
use crate::view::View;
use component::{Chosen, Value};
use std::borrow::Cow;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::vec;

/// A view, to be asked. Answers are of the moment of asking; recording goes on meanwhile. Where the view
/// was [redefined](crate::Db::redefine) since, answers are by the definition that it has now.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use quipu::{Component, Db, Event, View};
///
/// let db = Db::open(dir.path().join("shop"))?;
/// db.define(View::new("revenue").by(["country", "product"]).stats("value"))?;
/// for (country, product, value) in [("FR", "pot", 3.0), ("FR", "cup", 1.0), ("DE", "cup", 2.0)] {
///     db.record(&Event::new("sale").dim("country", country).dim("product", product).value(value))?;
/// }
/// let revenue = db.query("revenue")?;
/// assert_eq!(revenue.totals()?.summary().unwrap().sum, 6.0);
/// assert_eq!(revenue.top(1, Component::Sum)?[0].key, ["FR", "pot"]);
/// let french: Vec<_> = revenue.prefix(&["FR"])?.collect::<Result<_, _>>()?;
/// assert_eq!(french.len(), 2);
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone)]
pub struct Query {
    source: Arc<dyn Source>,
    chosen: Chosen,
    /// Whether answers have the sketches that the view keeps.
    has_sketches: bool,
}

impl Query {
    pub(crate) fn new(source: Arc<dyn Source>) -> Self {
        Query { source, chosen: Chosen::FIRST, has_sketches: true }
    }

    /// The same question to what answers now.
    #[inline]
    fn current(&self) -> Result<Cow<'_, Query>> {
        if self.source.has_successor() { self.renewed() } else { Ok(Cow::Borrowed(self)) }
    }

    #[cold]
    fn renewed(&self) -> Result<Cow<'_, Query>> {
        let Some(source) = self.source.successor()? else { return Ok(Cow::Borrowed(self)) };
        let chosen = self.chosen.renewed(self.view(), source.view())?;
        Ok(Cow::Owned(Query { source, chosen, has_sketches: self.has_sketches }))
    }

    /// The view's definition, as it was when this was made.
    pub fn view(&self) -> &View {
        self.source.view()
    }

    /// The time zone of the store, whose calendar the view's buckets follow.
    pub fn time_zone(&self) -> TimeZone {
        self.source.zone()
    }

    /// Takes the components of another measure than the view's first. Answers have no statistics where the
    /// view has only the quantiles of it.
    ///
    /// # Errors
    /// `Invalid` when the view keeps neither statistics nor quantiles of it.
    pub fn measure(mut self, measure: &str) -> Result<Self> {
        self.chosen.measure(self.source.view(), measure)?;
        Ok(self)
    }

    /// Takes [`Component::Distinct`] of another dimension than the first whose different values the view
    /// counts.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Component, Db, Event, View};
    ///
    /// let db = Db::open(dir.path().join("shop"))?;
    /// db.define(View::new("sold").by(["product"]).distinct("user").distinct("city"))?;
    /// for (product, user, city) in [("tea", "ann", "Rome"), ("tea", "bob", "Rome"), ("pot", "ann", "Oslo")] {
    ///     db.record(&Event::new("sale").dim("product", product).dim("user", user).dim("city", city))?;
    /// }
    /// let sold = db.query("sold")?;
    /// assert_eq!(sold.top(1, Component::Distinct)?[0].key, ["tea"]); // two users
    /// let by_city = sold.dimension("city")?;
    /// assert_eq!(by_city.top(1, Component::Distinct)?[0].key, ["pot"]); // one each: in key order
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Invalid` when the view does not count them.
    pub fn dimension(mut self, dimension: &str) -> Result<Self> {
        self.chosen.dimension(self.source.view(), dimension)?;
        Ok(self)
    }

    /// Leaves the view's sketches out of rows, buckets and totals, which copy them otherwise: some kilobytes
    /// each, where only counts and statistics are looked at. Keys can be ranked by them all the same.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Component, Db, Event, View};
    ///
    /// let db = Db::open(dir.path().join("app"))?;
    /// db.define(View::new("routes").by(["route"]).quantiles("value"))?;
    /// for (route, millis) in [("/", 3.0), ("/pay", 800.0)] {
    ///     db.record(&Event::new("call").dim("route", route).value(millis))?;
    /// }
    /// let slowest = db.query("routes")?.without_sketches().top(1, Component::percentile(99.0)?)?;
    /// assert_eq!(slowest[0].key, ["/pay"]);
    /// assert!(slowest[0].sketches.is_empty());
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn without_sketches(mut self) -> Self {
        self.has_sketches = false;
        self
    }

    /// Checks that a key has as many parts as the view's.
    fn check_key(&self, parts: usize) -> Result<()> {
        let key = self.view().key();
        if parts == key.len() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "keys of the view {:?} have {} ({}), this one has {parts}",
            self.view().name(),
            parts_of(key),
            key.join(", "),
        )))
    }

    /// Checks that the first parts of a key are not more than the view's.
    fn check_prefix(&self, parts: usize) -> Result<()> {
        let key = self.view().key();
        if parts <= key.len() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "keys of the view {:?} have {}, this prefix has {parts}",
            self.view().name(),
            parts_of(key),
        )))
    }

    /// Checks that the view keeps what a component is of.
    fn check_component(&self, component: Component) -> Result<()> {
        self.chosen.check(self.view(), component)
    }

    /// One key. Under two microseconds when it is resident, some more when it is read from the
    /// snapshot. `None`: no event was ever recorded under it.
    ///
    /// # Errors
    /// `Invalid` when the key has another number of parts than the view's; `Corruption`, `Io`.
    pub fn get(&self, key: &[&str]) -> Result<Option<Row>> {
        self.current()?.get_now(key)
    }

    fn get_now(&self, key: &[&str]) -> Result<Option<Row>> {
        self.check_key(key.len())?;
        let mut total = None;
        let read = &mut |series: SeriesRef<'_>| total = Some(series.total().to_owned());
        self.source.see(&self.source.key(key), read)?;
        let spell = || key.iter().map(ToString::to_string).collect();
        Ok(total.map(|total| self.row(spell(), total.as_ref())))
    }

    /// All keys, in the bytewise order of their parts. Rows are read as the iterator goes on; each
    /// is of some moment since it began. Sorting the resident keys costs O(n log n) once.
    ///
    /// # Errors
    /// `Corruption`, `Io`; also later, as the last item.
    pub fn rows(&self) -> Result<Rows> {
        self.prefix(&[])
    }

    /// The keys whose first parts are these, in order.
    ///
    /// # Errors
    /// `Invalid` when there are more parts than the key has; as [`Query::rows`].
    pub fn prefix(&self, parts: &[&str]) -> Result<Rows> {
        self.current()?.prefix_now(parts)
    }

    fn prefix_now(&self, parts: &[&str]) -> Result<Rows> {
        self.check_prefix(parts.len())?;
        Ok(Rows {
            prefix: parts.iter().map(ToString::to_string).collect(),
            resident: self.source.begin(parts)?,
            query: self.clone(),
            behind: None,
            page: Vec::new().into_iter(),
            more: true,
        })
    }

    /// Calls `see` with every key, in no order, which is faster than [`Query::rows`], until it says
    /// `Break`. A few hundred rows are read at a time; no lock is held while `see` runs.
    ///
    /// # Errors
    /// `Corruption`, `Io`.
    pub fn for_each(&self, mut see: impl FnMut(Row) -> ControlFlow<()>) -> Result<()> {
        let (this, rows) = (self.current()?, RefCell::new(Vec::new()));
        this.source.each(
            &[],
            Depth::Totals,
            &mut |key, series| rows.borrow_mut().push(this.row(key.spell(), series.total())),
            &mut || rows.take().into_iter().try_for_each(&mut see),
        )
    }

    /// The `n` keys with the greatest `component`, greatest first; equal ones in key order. Keys
    /// without the component (nothing measured) are left out. O(keys · log n) time, O(n) memory.
    ///
    /// # Errors
    /// `Invalid` when the view does not keep what the component is of; `Corruption`, `Io`.
    pub fn top(&self, n: usize, component: Component) -> Result<Vec<Row>> {
        self.current()?.ranked(n, component, |a, b| b.total_cmp(a))
    }

    /// The `n` keys with the least `component`, least first; equal ones in key order.
    ///
    /// # Errors
    /// As [`Query::top`].
    pub fn bottom(&self, n: usize, component: Component) -> Result<Vec<Row>> {
        self.current()?.ranked(n, component, Value::total_cmp)
    }

    /// A component of one of this query's rows, with its bounds: what [`top`](Query::top) ranked it by. Of
    /// counts and statistics it is exact but for the rounding of an `f64`. `None`: the row has not got it, a
    /// time (which is no number), or a sketch that was [left out](Query::without_sketches).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Component, Db, Event, View};
    ///
    /// let db = Db::open(dir.path().join("shop"))?;
    /// db.define(View::new("buyers").by(["country"]).distinct("user"))?;
    /// db.record(&Event::new("sale").dim("country", "FR").dim("user", "ann"))?;
    /// let buyers = db.query("buyers")?;
    /// let best = &buyers.top(1, Component::Distinct)?[0];
    /// assert_eq!(buyers.figure(best, Component::Distinct).unwrap().value, 1.0);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn figure(&self, row: &Row, component: Component) -> Option<Approx> {
        self.chosen.figure(self.view(), row, component)
    }

    fn ranked(
        &self,
        n: usize,
        component: Component,
        order: fn(&Value, &Value) -> Ordering,
    ) -> Result<Vec<Row>> {
        self.check_component(component)?;
        // The heap's root is the last of those kept.
        let mut heap: BinaryHeap<Ranked> = BinaryHeap::new();
        let mut rank = |key: KeyRef<'_>, total: CellRef<'_>| {
            let figures = self.chosen.figures(total.states());
            let Some(value) = component.of(total, &figures) else { return };
            if n == 0 {
                return;
            }
            if let Some(last) = heap.peek()
                && heap.len() == n
            {
                match order(&value, &last.value) {
                    Ordering::Greater => return,
                    Ordering::Equal if key.spell() >= last.row.key => return,
                    Ordering::Equal | Ordering::Less => {
                        heap.pop();
                    }
                }
            }
            heap.push(Ranked { value, order, row: self.row(key.spell(), total) });
        };
        let mut see = |key: KeyRef<'_>, series: SeriesRef<'_>| rank(key, series.total());
        let on = &mut || ControlFlow::Continue(());
        self.source.each(&[], Depth::Totals, &mut see, on)?;
        Ok(heap.into_sorted_vec().into_iter().map(|ranked| ranked.row).collect())
    }

    /// All keys merged: what the view would hold under no key. Its key is empty.
    ///
    /// # Errors
    /// `Corruption`, `Io`.
    pub fn totals(&self) -> Result<Row> {
        let this = self.current()?;
        let mut all = Cell::of_kinds(&this.kinds());
        let mut see = |_: KeyRef<'_>, series: SeriesRef<'_>| all.merge(series.total());
        let on = &mut || ControlFlow::Continue(());
        this.source.each(&[], Depth::Totals, &mut see, on)?;
        Ok(this.row(Vec::new(), all.as_ref()))
    }

    /// The number of keys.
    ///
    /// # Errors
    /// `Corruption`, `Io`: keys recorded since opening may have to be looked up in the snapshot.
    pub fn key_count(&self) -> Result<u64> {
        self.current()?.source.key_count()
    }

    /// The buckets of a key in one of the view's grains, oldest first; those without events are
    /// not there. Empty when the key is unknown. [`SeriesQuery`] answers for ranges of them.
    ///
    /// # Errors
    /// `NotKept` when the view does not keep this grain; as [`Query::get`].
    pub fn buckets(&self, key: &[&str], grain: Grain) -> Result<Vec<Bucket>> {
        self.current()?.buckets_now(key, grain)
    }

    fn buckets_now(&self, key: &[&str], grain: Grain) -> Result<Vec<Bucket>> {
        let of = window::KeptGrain::of(self, grain)?;
        self.check_key(key.len())?;
        let mut buckets = Vec::new();
        self.source.see(&self.source.key(key), &mut |series| {
            let bucket = |(number, count, states): (i64, u64, StatesRef<'_>)| {
                self.bucket(of.zone.span(grain, number), count, states)
            };
            let is_known =
                |(number, ..): &(i64, u64, StatesRef<'_>)| *number >= series.known(of.at);
            buckets = series.buckets(of.at).filter(is_known).map(bucket).collect();
        })?;
        Ok(buckets)
    }

    /// What an error adds that says what is kept.
    fn and_converted(&self) -> &'static str {
        if self.source.is_converted() {
            ", and of what was before it was redefined only what its buckets, which were converted, say \
             for certain"
        } else {
            ""
        }
    }

    fn bucket(
        &self,
        span: std::ops::Range<Timestamp>,
        count: u64,
        states: StatesRef<'_>,
    ) -> Bucket {
        Bucket {
            start: span.start,
            end: span.end,
            count,
            stats: self.summaries(states),
            sketches: self.sketches(states.sketches.iter().cloned()),
        }
    }

    /// What answers have besides the count.
    fn kinds(&self) -> Kinds {
        let mut kinds = self.view().kinds();
        if !self.has_sketches {
            kinds.sketches.clear();
        }
        kinds
    }

    /// A sum of nothing.
    fn no_sum(&self) -> Sum {
        Sum::of_nothing(&self.kinds())
    }

    fn summaries(&self, states: StatesRef<'_>) -> Vec<(String, Summary)> {
        if self.chosen.has_no_stats() {
            return Vec::new();
        }
        let names = self.view().measures();
        let mut summaries: Vec<_> = names
            .zip(states.stats)
            .map(|(name, stats)| (name.to_owned(), stats.summary()))
            .collect();
        if let Some(at) = self.chosen.stats_at() {
            let chosen = summaries.remove(at);
            summaries.insert(0, chosen);
        }
        summaries
    }

    fn sketches(&self, sketches: impl IntoIterator<Item = Sketch>) -> Sketches {
        let kept = if self.has_sketches { usize::MAX } else { 0 };
        Sketches::new(self.view().sketched().zip(sketches).take(kept))
    }

    fn row(&self, key: Vec<String>, total: CellRef<'_>) -> Row {
        Row {
            key,
            count: total.count(),
            first_seen: total.first().min(Timestamp::MAX),
            last_seen: total.last().max(Timestamp::MIN),
            stats: self.summaries(total.states()),
            sketches: self.sketches(total.states().sketches.iter().cloned()),
        }
    }
}

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query").field("view", self.view()).finish_non_exhaustive()
    }
}

struct Ranked {
    value: Value,
    order: fn(&Value, &Value) -> Ordering,
    row: Row,
}

/// How many parts a key has, for a message.
fn parts_of(key: &[String]) -> String {
    format!("{} part{}", key.len(), if key.len() == 1 { "" } else { "s" })
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.order)(&self.value, &other.value).then_with(|| self.row.key.cmp(&other.row.key))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}

/// Keys in order, read as it goes on. After an error it ends.
#[derive(Debug)]
pub struct Rows {
    query: Query,
    prefix: Vec<String>,
    resident: Vec<Vec<u8>>,
    behind: Option<Vec<u8>>,
    page: vec::IntoIter<Row>,
    more: bool,
}

impl Iterator for Rows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.page.next() {
                return Some(Ok(row));
            }
            if !self.more {
                return None;
            }
            let prefix: Vec<&str> = self.prefix.iter().map(String::as_str).collect();
            let mut page = Vec::new();
            let query = &self.query;
            let behind = query.source.next_page(
                &prefix,
                self.behind.as_deref(),
                &mut self.resident,
                &mut |key, total| page.push(query.row(key.spell(), total)),
            );
            match behind {
                Ok(behind) => {
                    self.more = behind.is_some();
                    self.behind = behind;
                    self.page = page.into_iter();
                }
                Err(error) => {
                    self.more = false;
                    return Some(Err(error));
                }
            }
        }
    }
}
