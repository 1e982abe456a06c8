//! Exchange with other replicas: telling what was recorded, and taking in what others tell.
//!
//! Invariants
//! 1. What is told is durable before: a position that was told is not given to another record, whatever
//!    becomes of the power.
//! 2. The events of a frame, and that they are here, are one frame of the log. So they are both there or
//!    neither, in the log, in the views and in the catalog, after any crash.
//! 3. Whether an event is here is looked up under the lock that is held until it is appended.
//! 4. A bundle is looked at as a whole before anything of it is recorded. What is refused changes nothing;
//!    what a failing disk interrupts is imported again, and what is here is passed over.
//!
//! The window of ids is not asked about imported events, and told only about those that this directory has
//! recorded under an earlier name: whether one of two with the same id counts would else depend on which
//! came first.
//!
//! Next: `exchange.rs`.

use super::backfill::reaching_back;
use super::backup::NoRetirement;
use super::{Db, Engine, ReadOnlyDb, Workbench};
use crate::dictionary::{Dictionary, Sym};
use crate::error::{Error, ErrorKind, Result};
use crate::event::abridged;
use crate::exchange::{Bundle, Cursor, Known, Packer, ReplicaId, Replicas};
use crate::log::Position;
use crate::log::frame::Header;
use crate::log::reader::{self, Entry};
use crate::record::{Columns, Control, Origin};
use crate::sync::{Mutex, MutexGuard};
use crate::tier::apply::apply_all;
use crate::time::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How a bundle is imported.
#[derive(Clone, Copy, Debug, Default)]
pub struct ImportOptions {
    allow_ahead: bool,
    once: bool,
}

impl ImportOptions {
    /// As [`Db::import`] does it.
    pub fn new() -> Self {
        ImportOptions::default()
    }

    /// Takes events that are further ahead of the clock than [`Options::future_skew`](crate::Options::future_skew)
    /// allows. A bucket that is in the future rotates out older ones of its series.
    pub fn allow_ahead(mut self) -> Self {
        self.allow_ahead = true;
        self
    }

    /// Refuses events of a replica of which others are here, and none of these: for what is moved over once,
    /// as counters of tiny-counter are ([`Bundle::of_tiny_counters`]). A later state of such a counter would
    /// count what an earlier one did once more.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Bundle, Db, ErrorKind, ImportOptions, TimeZone, TinyCounter};
    ///
    /// let state = |days: &str| -> TinyCounter {
    ///     let text = format!(
    ///         r#"{{"starting_instant": "2026-06-30T12:00:01Z",
    ///         "intervals": {{"Days": {{"data": {days}, "interval_start": "2026-06-30T00:00:00Z"}}}}}}"#
    ///     );
    ///     serde_json::from_str(&text).unwrap()
    /// };
    /// let bundle = |days| Bundle::of_tiny_counters([("app_launch", state(days))], TimeZone::UTC);
    /// let (monday, later) = (bundle("[3, 0, 1]")?, bundle("[4, 0, 1]")?);
    ///
    /// let db = Db::open(dir.path().join("app"))?;
    /// let once = ImportOptions::new().once();
    /// assert_eq!(db.import_with(&monday, &once)?.imported, 2);
    /// assert_eq!(db.import_with(&monday, &once)?.already_there, 2);
    /// let refused = db.import_with(&later, &once).unwrap_err();
    /// assert_eq!(refused.kind(), ErrorKind::Invalid);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }
}

/// What became of a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ImportOutcome {
    /// Events recorded.
    pub imported: u64,
    /// Events passed over, because they were here.
    pub already_there: u64,
    /// Imported events that were older than the buckets kept by some view, as far as is known of series that
    /// are not in memory ([`Recorded::late`](crate::Recorded::late)).
    pub late: u64,
    /// Whose events were imported.
    pub replicas: Vec<ReplicaId>,
    /// The last position now.
    pub position: Position,
}

impl Db {
    /// Everything recorded since a cursor as a bundle for other replicas: own events, and those of
    /// others that were imported, each under the name that it has everywhere. The next export goes on
    /// at [`Bundle::cursor`].
    ///
    /// It is made durable before. Records that a [repair](crate::repair()) gave up are not in it. Memory: the
    /// bundle, about as much as that part of the log; [`export_some`](Db::export_some) bounds it.
    ///
    /// # Errors
    /// `Invalid` for a cursor of another replica, or one that is ahead of the log: the directory was
    /// restored to an earlier state since. `LogRetired` when the log no longer reaches back to it. Those
    /// of [`Db::sync`]; `Corruption`, `Io`.
    pub fn export(&self, since: &Cursor) -> Result<Bundle> {
        self.export_some(since, u64::MAX)
    }

