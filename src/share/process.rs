//! A process that serves many: what it was asked, what is on its way to it, and how far it is in its life.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::groups::GroupKey;
use super::identity::Identity;
use super::listens::Listens;
use super::resources::Resources;
use super::turns::Turns;
use super::{Limits, SeatKey};
use crate::buffers::budget::UNCHARGED_BYTES;
use crate::buffers::outbox::Outbox;
use crate::protocol::lines::Splitter;
use crate::session::restart::RestartPolicy;
use crate::util::counts::Counts;
use crate::util::time::Time;

/// Once as many bytes wait for a process, whoever is next waits: a pipe's worth.
pub(super) const OUTBOX_BYTES: usize = 64 * 1024;

/// Requests that may be at a process.
pub(super) const MAX_IN_FLIGHT: usize = 1024;

/// Of these an identity has no more than this while others wait.
pub(super) const MAX_OF_IDENTITY: usize = MAX_IN_FLIGHT / 4;

/// For this long a request that nobody waits for any more counts, if it gets no response.
pub(super) const GIVEN_UP_TIME: Duration = Duration::from_secs(10);

/// A process that has moved nothing for this long with work waiting gets no more sessions.
const SILENCE: Duration = Duration::from_secs(10);

/// For whom a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Pool {
    /// Sessions of modern clients.
    Modern,
    /// Sessions of this group of legacy clients.
    Legacy(GroupKey),
    /// Nobody: it is asked for the era.
    Probe,
    /// A suspect. If that is a legacy client, of this group.
    Solo(Option<GroupKey>),
    /// Nobody any more: another has taken its place.
    Retired,
    /// The place is free.
    None,
}

/// How far a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Life {
    /// Nobody needs it.
    Absent,
    /// It was asked for.
    Asked,
    /// It has until then to answer the proxy's `initialize`.
    Greeting(Time),
    Up,
    /// It gets no more requests, and ends when it has answered those that it has, or then.
    Retiring(Time),
    /// The next one may be asked for at this time.
    Cooling(Time),
    /// It was lost too often, and is not asked for until then.
    Barred(Time),
}

/// Whose a request at the process is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Owner {
    Request {
        /// `None` once the client has left.
        seat: Option<SeatKey>,
        identity: Identity,
        /// When it was given up, if it was.
        given_up: Option<Time>,
    },
    Listen,
    /// The proxy has asked by itself.
    Proxy,
}

/// A process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pool: Pool,
    pub(super) life: Life,
    /// Which of all processes so far it is.
    pub(super) serial: u64,
    /// Since when it can serve.
    serves_since: Time,
    /// The number of the proxy's `initialize`, if it was asked to initialise itself.
    pub(super) greeting: Option<u64>,
    /// Requests of clients that it was sent.
    sent: u64,
    /// Whether it was told to end.
    pub(super) is_stopped: bool,
    /// Whether it was logged that it is silent.
    pub(super) is_reported: bool,
    pub(super) policy: RestartPolicy,
    pub(super) splitter: Splitter,
    /// With the numbers of the requests.
    pub(super) outbox: Outbox<u64>,
    pub(super) owners: BTreeMap<u64, Owner>,
    pub(super) listens: Listens,
    pub(super) resources: Resources,
    pub(super) turns: Turns,
    /// Requests of it that count.
    pub(super) in_flight: usize,
    #[serde(skip)]
    pub(super) of_identities: Counts<Identity>,
    /// Requests that nobody waits for any more, with the time when they stop counting.
    pub(super) given_up: VecDeque<(Time, u64)>,
    /// How many seats are pinned to it.
    pub(super) seats: usize,
    /// When it goes, if no seat uses it until then.
    pub(super) unused_until: Option<Time>,
    /// When it last took or said something, or had nothing to do.
    pub(super) last_moved: Time,
    /// Whether whoever drives it was told to write, and has not.
    pub(super) is_woken: bool,
    #[serde(skip)]
    pub(super) charged: usize,
}

impl Process {
    pub(super) fn new(pool: Pool, max_restarts: u32) -> Self {
        Self {
            pool,
            life: Life::Absent,
            serial: 0,
            serves_since: Time::default(),
            greeting: None,
            sent: 0,
            is_stopped: false,
            is_reported: false,
            policy: RestartPolicy::new(max_restarts),
            splitter: Splitter::verbatim(),
            outbox: Outbox::new(),
            owners: BTreeMap::new(),
            listens: Listens::default(),
            resources: Resources::default(),
            turns: Turns::default(),
            in_flight: 0,
            of_identities: Counts::default(),
            given_up: VecDeque::new(),
            seats: 0,
            unused_until: None,
            last_moved: Time::default(),
            is_woken: false,
            charged: 0,
        }
    }

    /// It was started, as the one of this serial number.
    pub(super) fn start(&mut self, serial: u64, now: Time) {
        self.life = Life::Up;
        self.greeting = None;
        self.serial = serial;
        self.serves_since = now;
        self.sent = 0;
        self.last_moved = now;
    }

