//! What only the memory of the present server holds, although nothing is in flight: a question to the user in the middle of
//! a request (`input_required`), and tasks. A session with such things is not idle, as they would be lost with its server.
//!
//! Where idle sessions are ended this is looked for in each message; elsewhere, as other servers may be wanted, only where
//! there may be any. Values are kept as hashes, since servers choose their length.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Context, Session};
use crate::protocol::envelope::{Envelope, Message};
use crate::protocol::json;
use crate::util::time::Time;

/// A server is not kept longer than this for what its client never comes back to: about as long as a user takes for a
/// form, or leaves a task unwatched.
const MAX_TIME: Duration = Duration::from_mins(10);

/// Of more such things than this the oldest are not told apart any more: they are taken to need all of their time.
const MAX_KEPT: usize = 64;

/// What the present server has to remember. Few sessions have anything.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ServerMemory {
    kept: Vec<Kept>,
    /// Until when those are needed that were too many.
    rest_until: Time,
    /// Until when the server is not given back, as it has yet to read something.
    unread_until: Time,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    what: What,
    since: Time,
    until: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum What {
    /// The hash of a `requestState`.
    State(u64),
    /// The hash of a task's id.
    Task(u64),
}

/// What a message says of it.
enum News {
    /// A state to be brought back.
    State(What),
    Task(Task),
}

/// What of a task matters.
struct Task {
    what: What,
    is_over: bool,
    /// How long the server keeps it, counted from its creation.
    ttl: Option<Duration>,
}

impl ServerMemory {
    /// It has nothing to remember.
    pub(super) const EMPTY: Self = Self {
        kept: Vec::new(),
        rest_until: Time::from_nanos(0),
        unread_until: Time::from_nanos(0),
    };

    /// When a session is idle that would be at this time if its server had nothing to remember.
    pub(super) fn needed_until(&self, at: Time) -> Time {
        let kept = self.kept.iter().map(|kept| kept.until);
        kept.fold(at.max(self.rest_until), Time::max)
    }

    /// The same, for one that would be given back.
    pub(super) fn kept_until(&self, at: Time) -> Time {
        self.needed_until(at).max(self.unread_until)
    }

    /// The server has yet to read something: that is looked at again then.
    pub(super) fn note_unread(&mut self, until: Time) {
        self.unread_until = until;
    }

    /// What a message of the server says of it: a result, or a notification about a task.
    fn news_in(&self, envelope: &Envelope<'_>) -> Option<News> {
        if let Some(result) = envelope.result() {
            return News::of(result);
        }
        let is_notification = envelope.method.is_some() && !self.kept.is_empty();
        let params = envelope.params().filter(|_| is_notification)?;
        Task::of(params).map(News::Task)
    }

    fn note(&mut self, news: News, now: Time) {
        match news {
            News::State(state) => self.keep(state, now, MAX_TIME, now),
            News::Task(task) => self.note_task(&task, now),
        }
    }

    /// A message of the client: it may bring what a server has asked for.
    pub(super) fn note_client(&mut self, message: &Message<'_>) {
        if self.kept.is_empty() {
            return;
        }
        for envelope in message.envelopes() {
            let params = envelope.request_id().and(envelope.params());
            if let Some(state) = params.and_then(|params| member(params, "requestState")) {
                let brought = What::State(hash(state));
                self.kept.retain(|kept| kept.what != brought);
            }
        }
    }

    fn note_task(&mut self, task: &Task, now: Time) {
        let known = self.kept.iter().position(|kept| kept.what == task.what);
        let since = known.map_or(now, |at| self.kept.remove(at).since);
        if !task.is_over {
            self.keep(task.what, since, task.ttl.unwrap_or(Duration::MAX), now);
        }
    }

    fn keep(&mut self, what: What, since: Time, time: Duration, now: Time) {
        self.kept
            .retain(|kept| kept.what != what && kept.until > now);
        if self.kept.len() == MAX_KEPT {
            let oldest = self.kept.remove(0);
            self.rest_until = self.rest_until.max(oldest.until);
        }
        let left = time.saturating_sub(now.saturating_since(since));
        self.kept.push(Kept {
            what,
            since,
            until: now + left.min(MAX_TIME),
        });
    }
}

impl News {
    /// Reads a result.
    fn of(result: &str) -> Option<Self> {
        let [kind, state, task] = json::find(result, ["resultType", "requestState", "task"])?;
        let part = |range: Option<std::ops::Range<usize>>| result.get(range?);
        if part(kind) == Some(r#""input_required""#) {
            return part(state).map(|state| Self::State(What::State(hash(state))));
        }
        Task::of(part(task).unwrap_or(result)).map(Self::Task)
    }
}

impl Task {
    /// Reads an object that has the members of a task.
    fn of(object: &str) -> Option<Self> {
        let found = json::find(object, ["taskId", "status", "ttlMs", "ttl"])?;
        let [id, status, ttl_ms, ttl] = found.map(|range| object.get(range?));
        let ttl = ttl_ms.or(ttl).and_then(|ttl| ttl.parse().ok());
        Some(Self {
            what: What::Task(hash(id?)),
            is_over: matches!(status?, r#""completed""# | r#""failed""# | r#""cancelled""#),
            ttl: ttl.map(Duration::from_millis),
        })
    }
}

impl Session {
    /// Whether a message of the server may be about what only the server remembers. Nearly all sessions have no such thing.
    #[inline]
    pub(super) fn may_be_remembered(&self, line: &[u8], cx: &Context<'_>) -> bool {
        let may_be = self.era.is_modern() | self.handshake.has_tasks();
        cx.settings.idle_limits.watch_use() || (may_be && is_about_memory(line))
    }

