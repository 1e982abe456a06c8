//! Limits as HTTP tells of them: the fields are read back as a client would, and obeyed.

use proptest::prelude::*;
use quipu::{
    Constraint, Denial, Event, Grain, HttpVerdict, Keep, Limit, Options, TestClock, Timestamp,
    Usage, Verdict, View, Window,
};
use std::collections::BTreeSet;
use std::time::Duration;

const INTEGER_MAX: u64 = 999_999_999_999_999;
const SECOND: Duration = Duration::from_secs(1);

/// A structured field that is a List of Strings with Integers as parameters (RFC 9651, 4.2), as far as these
/// fields use it. It takes nothing else.
mod structured {
    pub(super) struct Item {
        pub(super) name: String,
        pub(super) params: Vec<(String, u64)>,
    }

    impl Item {
        pub(super) fn param(&self, key: &str) -> Option<u64> {
            self.params.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
        }
    }

    pub(super) fn list(field: &str) -> Option<Vec<Item>> {
        assert!(field.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{field:?}");
        let (mut items, mut rest) = (Vec::new(), field);
        loop {
            let (item, behind) = item(rest)?;
            items.push(item);
            let behind = behind.trim_start_matches([' ', '\t']);
            if behind.is_empty() {
                return Some(items);
            }
            rest = behind.strip_prefix(',')?.trim_start_matches([' ', '\t']);
        }
    }

    fn item(field: &str) -> Option<(Item, &str)> {
        let mut chars = field.strip_prefix('"')?.chars();
        let mut name = String::new();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => match chars.next()? {
                    escaped @ ('"' | '\\') => name.push(escaped),
                    _ => return None,
                },
                c => name.push(c),
            }
        }
        let (mut params, mut rest) = (Vec::new(), chars.as_str());
        while let Some(behind) = rest.strip_prefix(';') {
            let (key, behind) = behind.split_once('=')?;
            assert!(!key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase()));
            let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
            let (value, behind) = behind.split_at(digits);
            // An Integer has at most 15 digits.
            let value = value.parse().ok().filter(|_| digits <= 15)?;
            params.push((key.to_owned(), value));
            rest = behind;
        }
        Some((Item { name, params }, rest))
    }
}

/// Of a constraint "at most", with lengths in milliseconds.
fn at_most(limit: u64, used: u64, resets_in: u64, window: u64) -> Usage {
    let window = Window::rolling(Duration::from_millis(window));
    of(Constraint::at_most(limit, window), limit, used, resets_in)
}

/// Of any other.
fn other(limit: u64, used: u64, resets_in: u64) -> Usage {
    of(Constraint::cooldown(SECOND), limit, used, resets_in)
}

fn of(constraint: Constraint, limit: u64, used: u64, resets_in: u64) -> Usage {
    let resets_in = Duration::from_millis(resets_in);
    Usage { constraint: constraint.into(), limit, used, resets_in }
}

/// Gives it a name.
fn called(usage: &Usage, name: &str) -> Usage {
    let constraint = Constraint::clone(&usage.constraint).named(name).into();
    Usage { constraint, ..usage.clone() }
}

fn allowed() -> Verdict {
    Verdict::Allowed { remaining: None, resets_in: None }
}

fn denied(index: usize, usage: &Usage, retry_after: impl Into<Option<u64>>) -> Verdict {
    let retry_after = retry_after.into().map(Duration::from_millis);
    Verdict::Denied(Denial {
        index,
        constraint: usage.constraint.clone(),
        limit: usage.limit,
        used: usage.used,
        retry_after,
        is_too_much: retry_after.is_none(),
    })
}