    /// As [`export`](Db::export), up to the event behind which the bundle has so many bytes: it has at least
    /// one frame of the log, where there is one. Who wants all goes on until the cursor stays.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use quipu::{Cursor, Db, Event};
    ///
    /// let db = Db::open(dir.path().join("phone"))?;
    /// db.record(&Event::new("app_launch"))?;
    /// let (mut cursor, mut events) = (Cursor::beginning(), 0);
    /// loop {
    ///     let bundle = db.export_some(&cursor, 1 << 20)?;
    ///     if bundle.cursor() == cursor {
    ///         break;
    ///     }
    ///     events += bundle.events(); // and carry it somewhere
    ///     cursor = bundle.cursor();
    /// }
    /// assert_eq!(events, 1);
    /// # Ok::<(), quipu::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`export`](Db::export).
    pub fn export_some(&self, since: &Cursor, bytes_max: u64) -> Result<Bundle> {
        let engine = self.engine();
        engine.check_open()?;
        // Invariant 1; and should what is durable be damaged later, that is not taken for a torn end.
        let upto = engine.sync()?;
        engine.log.witness(engine.now())?;
        let checkpointer = engine.checkpointer.lock();
        let oldest = checkpointer.catalog.first_segment;
        let _no_retirement = NoRetirement::begin(&engine.backups);
        drop(checkpointer);
        let replicas = engine.replicas().clone();
        let told = Telling { replicas, oldest, end: engine.log.end(), upto, bytes_max };
        told.since(engine, since)
    }

    /// Records the events of a bundle that are not here, under the names that they have, in every view. Again,
    /// or in any order with others, it changes nothing. What was imported is durable when this returns.
    ///
    /// Events keep their times, which are those of the device that recorded them. The window of ids
    /// ([`Dedup`](crate::Dedup)) is not asked about them.
    ///
    /// # Errors
    /// `Invalid`, with nothing changed, when an event that is not here is further ahead of the clock than
    /// [`Options::future_skew`](crate::Options::future_skew), or when the bundle has events of this replica
    /// that it has not recorded (there are two directories of one replica; see
    /// [`new_replica`](Db::new_replica)). Those of recording: what was imported until then stays, and the
    /// rest is imported by another call.
    pub fn import(&self, bundle: &Bundle) -> Result<ImportOutcome> {
        self.import_with(bundle, &ImportOptions::new())
    }

    /// As [`import`](Db::import), with options.
    ///
    /// # Errors
    /// As [`import`](Db::import); `Invalid`, with nothing changed, for what
    /// [`once`](ImportOptions::once) refuses.
    pub fn import_with(&self, bundle: &Bundle, options: &ImportOptions) -> Result<ImportOutcome> {
        let engine = self.engine();
        engine.check_open()?;
        engine.check_importable(bundle, *options)?;
        let mut outcome = ImportOutcome::default();
        let mut bench = Workbench::default();
        let mut reader = engine.dictionary.reader();
        let mut syms = vec![Sym::NONE; bundle.texts().len()];
        bundle.each_frame(|columns| {
            let origin = origin_of(columns)?;
            if engine.mark_missing(&engine.replicas(), columns.len(), origin, &mut bench.keep)? == 0
            {
                outcome.already_there += columns.len() as u64;
                return Ok(());
            }
            columns.translate(|place| {
                let sym = &mut syms[place.0 as usize];
                if *sym == Sym::NONE {
                    *sym = engine.dictionary.intern(&mut reader, bundle.text(place));
                }
                *sym
            });
            engine.import_frame(columns, &mut bench, &mut outcome)
        })?;
        outcome.position = self.sync()?;
        Ok(outcome)
    }

    /// The cursor of what was recorded up to now.
    pub fn cursor(&self) -> Cursor {
        let position = self.position().get();
        Cursor::at(ReplicaId(self.engine().replicas().own_at(position).0), position)
    }

    /// The replica as which this directory records from now on.
    pub fn replica(&self) -> ReplicaId {
        let engine = self.engine();
        ReplicaId(engine.next_replica(&engine.replicas()))
    }

    /// Records as another replica from now on, and gives its id. What was recorded before keeps its name.
    ///
    /// To be called where a directory is a copy of another one that goes on, too, or was put back to an
    /// earlier state by other means than [`restore`](crate::restore): two directories that record under one
    /// id give the same names to different events, and whoever imports them takes one for the
    /// other. (A restore and a repair do it by themselves.)
    ///
    /// # Errors
    /// Those of recording.
    pub fn new_replica(&self) -> Result<ReplicaId> {
        let engine = self.engine();
        let live = engine.close_gate()?;
        let replicas = engine.replicas();
        let before = engine.next_replica(&replicas);
        let id = replicas.another(engine.disk.unique());
        let position = engine.append_control(&Control::Replica { id, before })?;
        drop(replicas);
        engine.replicas().begin(position, id, before);
        drop(live);
        engine.acknowledge(position, engine.options.durability)?;
        Ok(ReplicaId(id))
    }
}

