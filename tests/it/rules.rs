//! The text of rules: what is written is read, and what is not a rule is told why.

use crate::directory::options;
use proptest::prelude::*;
use quipu::{
    Constraint, ErrorKind, Event, Grain, Keep, Policy, ReadOnlyDb, Rule, Schedule, View, Window,
};
use std::time::Duration;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The only rule of a policy.
fn only(policy: &Policy) -> Rule {
    policy.rules()[0].clone()
}

#[test]
fn each_kind_of_rule_is_read_and_written() {
    let none = || Policy::new("p");
    let on = |constraint| only(&none().on("calls", constraint));
    let minute = Window::rolling(secs(60));
    for (text, rule) in [
        ("calls: at most 100 in any 1m", on(Constraint::at_most(100, minute))),
        (
            "calls: at most 10000 per day",
            on(Constraint::at_most(10_000, Window::fixed(Grain::Day))),
        ),
        (
            "burst = calls: at most 20 at once, then 10 in each 1s",
            on(Constraint::at_most(20, Window::gcra(10, secs(1))).named("burst")),
        ),
        (
            "calls: at least 3 in the last 7 days",
            on(Constraint::at_least(3, Window::last(7, Grain::Day))),
        ),
        (
            "calls: at most 3 in the last 2 months of 30 days",
            on(Constraint::at_most(3, Window::last(2, Grain::Month30))),
        ),
        (
            "calls: at most 3 in the last 20 buckets of 250ms",
            on(Constraint::at_most(
                3,
                Window::last(20, Grain::every(Duration::from_millis(250)).unwrap()),
            )),
        ),
        ("calls: none for 1h30m", on(Constraint::cooldown(secs(5_400)))),
        ("calls: one in the last 5m", on(Constraint::within(secs(300)))),
        (
            "only mon-fri 08:00-20:00 in Europe/Paris",
            only(&none().during("mon-fri 08:00-20:00 in Europe/Paris".parse().unwrap())),
        ),
        (
            "nights = not daily 22:00-06:00",
            only(&none().of_calendar(
                Constraint::outside_of("22:00-06:00".parse().unwrap()).named("nights"),
            )),
        ),
        (
            "calls but \"given back\": at most 5 per hour",
            only(&none().on_net(
                "calls",
                "given back",
                Constraint::at_most(5, Window::fixed(Grain::Hour)),
            )),
        ),
        ("\"only\": none for 1s", only(&none().cooldown("only", secs(1)))),
    ] {
        assert_eq!(rule.to_string(), text);
        assert_eq!(text.parse::<Rule>().unwrap(), rule, "{text}");
    }
}

#[test]
fn other_ways_to_write_a_rule_are_read() {
    for (text, shown) in [
        ("calls:at most 5 in 7 days", "calls: at most 5 in the last 7 days"),
        ("calls : AT MOST 5 Per Day", "calls: at most 5 per day"),
        ("b=calls but r:at most 5 in any 90s", "b = calls but r: at most 5 in any 1m30s"),
        (
            "calls: at most 5 at once then 1 in each 1 h",
            "calls: at most 5 at once, then 1 in each 1h",
        ),
        ("calls: at least 1 in the last 1 day", "calls: at least 1 per day"),
        ("calls: at most 5 per 1500ms", "calls: at most 5 per 1500ms"),
        ("\"a\\u{e4}\\\"\": none for 1s", "\"aä\\\"\": none for 1s"),
        ("only weekdays 9:00-17:00", "only mon-fri 09:00-17:00"),
    ] {
        assert_eq!(text.parse::<Rule>().unwrap().to_string(), shown, "{text}");
    }
}