    /// It has answered `initialize`. The time that it took for that does not age it: one that takes longer than a process may
    /// serve would be replaced before it has served anybody.
    pub(super) fn greeted(&mut self, now: Time) {
        self.life = Life::Up;
        self.serves_since = now;
    }

    /// It has taken or said something.
    pub(super) fn moved(&mut self, now: Time) {
        self.last_moved = now;
        self.is_reported = false;
    }

    /// Whether there is one.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.life, Life::Greeting(_) | Life::Up | Life::Retiring(_))
    }

    /// Whether it has served long enough, or enough.
    pub(super) fn is_worn(&self, limits: &Limits, now: Time) -> bool {
        let is_old = self.worn_at(limits).is_some_and(|at| at <= now);
        is_old || limits.max_requests.is_some_and(|most| self.sent >= most)
    }

    /// When it has served long enough.
    pub(super) fn worn_at(&self, limits: &Limits) -> Option<Time> {
        let is_serving = matches!(self.pool, Pool::Modern | Pool::Legacy(_));
        let age = limits
            .max_age
            .filter(|_| self.life == Life::Up && is_serving && !self.is_stopped)?;
        Some(self.serves_since + age)
    }

    /// Whether it has legacy clients, or had: what it says is read as such a server's, whoever it is for by now.
    pub(super) fn is_legacy(&self) -> bool {
        self.greeting.is_some()
    }

    /// The group of legacy clients that it is for, if it is for one.
    pub(super) fn group(&self) -> Option<GroupKey> {
        match self.pool {
            Pool::Legacy(group) | Pool::Solo(Some(group)) => Some(group),
            _ => None,
        }
    }

    /// A request is at the process.
    pub(super) fn begin(&mut self, number: u64, seat: SeatKey, identity: Identity, now: Time) {
        if self.in_flight == 0 {
            self.moved(now);
        }
        self.in_flight += 1;
        self.sent += 1;
        self.of_identities.add(identity.clone());
        let owner = Owner::Request {
            seat: Some(seat),
            identity,
            given_up: None,
        };
        self.owners.insert(number, owner);
    }

    /// A request is there no more. Returns whose it was.
    pub(super) fn end(&mut self, number: u64) -> Option<Owner> {
        let owner = self.owners.remove(&number)?;
        if let Owner::Request { identity, .. } = &owner {
            self.in_flight -= 1;
            self.of_identities.remove(identity);
        }
        Some(owner)
    }

    /// Nobody waits for the response to a request any more; with `leaves`, its seat is going to be gone.
    pub(super) fn give_up(&mut self, number: u64, leaves: bool, now: Time) {
        let Some(Owner::Request { seat, given_up, .. }) = self.owners.get_mut(&number) else {
            return;
        };
        if leaves {
            *seat = None;
        }
        if given_up.is_none() {
            let until = now + GIVEN_UP_TIME;
            *given_up = Some(until);
            self.given_up.push_back((until, number));
        }
    }

    /// Takes the next request that was given up long ago.
    pub(super) fn next_overdue(&mut self, now: Time) -> Option<u64> {
        let (until, number) = *self.given_up.front()?;
        let is_known = self.owners.contains_key(&number);
        if is_known && until > now {
            return None;
        }
        self.given_up.pop_front();
        Some(number)
    }

    /// Whether an identity has as many requests at the process as it may while others wait.
    pub(super) fn has_its_share(&self, identity: &Identity) -> bool {
        self.of_identities.of(identity) >= MAX_OF_IDENTITY
    }

    /// Whether one more request may be sent to it.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight < MAX_IN_FLIGHT && self.outbox.len() < OUTBOX_BYTES
    }

    /// Whether it does not do what it was asked.
    pub(super) fn is_silent(&self, now: Time) -> bool {
        let has_work = self.in_flight > 0 || !self.outbox.is_empty();
        self.life == Life::Up && has_work && now.saturating_since(self.last_moved) >= SILENCE
    }

    /// What it is to hold of the shared memory, in bytes.
    pub(super) fn charge(&self) -> usize {
        let beyond = |bytes: usize| bytes.saturating_sub(UNCHARGED_BYTES);
        beyond(self.splitter.capacity()) + beyond(self.outbox.capacity())
    }

    /// When something is to be done about it.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Time> {
        let given_up = self.given_up.front().map(|(until, _)| *until);
        let life = match self.life {
            Life::Greeting(_) | Life::Retiring(_) if self.is_stopped => None,
            Life::Cooling(until)
            | Life::Barred(until)
            | Life::Greeting(until)
            | Life::Retiring(until) => Some(until),
            Life::Absent | Life::Asked | Life::Up => None,
        };
        let all = [given_up, life, self.worn_at(limits), self.unused_until];
        all.into_iter().flatten().min()
    }

    /// Forgets what it was asked: it is gone. Returns whose that was, in order.
    pub(super) fn forget(&mut self) -> Vec<(u64, Owner)> {
        self.splitter.clear();
        self.given_up.clear();
        self.in_flight = 0;
        self.is_stopped = false;
        self.of_identities.clear();
        self.resources = Resources::default();
        std::mem::take(&mut self.owners).into_iter().collect()
    }
}
