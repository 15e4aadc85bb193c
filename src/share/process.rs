//! A process that serves many: what it was asked, what is on its way to it, and how far it is in its life.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::SeatKey;
use super::listens::Listens;
use super::turns::Turns;
use crate::buffers::budget::UNCHARGED_BYTES;
use crate::buffers::outbox::Outbox;
use crate::protocol::lines::Splitter;
use crate::session::restart::RestartPolicy;
use crate::util::client_address::Origin;
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

/// How far a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Nobody needs it.
    Absent,
    /// It was asked for.
    Asked,
    Up,
    /// The next one may be asked for at this time.
    Cooling(Time),
    /// It was lost too often, and is not asked for until then.
    Barred(Time),
}

/// Whose a request at the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Request {
        /// `None` once the client has left.
        seat: Option<SeatKey>,
        identity: Origin,
        /// When it was given up, if it was.
        given_up: Option<Time>,
    },
    Listen,
}

/// A process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) life: Life,
    pub(super) policy: RestartPolicy,
    pub(super) splitter: Splitter,
    /// With the numbers of the requests.
    pub(super) outbox: Outbox<u64>,
    pub(super) owners: BTreeMap<u64, Owner>,
    pub(super) listens: Listens,
    pub(super) turns: Turns,
    /// Requests of it that count.
    pub(super) in_flight: usize,
    of_identities: HashMap<Origin, usize>,
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
    pub(super) charged: usize,
}

impl Process {
    pub(super) fn new(max_restarts: u32) -> Self {
        Self {
            life: Life::Absent,
            policy: RestartPolicy::new(max_restarts),
            splitter: Splitter::verbatim(),
            outbox: Outbox::new(),
            owners: BTreeMap::new(),
            listens: Listens::default(),
            turns: Turns::default(),
            in_flight: 0,
            of_identities: HashMap::new(),
            given_up: VecDeque::new(),
            seats: 0,
            unused_until: None,
            last_moved: Time::default(),
            is_woken: false,
            charged: 0,
        }
    }

    /// A request is at the process.
    pub(super) fn begin(&mut self, number: u64, seat: SeatKey, identity: Origin, now: Time) {
        if self.in_flight == 0 {
            self.last_moved = now;
        }
        self.in_flight += 1;
        *self.of_identities.entry(identity).or_default() += 1;
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
        if let Owner::Request { identity, .. } = owner {
            self.in_flight -= 1;
            if let Some(count) = self.of_identities.get_mut(&identity) {
                *count -= 1;
                if *count == 0 {
                    self.of_identities.remove(&identity);
                }
            }
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
    pub(super) fn has_its_share(&self, identity: Origin) -> bool {
        let count = self.of_identities.get(&identity);
        count.is_some_and(|count| *count >= MAX_OF_IDENTITY)
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
    pub(super) fn deadline(&self) -> Option<Time> {
        let given_up = self.given_up.front().map(|(until, _)| *until);
        let life = match self.life {
            Life::Cooling(until) | Life::Barred(until) => Some(until),
            Life::Absent | Life::Asked | Life::Up => None,
        };
        let all = [given_up, life, self.unused_until];
        all.into_iter().flatten().min()
    }

    /// Forgets what it was asked: it is gone. Returns whose that was, in order.
    pub(super) fn forget(&mut self) -> Vec<(u64, Owner)> {
        self.splitter.clear();
        self.given_up.clear();
        self.in_flight = 0;
        self.of_identities.clear();
        std::mem::take(&mut self.owners).into_iter().collect()
    }
}
