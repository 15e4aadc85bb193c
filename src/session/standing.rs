//! What a legacy client has set up at its server, and would lose with it in silence: subscriptions to resources, and the log
//! level. After a replay of the handshake the next server is told of them again, in the client's words but under ids of
//! the proxy's own.
//!
//! Here is also decided when the handshake is replayed to a server for which the client has no line: until then it would
//! tell nothing of what it was subscribed to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::stderr::excerpt;
use super::upstream::{ToUpstream, Upstream};
use super::{Context, Session, era::Era};
use crate::protocol::envelope::{Envelope, Message, Method};
use crate::protocol::id::{MAX_ID_BYTES, RequestId};
use crate::protocol::json;
use crate::util::about::about;
use crate::util::side_bytes;

/// After the notice of a restart, a client that knows about restarts has this long to begin anew: more than it takes over
/// any network, and not so long that many updates are missed.
pub(super) const UNASKED_REPLAY_DELAY: Duration = Duration::from_secs(2);

/// What is kept of one session for this, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// What the client has set up, in order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Standing(Option<Box<SetUp>>);

#[derive(Debug, Default, Serialize, Deserialize)]
struct SetUp {
    entries: Vec<Entry>,
    bytes: usize,
    is_too_large: bool,
    /// Whether there may be subscriptions of which the end can't be told.
    has_unfollowed: bool,
    /// How many lines were ever sent again: each has an id of its own.
    restored: u64,
    /// The ids of those that the present server has not answered.
    awaited: Vec<RequestId>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    what: What,
    #[serde(with = "side_bytes")]
    line: Box<[u8]>,
    /// The id of the request, until it is answered.
    pending: Option<RequestId>,
    /// The opening request that it followed.
    opening: u32,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum What {
    LogLevel,
    /// A subscription, by the URI of the resource.
    Subscription(Box<str>),
}

impl Standing {
    /// It has set up nothing.
    pub(super) const NOTHING: Self = Self(None);

    /// Whether the server has agreed to anything.
    pub(super) fn has_any(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|set_up| set_up.entries.iter().any(|entry| entry.pending.is_none()))
    }

    /// There is a subscription that is not kept, and of which the end can't be told.
    pub(super) fn note_unfollowed(&mut self) {
        self.0.get_or_insert_default().has_unfollowed = true;
    }

    /// Whether there is any subscription, or may be: not all are kept if there are many.
    pub(super) fn has_subscriptions(&self) -> bool {
        self.0.as_ref().is_some_and(|set_up| {
            let mut entries = set_up.entries.iter();
            let may_be_more = set_up.is_too_large || set_up.has_unfollowed;
            may_be_more || entries.any(|entry| entry.what != What::LogLevel)
        })
    }

    /// The server has answered this request, and agreed if `agreed`; or no server ever gets it.
    #[inline]
    pub(super) fn answered(&mut self, id: &RequestId, agreed: bool) {
        if let Some(set_up) = &mut self.0 {
            set_up.answered(id, agreed);
        }
    }

    /// The server has agreed to an `initialize`: what the client set up before this opening request is over.
    pub(super) fn begin_anew(&mut self, opening: u32) {
        if let Some(set_up) = &mut self.0 {
            set_up.forget(|entry| entry.opening < opening);
        }
    }

    /// What it has not answered was never agreed to, except for requests that wait for the next one.
    fn server_lost(&mut self, waits: impl Fn(&RequestId) -> bool) {
        if let Some(set_up) = &mut self.0 {
            set_up.forget(|entry| entry.pending.as_ref().is_some_and(|id| !waits(id)));
            set_up.awaited.clear();
        }
    }
}

impl SetUp {
    /// The request with this id was answered.
    #[inline(never)]
    fn answered(&mut self, id: &RequestId, agreed: bool) {
        let is_meant = |entry: &Entry| entry.pending.as_ref() == Some(id);
        if !agreed {
            return self.forget(is_meant);
        }
        let Some(at) = self.entries.iter().position(is_meant) else {
            return;
        };
        let mut entry = self.take(at);
        entry.pending = None;
        self.forget(|other| other.what == entry.what && other.pending.is_none());
        self.put(at, entry);
    }

    fn take(&mut self, at: usize) -> Entry {
        let entry = self.entries.remove(at);
        self.bytes -= entry.size();
        entry
    }

    fn put(&mut self, at: usize, entry: Entry) {
        self.bytes += entry.size();
        self.entries.insert(at.min(self.entries.len()), entry);
    }

    fn forget(&mut self, is_meant: impl Fn(&Entry) -> bool) {
        self.entries.retain(|entry| !is_meant(entry));
        self.bytes = self.entries.iter().map(Entry::size).sum();
    }
}

impl Entry {
    fn size(&self) -> usize {
        let key = match &self.what {
            What::LogLevel => 0,
            What::Subscription(uri) => uri.len(),
        };
        size_of::<Self>() + self.line.len() + key
    }

