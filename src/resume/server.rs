//! What the proxy knows of a client that may come back, besides the channel.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::totals::{Counted, Totals};
use super::{Channel, Fingerprint};
use crate::buffers::budget::BufferBudget;
use crate::util::side_bytes;
use crate::util::time::Time;

/// A client that sends nothing for two and a half of its heartbeat intervals is taken for lost: two may be late, a third is
/// not. In halves, to stay within integers.
const SILENT_HALF_INTERVALS: u32 = 5;

/// However short its intervals are, it is not taken for lost as if they were shorter than this: machines stand still for
/// longer than some intervals.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// More takeovers than this in [`CONTENTION_TIME`], without anything moved in between, are not those of one client on a bad
/// network: two fight for the session. If both of them move lines, they soon know different numbers.
pub(super) const MOST_TAKEOVERS: usize = 5;

/// See [`MOST_TAKEOVERS`].
pub(super) const CONTENTION_TIME: Duration = Duration::from_secs(10);

/// What becomes of an attempt to resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takeover {
    /// It goes on.
    Granted,
    /// There was a later one.
    Stale,
    /// There were too many of them while the connection was alive.
    Contended,
}

/// A session that can be resumed. An idle one is small.
#[allow(
    clippy::struct_excessive_bools,
    reason = "each may hold with any other"
)]
#[derive(Debug, Serialize, Deserialize)]
pub struct Server {
    /// This end.
    pub channel: Channel,
    id: Fingerprint,
    last_heard: Time,
    rare: Option<Box<Rare>>,
    /// How long the client may be silent, in milliseconds.
    patience: u32,
    /// Whether the system says that the client is gone.
    has_vanished: bool,
    /// Whether the client has said that it sends no more, and is gone when its connection is.
    pub has_left: bool,
    /// Whether the end of its side was read.
    pub has_ended: bool,
    /// Whether more has come for the client while it was away than is kept, so that the session ends.
    pub has_overflowed: bool,
}

// It is in a piece of memory of its own, and those come in steps.
const _: () = assert!(size_of::<Server>() <= 120);

/// What is seldom there.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Rare {
    /// The last attempt; the first connection was none.
    attempt: u64,
    /// What the totals have of it.
    #[serde(skip)]
    counted: Counted,
    /// What has come and was not looked at.
    #[serde(with = "side_bytes")]
    early: Vec<u8>,
    /// Whether it is this side that gives the connection up.
    is_given_up: bool,
    /// Since when there is no connection.
    lost_since: Option<Time>,
    /// Since when the session has nothing more to say.
    ending_since: Option<Time>,
    /// When live connections were taken over that had moved nothing, if that was not long ago.
    takeovers: VecDeque<Time>,
    /// How many lines either side had taken at the last one.
    moved: (u64, u64),
}

impl Server {
    /// A session begins, of a client that sends heartbeats this often.
    pub fn new(id: Fingerprint, channel: Channel, heartbeat: Duration, now: Time) -> Self {
        let patience = heartbeat.max(LEAST_INTERVAL) * SILENT_HALF_INTERVALS / 2;
        Self {
            channel,
            id,
            last_heard: now,
            rare: None,
            patience: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
            has_vanished: false,
            has_left: false,
            has_ended: false,
            has_overflowed: false,
        }
    }

    /// What has come with the first line is looked at later.
    pub fn set_early(&mut self, early: Vec<u8>) {
        // What an earlier connection has brought and nobody has looked at comes once more.
        if !early.is_empty() || self.rare.is_some() {
            self.rare.get_or_insert_default().early = early;
        }
    }

    /// Takes what had come with the first line.
    pub fn take_early(&mut self) -> Vec<u8> {
        let rare = self.rare.as_mut();
        let early = rare.map_or_else(Vec::new, |rare| std::mem::take(&mut rare.early));
        self.forget_rare();
        early
    }

    /// Lets go of the memory for what is not there.
    fn forget_rare(&mut self) {
        self.rare.take_if(|rare| **rare == Rare::default());
    }

    fn counted(&self) -> Counted {
        let rare = self.rare.as_ref();
        rare.map_or_else(Counted::default, |rare| rare.counted)
    }

    /// The totals have this of it.
    fn count(&mut self, bytes: usize, totals: &mut Totals) {
        let counted = Counted {
            bytes,
            // Of nothing, it does not matter.
            is_detached: bytes > 0 && self.channel.is_detached(),
        };
        let before = self.counted();
        if before != counted {
            totals.change(before, counted);
            self.rare.get_or_insert_default().counted = counted;
            self.forget_rare();
        }
    }

    /// What is left of its id.
    pub fn id(&self) -> Fingerprint {
        self.id
    }

    /// Something came from the client.
    pub fn heard(&mut self, now: Time) {
        self.last_heard = now;
    }

    /// The system says that the client is not there any more.
    pub fn vanished(&mut self) {
        self.has_vanished = true;
    }

    /// The connection can't be kept, although there is nothing wrong with it.
    pub fn give_connection_up(&mut self) {
        self.has_vanished = true;
        self.rare.get_or_insert_default().is_given_up = true;
    }

