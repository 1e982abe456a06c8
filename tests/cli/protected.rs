//! A directory in which nothing can be written: every question is answered, and it is verified.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Run, Shop};

/// Somebody without rights: nobody.
const NOBODY: u32 = 65_534;

/// The [`Shop`], write-protected, and the program, where whoever may only read it can run it.
struct Protected {
    shop: Shop,
    program: PathBuf,
}

impl Protected {
    fn new(shop: Shop) -> Self {
        let program = shop.root.path().join("quipu");
        std::fs::copy(env!("CARGO_BIN_EXE_quipu"), &program).unwrap();
        let protected = Self { shop, program };
        protected.set_mode(0o555, 0o444);
        protected
    }

    /// Gives everything in the directory a mode: one for directories, one for files.
    fn set_mode(&self, directories: u32, files: u32) {
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        set(self.shop.root.path(), 0o755);
        let mut waiting = vec![self.shop.dir()];
        while let Some(dir) = waiting.pop() {
            set(&dir, directories);
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { waiting.push(path) } else { set(&path, files) }
            }
        }
    }

    /// Runs as one who may write nothing there, also where the tests may do everything.
    fn run(&self, args: &[&str]) -> Run {
        let mut command = Command::new(&self.program);
        command.args(args).env("QUIPU_DIR", self.shop.dir()).current_dir(self.shop.root.path());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.output().unwrap().into()
    }
}

impl Drop for Protected {
    fn drop(&mut self) {
        self.set_mode(0o755, 0o644);
    }
}

fn is_root() -> bool {
    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), Some(NOBODY), None).is_ok()
}

/// One with a tail behind the snapshot, as a process leaves it that was killed.
fn with_a_tail() -> Shop {
    let shop = Shop::loaded();
    let db = quipu::Db::open(shop.dir()).unwrap();
    db.record(&quipu::Event::new("sale").dim("user", "ann")).unwrap();
    let killed = Shop::new();
    let mut waiting = vec![shop.dir()];
    while let Some(dir) = waiting.pop() {
        let to = killed.dir().join(dir.strip_prefix(shop.dir()).unwrap());
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    killed
}

#[test]
fn a_protected_directory_is_verified() {
    let protected = Protected::new(with_a_tail());
    let run = protected.run(&["verify"]).ok();
    assert!(run.err.ends_with("intact\n"), "{run:?}");
    let run = protected.run(&["repair"]).ok();
    assert!(run.err.contains("nothing is damaged"), "{run:?}");
}

#[test]
fn a_protected_directory_answers_every_question() {
    let protected = Protected::new(with_a_tail());
    let run = protected.run(&["get", "by_hour"]).ok();
    assert_eq!((&run.json()["count"], run.err.as_str()), (&7.into(), ""));
    for command in [
        &["top", "by_user"][..],
        &["list", "by_user"],
        &["totals", "by_user"],
        &["views"],
        &["stats"],
    ] {
        let run = protected.run(command).ok();
        assert!(!run.out.is_empty() && run.err.is_empty(), "{run:?}");
    }
    // What would change it says what it could not write.
    let file = protected.shop.file("a.ndjson", crate::EVENTS);
    for command in [&["load", &file][..], &["define", "x"], &["checkpoint"]] {
        protected.run(command).failed(1, "LOCK");
    }
}

#[test]
fn a_protected_backup_is_verified_and_restored() {
    let shop = Shop::loaded();
    let kept = Shop::new();
    shop.run(&["backup", kept.dir().to_str().unwrap()]).ok();
    let protected = Protected::new(kept);
    let kept = protected.shop.dir();
    let run = protected.run(&["verify"]).ok();
    assert!(run.err.ends_with("intact\n"), "{run:?}");
    let again = shop.root.path().join("again");
    shop.run(&["restore", kept.to_str().unwrap(), again.to_str().unwrap()]).ok();
}
