//! The threads behind an engine: one syncs the log, one makes checkpoints, one makes segments.
//!
//! Invariants
//! 1. A thread that fails says so, in the log output and in the statistics, and goes on; what must
//!    stop recording is remembered by the log's writer (poison), not here.
//! 2. They hold the engine, not its handles, and are joined before it is closed.
//! 3. What they do is done by [`Engine::run`], a step at a time; they only know when. So a
//!    simulation can do without them and say when itself.

use super::{BackgroundError, Engine};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::atomic::AtomicU64;
use crate::sync::atomic::Ordering::SeqCst;
use crate::sync::{Condvar, Mutex};
use crate::time::Stopwatch;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// What recording asks of the background. Cheap to say again.
#[derive(Default)]
pub(super) struct Signals {
    /// Microseconds within which a sync is wanted; 0 for none.
    sync_within: AtomicU64,
    sync: Waker,
    upkeep: Waker,
    segments: Waker,
}

#[derive(Default)]
struct Waker {
    state: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent requests, taken together")]
struct Wanted {
    stop: bool,
    sync: bool,
    checkpoint: bool,
    spare: bool,
}

impl Waker {
    fn say(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.state.lock());
        self.changed.notify_one();
    }
}

impl Signals {
    /// A sync is wanted within so long.
    #[inline]
    pub(super) fn want_sync(&self, within: Duration) {
        let micros = within.as_secs().saturating_mul(1_000_000);
        let micros = micros.saturating_add(within.subsec_micros().into()).max(1);
        let wanted = self.sync_within.load(SeqCst);
        if wanted == 0 || micros < wanted {
            self.want_sync_sooner(micros);
        }
    }

    #[cold]
    fn want_sync_sooner(&self, micros: u64) {
        let sooner = |wanted| (wanted == 0 || micros < wanted).then_some(micros);
        if self.sync_within.fetch_update(SeqCst, SeqCst, sooner).is_ok() {
            self.sync.say(|wanted| wanted.sync = true);
        }
    }

    pub(super) fn want_checkpoint(&self) {
        self.upkeep.say(|wanted| wanted.checkpoint = true);
    }

    pub(super) fn want_spare(&self) {
        self.segments.say(|wanted| wanted.spare = true);
    }
}

/// A step of the work behind an engine.
#[cfg_attr(
    not(feature = "simulation"),
    expect(unreachable_pub, reason = "public where there are engines that are driven by steps")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Syncs what was promised to be durable within an interval.
    Sync,
    /// Writes down in the log what is durable, when recording has paused.
    Witness,
    /// Makes the next segment of the log, when half of the present one is used.
    Segment,
    /// Evicts what the memory budget has no room for, with a checkpoint if there is no other way.
    Budget,
    /// Makes a checkpoint, if something was recorded since the last one.
    Checkpoint,
}

impl Engine {
    /// Takes a step, if there is anything to do.
    pub(crate) fn run(&self, step: Step) -> Result<()> {
        match step {
            Step::Sync => {
                // Whoever appends after this asks anew; whoever did before is seen by the sync.
                match self.signals.sync_within.swap(0, SeqCst) {
                    0 => Ok(()),
                    within => self.sync().map(|_| ()).inspect_err(|_| {
                        // What is promised stays so, unless nothing can be synced any more.
                        if !self.log.is_poisoned() {
                            self.signals.want_sync(Duration::from_micros(within));
                        }
                    }),
                }
            }
            Step::Witness => {
                if self.log.witness(self.now())? {
                    self.log.sync_frames()?;
                }
                Ok(())
            }
            Step::Segment => {
                let wanted = std::mem::take(&mut self.signals.segments.state.lock().spare);
                if wanted { self.log.make_spare(self.now()) } else { Ok(()) }
            }
            Step::Budget => self.keep_budget(),
            Step::Checkpoint => {
                if self.has_news() {
                    self.checkpoint()?;
                }
                Ok(())
            }
        }
    }
}

pub(super) struct Threads(Vec<JoinHandle<()>>);

impl Threads {
    /// No thread: somebody else takes the steps, or nobody needs to.
    pub(super) fn none() -> Self {
        Threads(Vec::new())
    }

    /// Without its threads an engine would acknowledge what nobody syncs: all or none.
    pub(super) fn start(engine: &Arc<Engine>) -> Result<Self> {
        let mut threads = Threads(Vec::new());
        let runs = [sync, upkeep, segments].map(|run: fn(&Engine)| run);
        for (name, run) in ["quipu-sync", "quipu-upkeep", "quipu-segments"].into_iter().zip(runs) {
            let shared = engine.clone();
            let builder = std::thread::Builder::new().name(name.to_owned());
            match builder.spawn(move || run(&shared)) {
                Ok(thread) => threads.0.push(thread),
                Err(e) => {
                    threads.stop(engine);
                    return Err(Error::io("start a background thread", &engine.dir, e));
                }
            }
        }
        Ok(threads)
    }

    pub(super) fn stop(self, engine: &Engine) {
        engine.signals.sync.say(|wanted| wanted.stop = true);
        engine.signals.upkeep.say(|wanted| wanted.stop = true);
        engine.signals.segments.say(|wanted| wanted.stop = true);
        for thread in self.0 {
            if thread.join().is_err() {
                tracing::error!("a background thread panicked");
            }
        }
    }
}

