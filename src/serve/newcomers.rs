//! Connections that were let in and of which the first line has not come: it says whether the client comes back to a session
//! that is there, which needs no place and no server. They are not waited for for long.

mod state;

use std::collections::VecDeque;
use std::time::Duration;

use mio::{Interest, Token};
use serde::{Deserialize, Serialize};
use slab::Slab;

pub(super) use self::state::NewcomersState;
use super::client::ClientSession;
use super::system::{ClientSocket, System};
use super::{Channel, Due, Proxy};
use crate::entrance::Identity;
use crate::protocol::envelope::{Envelope, Message};
use crate::reactor::io::{Input, Io, Readiness};
use crate::reactor::timers::{Deadline, Timers};
use crate::reactor::token::{MAX_KEYS, Target};
use crate::resume::first_look::{FirstLook, LOOK_TIME};
use crate::scheduler::SessionKey;
use crate::session::{Event, Session};
use crate::util::about::about;
use crate::util::client_address::ClientAddress;
use crate::util::service_key::ServiceKey;
use crate::util::time::Time;

/// What is read at once, in bytes: twice the longest first line.
const READ_BYTES: usize = 16 * 1024;

/// Whoever has sent a request waits this long for the place of a session that was given up for it: as long as it takes a
/// server to stop, by force if need be.
const PLACE_TIME: Duration = Duration::from_secs(10);

/// What is watched of a connection.
pub(super) const INTEREST: Interest = Interest::READABLE
    .add(Interest::WRITABLE)
    .add(Interest::PRIORITY);

/// Names a newcomer. It is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewcomerKey(pub usize);

/// The connections.
pub(super) struct Newcomers<C> {
    all: Slab<Newcomer<C>>,
    /// Those that may have said something, each at most once.
    ready: VecDeque<NewcomerKey>,
    /// Those that wait for a place, in order.
    waiting: VecDeque<NewcomerKey>,
}

struct Newcomer<C> {
    io: Io<C>,
    arrival: Arrival,
    look: FirstLook,
    deadline: Deadline,
    at: Time,
    queued: bool,
    /// Whether it waits for a place.
    waits: bool,
}

/// Whose connection it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Arrival {
    pub(super) client: ClientAddress,
    pub(super) service: ServiceKey,
    pub(super) identity: Option<Identity>,
}

impl<C> Default for Newcomers<C> {
    fn default() -> Self {
        Self {
            all: Slab::new(),
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
        }
    }
}

impl<C> Newcomers<C> {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Latches what an event says of a connection.
    pub(super) fn latch(&mut self, key: NewcomerKey, token: Token, readiness: Readiness) {
        if let Some(newcomer) = self.all.get_mut(key.0)
            && newcomer.io.latch(token, readiness)
            && !newcomer.waits
            && !std::mem::replace(&mut newcomer.queued, true)
        {
            self.ready.push_back(key);
        }
    }

    /// Closes all of them.
    pub(super) fn close(&mut self, timers: &mut Timers<Due>) {
        for mut newcomer in self.all.drain() {
            newcomer.deadline.clear(timers);
        }
        self.ready.clear();
        self.waiting.clear();
    }

    /// Has those for one server go on to the one that has taken its place, and closes those for whom there is none.
    pub(super) fn move_on(
        &mut self,
        new: impl Fn(&Arrival) -> Option<ServiceKey>,
        timers: &mut Timers<Due>,
    ) {
        let mut left = Vec::new();
        for (key, newcomer) in &mut self.all {
            match new(&newcomer.arrival) {
                Some(service) => newcomer.arrival.service = service,
                None => left.push(NewcomerKey(key)),
            }
        }
        for key in left {
            self.leave(key, timers);
        }
    }

    /// Closes those of which the connections are like that.
    pub(super) fn leave_if(&mut self, is_like: impl Fn(&C) -> bool, timers: &mut Timers<Due>) {
        let all = self.all.iter();
        let left = all.filter(|(_, newcomer)| is_like(newcomer.io.source()));
        let left: Vec<NewcomerKey> = left.map(|(key, _)| NewcomerKey(key)).collect();
        for key in left {
            self.leave(key, timers);
        }
    }

    fn leave(&mut self, key: NewcomerKey, timers: &mut Timers<Due>) -> Option<Newcomer<C>> {
        let mut newcomer = self.all.try_remove(key.0)?;
        newcomer.deadline.clear(timers);
        if newcomer.waits {
            self.waiting.retain(|other| *other != key);
        }
        Some(newcomer)
    }
}

impl<S: System> Proxy<S> {
    /// How many connections there are of which the first line is waited for.
    pub fn newcomers(&self) -> usize {
        let resuming = self.resuming.as_ref();
        resuming.map_or(0, |resuming| resuming.newcomers.len())
    }

