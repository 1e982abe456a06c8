//! SIGINT and SIGTERM for a command that ends in order.
//!
//! 1. The first one is only noted; whoever works asks between two steps, and waits for input no
//!    longer than until one comes. A second one ends the process at once.
//! 2. The exit code is that which a shell gives to the signal: 130, 143.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::failure::Failure;

/// Exit code of a process that a signal ended, less the signal's number.
const SIGNALLED: u8 = 128;

/// A signal that was caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Interrupt,
    Terminate,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// The exit code that says so (2).
    fn code(self) -> u8 {
        SIGNALLED + self.number() as u8
    }

    /// The end of a command that it stopped.
    pub(crate) fn stopped(self, message: &str) -> Failure {
        let message = format!("stopped by {}; {message}", self.name());
        Failure::Said { code: self.code(), message }
    }

    fn number(self) -> i32 {
        match self {
            Self::Interrupt => SIGINT,
            Self::Terminate => SIGTERM,
        }
    }
}

/// Notes the signals from its making on.
#[derive(Debug)]
pub(crate) struct Interrupt {
    /// The number of the signal; 0 as long as there was none.
    caught: Arc<AtomicUsize>,
    /// Readable when there was one.
    awake: UnixStream,
}

/// What ended a waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// The input can be read, or has ended.
    Ready,
    Signalled,
    TimedOut,
}

impl Interrupt {
    pub(crate) fn listen() -> io::Result<Self> {
        let caught = Arc::new(AtomicUsize::new(0));
        let again = Arc::new(AtomicBool::new(false));
        let (awake, wake) = UnixStream::pair()?;
        for signal in [Signal::Interrupt, Signal::Terminate] {
            let number = signal.number();
            // They run in this order: the second signal finds the mark of the first one.
            let code = i32::from(signal.code());
            flag::register_conditional_shutdown(number, code, again.clone())?;
            flag::register(number, again.clone())?;
            flag::register_usize(number, caught.clone(), number as usize)?;
            low_level::pipe::register(number, wake.try_clone()?)?;
        }
        Ok(Self { caught, awake })
    }

    /// The signal that was caught, if one was.
    pub(crate) fn signal(&self) -> Option<Signal> {
        let caught = self.caught.load(SeqCst) as i32;
        [Signal::Interrupt, Signal::Terminate].into_iter().find(|signal| signal.number() == caught)
    }

    /// Waits for input, for a signal, or for as long as that.
    pub(crate) fn wait(
        &self,
        input: BorrowedFd<'_>,
        at_most: Option<Duration>,
    ) -> io::Result<Waited> {
        let timeout = at_most.and_then(|at_most| Timespec::try_from(at_most).ok());
        let mut awaited = [
            PollFd::from_borrowed_fd(self.awake.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(input, PollFlags::IN),
        ];
        match poll(&mut awaited, timeout.as_ref()) {
            // Or a signal of another kind: whoever waits asks again.
            Ok(0) | Err(Errno::INTR) => return Ok(Waited::TimedOut),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let [awake, _] = &awaited;
        Ok(if awake.revents().is_empty() { Waited::Ready } else { Waited::Signalled })
    }
}
