//! `verify` and `repair`.

use crate::Shop;

/// Overwrites some bytes of a file of the directory.
fn damage(shop: &Shop, name: &str, at: usize, len: usize) {
    let path = shop.dir().join(name);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at..at + len].fill(0xee);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn an_intact_directory_is_0_and_says_what_was_looked_at() {
    let shop = Shop::loaded();
    let run = shop.run(&["verify"]).ok();
    assert_eq!(run.out, "");
    assert!(run.err.contains("views: 6 of 6 compared with the log"), "{run:?}");
    assert!(run.err.ends_with("intact\n"), "{run:?}");
    let report = shop.run(&["verify", "--format", "json", "--quiet"]).ok();
    assert_eq!(report.err, "");
    let report = report.json();
    assert_eq!(report["views"][0]["refolded"], true);
    let quick = shop.run(&["verify", "--checksums-only", "--format", "json"]).ok().json();
    assert_eq!(quick["views"][0]["refolded"], false);
    let nothing = shop.run(&["repair"]).ok();
    assert!(nothing.err.contains("nothing is damaged"), "{nothing:?}");
}

#[test]
fn damages_are_listed_with_3_and_repaired_when_asked() {
    let shop = Shop::loaded();
    damage(&shop, "log/0000000001.qlog", 700, 8);
    let run = shop.run(&["verify"]);
    run.failed(3, "1 damage");
    let run = shop.run(&["verify"]);
    let finding = &run.json_lines()[0];
    assert_eq!(finding["meaning"], "corruption");
    assert!(finding["path"].as_str().unwrap().ends_with("0000000001.qlog"));
    assert!(finding["offset"].is_u64() && finding["positions"].is_string(), "{finding}");
    let plan = shop.run(&["repair", "--format", "table"]);
    assert!(plan.out.contains("give up") && plan.out.contains("snapshot"), "{plan:?}");
    plan.failed(3, "--apply");
    let done = shop.run(&["repair", "--apply"]).ok();
    assert!(done.err.contains("quarantine"), "{done:?}");
    shop.run(&["verify"]).ok();
    // The snapshot had it all.
    assert_eq!(shop.row("by_hour", &[])["count"], 6);
}

#[test]
fn whoever_meets_a_damage_is_told_what_to_do() {
    let shop = Shop::loaded();
    damage(&shop, "MANIFEST", 20, 4);
    shop.run(&["list", "by_user"]).failed(3, "quipu repair");
    shop.run(&["repair", "--apply"]).ok();
    assert_eq!(shop.row("by_hour", &[])["count"], 6);
}

#[test]
fn a_directory_in_use_is_4() {
    let shop = Shop::loaded();
    let db = quipu::Db::open(shop.dir()).unwrap();
    shop.run(&["verify"]).failed(4, "data");
    shop.run(&["repair", "--apply"]).failed(4, "data");
    drop(db);
    shop.run(&["verify"]).ok();
}
