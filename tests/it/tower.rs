//! Limits before a service: who is let in, what the client is told, and that the service behind is used as
//! tower wants it.

use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use quipu::tower::{LimitLayer, OnFailure, Refusal};
use quipu::{
    Constraint, Durability, Event, HttpVerdict, Options, Policy, Result, TestClock, Timestamp,
    View, Window,
};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tower_layer::Layer;
use tower_service::Service;

/// A service that takes a permit when it is found ready, as those do that limit how many calls are under way.
#[derive(Default)]
struct Permitted {
    permits: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
    is_ready: bool,
    /// What it says of itself.
    headers: HeaderMap,
}

impl Clone for Permitted {
    fn clone(&self) -> Self {
        let (permits, calls) = (Arc::clone(&self.permits), Arc::clone(&self.calls));
        Permitted { permits, calls, is_ready: false, headers: self.headers.clone() }
    }
}

impl Drop for Permitted {
    fn drop(&mut self) {
        if self.is_ready {
            self.permits.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Service<Request<()>> for Permitted {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if !self.is_ready {
            self.permits.fetch_add(1, Ordering::Relaxed);
            self.is_ready = true;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        assert!(self.is_ready, "called without having been found ready");
        self.is_ready = false;
        self.permits.fetch_sub(1, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut response = Response::new(request.uri().path().to_owned());
        *response.headers_mut() = self.headers.clone();
        ready(Ok(response))
    }
}

/// One call as a server makes it: wait until it is ready, call, wait for the response.
fn call<S, B>(service: &mut S, key: &str) -> Response<B>
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible>,
{
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    let request = Request::get("/thing").header("x-api-key", key).body(()).unwrap();
    match pin!(service.call(request)).poll(&mut context) {
        Poll::Ready(response) => response.unwrap(),
        Poll::Pending => panic!("nothing has to be waited for"),
    }
}

fn key(request: &Parts) -> Option<&str> {
    request.headers.get("x-api-key")?.to_str().ok().filter(|key| !key.is_empty())
}

/// Two a minute for each key.
fn asks(
    dir: &Path,
    clock: &TestClock,
) -> (quipu::Db, impl Fn(&Parts) -> Result<Option<HttpVerdict>> + Clone) {
    let calls = View::new("calls").by(["key"]).rate_limit_grains();
    let db = Options::new().clock(clock.clone()).view(calls).open(dir.join("db")).unwrap();
    let minute = Constraint::at_most(2, Window::rolling(Duration::from_mins(1))).named("minute");
    db.set_policy(Policy::new("free").on("calls", minute)).unwrap();
    let free = db.limiter("free").unwrap();
    let asks = move |request: &Parts| {
        let Some(key) = key(request) else { return Ok(None) };
        let event = Event::new("call").dim("key", key);
        free.check_and_record_http_with(&event, Durability::Memory).map(Some)
    };
    (db, asks)
}

fn clock() -> TestClock {
    TestClock::at(Timestamp::from_secs(1_700_000_000))
}

fn texts<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).into_iter().map(|value| value.to_str().unwrap()).collect()
}

#[test]
fn a_request_is_let_in_until_the_limit_and_then_told_when_to_come_back() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (db, asks) = asks(dir.path(), &clock);
    let inner = Permitted::default();
    let mut service = LimitLayer::new(asks).layer(inner.clone());
    for left in [1, 0] {
        let response = call(&mut service, "alice");
        assert_eq!((response.status(), response.body().as_str()), (StatusCode::OK, "/thing"));
        assert_eq!(texts(response.headers(), "ratelimit-policy"), [r#""minute";q=2;w=60"#]);
        let limit = format!(r#""minute";r={left};t=60"#);
        assert_eq!(texts(response.headers(), "ratelimit"), [limit]);
        assert!(!response.headers().contains_key("retry-after"));
    }

    let response = call(&mut service, "alice");
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(texts(response.headers(), "ratelimit-policy"), [r#""minute";q=2;w=60"#]);
    assert_eq!(texts(response.headers(), "ratelimit"), [r#""minute";r=0;t=60"#]);
    assert_eq!(texts(response.headers(), "retry-after"), ["60"]);
    assert_eq!(texts(response.headers(), "content-type"), ["application/problem+json"]);
    let problem: serde_json::Value = serde_json::from_str(response.body()).unwrap();
    assert_eq!(problem["violated-policies"], serde_json::json!(["minute"]));
    assert_eq!(inner.calls.load(Ordering::Relaxed), 2, "the service behind never saw it");
    assert_eq!(db.query("calls").unwrap().get(&["alice"]).unwrap().unwrap().count, 2);

    assert_eq!(call(&mut service, "bob").status(), StatusCode::OK);
    let response = call(&mut service, "");
    assert_eq!(response.status(), StatusCode::OK, "nothing limits a request without a key");
    assert!(!response.headers().contains_key("ratelimit"));

    clock.advance(Duration::from_secs(59));
    assert_eq!(call(&mut service, "alice").status(), StatusCode::TOO_MANY_REQUESTS);
    clock.advance(Duration::from_secs(1));
    assert_eq!(call(&mut service, "alice").status(), StatusCode::OK);
}

#[test]
fn who_is_refused_holds_no_place_in_the_service() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (_db, asks) = asks(dir.path(), &clock);
    let inner = Permitted::default();
    let mut service = LimitLayer::new(asks).layer(inner.clone());
    for expected in [200, 200, 429, 429] {
        assert_eq!(call(&mut service, "alice").status(), expected);
        assert_eq!(inner.permits.load(Ordering::Relaxed), 0, "a permit of a call that is over");
    }
    assert_eq!(call(&mut service, "bob").status(), 200, "it is still to be had");
}

#[test]
fn where_no_limit_can_be_asked_it_is_as_was_said() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (db, asks) = asks(dir.path(), &clock);
    let mut closed = LimitLayer::new(asks.clone()).layer(Permitted::default());
    let open = LimitLayer::new(asks).on_failure(OnFailure::Allow);
    let mut open = open.layer(Permitted::default());
    let too_long = "k".repeat(2_000);
    for service in [&mut closed, &mut open] {
        let response = call(service, &too_long);
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "a long key is no way around");
    }
    db.close().unwrap();
    let response = call(&mut closed, "alice");
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let problem = r#"{"type":"about:blank","title":"Service Unavailable","status":503}"#;
    assert_eq!(response.body(), problem, "what failed is nothing for a client");
    let response = call(&mut open, "alice");
    assert_eq!((response.status(), response.body().as_str()), (StatusCode::OK, "/thing"));
    assert!(!response.headers().contains_key("ratelimit"));
}

#[test]
fn a_refusal_can_have_a_page_of_its_own() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let (_db, asks) = asks(dir.path(), &clock);
    let layer = LimitLayer::new(asks).refuse_with(|refusal| {
        let Refusal::Limited(told) = refusal else { panic!("{refusal:?}") };
        let wait = told.retry_after().unwrap();
        let page =
            Response::builder().status(refusal.status()).header("content-type", "text/plain");
        page.body(format!("wait for {wait} seconds")).unwrap()
    });
    let mut service = layer.layer(Permitted::default());
    let responses = [(); 3].map(|()| call(&mut service, "alice"));
    let refused = responses.last().unwrap();
    assert_eq!(
        (refused.status(), refused.body().as_str()),
        (StatusCode::TOO_MANY_REQUESTS, "wait for 60 seconds")
    );
    assert_eq!(texts(refused.headers(), "content-type"), ["text/plain"]);
    assert_eq!(texts(refused.headers(), "retry-after"), ["60"], "the layer's fields are there");
}

#[test]
fn several_layers_tell_all_of_their_quotas() {
    let (dirs, clock) = ([(); 2].map(|()| tempfile::tempdir().unwrap()), clock());
    let (_outer, outer) = asks(dirs[0].path(), &clock);
    let (_inner, inner) = asks(dirs[1].path(), &clock);
    let mut one = LimitLayer::new(inner.clone()).layer(Permitted::default());
    let mut both = LimitLayer::new(outer).layer(one.clone());
    let response = call(&mut both, "alice");
    let two = [r#""minute";r=1;t=60"#; 2];
    assert_eq!(texts(response.headers(), "ratelimit"), two);
    call(&mut one, "alice");
    let response = call(&mut both, "alice");
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(texts(response.headers(), "ratelimit-policy").len(), 2);
    assert_eq!(
        texts(response.headers(), "ratelimit"),
        [r#""minute";r=0;t=60"#],
        "the one that refused"
    );
    assert_eq!(texts(response.headers(), "retry-after"), ["60"]);

    // A service that says by itself when to come back.
    let mut busy = Permitted::default();
    busy.headers.insert("retry-after", "5".parse().unwrap());
    let response = call(&mut LimitLayer::new(inner).layer(busy), "bob");
    assert_eq!(texts(response.headers(), "retry-after"), ["5"]);
    assert_eq!(texts(response.headers(), "ratelimit"), [""; 0], "no t is behind that");
}
