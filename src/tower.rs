//! Limits in front of a service: a layer for tower, and so for axum, tonic and hyper.
//!
//! For each request a program's own closure asks a limit; the layer sends what it answered. A request that is
//! let in goes to the service behind, and the fields `RateLimit-Policy` and `RateLimit` are added to its
//! response. One that is refused is answered with 429, `Retry-After` and a body that says why, and the service
//! behind never sees it.
//!
//! Invariants
//! 1. The service that was found ready is the one that is called. Where none is called, because the
//!    request is refused, a fresh clone takes its place: a place in a queue or a permit that the ready one
//!    holds is given back at once, not with the next request.
//! 2. A request is let in because a limit said so, because the closure asked none, or because the store
//!    failed and the layer was told to let in then ([`OnFailure::Allow`]).
//!
//! Next: `limit/http.rs`.

use crate::{Error, ErrorKind, HttpVerdict, Result};
use ::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use ::http::request::Parts;
use ::http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

const POLICY: &str = "ratelimit-policy";
const LIMIT: &str = "ratelimit";

/// Asks a limit for each request, before the service behind is called.
///
/// The closure gets the head of a request, and gives what
/// [`Limiter::check_and_record_http`](crate::Limiter::check_and_record_http) or
/// [`Limit::check_and_record_http`](crate::Limit::check_and_record_http) answers, or `None` for a request
/// that nothing limits. It is called on the thread that serves the request, and what it asks takes
/// microseconds: what is recorded at [`Durability::Interval`](crate::Durability), the default, does
/// not wait for the disk, and only a key that is not in memory is read from it. At `Durability::Sync`
/// each request that is let in waits on its thread until the disk has it, milliseconds in which the runtime can
/// not use that thread: limit such requests in a handler, on a thread that may wait.
///
/// Several layers can stand one behind the other. Each adds its fields; of a refusal `RateLimit` and
/// `Retry-After` are of the layer that refused.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let clock = quipu::TestClock::at(quipu::Timestamp::from_secs(1_700_000_000));
/// # use std::{convert::Infallible, future::{Ready, ready}, task::{Context, Poll, Waker}};
/// # #[derive(Clone)]
/// # struct Hello;
/// # impl tower_service::Service<Request<()>> for Hello {
/// #     type Response = Response<String>;
/// #     type Error = Infallible;
/// #     type Future = Ready<Result<Response<String>, Infallible>>;
/// #     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
/// #         Poll::Ready(Ok(()))
/// #     }
/// #     fn call(&mut self, _: Request<()>) -> Self::Future {
/// #         ready(Ok(Response::new("hello".to_owned())))
/// #     }
/// # }
/// use http::{Request, Response, request::Parts};
/// use quipu::tower::LimitLayer;
/// use quipu::{Constraint, Event, Options, Policy, View, Window};
/// use std::time::Duration;
/// use tower_layer::Layer;
///
/// let calls = View::new("calls").by(["key"]).rate_limit_grains();
/// let db = Options::new().clock(clock).view(calls).open(dir.path().join("api"))?;
/// let minute = Constraint::at_most(1, Window::rolling(Duration::from_mins(1))).named("minute");
/// db.set_policy(Policy::new("free").on("calls", minute))?;
/// let free = db.limiter("free")?;
/// let layer = LimitLayer::new(move |request: &Parts| {
///     let Some(key) = request.headers.get("x-api-key").and_then(|key| key.to_str().ok()) else {
///         return Ok(None); // not limited here
///     };
///     free.check_and_record_http(&Event::new("call").dim("key", key)).map(Some)
/// });
///
/// // Or, of axum: Router::new().route("/", get(hello)).layer(layer)
/// let service = layer.layer(Hello);
/// # let call = |key: &str| {
/// #     use tower_service::Service;
/// #     let request = Request::get("/").header("x-api-key", key).body(()).unwrap();
/// #     let mut context = Context::from_waker(Waker::noop());
/// #     match Box::pin(service.clone().call(request)).as_mut().poll(&mut context) {
/// #         Poll::Ready(response) => response.unwrap(),
/// #         Poll::Pending => unreachable!(),
/// #     }
/// # };
/// let response = call("alice");
/// assert_eq!(response.status(), 200);
/// assert_eq!(response.headers()["ratelimit-policy"], r#""minute";q=1;w=60"#);
/// let response = call("alice");
/// assert_eq!(response.status(), 429);
/// assert_eq!(response.headers()["retry-after"], "60");
/// assert_eq!(call("bob").status(), 200);
/// # Ok::<(), quipu::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until a service is put behind it"]
pub struct LimitLayer<A, R = Problem> {
    asks: A,
    on_failure: OnFailure,
    refuses: R,
}