    /// A connection was accepted, and nothing is asked of it.
    pub(super) fn newcome(&mut self, client: S::Client, arrival: Arrival) {
        let Some(resuming) = &self.resuming else {
            return;
        };
        let key = resuming.newcomers.all.vacant_key();
        if key >= MAX_KEYS {
            return;
        }
        let target = Target {
            key,
            channel: Channel::Newcomer,
        };
        match self.reactor.register(client, target, INTEREST) {
            Ok(io) => self.look_at(io, arrival, FirstLook::default()),
            Err(error) => self.pause(&error),
        }
    }

    /// A connection was let in, after it had sent this.
    pub(super) fn let_in(&mut self, io: Io<S::Client>, arrival: Arrival, early: &[u8]) {
        let Some(resuming) = &self.resuming else {
            return;
        };
        let mut look = FirstLook::default();
        if look.take(early) {
            return self.decide(io, arrival, look);
        }
        let target = Target {
            key: resuming.newcomers.all.vacant_key(),
            channel: Channel::Newcomer,
        };
        if target.key >= MAX_KEYS {
            return;
        }
        match self.reactor.hand_over(io, target, INTEREST) {
            Ok(mut io) => {
                // What came with the last that was read of a TLS connection is decrypted already.
                io.note_readable();
                self.look_at(io, arrival, look);
            }
            Err(error) => self.pause(&error),
        }
    }

    fn look_at(&mut self, io: Io<S::Client>, arrival: Arrival, look: FirstLook) {
        let now = self.now();
        let Some(resuming) = &mut self.resuming else {
            return;
        };
        let newcomers = &mut resuming.newcomers;
        let queued = io.is_readable();
        let at = now + LOOK_TIME;
        let key = NewcomerKey(newcomers.all.insert(Newcomer {
            io,
            arrival,
            look,
            deadline: Deadline::default(),
            at,
            queued,
            waits: false,
        }));
        if queued {
            newcomers.ready.push_back(key);
        }
        let deadline = &mut newcomers.all[key.0].deadline;
        deadline.set(Some(at), Due::Newcomer(key), &mut self.reactor.timers);
    }

    /// Reads what newcomers have said.
    pub(super) fn run_newcomers(&mut self) {
        let count = self.resuming.as_ref();
        let count = count.map_or(0, |resuming| resuming.newcomers.ready.len());
        for _ in 0..count {
            let Some(resuming) = &mut self.resuming else {
                return;
            };
            let newcomers = &mut resuming.newcomers;
            let Some(key) = newcomers.ready.pop_front() else {
                return;
            };
            // It may be gone, and its key another's.
            let Some(newcomer) = newcomers.all.get_mut(key.0) else {
                continue;
            };
            if !std::mem::take(&mut newcomer.queued) {
                continue;
            }
            let scratch = &mut self.scheduler.scratch()[..READ_BYTES];
            if newcomer.read(scratch) {
                self.is_known(key);
            }
        }
    }

    /// Nothing more is waited for.
    fn is_known(&mut self, key: NewcomerKey) {
        let Some(resuming) = &mut self.resuming else {
            return;
        };
        let newcomer = resuming.newcomers.leave(key, &mut self.reactor.timers);
        if let Some(newcomer) = newcomer {
            self.decide(newcomer.io, newcomer.arrival, newcomer.look);
        }
    }

    /// The time of a newcomer has come.
    pub(super) fn newcomer_timeout(&mut self, key: NewcomerKey) {
        let now = self.now();
        let Some(resuming) = &mut self.resuming else {
            return;
        };
        let Some(newcomer) = resuming.newcomers.all.get_mut(key.0) else {
            return;
        };
        newcomer.deadline.fired();
        if newcomer.at > now {
            let (at, due) = (newcomer.at, Due::Newcomer(key));
            newcomer
                .deadline
                .set(Some(at), due, &mut self.reactor.timers);
        } else {
            self.is_known(key);
        }
    }

    /// A connection becomes a session that can't be resumed.
    pub(super) fn open_plain(
        &mut self,
        io: Io<S::Client>,
        arrival: Arrival,
        look: FirstLook,
    ) -> Option<()> {
        let place = self.place_of(io, arrival.service, arrival.identity)?;
        let key = self.open_session(arrival.client, place);
        self.log_identity(key);
        let session = self.scheduler.session(key);
        let is_heard = session.is_some_and(|session| !session.was_refused());
        let early = look.into_bytes();
        if is_heard && !early.is_empty() {
            self.tell(key, Event::ClientBytes(&early));
        }
        Some(())
    }