#[test]
fn what_is_no_rule_says_where_and_what_is_due() {
    for (text, told) in [
        ("", &["it is empty", "calls: at most 100 in any 60s"][..]),
        ("at most 5 per day", &["begins with \"at\"", "calls: at most"]),
        ("my calls: none for 1h", &["begins with \"my\"", "double quotes"]),
        ("calls", &["nothing stands behind `calls`", "a colon"]),
        ("calls:", &["nothing stands behind `calls:`", "at most 100"]),
        ("calls: at most", &["nothing stands behind `calls: at most`", "number"]),
        ("calls: at most 1,000 per day", &["\"1,000\" stands behind", "number"]),
        ("calls: at most -1 per day", &["\"-1\" stands behind"]),
        ("calls: at most 99999999999999999999 per day", &["\"99999999999999999999\""]),
        ("calls: at most 5", &["nothing stands behind `calls: at most 5`", "in any 60s"]),
        ("calls: at most 5 each day", &["\"each\" stands behind", "per day"]),
        ("calls: at most 5 in 60s", &["`in any 1m`", "in the last 7 days"]),
        ("calls: at most 5 in any day", &["\"day\" is no length", "90s", "15m"]),
        ("calls: at most 5 per fortnight", &["fortnight", "hour, day"]),
        ("calls: at most 5 per", &["nothing stands behind", "a grain"]),
        ("calls: at most 5 in the last 99999999999 days", &["99999999999 buckets"]),
        ("calls: at most 5 at once", &["`in any 60s`", "at once, then 10 in each 1s"]),
        ("calls: at most 5 at once, then 3 per second", &["\"per\" stands", "in each 1s"]),
        ("calls: at most 0 per day", &["never allows anything"]),
        ("calls: at least 3 at once, then 1 in each 1s", &["comes back at a rate"]),
        ("calls: none for 0s", &["of no length"]),
        ("calls: none for 5", &["no unit stands behind \"5\""]),
        ("calls: one in the last", &["nothing stands behind", "length of time"]),
        ("calls: only mon-fri 08:00-20:00", &["asks no view"]),
        ("calls but: at most 5 per day", &["\":\" stands behind `calls but`"]),
        ("calls but refunds: one in the last 5m", &["nothing is given back to"]),
        ("only mon-fri", &["says no hours"]),
        ("only", &["schedule"]),
        ("\"calls: none for 1h", &["is not ended"]),
        ("\"\": none for 1h", &["has no name"]),
        ("\"a\\q\": none for 1h", &["\\q stands for nothing"]),
        ("\"\" = calls: none for 1h", &["1 to 255 bytes"]),
    ] {
        let error = text.parse::<Rule>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
        for told in told {
            assert!(error.to_string().contains(told), "{text}: {told}: {error}");
        }
    }
    let error = "calls: none for 1h".parse::<Constraint>().unwrap_err().to_string();
    assert!(
        error.contains("begins with \"calls\"") && error.contains("of the calendar"),
        "{error}"
    );
}

#[test]
fn a_policy_is_made_of_rules_that_were_read() {
    let root = tempfile::tempdir().unwrap();
    let calls = View::new("calls").by(["key"]).grain(Grain::Second, Keep::Last(61));
    let db = options().view(calls).open(root.path().join("db")).unwrap();
    let policy = Policy::new("free").rule("calls: at most 2 in any 60s".parse().unwrap());
    assert_eq!(policy.to_string(), "free (calls: at most 2 in any 1m)");
    db.set_policy(policy.clone()).unwrap();
    let free = db.limiter("free").unwrap();
    let call = Event::new("call").dim("key", "ann");
    for is_allowed in [true, true, false] {
        assert_eq!(free.check_and_record(&call).unwrap().is_allowed(), is_allowed);
    }
    // A reader beside it sees the rules, and when they go.
    let reader = ReadOnlyDb::open(root.path().join("db")).unwrap();
    assert_eq!(reader.policies().unwrap(), [policy]);
    db.remove_policy("free").unwrap();
    reader.refresh().unwrap();
    assert_eq!(reader.policies().unwrap(), []);
}

#[test]
fn a_view_without_buckets_for_a_window_is_told_which_would_do() {
    for (zone, length, told) in [
        ("UTC", secs(60), "; 61 seconds would do"),
        ("UTC", secs(3_600), "; 61 minutes would do"),
        ("UTC", secs(86_400), "; 25 hours would do"),
        ("Europe/Paris", secs(86_400), "; 26 hours would do"),
        ("UTC", secs(30 * 86_400), "; 31 days would do"),
        ("Europe/Paris", secs(30 * 86_400), "; 32 days would do"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let db = options()
            .time_zone(zone.parse().unwrap())
            .view(View::new("calls"))
            .open(root.path().join("db"))
            .unwrap();
        let policy = |view| Policy::new("p").at_most(view, 5, Window::rolling(length));
        let error = db.set_policy(policy("calls")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotKept);
        assert!(error.to_string().ends_with(told), "{error}");
        // They do, and one less does not.
        let mut words = told.split(' ').skip(1);
        let n: u32 = words.next().unwrap().parse().unwrap();
        let grain: Grain = words.next().unwrap().trim_end_matches('s').parse().unwrap();
        for (view, n, does) in [("less", n - 1, false), ("enough", n, true)] {
            db.define(View::new(view).grain(grain, Keep::Last(n))).unwrap();
            assert_eq!(db.set_policy(policy(view)).is_ok(), does, "{zone} {length:?} {view}");
        }
    }
}

fn lengths() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (1_u64..100_000).prop_map(Duration::from_secs),
        (1_u64..10_000_000_000).prop_map(Duration::from_micros),
        (0_u32..20).prop_map(|power| Duration::from_micros(10_u64.pow(power.min(16)))),
        (1_u64..5_000).prop_map(Duration::from_hours),
    ]
}