/// What happens to a request when its limit cannot be asked: the disk is full, the store is closed.
///
/// What the request itself causes is refused with 400 in either case ([`ErrorKind::Invalid`], as of a key that is
/// longer than any is): else it would be a way around the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It is refused, with 503: what must not happen too often does not happen at all. The default, for
    /// that is what a limit on logins or on what costs money is for, and it is noticed.
    #[default]
    Refuse,
    /// It is let in: the service matters more than its limits.
    Allow,
}

/// Why a request is refused.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// A limit said so.
    Limited(HttpVerdict),
    /// No limit could be asked.
    Failed(Error),
}

/// What is answered to a request that is refused. The layer adds the header fields of the limit.
///
/// [`Problem`], which the layer begins with, is for bodies that can be made of a `String`. For others, and
/// for a page of your own, a closure does; see [`LimitLayer::refuse_with`].
pub trait Refuse<B> {
    /// The response to the client.
    fn refuse(&self, refusal: &Refusal) -> Response<B>;
}

/// Refuses with `application/problem+json` (RFC 9457): see [`Refusal::problem`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Problem;

impl<A> LimitLayer<A>
where
    A: Fn(&Parts) -> Result<Option<HttpVerdict>>,
{
    /// A layer that lets in what the limits allow that this asks. Errors of the closure are logged and, unless
    /// it is told otherwise, refuse the request ([`OnFailure`]).
    pub fn new(asks: A) -> Self {
        LimitLayer { asks, on_failure: OnFailure::default(), refuses: Problem }
    }
}

impl<A, R> LimitLayer<A, R> {
    /// Says what happens to a request when its limit cannot be asked.
    ///
    /// ```
    /// use quipu::tower::{LimitLayer, OnFailure};
    ///
    /// let layer = LimitLayer::new(|_| Ok(None)).on_failure(OnFailure::Allow);
    /// # let _ = layer;
    /// ```
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.on_failure = on_failure;
        self
    }

    /// Says what is answered to a request that is refused.
    ///
    /// ```
    /// use http::Response;
    /// use quipu::tower::{LimitLayer, Refusal};
    ///
    /// let layer = LimitLayer::new(|_| Ok(None)).refuse_with(|refusal: &Refusal| {
    ///     let page = format!("<p>Not now ({}).", refusal.status());
    ///     let response = Response::builder().status(refusal.status()).header("content-type", "text/html");
    ///     response.body(page.into_bytes()).expect("the fields are right")
    /// });
    /// # let _ = layer;
    /// ```
    pub fn refuse_with<B, F>(self, refuses: F) -> LimitLayer<A, F>
    where
        F: Fn(&Refusal) -> Response<B>,
    {
        LimitLayer { asks: self.asks, on_failure: self.on_failure, refuses }
    }
}

impl Refusal {
    /// The status of the response: 429 for a limit, 400 for a request that no limit can be asked for, 503
    /// where the store failed.
    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::Limited(_) => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Failed(error) if error.kind() == ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            Refusal::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A body for it, as JSON: [`HttpVerdict::problem`], or one that says the status alone. What failed is in
    /// the log, and is nothing for a client.
    pub fn problem(&self) -> String {
        let of_limit = match self {
            Refusal::Limited(told) => told.problem(),
            Refusal::Failed(_) => None,
        };
        of_limit.unwrap_or_else(|| {
            let (status, title) = (self.status(), self.status().canonical_reason());
            let title = title.unwrap_or_default();
            format!(r#"{{"type":"about:blank","title":"{title}","status":{}}}"#, status.as_u16())
        })
    }
}

impl<B: From<String>> Refuse<B> for Problem {
    fn refuse(&self, refusal: &Refusal) -> Response<B> {
        let mut response = Response::new(B::from(refusal.problem()));
        *response.status_mut() = refusal.status();
        let json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }
}

impl<B, F: Fn(&Refusal) -> Response<B>> Refuse<B> for F {
    fn refuse(&self, refusal: &Refusal) -> Response<B> {
        self(refusal)
    }
}

impl<S, A: Clone, R: Clone> Layer<S> for LimitLayer<A, R> {
    type Service = LimitService<S, A, R>;

