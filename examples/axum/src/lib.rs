//! An API whose callers have tiers: five calls a minute for nothing, a hundred a minute and ten thousand a day
//! for those who pay. What they used survives a restart.
//!
//! A request goes through two layers: `identify` finds out whose it is and refuses strangers, the
//! [`LimitLayer`] asks the policy of their tier, and tells them what is left. The handler behind them
//! knows nothing of either.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use quipu::tower::LimitLayer;
use quipu::{Constraint, Db, Event, Grain, Keep, Options, Policy, Result, View, Window};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// 5 a minute.
    Free,
    /// 100 a minute, and 10,000 a day.
    Pro,
}

/// The API keys that there are.
pub type Keys = Arc<BTreeMap<String, Tier>>;

/// Whose request it is.
#[derive(Clone, Debug)]
struct Caller {
    key: String,
    tier: Tier,
}

/// The store, with the one view that limits are asked of: calls by API key, in seconds for what is limited by
/// the minute and in days for the rest.
pub fn options() -> Options {
    let calls = View::new("calls")
        .by(["key"])
        .only_events(["call"])
        .grain(Grain::Second, Keep::Last(62))
        .grain(Grain::Day, Keep::Last(2));
    Options::new().view(calls)
}

/// Sets what each tier may do. It can be changed while the service runs, and what was used stays used.
///
/// # Errors
/// As [`Db::set_policy`].
pub fn set_policies(db: &Db) -> Result<()> {
    let minute = |n| {
        let window = Window::rolling(Duration::from_mins(1));
        Constraint::at_most(n, window).named("minute")
    };
    let day = Constraint::at_most(10_000, Window::fixed(Grain::Day)).named("day");
    db.set_policy(Policy::new("free").on("calls", minute(5)))?;
    db.set_policy(Policy::new("pro").on("calls", minute(100)).on("calls", day))?;
    Ok(())
}

/// The service.
///
/// # Errors
/// As [`Db::limiter`]: where the policies are not set.
pub fn service(db: &Db, keys: Keys) -> Result<Router> {
    let (free, pro) = (db.limiter("free")?, db.limiter("pro")?);
    let limits = LimitLayer::new(move |request: &Parts| {
        let Some(caller) = request.extensions.get::<Caller>() else { return Ok(None) };
        let limiter = match caller.tier {
            Tier::Free => &free,
            Tier::Pro => &pro,
        };
        let call = Event::new("call").dim("key", &caller.key);
        limiter.check_and_record_http(&call).map(Some)
    });
    // The layer that is added last is the first to see a request.
    let router = Router::new().route("/time", get(tell_the_time));
    Ok(router.layer(limits).layer(from_fn_with_state(keys, identify)))
}

/// Lets in whoever has a key.
async fn identify(
    State(keys): State<Keys>,
    headers: HeaderMap,
    mut request: Request,
    next: Next,
) -> Result<Response, StatusCode> {
    let key = headers.get("x-api-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
    let (key, tier) = keys.get_key_value(key).ok_or(StatusCode::UNAUTHORIZED)?;
    request.extensions_mut().insert(Caller { key: key.clone(), tier: *tier });
    Ok(next.run(request).await)
}

async fn tell_the_time() -> String {
    let since_1970 = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("{} seconds since 1970\n", since_1970.as_secs())
}
