//! Who makes servers crash: those whose requests were at one that did are tried one by one, at a process where they harm
//! nobody else.
//!
//! One crash may be nobody's fault. From the second within a minute on, whoever had a request at the process is a suspect:
//! what it asks next goes to the *solo* process, and to no other. There is one trial at a time. It ends when the request is
//! answered, or has done no harm for a second; then the suspect goes back to the others. If the process dies, it was the
//! suspect, and its identity gets nothing done for a while.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use log::warn;
use serde::{Deserialize, Serialize};

use super::identity::Identity;
use super::process::{Life, Pool};
use super::{Context, ProcessKey, SeatKey, Share};
use crate::protocol::own_messages::ErrorReason;
use crate::util::pairs;
use crate::util::time::Time;

/// Crashes within this time belong together.
const CRASHES_TIME: Duration = Duration::from_mins(1);

/// What kills a server does so sooner than this, as a rule; and there are others who wait for their trials.
const TRIAL_TIME: Duration = Duration::from_secs(1);

/// A trial that can't begin ends after this: the process takes long to start, or the request was taken back.
const START_TIME: Duration = Duration::from_secs(10);

/// For so long nothing is done for those who were convicted.
const QUARANTINE: Duration = Duration::from_mins(1);

/// The same for the third time within [`MEMORY`].
const LONG_QUARANTINE: Duration = Duration::from_mins(10);

/// For so long a conviction is remembered.
const MEMORY: Duration = Duration::from_hours(1);

/// Identities that are remembered, at most.
const MAX_CONVICTED: usize = 10_000;

/// The suspects of all processes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Suspects {
    /// The latest crashes, and whose processes they were.
    crashes: VecDeque<(Time, Pool)>,
    /// Who is tried, and until when.
    trial: Option<(SeatKey, Time)>,
    /// Until when each is a suspect at most, in order.
    suspected: VecDeque<(Time, SeatKey)>,
    /// Who is to be tried, in order.
    waiting: VecDeque<SeatKey>,
    /// When each was convicted.
    #[serde(with = "pairs")]
    convicted: HashMap<Identity, VecDeque<Time>>,
}

impl Suspects {
    /// A process has crashed. Returns whether those who used it are suspects.
    pub(super) fn note_crash(&mut self, pool: Pool, now: Time) -> bool {
        let crashes = &mut self.crashes;
        crashes.retain(|(at, _)| now.saturating_since(*at) < CRASHES_TIME);
        crashes.push_back((now, pool));
        let of_pool = crashes.iter().filter(|(_, other)| *other == pool);
        of_pool.count() > 1
    }

    /// Whether nothing is done for an identity.
    pub(super) fn is_quarantined(&self, identity: &Identity, now: Time) -> bool {
        self.convicted.get(identity).is_some_and(|times| {
            let recent = times
                .iter()
                .filter(|at| now.saturating_since(**at) < MEMORY);
            let time = if recent.count() < 3 {
                QUARANTINE
            } else {
                LONG_QUARANTINE
            };
            times
                .back()
                .is_some_and(|at| now.saturating_since(*at) < time)
        })
    }

    fn convict(&mut self, identity: Identity, now: Time) {
        if self.convicted.len() >= MAX_CONVICTED {
            let is_recent = |at: &Time| now.saturating_since(*at) < MEMORY;
            self.convicted
                .retain(|_, times| times.back().is_some_and(is_recent));
        }
        if self.convicted.len() < MAX_CONVICTED {
            let times = self.convicted.entry(identity).or_default();
            times.retain(|at| now.saturating_since(*at) < MEMORY);
            times.push_back(now);
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        let trial = self.trial.map(|(_, until)| until);
        let suspected = self.suspected.front().map(|(until, _)| *until);
        trial.into_iter().chain(suspected).min()
    }

    /// Whether this one is tried now.
    pub(super) fn tries(&self, seat: SeatKey) -> bool {
        self.trial.is_some_and(|(tried, _)| tried == seat)
    }

    /// The request of whoever is tried was sent.
    pub(super) fn begin(&mut self, seat: SeatKey, now: Time) {
        if let Some((tried, until)) = &mut self.trial
            && *tried == seat
        {
            *until = now + TRIAL_TIME;
        }
    }
}

impl Share {
    /// The process where suspects are tried.
    pub(super) fn solo(&self) -> ProcessKey {
        ProcessKey(self.limits.processes + 1)
    }

    /// This one had a request at a process that has crashed.
    pub(super) fn suspect(&mut self, key: SeatKey, cx: &Context<'_>) {
        self.seats[key.0].is_suspect = true;
        let until = cx.now + CRASHES_TIME;
        self.suspects.suspected.push_back((until, key));
    }

    /// A suspect wants something done. Returns the process if it is its turn. Listens are not tried: they wait until their
    /// client is a suspect no more.
    pub(super) fn try_suspect(&mut self, key: SeatKey, cx: &Context<'_>) -> Option<ProcessKey> {
        if self.suspects.tries(key) {
            return self.seats[key.0].process;
        }
        if !self.seats[key.0].has_request_waiting() {
            return None;
        }
        if !self.suspects.waiting.contains(&key) {
            self.suspects.waiting.push_back(key);
        }
        self.begin_trial(cx);
        self.suspects.tries(key).then(|| self.solo())
    }