    fn layer(&self, inner: S) -> Self::Service {
        LimitService { inner, layer: self.clone() }
    }
}

/// A service with a limit before it, made by [`LimitLayer`].
#[derive(Clone, Debug)]
pub struct LimitService<S, A, R = Problem> {
    inner: S,
    layer: LimitLayer<A, R>,
}

impl<S, A, R, Q, B> Service<Request<Q>> for LimitService<S, A, R>
where
    S: Service<Request<Q>, Response = Response<B>> + Clone,
    A: Fn(&Parts) -> Result<Option<HttpVerdict>>,
    R: Refuse<B>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = LimitFuture<S::Future, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let state = match self.layer.decide(&parts) {
            Decision::LetIn(told) => {
                let future = self.inner.call(Request::from_parts(parts, body));
                State::Passed { future, told }
            }
            Decision::Refuse(refusal) => {
                // Invariant 1.
                self.inner = self.inner.clone();
                State::Refused { response: Some(self.layer.response(&refusal)) }
            }
        };
        LimitFuture { state }
    }
}

/// What becomes of a request.
enum Decision {
    /// With what the client is to be told.
    LetIn(Option<HttpVerdict>),
    Refuse(Refusal),
}

impl<A, R> LimitLayer<A, R>
where
    A: Fn(&Parts) -> Result<Option<HttpVerdict>>,
{
    /// Lets a request in or not (invariant 2).
    fn decide(&self, request: &Parts) -> Decision {
        match (self.asks)(request) {
            Ok(Some(told)) if !told.is_allowed() => Decision::Refuse(Refusal::Limited(told)),
            Ok(told) => Decision::LetIn(told),
            Err(error) if error.kind() == ErrorKind::Invalid => {
                tracing::warn!(%error, "no limit can be asked for a request; it is refused");
                Decision::Refuse(Refusal::Failed(error))
            }
            Err(error) => {
                let on_failure = self.on_failure;
                tracing::error!(%error, ?on_failure, "the limit of a request cannot be asked");
                match on_failure {
                    OnFailure::Allow => Decision::LetIn(None),
                    OnFailure::Refuse => Decision::Refuse(Refusal::Failed(error)),
                }
            }
        }
    }

    fn response<B>(&self, refusal: &Refusal) -> Response<B>
    where
        R: Refuse<B>,
    {
        let mut response = self.refuses.refuse(refusal);
        if let Refusal::Limited(told) = refusal {
            let headers = response.headers_mut();
            add(headers, POLICY, told.policy());
            add(headers, LIMIT, told.rate_limit());
            if let Some(seconds) = told.retry_after() {
                headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
        }
        response
    }
}

/// Adds a field. Those of other layers stay: a list may lie in several fields.
fn add(headers: &mut HeaderMap, name: &'static str, value: Option<&str>) {
    // What is told is printable ASCII, so it always is a value.
    if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
        headers.append(HeaderName::from_static(name), value);
    }
}

pin_project! {
    /// The response of a [`LimitService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct LimitFuture<F, B> {
        #[pin]
        state: State<F, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, B> {
        Passed { #[pin] future: F, told: Option<HttpVerdict> },
        /// Taken when it is given.
        Refused { response: Option<Response<B>> },
    }
}

impl<F, B, E> Future for LimitFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Passed { future, told } => {
                let mut response = ready!(future.poll(context))?;
                if let Some(told) = told {
                    let headers = response.headers_mut();
                    add(headers, POLICY, told.policy());
                    // The service has its own reason to be waited for; no `t` is to be behind that.
                    if !headers.contains_key(RETRY_AFTER) {
                        add(headers, LIMIT, told.rate_limit());
                    }
                }
                Poll::Ready(Ok(response))
            }
            StateProjection::Refused { response } => {
                Poll::Ready(Ok(response.take().expect("a future that is done is not polled again")))
            }
        }
    }
}