impl ReadOnlyDb {
    /// Everything since a cursor up to what is shown and durable, as [`Db::export_some`] gives it, while
    /// another process owns the directory.
    ///
    /// # Errors
    /// As [`Db::export`]; `MissingSegment` where the owner has retired what is needed since the last
    /// [`refresh`](ReadOnlyDb::refresh).
    pub fn export_some(&self, since: &Cursor, bytes_max: u64) -> Result<Bundle> {
        let following = self.following();
        let engine = self.engine();
        let told = Telling {
            replicas: following.recovery.replicas.clone(),
            oldest: following.catalog.first_segment.max(1),
            end: following.end(),
            // The rest of what is shown may be lost yet, and its positions be given again.
            upto: engine.log.durable(),
            bytes_max,
        };
        told.since(&engine, since)
    }
}

/// What there is to tell.
struct Telling {
    replicas: Replicas,
    /// The first segment of the log, and where it ends.
    oldest: u64,
    end: (u64, u64),
    /// The last position that may be told.
    upto: u64,
    bytes_max: u64,
}

impl Telling {
    fn since(&self, engine: &Engine, since: &Cursor) -> Result<Bundle> {
        self.check(since)?;
        let mut packer = Packer::new(*since);
        if since.position == self.upto {
            return Ok(packer.finish(*since));
        }
        let first = since.position + 1;
        let segment = reaching_back(engine, self.oldest, first, "this export")?;
        // Its strings are not those of the engine, and are given back.
        let dictionary = Arc::new(Dictionary::new(0));
        let mut places: Vec<Sym> = Vec::new();
        let (mut due, mut told_from, mut upto) = (first, first, self.upto);
        let mut tell = |entry: Entry<'_>, header: &Header| {
            if header.position > due {
                // A repair gave up what was between: it is not known that there was nothing.
                told_from = header.position;
            }
            due = header.last_position() + 1;
            let Entry::Events(columns) = entry else { return Ok(()) };
            if columns.extras.origin.is_none() {
                let first = header.position;
                let (replica, own) = self.replicas.own_at(first);
                let from = told_from.max(own.start).min(first);
                columns.extras.origin = Some(Origin { replica, first, empty: first - from });
                told_from = due;
            }
            columns.drop_empty();
            columns.translate(|sym| {
                let at = sym.0 as usize;
                if at >= places.len() {
                    places.resize((at + 1).next_power_of_two(), Sym::NONE);
                }
                if places[at] == Sym::NONE {
                    places[at] = packer.place(dictionary.text(sym));
                }
                places[at]
            });
            packer.push(columns);
            if packer.bytes() as u64 >= self.bytes_max {
                upto = header.last_position();
                return Err(Error::new(ErrorKind::Stopped, "the bundle is as large as it may be"));
            }
            Ok(())
        };
        let range = (first, self.upto);
        match reader::replay_range(&engine.home, range, segment, self.end, &dictionary, &mut tell) {
            Err(error) if error.kind() != ErrorKind::Stopped => return Err(error),
            Err(_) | Ok(()) => {}
        }
        Ok(packer.finish(self.cursor(upto)))
    }

    fn cursor(&self, position: u64) -> Cursor {
        Cursor::at(ReplicaId(self.replicas.own_at(position).0), position)
    }

    fn check(&self, since: &Cursor) -> Result<()> {
        let Some(replica) = since.replica else { return Ok(()) };
        let here = self.cursor(self.upto);
        if since.position > self.upto {
            let message = format!(
                "the cursor {since} is ahead of the directory, which ends at {here}: it was restored \
                 to an earlier state, or the cursor is another directory's"
            );
            return Err(Error::invalid(message));
        }
        if self.cursor(since.position).replica != Some(replica) {
            let message = format!(
                "the cursor {since} is not one of this directory, which is at {here}: use one that it \
                 gave, or begin at the beginning"
            );
            return Err(Error::invalid(message));
        }
        Ok(())
    }
}

fn origin_of(columns: &Columns) -> Result<Origin> {
    let origin = columns.extras.origin;
    origin.ok_or_else(|| Error::invalid("a frame of the bundle does not say whose events they are"))
}