    /// Takes the next suspect to the solo process, if that is free.
    fn begin_trial(&mut self, cx: &Context<'_>) {
        if self.suspects.trial.is_some() {
            return;
        }
        let Some(key) = self.suspects.waiting.front().copied() else {
            return;
        };
        let pool = Pool::Solo(self.seats[key.0].group());
        let solo = self.solo();
        let process = &mut self.processes[solo.0];
        if process.is_stopped || (process.pool != pool && process.life != Life::Absent) {
            // It is not for this one. Its end begins the trial.
            return self.stop_unused_solo();
        }
        process.pool = pool;
        self.suspects.waiting.pop_front();
        self.suspects.trial = Some((key, cx.now + START_TIME));
        self.seats[key.0].process = Some(solo);
        self.processes[solo.0].seats += 1;
        self.want(solo);
        self.join_turns(solo, key);
    }

    /// The process where suspects are tried is there.
    pub(super) fn solo_started(&mut self, cx: &Context<'_>) {
        self.begin_trial(cx);
        if self.suspects.trial.is_none() {
            self.stop_unused_solo();
        }
    }

    fn stop_unused_solo(&mut self) {
        let solo = self.solo();
        if self.processes[solo.0].seats == 0 && self.processes[solo.0].is_running() {
            self.dismiss(solo);
        }
    }

    /// A request of a seat is over. If it was at the solo process, the seat may go back to the others.
    pub(super) fn note_over(&mut self, key: SeatKey, cx: &mut Context<'_>) {
        let solo = self.solo();
        let Some(seat) = self.seats.get_mut(key.0) else {
            return;
        };
        if seat.process != Some(solo) || seat.is_at(solo) {
            return;
        }
        seat.is_suspect = false;
        self.unpin(key, cx);
        self.end_trial_of(key, cx);
        self.seek_turn(key, cx);
    }

    /// A seat is tried no more: it was acquitted, or left.
    pub(super) fn end_trial_of(&mut self, key: SeatKey, cx: &mut Context<'_>) {
        self.suspects.waiting.retain(|other| *other != key);
        if self.suspects.tries(key) {
            self.suspects.trial = None;
            self.begin_trial(cx);
            let solo = self.solo();
            self.dispatch(solo, cx);
        }
        if self.suspects.trial.is_none() {
            self.stop_unused_solo();
        }
    }

    /// The trial has taken long enough: what is still alive goes on with others.
    pub(super) fn trial_timeout(&mut self, cx: &mut Context<'_>) {
        if let Some((key, until)) = self.suspects.trial
            && until <= cx.now
        {
            self.seats[key.0].is_suspect = false;
            self.end_trial_of(key, cx);
            self.note_over(key, cx);
        }
        while let Some((until, key)) = self.suspects.suspected.front().copied()
            && until <= cx.now
        {
            self.suspects.suspected.pop_front();
            let seat = self.seats.get_mut(key.0);
            if let Some(seat) = seat.filter(|seat| seat.is_suspect)
                && !self.suspects.tries(key)
            {
                seat.is_suspect = false;
                self.end_trial_of(key, cx);
                self.seek_turn(key, cx);
            }
        }
    }

    /// The solo process has died: it was whoever was tried. If that one had nothing there, it is nobody's fault, and nobody
    /// is tried any more.
    pub(super) fn convict(&mut self, lost: &[(u64, SeatKey)], cx: &mut Context<'_>) {
        let tried = self.suspects.trial.take().map(|(key, _)| key);
        let guilty = tried.filter(|key| lost.iter().any(|(_, seat)| seat == key));
        if let Some(key) = guilty {
            let identity = self.seats[key.0].identity.clone();
            self.suspects.convict(identity.clone(), cx.now);
            warn!(
                "shared servers die of requests of {identity}: nothing is done for it for a while"
            );
            let text = "servers died of requests from there";
            for seat in self.seats_of(&identity) {
                self.refuse_waiting(seat, ErrorReason::Quarantined, text, cx);
            }
        } else {
            for key in std::mem::take(&mut self.suspects.waiting) {
                self.seats[key.0].is_suspect = false;
                self.seek_turn(key, cx);
            }
        }
        if let Some(key) = tried {
            self.seats[key.0].is_suspect = false;
        }
    }

    fn seats_of(&self, identity: &Identity) -> Vec<SeatKey> {
        let seats = self.seats.iter();
        let of = seats.filter(|(_, seat)| seat.identity == *identity);
        of.map(|(key, _)| SeatKey(key)).collect()
    }

    /// The solo process could not be started: whoever was to be tried is told, and the others are not tried.
    pub(super) fn solo_failed(&mut self, text: &str, cx: &mut Context<'_>) {
        let tried = self.suspects.trial.take().map(|(key, _)| key);
        let waiting = std::mem::take(&mut self.suspects.waiting);
        for key in tried.into_iter().chain(waiting) {
            self.seats[key.0].is_suspect = false;
            self.refuse_waiting(key, ErrorReason::SpawnFailed, text, cx);
        }
        self.solo_ended(cx);
    }

    /// The solo process is gone, and what was there is lost. Who waits for a trial gets the next one.
    pub(super) fn solo_ended(&mut self, cx: &mut Context<'_>) {
        let solo = self.solo();
        self.processes[solo.0].life = Life::Absent;
        self.release_seats(solo, cx);
        self.begin_trial(cx);
    }
}