    pub(super) fn log_identity(&self, key: SessionKey) {
        let place = self.scheduler.place(key);
        let shown = place.and_then(ClientSession::identity);
        let label = self.scheduler.session(key).map(Session::label);
        if let (Some(shown), Some(label)) = (shown, label) {
            about!(info, label, "let in as {shown}");
        }
    }

    /// A connection of the next session.
    pub(super) fn place_of(
        &mut self,
        io: Io<S::Client>,
        service: ServiceKey,
        identity: Option<Identity>,
    ) -> Option<ClientSession<S>> {
        let key = self.scheduler.next_key();
        if key.0 >= MAX_KEYS {
            return None;
        }
        let io = self.hand_to_session(io, key)?;
        Some(ClientSession::new(service, io, identity))
    }

    /// From now on, events about a connection are about the one of this session.
    pub(super) fn hand_to_session(
        &mut self,
        io: Io<S::Client>,
        key: SessionKey,
    ) -> Option<Io<S::Client>> {
        let target = Target {
            key: key.0,
            channel: Channel::Client,
        };
        match self.reactor.hand_over(io, target, INTEREST) {
            Ok(mut io) => {
                // An end that was read is read once more.
                io.note_readable();
                if io.source().is_tls() {
                    io.expect_short_writes();
                }
                Some(io)
            }
            Err(error) => {
                self.pause(&error);
                None
            }
        }
    }

    /// At the limit, whoever has sent a request gets the place of the session that has been without a connection longest, and
    /// waits for it. Returns the connection if that is not so.
    pub(super) fn wait_for_place(
        &mut self,
        io: Io<S::Client>,
        arrival: Arrival,
        look: FirstLook,
    ) -> Option<(Io<S::Client>, Arrival, FirstLook)> {
        let is_full = self.is_full();
        if !is_full || !has_request(&look) || !self.give_up_oldest_detached() {
            return Some((io, arrival, look));
        }
        let now = self.now();
        let Some(resuming) = &mut self.resuming else {
            return Some((io, arrival, look));
        };
        let key = resuming.newcomers.all.vacant_key();
        let target = Target {
            key,
            channel: Channel::Newcomer,
        };
        let io = match self.reactor.hand_over(io, target, INTEREST) {
            Ok(io) => io,
            Err(error) => {
                self.pause(&error);
                return None;
            }
        };
        let mut deadline = Deadline::default();
        let at = now + PLACE_TIME;
        let key = NewcomerKey(key);
        deadline.set(Some(at), Due::Newcomer(key), &mut self.reactor.timers);
        resuming.newcomers.all.insert(Newcomer {
            io,
            arrival,
            look,
            deadline,
            at,
            queued: false,
            waits: true,
        });
        resuming.newcomers.waiting.push_back(key);
        None
    }

    /// A session is gone: whoever waits for its place gets it.
    pub(super) fn place_is_free(&mut self) {
        let Some(resuming) = &self.resuming else {
            return;
        };
        if let Some(key) = resuming.newcomers.waiting.front().copied()
            && !self.is_full()
        {
            self.is_known(key);
        }
    }

    /// What holds between two iterations. Returns how many deadlines are set.
    pub(super) fn check_newcomers(&self) -> usize {
        let Some(resuming) = &self.resuming else {
            return 0;
        };
        for (key, newcomer) in &resuming.newcomers.all {
            let is_queued = resuming.newcomers.ready.contains(&NewcomerKey(key));
            assert!(
                !newcomer.queued || is_queued,
                "newcomer {key} is not queued"
            );
            assert_eq!(newcomer.deadline.at(), Some(newcomer.at));
        }
        resuming.newcomers.len()
    }
}

impl<C: ClientSocket> Newcomer<C> {
    /// Reads what has come. Returns whether there is nothing more to wait for.
    fn read(&mut self, scratch: &mut [u8]) -> bool {
        while self.io.is_readable() {
            let read = self.io.read(scratch);
            if self.io.source().holds_input() {
                self.io.note_readable();
            }
            match read {
                Input::Bytes(count) => {
                    if self.look.take(&scratch[..count]) {
                        return true;
                    }
                }
                Input::Blocked => return false,
                Input::End | Input::Broken(_) => return true,
            }
        }
        false
    }
}

/// Whether a request is among what has come.
fn has_request(look: &FirstLook) -> bool {
    let Some((line, rest)) = look.line() else {
        return false;
    };
    let mut lines = std::iter::once(line).chain(rest.split(|byte| *byte == b'\n'));
    lines.any(|line| {
        let message = Message::read(line);
        message.is_ok_and(|message| {
            let mut envelopes = message.envelopes().iter();
            envelopes.any(|envelope: &Envelope<'_>| envelope.request_id().is_some())
        })
    })
}
