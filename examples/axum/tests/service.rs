//! The service as a client sees it: over HTTP, before and after a restart.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends there")]

use quipu::{Db, TestClock, Timestamp};
use quipu_axum::{Keys, Tier, options, service, set_policies};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// The service on a port of its own, until it is dropped.
struct Server {
    address: SocketAddr,
    _runtime: Runtime,
}

impl Server {
    fn start(dir: &Path, clock: &TestClock) -> (Self, Db) {
        let db = options().clock(clock.clone()).open(dir).unwrap();
        let keys = [("ann", Tier::Free), ("bob", Tier::Free), ("pat", Tier::Pro)];
        let keys = Keys::new(keys.map(|(key, tier)| (key.to_owned(), tier)).into());
        set_policies(&db).unwrap();
        let service = service(&db, keys).unwrap();
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, service).await.unwrap() });
        (Server { address, _runtime: runtime }, db)
    }

    fn get(&self, key: Option<&str>) -> Response {
        let mut request = "GET /time HTTP/1.1\r\nHost: api\r\nConnection: close\r\n".to_owned();
        if let Some(key) = key {
            write!(request, "X-Api-Key: {key}\r\n").unwrap();
        }
        request += "\r\n";
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        Response { head: head.to_owned(), body: body.to_owned() }
    }
}

struct Response {
    head: String,
    body: String,
}

impl Response {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The value of a field.
    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

#[test]
fn callers_have_what_their_tier_allows_also_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("api");
    let clock = TestClock::at(Timestamp::parse_rfc3339("2026-11-26T10:30:00Z").unwrap());
    let (server, db) = Server::start(&dir, &clock);

    assert_eq!(server.get(None).status(), 401);
    assert_eq!(server.get(Some("eve")).status(), 401);
    for left in (0..5).rev() {
        let response = server.get(Some("ann"));
        assert_eq!(response.status(), 200, "{}", response.head);
        assert!(response.body.ends_with("seconds since 1970\n"), "{}", response.body);
        assert_eq!(response.field("ratelimit-policy"), Some(r#""minute";q=5;w=60"#));
        assert_eq!(response.field("ratelimit"), Some(&*format!(r#""minute";r={left};t=60"#)));
        assert_eq!(response.field("retry-after"), None);
    }
    let refused = server.get(Some("ann"));
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.field("ratelimit"), Some(r#""minute";r=0;t=60"#));
    assert_eq!(refused.field("retry-after"), Some("60"));
    assert_eq!(refused.field("content-type"), Some("application/problem+json"));
    assert!(refused.body.contains(r#""violated-policies":["minute"]"#), "{}", refused.body);
    assert_eq!(server.get(Some("bob")).status(), 200, "each key has its own");

    let paying = server.get(Some("pat"));
    let policy = r#""minute";q=100;w=60,"day";q=10000;w=86400"#;
    assert_eq!(paying.field("ratelimit-policy"), Some(policy));
    assert_eq!(paying.field("ratelimit"), Some(r#""minute";r=99;t=60"#));

    // Dropped as it is, without being closed.
    drop((server, db));
    clock.advance(Duration::from_secs(20));
    let (server, db) = Server::start(&dir, &clock);
    let refused = server.get(Some("ann"));
    assert_eq!((refused.status(), refused.field("retry-after")), (429, Some("40")));
    clock.advance(Duration::from_secs(39));
    assert_eq!(server.get(Some("ann")).status(), 429, "a second too early");
    clock.advance(Duration::from_secs(1));
    assert_eq!(server.get(Some("ann")).status(), 200);
    let calls = db.query("calls").unwrap().get(&["ann"]).unwrap().unwrap();
    assert_eq!(calls.count, 6, "what was refused is not counted");
}

#[test]
fn clients_that_call_at_the_same_time_have_the_limit_together() {
    let root = tempfile::tempdir().unwrap();
    let clock = TestClock::at(Timestamp::parse_rfc3339("2026-11-26T10:30:00Z").unwrap());
    let (server, _db) = Server::start(&root.path().join("api"), &clock);
    let let_in = std::thread::scope(|scope| {
        let client = || (0..30).filter(|_| server.get(Some("pat")).status() == 200).count();
        let clients = [(); 4].map(|()| scope.spawn(client));
        clients.into_iter().map(|client| client.join().unwrap()).sum::<usize>()
    });
    assert_eq!(let_in, 100);
}
