//! Clocks, memory, page cache; medians and percentiles.

use rustix::fs::Advice;
use rustix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

/// The CPU time that `work` costs the process, all threads and the kernel's part included; this
/// is what can be compared on a machine that others use, too.
pub(crate) fn cpu<R>(work: impl FnOnce() -> R) -> (Duration, R) {
    let now = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let begin = now();
    let result = work();
    (now().saturating_sub(begin), result)
}

pub(crate) fn wall<R>(work: impl FnOnce() -> R) -> (Duration, R) {
    let begin = Instant::now();
    let result = work();
    (begin.elapsed(), result)
}

pub(crate) fn median<T: Copy + PartialOrd>(values: &[T]) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).expect("no NaN is measured"));
    sorted[sorted.len() / 2]
}

/// The value that `share` of the sorted ones do not exceed.
pub(crate) fn percentile<T: Copy>(sorted: &[T], share: f64) -> T {
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted[at.clamp(1, sorted.len()) - 1]
}

/// Memory of the process that lies in RAM, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Resident {
    /// All of it.
    pub(crate) all: u64,
    /// Without mapped files: the log's active segment is mapped, and is page cache.
    pub(crate) anonymous: u64,
}

pub(crate) fn resident() -> Resident {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has /proc");
    let pages: Vec<u64> = statm.split(' ').filter_map(|n| n.trim().parse().ok()).collect();
    let page = rustix::param::page_size() as u64;
    Resident { all: pages[1] * page, anonymous: (pages[1] - pages[2]) * page }
}

/// How often the scheduler took the processor away from this thread while it could have gone on.
pub(crate) fn preemptions() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("Linux has /proc");
    let count = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
    count.and_then(|count| count.trim().parse().ok()).expect("a number")
}

/// The files under `dir` with their sizes, sorted by path.
pub(crate) fn files(dir: &Path) -> Vec<(std::path::PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("an entry");
        let meta = entry.metadata().expect("its metadata");
        if meta.is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push((entry.path(), meta.len()));
        }
    }
    found.sort();
    found
}

pub(crate) fn bytes_under(dir: &Path) -> u64 {
    files(dir).iter().map(|(_, bytes)| bytes).sum()
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a new directory");
    for (path, _) in files(from) {
        let target = to.join(path.strip_prefix(from).expect("a file below"));
        std::fs::create_dir_all(target.parent().expect("a directory")).expect("a new directory");
        std::fs::copy(&path, &target).expect("a copy");
    }
}

/// Writes the files out and drops them from the page cache.
pub(crate) fn make_cold(dir: &Path) {
    for (path, _) in files(dir) {
        let file = File::open(&path).expect("a file");
        file.sync_all().expect("synced");
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("advice is taken");
    }
}