    /// Whether it was given up.
    pub fn is_given_up(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.is_given_up)
    }

    /// How long nothing has come.
    pub fn silence(&self, now: Time) -> Duration {
        now.saturating_since(self.last_heard)
    }

    /// Whether the client is taken for lost.
    pub fn is_silent(&self, now: Time) -> bool {
        !self.channel.is_detached() && (self.has_vanished || self.silent_at() <= now)
    }

    fn silent_at(&self) -> Time {
        self.last_heard + Duration::from_millis(self.patience.into())
    }

    /// The connection is lost.
    pub fn lost(&mut self, now: Time) {
        self.channel.detach();
        self.rare.get_or_insert_default().lost_since = Some(now);
    }

    /// The session has nothing more to say.
    pub fn ends(&mut self, now: Time) {
        let rare = self.rare.get_or_insert_default();
        rare.ending_since.get_or_insert(now);
    }

    /// When the client is not waited for any more: it does not come back, or does not take the end.
    pub fn gives_up_at(&self, timeout: Duration) -> Option<Time> {
        let rare = self.rare.as_ref()?;
        let since = rare.lost_since.or(rare.ending_since)?;
        Some(since + timeout)
    }

    /// Since when there is no connection.
    pub fn lost_since(&self) -> Option<Time> {
        self.rare.as_ref()?.lost_since
    }

    /// Somebody comes back for the session, who has taken this many lines.
    pub fn take_over(&mut self, attempt: u64, lines: Option<u64>, now: Time) -> Takeover {
        let last = self.rare.as_ref().map_or(0, |rare| rare.attempt);
        if attempt <= last {
            return Takeover::Stale;
        }
        self.rare.get_or_insert_default().attempt = attempt;
        if self.channel.is_detached() {
            return Takeover::Granted;
        }
        let moved = (self.channel.taken(), lines.unwrap_or_default());
        let Rare {
            takeovers,
            moved: before,
            ..
        } = &mut **self.rare.get_or_insert_default();
        if std::mem::replace(before, moved) != moved {
            takeovers.clear();
        }
        takeovers.retain(|at| *at + CONTENTION_TIME > now);
        takeovers.push_back(now);
        if takeovers.len() > MOST_TAKEOVERS {
            Takeover::Contended
        } else {
            Takeover::Granted
        }
    }

    /// It is back.
    pub fn resumed(&mut self, now: Time) {
        self.last_heard = now;
        self.has_vanished = false;
        if let Some(rare) = &mut self.rare {
            rare.lost_since = None;
            rare.is_given_up = false;
        }
        self.has_left = false;
        self.has_ended = false;
    }

    /// Charges the memory for what is kept, and has it in the totals.
    pub fn recharge(&mut self, totals: &mut Totals, memory: &mut BufferBudget) {
        self.channel.recharge(memory);
        self.count(self.channel.charge(), totals);
    }

    /// The same at its end.
    pub fn release(&mut self, totals: &mut Totals, memory: &mut BufferBudget) {
        self.channel.release(memory);
        self.count(0, totals);
    }

    /// When something is due: the client is taken for lost, or has been lost for `timeout`, or an acknowledgement is owed.
    /// `waiting` is what waits for the other side of the session.
    pub fn deadline(&self, timeout: Duration, waiting: usize) -> Option<Time> {
        if let Some(at) = self.gives_up_at(timeout) {
            return Some(at);
        }
        let silent_at = (!self.has_ended).then(|| self.silent_at());
        let of_channel = self.channel.deadline(waiting);
        of_channel.into_iter().chain(silent_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{SessionId, Side};
    use super::*;

    const NOW: Time = Time::from_nanos(1 << 40);

    fn server(heartbeat: Duration) -> Server {
        let id = Fingerprint::of(&SessionId::new([1; 16]));
        Server::new(id, Channel::new(Side::Proxy, 1000), heartbeat, NOW)
    }

    fn in_seconds(seconds: u64) -> Time {
        NOW + Duration::from_secs(seconds)
    }

    #[test]
    fn only_a_later_attempt_counts() {
        let mut server = server(Duration::from_secs(10));
        assert_eq!(server.take_over(0, Some(0), NOW), Takeover::Stale);
        assert_eq!(server.take_over(3, Some(0), NOW), Takeover::Granted);
        assert_eq!(server.take_over(3, Some(0), NOW), Takeover::Stale);
        assert_eq!(server.take_over(4, Some(0), NOW), Takeover::Granted);
    }

    #[test]
    fn many_takeovers_of_a_live_connection_are_one_too_many() {
        let mut server = server(Duration::from_secs(10));
        for attempt in 1..=5 {
            assert_eq!(server.take_over(attempt, Some(0), NOW), Takeover::Granted);
        }
        assert_eq!(
            server.take_over(6, Some(0), in_seconds(9)),
            Takeover::Contended
        );
        assert_eq!(
            server.take_over(7, Some(0), in_seconds(10)),
            Takeover::Granted
        );
        server.lost(in_seconds(10));
        for attempt in 8..30 {
            assert_eq!(
                server.take_over(attempt, Some(0), in_seconds(10)),
                Takeover::Granted
            );
        }
    }

    #[test]
    fn takeovers_with_something_moved_in_between_are_those_of_a_bad_network() {
        let mut server = server(Duration::from_secs(10));
        for attempt in 1..100 {
            // Every other one brings the news that another line was taken.
            let lines = Some(attempt / 2);
            let takeover = server.take_over(attempt, lines, NOW);
            assert_eq!(takeover, Takeover::Granted, "{attempt}");
        }
    }

    #[test]
    fn a_client_is_lost_after_some_of_its_heartbeats_and_gone_after_the_time() {
        let timeout = Duration::from_mins(2);
        let mut server = server(Duration::from_secs(10));
        assert_eq!(server.deadline(timeout, 0), Some(in_seconds(25)));
        server.heard(in_seconds(5));
        assert!(!server.is_silent(in_seconds(29)) && server.is_silent(in_seconds(30)));
        server.lost(in_seconds(30));
        assert!(!server.is_silent(in_seconds(60)));
        assert_eq!(server.deadline(timeout, 0), Some(in_seconds(150)));
        let hasty = self::server(Duration::from_millis(1));
        assert_eq!(
            hasty.deadline(timeout, 0),
            Some(NOW + Duration::from_millis(2500))
        );
    }
}