/// How long to wait before a segment that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How often the memory budget is looked at.
const BUDGET_LOOK: Duration = Duration::from_secs(1);

/// Syncs what was recorded, at the latest when it was promised. After the last sync of a busy
/// time the log gets a witness of it (`log.rs`, invariant 3).
fn sync(engine: &Engine) {
    let Signals { sync_within, sync, .. } = &engine.signals;
    let mut idle_work = false;
    loop {
        let mut wanted = sync.state.lock();
        while !wanted.stop && !wanted.sync {
            if idle_work {
                let quiet = Duration::from_millis(100);
                if sync.changed.wait_for(&mut wanted, quiet).timed_out() && !wanted.sync {
                    break;
                }
            } else {
                sync.changed.wait(&mut wanted);
            }
        }
        if wanted.stop {
            return;
        }
        if !wanted.sync {
            idle_work = false;
            drop(wanted);
            tell(engine, "witness of the last sync", engine.run(Step::Witness));
            continue;
        }
        // Wait out the promise, or a shorter one that comes meanwhile.
        let waited = Stopwatch::start();
        let mut until = Duration::MAX;
        loop {
            let elapsed = Duration::from_micros(waited.micros());
            let promised = Duration::from_micros(sync_within.load(SeqCst));
            until = due(until, elapsed, promised);
            wanted.sync = false;
            let left = until.saturating_sub(elapsed);
            if wanted.stop || left.is_zero() {
                break;
            }
            if sync.changed.wait_for(&mut wanted, left).timed_out() {
                break;
            }
        }
        wanted.sync = false;
        drop(wanted);
        tell(engine, "sync", engine.run(Step::Sync));
        idle_work = true;
    }
}

/// When to sync, from the moment at which the first promise was seen: as one made before has it, or
/// one just seen. Half of a promise is kept for the sync itself.
fn due(before: Duration, elapsed: Duration, promised: Duration) -> Duration {
    before.min(elapsed + promised / 2)
}

/// Makes checkpoints by time and by amount of log, and the next segment before it is needed.
fn upkeep(engine: &Engine) {
    let upkeep = &engine.signals.upkeep;
    if let Some(window) = &engine.window {
        // Read before it is needed, so that no recording call has to.
        tell(engine, "reading the deduplication window", engine.load_window(window));
    }
    // Counted in waits, not by a clock: a checkpoint's interval need not be exact.
    let mut since_checkpoint = Duration::ZERO;
    loop {
        let mut wanted = upkeep.state.lock();
        let mut idle = false;
        while !wanted.stop && !wanted.checkpoint && !idle {
            let left = engine.options.checkpoint_every.saturating_sub(since_checkpoint);
            let wait = left.min(BUDGET_LOOK).max(Duration::from_millis(1));
            idle = upkeep.changed.wait_for(&mut wanted, wait).timed_out();
            since_checkpoint += if idle { wait } else { Duration::ZERO };
        }
        let now = std::mem::take(&mut *wanted);
        drop(wanted);
        if now.stop {
            return;
        }
        if idle {
            tell(engine, "keeping the memory budget", engine.run(Step::Budget));
        }
        if now.checkpoint || since_checkpoint >= engine.options.checkpoint_every {
            since_checkpoint = Duration::ZERO;
            tell(engine, "checkpoint", engine.run(Step::Checkpoint));
        }
    }
}

/// Makes the next segment before it is needed.
fn segments(engine: &Engine) {
    let segments = &engine.signals.segments;
    loop {
        let mut wanted = segments.state.lock();
        while !wanted.stop && !wanted.spare {
            segments.changed.wait(&mut wanted);
        }
        if wanted.stop {
            return;
        }
        drop(wanted);
        if let Err(error) = engine.run(Step::Segment) {
            tell(engine, "making the next segment", Err(error));
            // Every append asks again; a full disk is not to be written full at that pace.
            let mut wanted = segments.state.lock();
            if !wanted.stop {
                segments.changed.wait_for(&mut wanted, RETRY);
            }
        }
    }
}

/// Says that work failed, if it did.
fn tell(engine: &Engine, work: &'static str, result: Result<()>) {
    if let Err(error) = result
        && error.kind() != ErrorKind::Closed
    {
        tracing::warn!(%error, "{work} failed");
        engine.tallies.background_failures.add(1);
        let (error, time) = (error.to_string(), engine.now());
        *engine.background_error.lock() = Some(BackgroundError { work, error, time });
    }
}

#[cfg(test)]
mod tests {
    use super::due;
    use std::time::Duration;

    #[test]
    fn a_shorter_promise_does_not_put_off_the_one_before() {
        let ms = Duration::from_millis;
        let mut until = due(Duration::MAX, Duration::ZERO, ms(100));
        assert_eq!(until, ms(50));
        // Ever shorter ones, each shortly before the sync.
        for (elapsed, promised) in [(30, 90), (45, 80), (49, 70)] {
            until = due(until, ms(elapsed), ms(promised));
            assert_eq!(until, ms(50));
        }
        assert_eq!(due(until, ms(10), ms(20)), ms(20), "one that ends earlier counts");
        assert_eq!(due(until, ms(40), Duration::ZERO), ms(40), "at once");
    }
}
