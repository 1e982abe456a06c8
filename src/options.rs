//! Options: how an engine is opened.

use crate::db::Db;
use crate::disk::OsDisk;
use crate::error::Result;
use crate::snapshot::{Opener, Storage};
use crate::time::{Clock, SystemClock, TimeZone};
use crate::view::View;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// When a recording call may acknowledge.
///
/// | level | a killed process loses | a power cut loses |
/// |---|---|---|
/// | `Memory` | nothing promised | everything since the last checkpoint or [`Db::sync`] |
/// | `Interval` (default, 100 ms) | nothing | at most the interval and the sync under way |
/// | `Sync` | nothing | nothing |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing is synced on account of the call.
    Memory,
    /// The log is synced in the background, at the latest so long after the call.
    Interval(Duration),
    /// The call returns when the log is synced; calls of several threads share one sync.
    Sync,
}

impl Default for Durability {
    fn default() -> Self {
        Durability::Interval(Duration::from_millis(100))
    }
}

/// Which segments of the log are kept when the snapshot no longer needs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retention {
    /// All: the log is the event store.
    #[default]
    KeepAll,
    /// Those with an event recorded within the last so long.
    Age(Duration),
    /// The newest, up to so many bytes in all.
    Bytes(u64),
    /// None but what recovery needs. A view defined later cannot be backfilled.
    Recovery,
}

/// Whether and how long event ids are remembered; an event with a remembered id is passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Dedup {
    /// Ids are kept in the log and not looked at.
    #[default]
    Off,
    /// The last so many ids. Each takes some 60 bytes of memory. A batch is looked at as a whole:
    /// an id that it has twice is a duplicate whatever the number.
    Last(u64),
    /// The ids of events recorded within the last so long, by the store's clock.
    For(Duration),
}

/// What a batch does with an event that is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnInvalid {
    /// Nothing of the batch is recorded; the error says which event it was.
    #[default]
    Refuse,
    /// The others are recorded; the outcome lists the refused ones.
    Skip,
}

const EXPECTED_KEYS_MAX: usize = 10_000_000;

/// How an engine is opened.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use quipu::{Durability, Options};
///
/// let db = Options::new()
///     .durability(Durability::Sync)
///     .expected_keys(100_000)
///     .open(dir.path().join("metrics"))?;
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "options do nothing until they open a directory"]
pub struct Options {
    pub(crate) durability: Durability,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) future_skew: Duration,
    pub(crate) checkpoint_every: Duration,
    pub(crate) checkpoint_log_bytes: u64,
    pub(crate) retention: Retention,
    pub(crate) memory_budget: usize,
    pub(crate) expected_keys: usize,
    /// `None`: as the directory has it, off in a new one.
    pub(crate) dedup: Option<Dedup>,
    /// `None`: as the directory has it, UTC in a new one.
    pub(crate) time_zone: Option<TimeZone>,
    pub(crate) segment_bytes: u64,
    pub(crate) stage_bytes: u64,
    /// Groups of single events that are asked about have lanes even if threads do not meet.
    pub(crate) always_lanes: bool,
    pub(crate) must_exist: bool,
    /// `None`: redb's.
    pub(crate) storage: Option<Opener>,
    pub(crate) change_storage: bool,
    pub(crate) views: Vec<View>,
}

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}

impl Options {
    /// The defaults.
    pub fn new() -> Self {
        Options {
            durability: Durability::default(),
            clock: Arc::new(SystemClock),
            future_skew: Duration::from_hours(24),
            checkpoint_every: Duration::from_mins(1),
            checkpoint_log_bytes: 64 << 20,
            retention: Retention::default(),
            memory_budget: 1 << 30,
            expected_keys: 0,
            dedup: None,
            time_zone: None,
            segment_bytes: 64 << 20,
            stage_bytes: 128 << 10,
            always_lanes: false,
            must_exist: false,
            storage: None,
            change_storage: false,
            views: Vec::new(),
        }
    }

    /// How durable a recording call is that does not say so itself.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Where "now" comes from; [`SystemClock`] by default.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// How far in the future an event may lie; a day by default.
    pub fn future_skew(mut self, skew: Duration) -> Self {
        self.future_skew = skew;
        self
    }

    /// The longest time between two checkpoints while something is recorded; 60 s by default.
    pub fn checkpoint_every(mut self, interval: Duration) -> Self {
        self.checkpoint_every = interval;
        self
    }

    /// The amount of log after which a checkpoint is made; 64 MiB by default.
    pub fn checkpoint_log_bytes(mut self, bytes: u64) -> Self {
        self.checkpoint_log_bytes = bytes;
        self
    }

    /// How much of the log is kept; all of it by default.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Bytes of memory for resident series, 1 GiB by default. Above it, clean series that were not
    /// touched lately are evicted after a checkpoint and come back when they are asked for. The
    /// dictionary of strings seen since opening is not part of it.
    pub fn memory_budget(mut self, bytes: usize) -> Self {
        self.memory_budget = bytes;
        self
    }

    /// How many keys to expect in each view that has a key: its tables are made large enough
    /// beforehand. More than 10 million count as that.
    pub fn expected_keys(mut self, keys: usize) -> Self {
        self.expected_keys = keys.min(EXPECTED_KEYS_MAX);
        self
    }

    /// Whether event ids are remembered; off in a new directory, because equal content is no
    /// identity. The directory keeps the rule: an opening that does not say goes on with it.
    pub fn dedup(mut self, dedup: Dedup) -> Self {
        self.dedup = Some(dedup);
        self
    }