    #[inline(never)]
    pub(super) fn note_remembered(&mut self, message: &Message<'_>, cx: &Context<'_>) {
        for envelope in message.envelopes() {
            if let Some(news) = self.rare.server_memory.news_in(envelope) {
                self.rare.change().server_memory.note(news, cx.now);
            }
        }
    }
}

fn is_about_memory(line: &[u8]) -> bool {
    let has = |word: &[u8]| memchr::memmem::find(line, word).is_some();
    has(b"taskId") || has(b"input_required")
}

fn member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    let [range] = json::find(object, [name])?;
    object.get(range?)
}

/// The hash of a JSON value; strings are compared by what they mean.
fn hash(value: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    match serde_json::from_str::<String>(value) {
        Ok(text) => text.hash(&mut hasher),
        Err(_) => value.hash(&mut hasher),
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_nanos(1 << 40);
    const MINUTE: Duration = Duration::from_mins(1);

    fn says(memory: &mut ServerMemory, line: &str, now: Time) {
        let message = Message::read(line.as_bytes()).unwrap();
        for envelope in message.envelopes() {
            if let Some(news) = memory.news_in(envelope) {
                memory.note(news, now);
            }
        }
    }

    fn result(result: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#)
    }

    #[test]
    fn a_state_is_needed_until_a_request_brings_it() {
        let mut memory = ServerMemory::default();
        let state = result(r#"{"resultType":"input_required","requestState":"a/é"}"#);
        says(&mut memory, &state, NOW);
        assert_eq!(memory.needed_until(NOW), NOW + MAX_TIME);
        assert_eq!(memory.needed_until(NOW + 2 * MAX_TIME), NOW + 2 * MAX_TIME);
        let bring = |memory: &mut ServerMemory, line: &str| {
            memory.note_client(&Message::read(line.as_bytes()).unwrap());
        };
        bring(
            &mut memory,
            r#"{"id":2,"method":"m","params":{"requestState":"b"}}"#,
        );
        assert_eq!(memory.needed_until(NOW), NOW + MAX_TIME);
        bring(
            &mut memory,
            r#"{"id":2,"method":"m","params":{"requestState":"a\/\u00e9"}}"#,
        );
        assert_eq!(memory.needed_until(NOW), NOW);
    }

    #[test]
    fn a_task_is_needed_until_it_is_over_or_its_time_is() {
        let task = |status: &str, ttl: &str| {
            result(&format!(
                r#"{{"resultType":"task","taskId":"t","status":"{status}","ttlMs":{ttl}}}"#
            ))
        };
        let mut memory = ServerMemory::default();
        says(&mut memory, &task("working", "60000"), NOW);
        assert_eq!(memory.needed_until(NOW), NOW + MINUTE);
        // The time is counted from the beginning, and may be changed.
        let later = NOW + MINUTE / 2;
        says(&mut memory, &task("input_required", "60000"), later);
        assert_eq!(memory.needed_until(NOW), NOW + MINUTE);
        says(&mut memory, &task("working", "null"), later);
        assert_eq!(memory.needed_until(NOW), later + MAX_TIME);
        says(&mut memory, &task("completed", "null"), later);
        assert_eq!(memory.needed_until(NOW), NOW);
    }

    #[test]
    fn legacy_tasks_and_notifications_count_too() {
        let mut memory = ServerMemory::default();
        let task = result(r#"{"task":{"taskId":"t","status":"working","ttl":60000}}"#);
        says(&mut memory, &task, NOW);
        assert_eq!(memory.needed_until(NOW), NOW + MINUTE);
        let over = r#"{"method":"notifications/tasks/status","params":{"taskId":"t","status":"failed","ttl":60000}}"#;
        says(&mut memory, over, NOW);
        assert_eq!(memory.needed_until(NOW), NOW);
    }

    #[test]
    fn other_results_need_no_memory_and_not_everything_is_kept() {
        let mut memory = ServerMemory::default();
        for other in [
            r#"{"resultType":"complete","requestState":"x"}"#,
            r#"{"taskId":"t"}"#,
            r#"{"content":[]}"#,
            "7",
        ] {
            says(&mut memory, &result(other), NOW);
        }
        assert_eq!(memory.needed_until(NOW), NOW);
        for number in 0..1000 {
            let state = format!(r#"{{"resultType":"input_required","requestState":"{number}"}}"#);
            says(&mut memory, &result(&state), NOW);
        }
        assert_eq!(memory.kept.len(), MAX_KEPT);
        let over = r#"{"method":"m","id":1,"params":{"requestState":"0"}}"#;
        memory.note_client(&Message::read(over.as_bytes()).unwrap());
        memory.kept.clear();
        assert_eq!(
            memory.needed_until(NOW),
            NOW + MAX_TIME,
            "those that were too many"
        );
    }
}
