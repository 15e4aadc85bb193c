//! Many clients, few servers: what stands between sessions and the processes that they share.
//!
//! Nothing in here knows a descriptor, a process of the system or a clock. Lines go in on both sides, lines come out on
//! both sides, and what is to be done about processes and sessions comes out as [`Effect`]s.
//!
//! # Words
//!
//! - **seat**: a session's place here. For the session it is its upstream: what would go to a server of its own goes to
//!   [`Share::client_lines`], and what a server of its own would say waits in [`Share::to_client`]. A seat outlives the
//!   processes that serve it, so a session with one never loses its upstream.
//! - **process**: a server process that serves many seats, or its place while there is none. There are as many places as
//!   the user wants, one more for the process that is asked what the server speaks (`era`), and one where those are
//!   tried whose requests may have killed others (`suspects`).
//! - **number**: what the proxy puts in the place of a request's id and of its progress token. Numbers count up and are never
//!   used twice, not even by another process, so what bears one is one client's whatever has happened since.
//!
//! # The way of a request
//!
//! ```text
//!   client line ─ client_line ──► requests ──► seat.waiting ──► turns ──► process.outbox ──────► server
//!                 reads strictly  renumbers    waits its turn   one of    at most a pipe's
//!                                                               many      worth
//!
//!   server line ─ server_line ──► responses ─► seat.to_client ──────────────────────────────► session
//!                 finds the number restores     at most 64 KiB, then the client gets nothing
//!                                               more done until it reads
//! ```
//!
//! # Who owns what
//!
//! A seat has the open requests of its client (`seat::Open`: the id and the token as the client wrote them). A process has
//! the numbers of what it was sent (`process::Owner`), which lead back to the seat. A number that a process says and was not
//! sent, or that nobody waits for, leads to nobody: the line is dropped and counted. That is all that keeps the clients
//! apart, so it holds wherever a line comes from: the number must be known *at this process*.
//!
//! Listens to the same share one at the process (`listens`). Its number leads to all that listen, and each hears of it
//! under the id of its own request.
//!
//! # What is fair
//!
//! Those who have something to send take turns, by identity and then by seat; a turn is worth a pipe's content. What a seat
//! has at a process is limited, and so is what an identity has there while others wait. Beyond that requests wait in the
//! seat, and beyond the limits of what may wait they are refused: reading never stops, so a cancellation always gets
//! through.

mod affinity;
mod client_line;
mod discovered;
mod drops;
mod edit;
mod era;
mod for_client;
mod groups;
mod hibernation;
mod identity;
mod life;
mod listens;
mod open_requests;
mod pools;
mod process;
mod record;
mod recycling;
mod requests;
mod resources;
mod responses;
mod seat;
mod server_line;
mod state;
mod suspects;
#[cfg(test)]
mod tests;
mod turns;
mod uris;

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use slab::Slab;

use self::affinity::Affinity;
pub use self::client_line::Dropped;
use self::discovered::Discovered;
pub use self::drops::Drops;
use self::era::ServerEra;
use self::groups::Groups;
pub use self::identity::Identity;
use self::process::{Pool, Process};
pub use self::responses::STALL_BYTES;
use self::seat::Seat;
pub use self::server_line::Unattributed;
use self::suspects::Suspects;
use crate::buffers::budget::BufferBudget;
use crate::session::counts::ErrorCounts;
use crate::util::large_slab;
use crate::util::time::Time;
use crate::util::{pairs, side_bytes};

/// For so long a client may take nothing of a lot that waits for it.
const STALL_TIME: Duration = Duration::from_secs(30);

/// Names a seat. It is used again after the seat was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeatKey(pub usize);

/// Names the place of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessKey(pub usize);

/// How much there may be of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Processes that are shared.
    pub processes: usize,
    /// Requests of a session at a process.
    pub in_flight: usize,
    /// How many times each process is restarted within the window of its policy.
    pub max_restarts: u32,
    /// Whether lost processes are replaced at once.
    pub restarts: bool,
    /// The longest line either way as its receiver gets it, in bytes, without its line end.
    pub max_message_bytes: usize,
    /// Whether sessions that open with `initialize` share processes, too.
    pub legacy: bool,
    /// How long a process may take to answer `initialize`.
    pub handshake_time: Duration,
    /// After this time a process is replaced.
    pub max_age: Option<Duration>,
    /// After as many requests a process is replaced.
    pub max_requests: Option<u64>,
    /// After how long a process goes that no session uses; `None` for never.
    pub hibernate_after: Option<Duration>,
}

impl Limits {
    /// How many processes there are at most, but for those that are being replaced: one is asked for the era, and suspects
    /// are tried at another. There may be a group of legacy clients for each version.
    pub fn most_processes(&self) -> usize {
        let groups = if self.legacy { groups::MAX_GROUPS } else { 0 };
        self.processes * (1 + groups) + 2
    }
}