    /// The time zone whose calendar days, weeks, months and years follow; UTC by default. A directory
    /// keeps the one with which its first view was defined: an opening that does not say goes on with
    /// it, and one that asks for another is refused.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("shop");
    /// use quipu::{Db, ErrorKind, Event, Grain, Keep, Options, TimeZone, Timestamp, View};
    ///
    /// let by_day = View::new("by_day").grain(Grain::Day, Keep::All);
    /// let db = Options::new().time_zone("Europe/Paris".parse()?).view(by_day).open(&dir)?;
    /// // Half past midnight in Paris, the day before in UTC.
    /// let moment = Timestamp::parse_rfc3339("2024-07-01T00:30:00+02:00")?;
    /// db.record(&Event::new("sale").at(moment))?;
    /// let day = &db.query("by_day")?.buckets(&[], Grain::Day)?[0];
    /// assert_eq!(day.start.to_string(), "2024-06-30T22:00:00.000Z");
    /// db.close()?;
    ///
    /// assert_eq!(Db::open(&dir)?.time_zone().name(), "Europe/Paris");
    /// let error = Options::new().time_zone(TimeZone::UTC).open(&dir).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::TimeZoneConflict);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn time_zone(mut self, zone: TimeZone) -> Self {
        self.time_zone = Some(zone);
        self
    }

    /// The largest size of a segment of the log, 64 MiB by default, between 64 KiB and 1 GiB. The
    /// first segment of an opening is smaller.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes.clamp(64 << 10, 1 << 30);
        self
    }

    /// Defines a view when the directory is opened, unless it has it already ([`Db::define`]).
    pub fn view(mut self, view: View) -> Self {
        self.views.push(view);
        self
    }

    /// Opens only a directory that is there already.
    pub fn must_exist(mut self) -> Self {
        self.must_exist = true;
        self
    }

    /// Keeps the snapshot in a store of one's own, in place of redb's file `state.redb`: see
    /// [`Storage`]. `open` is called with the path of the directory, once an opening, while its lock is
    /// held; it makes an empty store where there is none, in the directory or elsewhere, and changes
    /// nothing otherwise. Where it fails for a directory that is made, that one stays, empty.
    ///
    /// A directory remembers the `name` (1 to 8 of `a-z`, `0-9`, `-` and `_`; not `redb`), and is
    /// opened with a store of that name only, unless [`change_storage`](Options::change_storage) says
    /// otherwise: anything else is [`ErrorKind::StorageConflict`](crate::ErrorKind::StorageConflict).
    ///
    /// Whatever the store: recording, questions, checkpoints, eviction, recovery, retention, backfills,
    /// and [`Db::backup`], which writes its rows down as a file of redb's, so that a backup
    /// is restored anywhere. [`Options::verify`] and [`Options::repair`] look at the store, too, if
    /// they are given it. Who has not the store is told so: [`verify`](crate::verify()),
    /// [`repair`](crate::repair()), the command line, and readers beside the owner
    /// ([`ReadOnlyDb`](crate::ReadOnlyDb)), which copy redb's file.
    ///
    /// ```
    /// # let root = tempfile::tempdir().unwrap();
    /// # let dir = root.path().join("shop");
    /// use quipu::storage::MemoryStorage;
    /// use quipu::{Db, ErrorKind, Options};
    ///
    /// let db = Options::new().storage("memory", |_dir| Ok(MemoryStorage::default())).open(&dir)?;
    /// db.close()?;
    /// assert_eq!(Db::open(&dir).unwrap_err().kind(), ErrorKind::StorageConflict);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn storage<S: Storage + 'static>(
        mut self,
        name: impl Into<String>,
        open: impl Fn(&Path) -> Result<S> + Send + Sync + 'static,
    ) -> Self {
        self.storage = Some(Opener::new(name.into(), open));
        self
    }

    /// Lets the opening move the snapshot of a directory into another store, where it has another one
    /// than it is opened with. From redb's its rows are copied. Out of a store that a program brought
    /// along, which cannot be opened here, nothing is: the snapshot is made again from the log, which must
    /// reach back to its beginning (where it does not, [`Db::backup`] and [`restore`](crate::restore)
    /// make a directory with redb's). What the new store held is deleted.
    ///
    /// ```
    /// # let root = tempfile::tempdir().unwrap();
    /// # let dir = root.path().join("shop");
    /// use quipu::storage::MemoryStorage;
    /// use quipu::{Db, Event, Options, View};
    ///
    /// let db = Db::open(&dir)?;
    /// db.define(View::new("all"))?;
    /// db.record(&Event::new("sale"))?;
    /// db.close()?;
    ///
    /// let options = Options::new().storage("memory", |_dir| Ok(MemoryStorage::default()));
    /// let db = options.change_storage().open(&dir)?;
    /// assert_eq!(db.query("all")?.totals()?.count, 1);
    /// assert_eq!(db.statistics().storage, "memory");
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn change_storage(mut self) -> Self {
        self.change_storage = true;
        self
    }

    /// Opens `dir`, made if it is missing, and recovers what it holds.
    ///
    /// # Errors
    /// `Locked`, `NotQuipu`, `NewerFormat`, `MissingSegment`, `Corruption`, `NotFound`, `Io`,
    /// `NoSpace`, `TimeZoneConflict`, `StorageConflict`, `Invalid` (a name that no store can have): see
    /// [`ErrorKind`](crate::ErrorKind). A directory that fails these checks is left exactly as it was;
    /// of a store of one's own that is its own to see to.
    pub fn open(self, dir: impl AsRef<Path>) -> Result<Db> {
        Db::open_with(Arc::new(OsDisk), dir.as_ref(), self)
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("durability", &self.durability)
            .field("retention", &self.retention)
            .field("dedup", &self.dedup)
            .field("time_zone", &self.time_zone)
            .field("memory_budget", &self.memory_budget)
            .field("storage", &self.storage.as_ref().map(|opener| &opener.name))
            .finish_non_exhaustive()
    }
}
