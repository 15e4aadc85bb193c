//! A session that has nothing to do with what is done to the others, and must not notice.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::Client;
use super::{DEADLINE, eventually};

/// Between two requests, so that the machine is left to the others.
const PAUSE: Duration = Duration::from_millis(2);

/// A client that asks and is answered, again and again, on a thread of its own. Each request has to be answered, by the
/// server and by the same one, and nothing else may come.
pub(crate) struct Bystander {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Vec<Duration>>>,
}

/// How long a bystander had to wait for its answers.
#[derive(Debug)]
pub(crate) struct Waits {
    pub(crate) exchanges: u64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) longest: Duration,
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            exchanges,
            p50,
            p99,
            longest,
        } = self;
        write!(
            f,
            "the bystander was answered {exchanges} times, half in {p50:?}, 99 % in {p99:?}, all in {longest:?}"
        )
    }
}

#[derive(Default)]
struct Shared {
    exchanges: AtomicU64,
    is_over: AtomicBool,
}

impl Bystander {
    /// Opens the session, and returns once it has been answered.
    #[track_caller]
    pub(crate) fn start(address: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || talk(&mut Client::connect(address), &shared)
        });
        let bystander = Self {
            shared,
            thread: Some(thread),
        };
        bystander.wait_for(1);
        bystander
    }

    /// Waits until it has been answered that many more times. Each answer has a deadline of its own.
    #[track_caller]
    pub(crate) fn wait_for(&self, exchanges: u64) {
        let count = || self.shared.exchanges.load(Ordering::Relaxed);
        let goal = count() + exchanges;
        while count() < goal {
            let before = count();
            eventually("the bystander's next answer", 2 * DEADLINE, || {
                let runs = self
                    .thread
                    .as_ref()
                    .is_some_and(|thread| !thread.is_finished());
                assert!(runs, "the bystander was harmed");
                count() > before
            });
        }
    }

    /// Ends the session; it must not have noticed anything. Returns how often it was answered, and how long it had to wait.
    #[track_caller]
    pub(crate) fn end(mut self) -> Waits {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let Ok(mut waits) = self.thread.take().unwrap().join() else {
            panic!("the bystander was harmed");
        };
        waits.sort_unstable();
        let at = |share: usize| waits.get((waits.len() * share / 100).saturating_sub(1));
        let at = |share| at(share).copied().unwrap_or_default();
        Waits {
            exchanges: self.shared.exchanges.load(Ordering::Relaxed),
            p50: at(50),
            p99: at(99),
            longest: at(100),
        }
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

fn talk(client: &mut Client, shared: &Shared) -> Vec<Duration> {
    let mut waits = Vec::new();
    let server = ask(client);
    while !shared.is_over.load(Ordering::Relaxed) {
        shared.exchanges.fetch_add(1, Ordering::Relaxed);
        thread::sleep(PAUSE);
        let start = Instant::now();
        assert_eq!(ask(client), server, "another server");
        waits.push(start.elapsed());
    }
    client.shutdown_write();
    assert_eq!(client.read_to_end(), [""; 0]);
    waits
}

/// Returns the process id that the server names, if it names one.
fn ask(client: &mut Client) -> Value {
    let id = client.send_request("pid", &json!({}));
    let mut answer = client.recv_json();
    assert_eq!(answer["id"], id, "{answer}");
    assert_ne!(
        answer["error"]["data"]["source"], "mcp-tcp-proxy",
        "{answer}"
    );
    answer["result"]["pid"].take()
}