impl Engine {
    /// Who recorded what, up to now.
    pub(super) fn replicas(&self) -> MutexGuard<'_, Replicas> {
        let mut replicas = self.replicas.lock();
        if let (Some(id), Some(position)) = (self.becomes, self.log.prefaced()) {
            let before = replicas.last();
            replicas.begin(position, id, before);
        }
        replicas
    }

    /// The replica of what is recorded next.
    fn next_replica(&self, replicas: &Replicas) -> u128 {
        self.becomes.filter(|_| self.log.prefaced().is_none()).unwrap_or(replicas.last())
    }

    /// Marks which of so many events of an origin are not here; gives their number.
    fn mark_missing(
        &self,
        replicas: &Replicas,
        events: usize,
        origin: Origin,
        missing: &mut Vec<bool>,
    ) -> Result<usize> {
        let (last, next) = (self.last_position(), self.next_replica(replicas));
        missing.clear();
        for position in (origin.first..).take(events) {
            missing.push(match replicas.find(origin.replica, position, last, next) {
                Known::Here => false,
                Known::Not => true,
                Known::Impossible => {
                    let message = format!(
                        "the bundle has events of this replica up to {}:{}, which this directory, \
                         being at {last}, has not recorded: there are two directories of one replica; \
                         let this one record as a new replica, and import again",
                        ReplicaId(origin.replica),
                        origin.last(events)
                    );
                    return Err(Error::invalid(message));
                }
            });
        }
        Ok(missing.iter().filter(|missing| **missing).count())
    }

    /// Looks at a bundle as a whole (invariant 4).
    fn check_importable(&self, bundle: &Bundle, options: ImportOptions) -> Result<()> {
        let replicas = self.replicas().clone();
        let skew = self.options.future_skew;
        let latest = self.now().saturating_add(skew);
        let mut missing = Vec::new();
        // Replicas of which some are here, by whether any of the bundle's are.
        let mut more = BTreeMap::new();
        bundle.each_frame(|columns| {
            let origin = origin_of(columns)?;
            let number = self.mark_missing(&replicas, columns.len(), origin, &mut missing)?;
            if options.once && replicas.has_any(origin.replica) {
                let (any_here, _) =
                    more.entry(origin.replica).or_insert_with(|| (false, columns.names.first().copied()));
                *any_here |= number < columns.len();
            }
            let times = columns.times.iter().zip(&missing).filter(|(_, missing)| **missing);
            let newest = times.map(|(time, _)| *time).max().map(Timestamp::from_micros);
            match newest.filter(|newest| *newest > latest && !options.allow_ahead) {
                None => Ok(()),
                Some(newest) => Err(Error::invalid(format!(
                    "the bundle has an event of {newest}, which is further in the future than the \
                     allowed skew of {skew:?}; set the clock that is wrong, or allow it; nothing was \
                     imported"
                ))),
            }
        })?;
        match more.iter().find(|(_, (any_here, _))| !any_here) {
            None => Ok(()),
            Some((replica, (_, name))) => {
                let name = name.map_or("", |name| bundle.text(name));
                Err(Error::invalid(format!(
                    "other events of the replica {} are here, and none of the bundle's ({}): of what is \
                     moved over once this is another state, whose events would count twice; nothing was \
                     imported",
                    ReplicaId(*replica),
                    abridged(name),
                )))
            }
        }
    }

    /// Records those events of a frame that are not here.
    fn import_frame(
        &self,
        columns: &mut Columns,
        bench: &mut Workbench,
        outcome: &mut ImportOutcome,
    ) -> Result<()> {
        let origin = origin_of(columns)?;
        let window = self.window.as_ref().filter(|_| !columns.ids.is_empty());
        window.map_or(Ok(()), |window| self.load_window(window))?;
        let live = self.enter()?;
        let mut window = window.map(Mutex::lock);
        let mut replicas = self.replicas();
        let missing = self.mark_missing(&replicas, columns.len(), origin, &mut bench.keep)?;
        outcome.already_there += (columns.len() - missing) as u64;
        if missing == 0 {
            return Ok(());
        }
        if !outcome.replicas.contains(&ReplicaId(origin.replica)) {
            outcome.replicas.push(ReplicaId(origin.replica));
        }
        let now = self.now();
        columns.each_run(&bench.keep, |columns| {
            let origin = origin_of(columns)?;
            bench.draft.events(columns, &self.log, now);
            // Before anybody can be late because of them.
            self.newest.raise(columns.newest());
            let appended = self
                .none_gathered(&live)
                .and_then(|_none| self.log.append_events(&mut bench.draft, columns))?;
            if let Some(window) = window.as_mut().filter(|_| replicas.is_own(origin.replica)) {
                window.place(columns.len(), &columns.ids, appended.first, now.micros());
            }
            replicas.cover(origin, columns.len());
            apply_all(&live.views, columns, &mut bench.scratch);
            let late = bench.scratch.late();
            self.tallies.events.add(columns.len() as u64);
            self.tallies.late.add(late);
            outcome.imported += columns.len() as u64;
            outcome.late += late;
            self.note_appended(&appended);
            Ok(())
        })
    }
}