fn grains() -> impl Strategy<Value = Grain> {
    prop_oneof![
        prop::sample::select(Grain::ALL.to_vec()),
        (1_u64..30_000_000).prop_map(|s| Grain::every(secs(s)).unwrap()),
        (1_u64..100_000).prop_map(|ms| Grain::every(Duration::from_millis(ms)).unwrap()),
    ]
}

fn windows() -> impl Strategy<Value = Window> {
    prop_oneof![
        lengths().prop_map(Window::rolling),
        (1_u32..100_000, grains()).prop_map(|(n, grain)| Window::last(n, grain)),
        grains().prop_map(Window::fixed),
        (1_u64.., lengths()).prop_map(|(n, period)| Window::gcra(n, period)),
    ]
}

fn schedules() -> impl Strategy<Value = Schedule> {
    prop::sample::select(vec![
        "always",
        "22:00-06:00",
        "mon wed 09:00-12:00 13:00-17:00, sat 10:00-24:00 in Asia/Tehran",
        "2026-12-24..2026-12-31 sat-sun 10:00-22:00; except 2026-12-25",
    ])
    .prop_map(|text| text.parse().unwrap())
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z_]{1,8}",
        "only|not|but|at|none|one",
        "\\PC{1,20}",
        "[\"\\\\:= \n\u{202e}a]{1,9}"
    ]
}

fn counted() -> impl Strategy<Value = Constraint> {
    prop_oneof![
        3 => (1_u64.., windows()).prop_map(|(n, window)| Constraint::at_most(n, window)),
        1 => (1_u64.., 1_u32..100_000, grains())
            .prop_map(|(n, buckets, grain)| Constraint::at_least(n, Window::last(buckets, grain))),
        1 => lengths().prop_map(Constraint::cooldown),
        1 => lengths().prop_map(Constraint::within),
    ]
}

fn calendar() -> impl Strategy<Value = Constraint> {
    (schedules(), any::<bool>()).prop_map(|(schedule, is_open)| {
        if is_open { Constraint::during(schedule) } else { Constraint::outside_of(schedule) }
    })
}

fn named(of: impl Strategy<Value = Constraint>) -> impl Strategy<Value = Constraint> {
    (of, prop::option::of(names())).prop_map(|(constraint, name)| match name {
        Some(name) => constraint.named(name),
        None => constraint,
    })
}

fn rules() -> impl Strategy<Value = Rule> {
    let of_view = (named(counted()), names(), prop::option::of(names())).prop_map(
        |(constraint, view, refunds)| match refunds
            .filter(|refunds| constraint.takes_back() && *refunds != view)
        {
            Some(refunds) => only(&Policy::new("p").on_net(view, refunds, constraint)),
            None => only(&Policy::new("p").on(view, constraint)),
        },
    );
    let of_calendar = named(calendar()).prop_map(|c| only(&Policy::new("p").of_calendar(c)));
    prop_oneof![3 => of_view, 1 => of_calendar]
}

/// Words of rules in any order, and other text.
fn jumble() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "calls",
            ":",
            "=",
            "but",
            "at",
            "most",
            "least",
            "5",
            "in",
            "any",
            "60s",
            "per",
            "day",
            "the",
            "last",
            "7",
            "days",
            "at once,",
            "then",
            "each",
            "none",
            "for",
            "one",
            "only",
            "not",
            "\"",
            "\\",
            "mon",
            "08:00-20:00",
            "buckets of",
            "ä",
        ])
        .prop_map(ToOwned::to_owned),
        "\\PC{0,4}",
    ];
    (prop::collection::vec(word, 0..10), prop::sample::select(vec!["", " "]))
        .prop_map(|(words, gap)| words.join(gap))
}

proptest! {
    #[test]
    fn what_is_written_is_read(rule in rules(), window in windows(), other in named(calendar())) {
        prop_assert_eq!(rule.to_string().parse::<Rule>().unwrap(), rule.clone());
        let constraint = rule.constraint();
        prop_assert_eq!(&constraint.to_string().parse::<Constraint>().unwrap(), constraint);
        prop_assert_eq!(other.to_string().parse::<Constraint>().unwrap(), other);
        prop_assert_eq!(window.to_string().parse::<Window>().unwrap(), window);
    }

    #[test]
    fn what_is_read_is_written_so(text in jumble()) {
        let _ = text.parse::<Window>();
        let _ = text.parse::<Constraint>();
        if let Ok(rule) = text.parse::<Rule>() {
            prop_assert_eq!(rule.to_string().parse::<Rule>().unwrap(), rule);
        }
    }
}