#[test]
fn fields_say_what_is_allowed_what_is_left_and_when_to_come_back() {
    let (minute, day) = (at_most(100, 50, 30_000, 60_000), at_most(1_000, 30, 40_000, 86_400_000));
    let (full, slow) = (at_most(100, 100, 60_000, 60_000), other(0, 1, 7_200_000));
    let policy = r#""burst";q=100;w=60,"daily";q=1000;w=86400"#;
    let tested = |what: &str, verdict: Verdict, usage: &[&Usage], expected: [Option<&str>; 3]| {
        let named = usage.iter().zip(["burst", "daily", "slow"]);
        let usage: Vec<Usage> = named.map(|(usage, name)| called(usage, name)).collect();
        let told = HttpVerdict::new(verdict.clone(), &usage);
        let retry = told.retry_after().map(|seconds| seconds.to_string());
        assert_eq!([told.policy(), told.rate_limit(), retry.as_deref()], expected, "{what}");
        let fields: Vec<String> = told.fields().map(|(_, value)| value).collect();
        assert_eq!(fields, expected.into_iter().flatten().collect::<Vec<_>>(), "{what}");
        assert_eq!((told.is_allowed(), told.verdict()), (verdict.is_allowed(), &verdict));
        assert_eq!(told.problem().is_none(), verdict.is_allowed());
    };

    tested(
        "the one of which less is left",
        allowed(),
        &[&minute, &day],
        [Some(policy), Some(r#""burst";r=50;t=30"#), None],
    );
    tested(
        "of two of which as much is left the one that takes longer",
        allowed(),
        &[&minute, &at_most(1_000, 950, 40_000, 86_400_000)],
        [Some(policy), Some(r#""daily";r=50;t=40"#), None],
    );
    tested(
        "a moment is a second",
        denied(0, &full, 20_001),
        &[&full, &day],
        [Some(policy), Some(r#""burst";r=0;t=21"#), Some("21")],
    );
    tested(
        "whole seconds are as they are",
        denied(0, &full, 21_000),
        &[&full, &day],
        [Some(policy), Some(r#""burst";r=0;t=21"#), Some("21")],
    );
    tested(
        "the one that does not hold, though less is left of another",
        denied(1, &at_most(1_000, 940, 500_000, 86_400_000), 490_000),
        &[&minute, &at_most(1_000, 940, 500_000, 86_400_000)],
        [Some(policy), Some(r#""daily";r=60;t=490"#), Some("490")],
    );
    tested(
        "a constraint that is no quota is told of by its time alone; no t is behind it",
        denied(2, &slow, 10_000),
        &[&minute, &day, &slow],
        [Some(policy), Some(r#""burst";r=50;t=10"#), Some("10")],
    );
    tested(
        "it can never fit",
        denied(0, &minute, None),
        &[&minute, &day],
        [Some(policy), Some(r#""burst";r=50;t=30"#), None],
    );
    tested("nothing but a time", denied(0, &slow, 1), &[&slow], [None, None, Some("1")]);
    tested("nothing at all", allowed(), &[], [None, None, None]);
    tested("usage that is not known", denied(0, &full, 20_001), &[], [None, None, Some("21")]);
    tested(
        "nothing used is nothing to wait for",
        allowed(),
        &[&at_most(10, 0, 0, 60_000)],
        [Some(r#""burst";q=10;w=60"#), Some(r#""burst";r=10"#), None],
    );
    tested(
        "more than the limit, which was lowered",
        denied(0, &at_most(10, 25, 60_000, 60_000), 59_000),
        &[&at_most(10, 25, 60_000, 60_000)],
        [Some(r#""burst";q=10;w=60"#), Some(r#""burst";r=0;t=59"#), Some("59")],
    );
    tested(
        "a window is rounded up",
        allowed(),
        &[&at_most(10, 1, 1, 1_500)],
        [Some(r#""burst";q=10;w=2"#), Some(r#""burst";r=9;t=1"#), None],
    );
    tested(
        "a window of less than a second is none",
        allowed(),
        &[&at_most(10, 1, 999, 999)],
        [Some(r#""burst";q=10"#), Some(r#""burst";r=9;t=1"#), None],
    );
    tested(
        "more than a field can say",
        allowed(),
        &[&at_most(u64::MAX, 7, u64::MAX, u64::MAX)],
        [
            Some(r#""burst";q=999999999999999;w=999999999999999"#),
            Some(r#""burst";r=999999999999999;t=999999999999999"#),
            None,
        ],
    );
}

#[test]
fn a_problem_names_the_quota_that_is_used_up() {
    let full = at_most(2, 2, 60_000, 60_000);
    let problem = |usage: &Usage| -> serde_json::Value {
        let told = HttpVerdict::new(denied(0, usage, 5_000), std::slice::from_ref(usage));
        serde_json::from_str(&told.problem().unwrap()).unwrap()
    };
    let told = problem(&called(&full, r#"the "hard\" one"#));
    assert_eq!(told["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(told["status"], 429);
    assert_eq!(told["violated-policies"], serde_json::json!([r#"the "hard\" one"#]));

    let told = problem(&called(&other(0, 1, 5_000), "pause"));
    assert_eq!(told["type"], "about:blank", "a cooldown is no quota");
    assert_eq!(told["violated-policies"], serde_json::json!(["pause"]));

    let told = problem(&full);
    assert_eq!(told["violated-policies"], serde_json::Value::Null, "it has no name");
}

#[test]
fn what_a_field_cannot_carry_of_a_name_is_told_by_its_bytes() {
    for (name, told) in [
        ("jour férié", r#""jour f%C3%A9ri%C3%A9";q=2;w=60"#),
        ("a\r\nX-Evil: 1", r#""a%0D%0AX-Evil: 1";q=2;w=60"#),
        ("\u{7f}\t", r#""%7F%09";q=2;w=60"#),
        (r#"a "b\" c"#, r#""a \"b\\\" c";q=2;w=60"#),
    ] {
        let usage = called(&at_most(2, 1, 1, 60_000), name);
        assert_eq!(HttpVerdict::new(allowed(), &[usage]).policy(), Some(told));
    }
}

#[test]
fn what_has_no_name_is_told_by_its_time_alone() {
    let full = at_most(2, 2, 60_000, 60_000);
    let told = HttpVerdict::new(denied(0, &full, 5_000), std::slice::from_ref(&full));
    assert_eq!([told.policy(), told.rate_limit()], [None, None]);
    assert_eq!(told.retry_after(), Some(5));
    let named = [full.clone(), called(&at_most(10, 4, 9_000, 60_000), "other")];
    let told = HttpVerdict::new(denied(0, &full, 5_000), &named);
    assert_eq!(told.policy(), Some(r#""other";q=10;w=60"#));
    assert_eq!(told.rate_limit(), Some(r#""other";r=6;t=5"#));
}

fn usages() -> impl Strategy<Value = Vec<Usage>> {
    let number = prop_oneof![0..20_u64, Just(u64::MAX), INTEGER_MAX - 2..INTEGER_MAX + 2];
    let length = prop_oneof![0..3_000_u64, 0..100_000_000_u64, Just(u64::MAX)];
    let window = prop::option::of(length.clone().prop_map(|millis| millis.max(1)));
    let name = prop::option::of("[ -~]{1,8}");
    let usage = (number.clone(), number, length, window, name);
    let usage = usage.prop_map(|(limit, used, resets_in, window, name)| {
        let usage = match window {
            Some(window) => at_most(limit, used, resets_in, window),
            None => other(limit, used, resets_in),
        };
        name.map_or_else(|| usage.clone(), |name| called(&usage, &name))
    });
    prop::collection::vec(usage, 0..6).prop_map(|mut usage| {
        // No two have the same name.
        let mut names = BTreeSet::new();
        let mut is_new = |name: &str| names.insert(name.to_owned());
        usage.retain(|usage| usage.constraint.name().is_none_or(&mut is_new));
        usage
    })
}

proptest! {
    #[test]
    fn a_client_reads_what_was_said(
        usage in usages(),
        // Which does not hold, and for how long; or all do.
        refusal in prop::option::of((0..5_usize, prop::option::of(1..100_000_000_u64))),
    ) {
        let verdict = match refusal {
            Some((index, retry_after)) if index < usage.len() => {
                denied(index, &usage[index], retry_after)
            }
            _ => allowed(),
        };
        let told = HttpVerdict::new(verdict.clone(), &usage);
        let shown: Vec<(&Usage, Duration, &str)> = usage
            .iter()
            .filter(|usage| usage.constraint.is_at_most())
            .filter_map(|usage| {
                Some((usage, usage.constraint.window()?.length(), usage.constraint.name()?))
            })
            .collect();
        let policy = told.policy().map(|field| structured::list(field).unwrap());
        prop_assert_eq!(policy.as_ref().map_or(0, Vec::len), shown.len());
        for (item, (usage, window, name)) in policy.iter().flatten().zip(&shown) {
            prop_assert_eq!(&item.name, name);
            prop_assert_eq!(item.param("q"), Some(usage.limit.min(INTEGER_MAX)));
            match item.param("w") {
                None => prop_assert!(*window < SECOND),
                Some(w) => {
                    prop_assert!(w > 0 && (w == INTEGER_MAX || Duration::from_secs(w) >= *window));
                    prop_assert!(Duration::from_secs(w - 1) < *window);
                }
            }
            let keys: BTreeSet<&str> = item.params.iter().map(|(key, _)| key.as_str()).collect();
            prop_assert!(keys.is_subset(&BTreeSet::from(["q", "w"])) && keys.len() == item.params.len());
        }

        let retry_after = verdict.retry_after().filter(|_| !verdict.is_allowed());
        prop_assert_eq!(told.retry_after().is_some(), retry_after.is_some());
        if let (Some(told), Some(exact)) = (told.retry_after(), retry_after) {
            prop_assert!(Duration::from_secs(told) >= exact && Duration::from_secs(told) < exact + SECOND);
        }

        let limit = told.rate_limit().map(|field| structured::list(field).unwrap());
        prop_assert_eq!(limit.is_some(), policy.is_some());
        let Some([item]) = limit.as_deref() else { return Ok(()) };
        let (usage, ..) = shown.iter().find(|(_, _, name)| *name == item.name).unwrap();
        prop_assert_eq!(item.param("r"), Some(usage.remaining().min(INTEGER_MAX)));
        if let Some(t) = item.param("t") {
            prop_assert!(t > 0 && told.retry_after().is_none_or(|retry| retry >= t));
        } else {
            prop_assert!(usage.resets_in.is_zero());
        }
        let violated = verdict.denial().and_then(|denial| denial.constraint.name());
        if violated != Some(item.name.as_str()) {
            prop_assert!(shown.iter().all(|(other, ..)| other.remaining() >= usage.remaining()));
        }
    }
}

struct Api {
    _root: tempfile::TempDir,
    clock: TestClock,
    limit: Limit,
}

impl Api {
    /// So many in any five seconds, and in any so many milliseconds, and in a minute by the clock.
    fn new(few: u64, (some, length): (u64, u64), many: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
        let calls = View::new("calls").by(["key"]).only_events(["call"]);
        let calls = calls.grain(Grain::Second, Keep::Last(65)).grain(Grain::Minute, Keep::Last(3));
        let db = Options::new().clock(clock.clone()).view(calls);
        let db = db.open(root.path().join("db")).unwrap();
        let series = db.query("calls").unwrap().series(&["k"]).unwrap();
        let add = |limit: Limit, n, window, name| {
            limit.on(&series, Constraint::at_most(n, window).named(name)).unwrap()
        };
        let limit = add(db.limit(), few, Window::rolling(5 * SECOND), "few");
        let limit = add(limit, some, Window::rolling(Duration::from_millis(length)), "some");
        let limit = add(limit, many, Window::fixed(Grain::Minute), "many");
        // So many at once, and then one in three quarters of a second.
        let limit = add(limit, few + 1, Window::gcra(4, 3 * SECOND), "smooth");
        Api { _root: root, clock, limit }
    }

    fn ask(&self) -> HttpVerdict {
        let event = Event::new("call").dim("key", "k");
        self.limit.check_and_record_http(&event).unwrap()
    }

    fn left(told: &HttpVerdict) -> u64 {
        structured::list(told.rate_limit().unwrap()).unwrap()[0].param("r").unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn who_does_as_the_fields_say_is_let_in(
        few in 1..5_u64,
        some in (1..9_u64, 1..20_000_u64),
        many in 1..20_u64,
        pauses in prop::collection::vec(0..9_000_000_u64, 1..40),
    ) {
        let api = Api::new(few, some, many);
        for (i, pause) in pauses.into_iter().enumerate() {
            api.clock.advance(Duration::from_micros(pause));
            let mut told = api.ask();
            if told.is_allowed() && i % 3 == 0 {
                for left in (0..Api::left(&told)).rev() {
                    told = api.ask();
                    prop_assert!(told.is_allowed(), "{:?}", told);
                    prop_assert_eq!(Api::left(&told), left);
                }
                told = api.ask();
                prop_assert!(!told.is_allowed(), "no more was left");
            }
            if !told.is_allowed() && i % 2 == 0 {
                api.clock.advance(Duration::from_secs(told.retry_after().unwrap()));
                prop_assert!(api.ask().is_allowed(), "{told:?}");
            }
        }
    }
}

#[test]
fn a_window_is_told_as_long_as_it_can_be_and_a_burst_by_when_it_is_back() {
    let hours = |n: u64| (n * 3_600).to_string();
    for (n, window, told) in [
        (3, Window::fixed(Grain::Day), hours(24)),
        (3, Window::last(7, Grain::Day), hours(7 * 24)),
        (3, Window::fixed(Grain::Month), hours(31 * 24)),
        (3, Window::rolling(Duration::from_hours(36)), hours(36)),
        // One in three seconds: five are back after fifteen.
        (5, Window::gcra(20, Duration::from_mins(1)), "15".to_owned()),
        (7, Window::gcra(3, Duration::from_secs(1)), "3".to_owned()),
    ] {
        let usage = [of(Constraint::at_most(n, window).named("quota"), n, 1, 1)];
        let told = format!(r#""quota";q={n};w={told}"#);
        assert_eq!(HttpVerdict::new(allowed(), &usage).policy(), Some(&*told), "{window}");
    }
    let at_least = Constraint::at_least(3, Window::fixed(Grain::Day)).named("first");
    let told = HttpVerdict::new(allowed(), &[of(at_least, 3, 1, 1)]);
    assert_eq!(told.policy(), None, "what must have happened first is no quota");
}