/// What something is done with.
#[derive(Debug)]
pub struct Context<'a> {
    pub now: Time,
    /// The memory that all sessions share.
    pub memory: &'a mut BufferBudget,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Start a process, and report [`Share::process_started`] or [`Share::process_failed`].
    Start(ProcessKey),
    /// End a process, and report [`Share::process_ended`].
    Stop(ProcessKey),
    /// The same, but it is not used any more: nothing is to be reported of it, and its place is free at once.
    GiveBack(ProcessKey),
    /// There is something in [`Share::to_process`].
    Write(ProcessKey),
    /// There is something in [`Share::to_client`].
    Wake(SeatKey),
    /// End the session: its client does not take what it gets, for this reason.
    Close(SeatKey, Cow<'static, str>),
    /// End the session: the server is not the one that its client knows.
    Changed(SeatKey),
    /// A process has written this line, which is not a message.
    NoMessage(ProcessKey, #[serde(with = "side_bytes")] Box<[u8]>),
    /// A process has written a line of as many bytes, which is too long for whoever it is for.
    TooLong(ProcessKey, u64),
}

/// What a process has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Requests that are there and count.
    pub in_flight: usize,
    /// Seats that use it.
    pub seats: usize,
    /// Whether it has taken and said nothing for long although work waits.
    pub is_silent: bool,
}

/// The seats and the processes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Share {
    limits: Limits,
    #[serde(with = "pairs")]
    seats: Slab<Seat>,
    /// Those that are shared, the one that is asked for the era, and the one where suspects are tried.
    processes: Vec<Process>,
    era: ServerEra,
    /// How often the server has said nothing of that when it was asked, since it was last known to be another.
    silences: u32,
    suspects: Suspects,
    groups: Groups,
    affinity: Affinity,
    discovered: Discovered,
    /// Seats for which there is no process that takes anything.
    homeless: BTreeSet<SeatKey>,
    last_number: u64,
    last_serial: u64,
    /// Seats for whose clients a lot waits, or did.
    stalled: Vec<SeatKey>,
    effects: VecDeque<Effect>,
    drops: Drops,
    errors: ErrorCounts,
}

impl Share {
    /// No seats, and no process yet.
    pub fn new(limits: Limits) -> Self {
        let shared = std::iter::repeat_n(Pool::Modern, limits.processes);
        let pools = shared.chain([Pool::Probe, Pool::Solo(None)]);
        let processes = pools.map(|pool| Process::new(pool, limits.max_restarts));
        Self {
            limits,
            seats: large_slab::new(),
            processes: processes.collect(),
            era: ServerEra::Unknown,
            silences: 0,
            suspects: Suspects::default(),
            groups: Groups::default(),
            affinity: Affinity::default(),
            discovered: Discovered::default(),
            homeless: BTreeSet::new(),
            last_number: 0,
            last_serial: 0,
            stalled: Vec::new(),
            effects: VecDeque::new(),
            drops: Drops::default(),
            errors: ErrorCounts::default(),
        }
    }

    /// A session comes. Limits count its client as `identity`.
    pub fn take_seat(&mut self, identity: impl Into<Identity>) -> SeatKey {
        let identity = identity.into();
        self.affinity.arrive(&identity);
        SeatKey(self.seats.insert(Seat::new(identity)))
    }

    /// Whether any session has a seat.
    pub fn has_seats(&self) -> bool {
        !self.seats.is_empty()
    }

    /// A session goes: nothing more is done for it, and what still comes for it reaches nobody.
    pub fn leave(&mut self, key: SeatKey, cx: &mut Context<'_>) {
        if !self.seats.contains(key.0) {
            return;
        }
        for number in self.numbers(key) {
            let Some(at) = self.seats[key.0].open.numbered(number) else {
                continue;
            };
            if let Some((process, number)) = self.withdraw(key, at, true, cx) {
                self.tell_cancelled(process, number, "the client has left", cx);
            }
        }
        let used = self.seats[key.0].process;
        self.unpin(key, cx);
        let seat = self.seats.remove(key.0);
        cx.memory.recharge(seat.charged, 0);
        if let Some(process) = used {
            self.note_unused(process, cx);
        }
        let used = used.filter(|process| self.processes[process.0].is_running());
        let used = used.map(|process| (process, self.processes[process.0].serial));
        self.affinity.leave(&seat.identity, used, cx.now);
        if let Some(group) = seat.group() {
            self.groups.leave(group, key);
            self.forget_unused(group);
        }
        self.homeless.remove(&key);
        self.stalled.retain(|other| *other != key);
        self.end_trial_of(key, cx);
        if let ServerEra::Asked { waiting, .. } = &mut self.era {
            waiting.remove(&key);
        }
        // Who comes next may have the same key.
        self.effects.retain(
            |effect| !matches!(effect, Effect::Wake(seat) | Effect::Close(seat, _) | Effect::Changed(seat) if *seat == key),
        );
    }

