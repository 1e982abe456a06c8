//! `backup` and `restore` from beginning to end.

use crate::{EVENTS, Shop, exists};

#[test]
fn a_backup_is_restored_with_every_answer() {
    let shop = Shop::loaded();
    let answer = |shop: &Shop| {
        ["by_user", "by_product", "by_hour"].map(|view| format!("{:?}", shop.rows(view)))
    };
    let before = answer(&shop);
    let run = shop.run(&["backup", "kept"]).ok();
    assert!(run.err.starts_with("backup of position ") && run.err.contains("copied"), "{run:?}");
    let made = run.json();
    assert_eq!(
        (&made["segments_copied"], &made["copied_bytes"]),
        (&made["segments"], &made["bytes"])
    );
    // More, and a second backup while another process has the directory open.
    let file = shop.file("more.ndjson", EVENTS);
    shop.run(&["load", &file]).ok();
    let db = quipu::Db::open(shop.dir()).unwrap();
    db.record(&quipu::Event::new("sale").dim("user", "dan")).unwrap();
    assert_eq!(shop.run(&["backup", "kept", "--quiet"]).ok().err, "");
    db.close().unwrap();
    drop(db);
    let now = answer(&shop);
    assert_ne!(now, before);
    std::fs::remove_dir_all(shop.dir()).unwrap();
    let data = shop.dir();
    let data = data.to_str().unwrap();
    let run = shop.run(&["restore", "kept", data]).ok();
    assert!(run.err.contains("13 events"), "{run:?}");
    assert_eq!(answer(&shop), now);
    std::fs::remove_dir_all(shop.dir()).unwrap();
    let position = run.err.split("position ").nth(1).unwrap().split(',').next().unwrap();
    let earlier = (position.parse::<u64>().unwrap() - 7).to_string();
    shop.run(&["restore", "kept", data, "--at-position", &earlier, "--quiet"]).ok();
    assert_eq!(answer(&shop), before);
    std::fs::remove_dir_all(shop.dir()).unwrap();
    // What happened on the first day, twice.
    shop.run(&["restore", "kept", data, "--at-time", "2010-12-01T23:59:59Z"]).ok();
    assert_eq!(shop.row("by_hour", &[])["count"], 8);
    std::fs::remove_dir_all(shop.dir()).unwrap();
    let run = shop.run(&["restore", "kept", data, "--recorded-until", "2010-12-01"]).ok();
    assert!(run.err.contains("position 0, 0 events"), "{run:?}");
}

#[test]
fn what_cannot_be_restored_is_said_with_a_code() {
    let shop = Shop::loaded();
    shop.run(&["backup", "kept"]).ok();
    let data = shop.dir();
    let data = data.to_str().unwrap();
    shop.run(&["restore", "kept", data]).failed(1, "restore into an empty or a new one");
    shop.run(&["restore", data, "again"]).failed(1, "no backup; take a backup of it first");
    shop.run(&["restore", "nowhere", "again"]).failed(1, "there is no such backup");
    shop.run(&["restore", "kept", "again", "--at-position", "99"]).failed(1, "ends at position");
    let both = ["restore", "kept", "again", "--at-position", "1", "--at-time", "2010-12-01"];
    assert_eq!(shop.run(&both).code, Some(2));
    shop.run(&["restore", "kept", "again", "--at-time", "noon"]).failed(2, "2010-12-01T08:26:00Z");
    shop.run(&["list", "by_user", "--dir", "kept"]).failed(1, "this is a backup; restore it");
    shop.run(&["backup", data]).failed(1, "no backup of this one");
    assert!(!exists(&shop.root.path().join("again")));
    let list = shop.root.path().join("kept/BACKUP");
    let mut bytes = std::fs::read(&list).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&list, &bytes).unwrap();
    shop.run(&["restore", "kept", "again"]).failed(3, "BACKUP");
    shop.run(&["backup", "kept"]).failed(3, "BACKUP");
    assert_eq!(std::fs::read(&list).unwrap(), bytes);
}

#[test]
fn what_was_made_has_every_form() {
    let shop = Shop::loaded();
    for (format, fields) in [
        ("table", ["position", "copied_bytes"]),
        ("json", ["\"position\":", "\"segments\":"]),
        ("ndjson", ["{\"position\":", "\"segments_copied\":"]),
        ("csv", ["position,bytes,copied_bytes,segments,segments_copied\n", ","]),
        ("markdown", ["| position |", "|--"]),
    ] {
        let run = shop.run(&["backup", "kept", "--format", format, "-q"]).ok();
        assert_eq!(run.err, "");
        assert!(fields.iter().all(|field| run.out.contains(field)), "{run:?}");
        let run = shop.run(&["restore", "kept", format, "--format", format]).ok();
        assert!(run.out.contains("events") && run.err.contains("6 events, 6 views"), "{run:?}");
    }
    let made = shop.run(&["restore", "kept", "again", "--format", "json"]).ok().json();
    assert_eq!((&made["events"], &made["views"]), (&6.into(), &6.into()));
}

#[test]
fn what_is_told_of_a_backup_counts_only_what_was_looked_at() {
    let shop = Shop::loaded();
    let run = shop.run(&["backup", "kept"]).ok();
    assert!(run.err.contains(", with 1 segment of the log; "), "{run:?}");
    let run = shop.run(&["verify", "--dir", "kept"]).ok();
    assert!(run.err.contains("log: 1 segment, by its hash, positions 1 to "), "{run:?}");
    assert!(!run.err.contains("0 records") && !run.err.contains("0 rows"), "{run:?}");
    assert!(!run.err.contains("views: 0") && run.err.ends_with("intact\n"), "{run:?}");
    let run = shop.run(&["verify"]).ok();
    assert!(run.err.contains(" records, positions 1 to ") && run.err.contains("views: 6 of 6"));
}
