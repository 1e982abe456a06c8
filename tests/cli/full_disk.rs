//! A file system that is full: everybody says where, what was acknowledged stays, and it goes on when there
//! is space again.
//!
//! It is a small one in memory, which takes the rights of root to mount. Without those the tests say that
//! they are skipped, or fail if `QUIPU_MUST_MOUNT` is set; the engine's own tests fill a simulated disk.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use crate::Shop;

/// The [`Shop`]'s directory on a file system of its own.
struct Small {
    shop: Shop,
}

impl Small {
    /// None where nothing can be mounted, which is said past the capture of the tests' output.
    fn mount(size: &str) -> Option<Self> {
        let shop = Shop::new();
        std::fs::create_dir(shop.dir()).unwrap();
        let mounted = mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], &shop.dir());
        if let Err(why) = mounted {
            let must = std::env::var_os("QUIPU_MUST_MOUNT").is_some_and(|value| !value.is_empty());
            assert!(!must, "QUIPU_MUST_MOUNT is set, and no file system can be mounted: {why}");
            let test = std::thread::current().name().unwrap_or_default().to_owned();
            let mut err = std::io::stderr();
            writeln!(err, "skipped: {test}: no file system can be mounted: {why}").unwrap();
            return None;
        }
        Some(Self { shop })
    }

    fn grow(&self, size: &str) {
        mount(&["-o", &format!("remount,size={size}")], &self.shop.dir()).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.shop.dir()).output();
    }
}

fn mount(args: &[&str], at: &std::path::Path) -> Result<(), String> {
    let ran = Command::new("mount").args(args).arg(at).output();
    let output = ran.map_err(|error| format!("mount: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

/// Half a year of a shop's sales.
fn sales() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.join("examples/data/online_retail_h1.ndjson.gz").to_str().unwrap().to_owned()
}

/// Events of the shipped file.
const SALES: u64 = 245_903;

#[test]
fn a_load_that_fills_the_disk_keeps_what_it_says_and_goes_on_later() {
    let Some(small) = Small::mount("3m") else { return };
    let shop = &small.shop;
    let run = shop.run(&["load", &sales(), "-q"]);
    run.failed(1, ".qlog: ");
    run.failed(1, "free some space");
    let said = run.err.lines().find(|line| line.contains("were recorded before this and are kept"));
    let digits: String =
        said.unwrap().split(' ').next().unwrap().chars().filter(char::is_ascii_digit).collect();
    let kept: u64 = digits.parse().unwrap();
    assert!((1..SALES).contains(&kept), "{run:?}");
    // Questions need no space where the directory is.
    let answer = shop.run(&["get", "by_hour"]).ok();
    assert_eq!(answer.json()["count"], kept);
    assert!(answer.err.contains("answered, and no checkpoint could be made"), "{answer:?}");
    shop.run(&["verify", "-q"]).ok();
    for command in [
        &["load", &sales(), "-q"][..],
        &["define", "x"],
        &["drop", "by_user"],
        &["checkpoint"],
        &["backup", "data/kept"],
        &["restore", "kept", "data/again"],
    ] {
        if command[0] == "restore" {
            shop.run(&["backup", "kept", "-q"]).ok();
        }
        let run = shop.run(command);
        run.failed(1, "free some space");
        run.failed(1, "data/");
    }
    assert_eq!(shop.row("by_hour", &[])["count"], kept);
    let half_made: Vec<_> = ["kept", "again"].map(|name| shop.dir().join(name)).into();
    for path in half_made.iter().filter(|path| path.exists()) {
        std::fs::remove_dir_all(path).unwrap();
    }
    small.grow("64m");
    shop.run(&["load", &sales(), "-q"]).ok();
    assert_eq!(shop.row("by_hour", &[])["count"], kept + SALES);
    shop.run(&["verify", "-q"]).ok();
}

#[test]
fn a_disk_that_is_full_for_the_snapshot_costs_a_load_nothing() {
    let Some(small) = Small::mount("12m") else { return };
    let shop = &small.shop;
    let run = shop.run(&["load", &sales(), "-q"]);
    run.failed(1, "state.redb: ");
    run.failed(1, &format!("all {SALES} events were recorded and are kept"));
    assert_eq!(shop.run(&["get", "by_hour"]).ok().json()["count"], SALES);
    small.grow("64m");
    let answer = shop.run(&["get", "by_hour"]).ok();
    assert_eq!((&answer.json()["count"], answer.err.as_str()), (&SALES.into(), ""));
}