    fn numbers(&self, key: SeatKey) -> Vec<u64> {
        let open = self.seats[key.0].open.iter();
        open.map(|open| open.number).collect()
    }

    /// What waits for the client of a seat.
    pub fn to_client(&self, key: SeatKey) -> &[u8] {
        let seat = self.seats.get(key.0);
        seat.map_or(&[], |seat| seat.to_client.waiting())
    }

    /// The first bytes of that, this many, were taken.
    pub fn client_took(&mut self, key: SeatKey, count: usize, cx: &mut Context<'_>) {
        let Some(seat) = self.seats.get_mut(key.0) else {
            return;
        };
        let was_backed_up = seat.is_backed_up();
        seat.to_client.consume(count, cx.memory);
        if count > 0 && seat.stalled_since.is_some() {
            seat.stalled_since = Some(cx.now);
        }
        if was_backed_up && !seat.is_backed_up() {
            self.seek_turn(key, cx);
        }
        self.recharge_seat(key, cx);
    }

    /// What waits for a process.
    pub fn to_process(&self, key: ProcessKey) -> &[u8] {
        self.processes[key.0].outbox.waiting()
    }

    /// The first bytes of that, this many, were written.
    pub fn process_written(&mut self, key: ProcessKey, count: usize, cx: &mut Context<'_>) {
        let process = &mut self.processes[key.0];
        process.moved(cx.now);
        process.outbox.consume(count, cx.memory);
        while process.outbox.next_started().is_some() {}
        self.dispatch(key, cx);
        self.stop_if_done(key);
        self.house_homeless(cx);
        self.recharge_process(key, cx);
    }

    /// What is to be done next.
    pub fn next_effect(&mut self) -> Option<Effect> {
        let effect = self.effects.pop_front()?;
        match effect {
            Effect::Wake(key) => self.seats[key.0].is_woken = false,
            Effect::Write(key) => self.processes[key.0].is_woken = false,
            _ => {}
        }
        Some(effect)
    }

    /// Whether something is to be done.
    pub fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// When [`Self::timeout`] is due, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Time> {
        let processes = self.processes.iter();
        let processes = processes.filter_map(|process| process.deadline(&self.limits));
        let stalled = self.stalled.iter().filter_map(|key| {
            let since = self.seats.get(key.0)?.stalled_since?;
            Some(since + STALL_TIME)
        });
        let trial = self.suspects.deadline();
        let own = self.probe_deadline().into_iter().chain(trial);
        processes.chain(stalled).chain(own).min()
    }

    /// Errors that clients got from here.
    pub fn errors(&self) -> ErrorCounts {
        self.errors
    }

    /// What reached nobody so far.
    pub fn drops(&self) -> Drops {
        self.drops
    }

    /// What a process has to do.
    pub fn load(&self, key: ProcessKey, now: Time) -> Load {
        let process = &self.processes[key.0];
        Load {
            in_flight: process.in_flight,
            seats: process.seats,
            is_silent: process.is_silent(now),
        }
    }

    /// Whether a process is for those of whom one may be to blame for crashes.
    pub fn is_solo(&self, key: ProcessKey) -> bool {
        key == self.solo()
    }

    /// Ends the sessions of clients that have taken nothing for too long of a lot.
    fn close_stalled(&mut self, cx: &mut Context<'_>) {
        for key in std::mem::take(&mut self.stalled) {
            let Some(seat) = self.seats.get_mut(key.0) else {
                continue;
            };
            if seat.to_client.len() < STALL_BYTES {
                seat.stalled_since = None;
            } else if seat
                .stalled_since
                .is_some_and(|since| since + STALL_TIME <= cx.now)
            {
                self.close_seat(key, "it has taken nothing for 30 s", cx);
            } else {
                self.stalled.push(key);
            }
        }
    }

    fn wake_seat(&mut self, key: SeatKey) {
        let seat = &mut self.seats[key.0];
        if !seat.is_woken {
            seat.is_woken = true;
            self.effects.push_back(Effect::Wake(key));
        }
    }

    fn wake_process(&mut self, key: ProcessKey, cx: &mut Context<'_>) {
        let process = &mut self.processes[key.0];
        if !process.is_woken {
            process.is_woken = true;
            self.effects.push_back(Effect::Write(key));
        }
        self.recharge_process(key, cx);
    }

    fn recharge_seat(&mut self, key: SeatKey, cx: &mut Context<'_>) {
        if let Some(seat) = self.seats.get_mut(key.0) {
            let charge = seat.charge();
            if charge != seat.charged {
                cx.memory.recharge(seat.charged, charge);
                seat.charged = charge;
            }
        }
    }

    fn recharge_process(&mut self, key: ProcessKey, cx: &mut Context<'_>) {
        let process = &mut self.processes[key.0];
        let charge = process.charge();
        if charge != process.charged {
            cx.memory.recharge(process.charged, charge);
            process.charged = charge;
        }
    }
}