    /// The line under another id, given as JSON text.
    fn line_as(&self, id: &str) -> Option<Vec<u8>> {
        let Ok(Message::Single(envelope)) = Message::read(&self.line) else {
            return None;
        };
        let old = envelope.id_range()?;
        let (before, after) = (&self.line[..old.start], &self.line[old.end..]);
        Some([before, id.as_bytes(), after].concat())
    }
}

// Recording.
impl Session {
    /// What the client has set up, if it may have set up anything.
    #[inline]
    pub(super) fn any_standing(&mut self) -> Option<&mut Standing> {
        self.rare.changed().map(|rare| &mut rare.standing)
    }

    /// The server is gone, and what it had not read or was not sent waits for the next one.
    pub(super) fn forget_unanswered_standing(&mut self) {
        if self.rare.standing.0.is_none() {
            return;
        }
        let waiting: Vec<RequestId> = self
            .held()
            .tags()
            .flat_map(ToUpstream::requests)
            .map(|request| request.id.clone())
            .collect();
        if let Some(standing) = self.any_standing() {
            standing.server_lost(|id| waiting.contains(id));
        }
    }

    /// A request of the client is forwarded.
    pub(super) fn note_standing(&mut self, request: &Envelope<'_>, id: &RequestId, line: &[u8]) {
        let what = match request.method {
            Some(Method::Subscribe) => resource(request).map(What::Subscription),
            Some(Method::SetLevel) => Some(What::LogLevel),
            Some(Method::Unsubscribe) => {
                let what = resource(request).map(What::Subscription);
                let set_up = self.any_standing().and_then(|it| it.0.as_mut());
                if let Some((set_up, what)) = set_up.zip(what) {
                    set_up.forget(|entry| entry.what == what);
                }
                return;
            }
            _ => return,
        };
        let Some(what) = what.filter(|_| matches!(self.era, Era::Legacy { .. })) else {
            if request.method == Some(Method::Subscribe) {
                self.rare.change().standing.note_unfollowed();
            }
            return;
        };
        let entry = Entry {
            what,
            line: line.into(),
            pending: Some(id.clone()),
            opening: self.handshake.openings(),
        };
        let set_up = self.rare.change().standing.0.get_or_insert_default();
        if set_up.bytes + entry.size() <= MAX_BYTES {
            set_up.put(usize::MAX, entry);
        } else if !std::mem::replace(&mut set_up.is_too_large, true) {
            about!(
                warn,
                self.label,
                "the client has set up too much for all of it to be kept (over {MAX_BYTES} bytes); the rest is not \
                 restored after a restart"
            );
        }
    }
}

/// The resource that a request is about.
fn resource(request: &Envelope<'_>) -> Option<Box<str>> {
    let params = request.params()?;
    let [uri] = json::find(params, ["uri"])?;
    serde_json::from_str::<String>(params.get(uri?)?)
        .ok()
        .map(Into::into)
}

// Restoring.
impl Session {
    /// Replays the handshake if its time has come although the client has said nothing.
    pub(super) fn replay_unasked(&mut self, cx: &mut Context<'_>) {
        let Upstream::Up(up) = &mut self.upstream else {
            return;
        };
        if up.unasked_replay_at().is_none_or(|at| at > cx.now) {
            return;
        }
        if let Some(early) = &mut up.early {
            early.replay_at = None;
        }
        debug_assert!(self.held().is_empty(), "a line would have begun the replay");
        if self.goal.is_serve() {
            self.start_replay(cx);
        }
    }

    /// Tells a server that has agreed to the replayed handshake what the client had set up.
    pub(super) fn restore_standing(&mut self, cx: &mut Context<'_>) {
        let Some(set_up) = self.rare.changed().and_then(|it| it.standing.0.as_mut()) else {
            return;
        };
        let settled = set_up
            .entries
            .iter()
            .filter(|entry| entry.pending.is_none());
        for entry in settled {
            set_up.restored += 1;
            let id = format!("\"mcp-tcp-proxy-restore-{}\"", set_up.restored);
            let Some(line) = entry.line_as(&id) else {
                continue;
            };
            about!(debug, self.label, "proxy → server: {}", excerpt(&line));
            set_up.awaited.push(RequestId::new(&id));
            self.to_upstream
                .push(&line, Some(ToUpstream::Restored), cx.memory);
        }
    }

    /// Takes the server's answer to a line that was sent again. Returns whether it was one: the client has its answer.
    pub(super) fn take_restored(&mut self, response: &Envelope<'_>) -> bool {
        let Some(set_up) = self.any_standing().and_then(|it| it.0.as_mut()) else {
            return false;
        };
        let id = response.response_id().filter(|id| id.len() <= MAX_ID_BYTES);
        let Some(id) = id.filter(|_| !set_up.awaited.is_empty()) else {
            return false;
        };
        let id = RequestId::of(id);
        let Some(at) = set_up.awaited.iter().position(|awaited| *awaited == id) else {
            return false;
        };
        set_up.awaited.swap_remove(at);
        if !response.has_result() {
            about!(
                warn,
                self.label,
                "the new server refuses what the client had set up: {id}"
            );
        }
        true
    }
}
