//! Whether a client that is waited for still takes what it was sent. That shows in the send queue of its connection, of
//! which only the system knows: what can be written at once may take a slow client minutes to receive.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client_side::{Client, LINGER_TIME};
use super::goal::FINISH_TIME;
use super::report::EndReason;
use super::{Action, Context, Goal, Session, earliest};
use crate::util::about::about;
use crate::util::time::Time;

/// A client that has taken nothing for this long at the end of a session is given up; so is one that hung up while its
/// lines could not be read.
pub(super) const STALL_TIME: Duration = Duration::from_secs(30);

/// A client to which nothing can be written is looked at for the first time after this.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// And then this often.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// After our half-close, intervals grow from this: most clients have everything within a round trip.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(20);

/// And to this, by which a slow client may hold up a stop of the program in vain.
const LONGEST_INTERVAL: Duration = Duration::from_secs(1);

/// The end of our side, which waits in the send queue like a byte.
const END_BYTES: u32 = 1;

/// What is known of the send queue.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct SendQueue {
    /// What it held at the last look, if nothing was written since, and if that is known.
    unsent: Option<u32>,
    looked_at: Option<Time>,
    /// When it was last seen to have fallen, or to hold what it was not known to hold before.
    fell_at: Option<Time>,
    /// Whether a look was asked for.
    is_asked: bool,
}

impl SendQueue {
    /// Nothing is known.
    pub(super) const NEW: Self = Self {
        unsent: None,
        looked_at: None,
        fell_at: None,
        is_asked: false,
    };

    /// Something was written: the next look can't be compared with those before.
    pub(super) fn written(&mut self) {
        self.unsent = None;
    }

    /// `holds` is whether anything waits for the client, in there or before it: if not, there is nothing to be taken.
    fn looked(&mut self, unsent: Option<u32>, holds: bool, now: Time) {
        self.is_asked = false;
        self.looked_at = Some(now);
        let fell = unsent.is_some_and(|now| self.unsent.map_or(holds, |before| now < before));
        if fell {
            self.fell_at = Some(now);
        }
        self.unsent = unsent;
    }
}

/// A client after our half-close.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Lingering {
    pub(super) since: Time,
    /// When it is cut off; not known as long as it takes what it was sent.
    pub(super) until: Option<Time>,
    /// What it has sent since that is known, in bytes.
    pub(super) discarded: usize,
}

impl Session {
    /// Asks for a look at the send queue. There is one at a time.
    pub(super) fn ask_for_queue(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.rare.change().send_queue.is_asked, true) {
            cx.actions.push(Action::MeasureClient);
        }
    }

    /// The send queue was looked at; `unsent` is what it holds, if that is known.
    pub(super) fn client_queue(&mut self, unsent: Option<u32>, cx: &mut Context<'_>) {
        let holds = unsent.is_some_and(|unsent| unsent > 0) || !self.to_client.is_empty();
        let queue = &mut self.rare.change().send_queue;
        queue.looked(unsent, holds, cx.now);
        if self.waits_as_driver_says() {
            return;
        }
        if let Client::Lingering(_) = self.client {
            self.linger(cx);
        } else if self.gives_up_at().is_some_and(|at| at <= cx.now) {
            self.drop_client(EndReason::Stalled(STALL_TIME), cx);
            self.report_undelivered();
        }
    }

    /// A client that has everything gets the time to end its own side. One that does not take it is cut off.
    fn linger(&mut self, cx: &mut Context<'_>) {
        let queue = &self.rare.send_queue;
        let is_stalled = queue.fell_at.is_none_or(|at| at + STALL_TIME <= cx.now);
        let has_everything = queue.unsent.is_none_or(|unsent| unsent <= END_BYTES);
        let Client::Lingering(lingering) = &mut self.client else {
            return;
        };
        if has_everything {
            lingering.until.get_or_insert(cx.now + LINGER_TIME);
        } else if is_stalled {
            self.cut_off(cx);
        }
    }

    fn cut_off(&mut self, cx: &mut Context<'_>) {
        self.note_undelivered();
        self.report_undelivered();
        self.close_client(cx);
    }

    /// When the client is to be looked at, or cut off.
    pub(super) fn client_deadline(&self) -> Option<Time> {
        earliest(self.waiting_deadline(), self.host_deadline())
    }

    fn waiting_deadline(&self) -> Option<Time> {
        if self.waits_as_driver_says() {
            return None;
        }
        match &self.client {
            Client::Lingering(lingering) => lingering.until.or_else(|| self.linger_look(lingering)),
            _ => self.stall_deadline(),
        }
    }

    fn linger_look(&self, lingering: &Lingering) -> Option<Time> {
        let queue = &self.rare.send_queue;
        let last = queue.looked_at.filter(|_| !queue.is_asked)?;
        let interval = last.saturating_since(lingering.since);
        Some(last + interval.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL))
    }

    /// When a client that takes nothing is to be looked at, the last time before it is given up.
    fn stall_deadline(&self) -> Option<Time> {
        let since = self
            .stalled_since()
            .filter(|_| !self.rare.send_queue.is_asked)?;
        let look = match self.rare.send_queue.looked_at {
            Some(last) if last >= since => last + LOOK_INTERVAL,
            _ => since + FIRST_LOOK,
        };
        earliest(Some(look), self.gives_up_at())
    }

    fn gives_up_at(&self) -> Option<Time> {
        let since = self.stalled_since()?;
        let since = self
            .rare
            .send_queue
            .fell_at
            .map_or(since, |at| at.max(since));
        Some(since + STALL_TIME)
    }

    /// Since when nothing can be written to a client that is to be given up then, or one is gone while its lines can't
    /// be read.
    fn stalled_since(&self) -> Option<Time> {
        let since = match (&self.client, &self.goal) {
            (
                Client::Open {
                    hung_up: Some(since),
                    ..
                },
                Goal::Serve,
            ) if !self.wants_client_input() => *since,
            (Client::Open { .. } | Client::Ended, Goal::Finish(_) | Goal::End(_)) => {
                self.unwritten_since?
            }
            _ => return None,
        };
        let gives_up = self.backend.gives_up_stalled_client();
        gives_up.then(|| since.max(self.last_written))
    }

    pub(super) fn client_timeout(&mut self, cx: &mut Context<'_>) {
        if self.host_deadline().is_some_and(|at| at <= cx.now) {
            // What is left of stdin is read and refused.
            self.end_now(&EndReason::Overdue(FINISH_TIME), cx);
        }
        if self.waiting_deadline().is_none_or(|at| cx.now < at) {
            return;
        }
        if matches!(&self.client, Client::Lingering(lingering) if lingering.until.is_some()) {
            self.cut_off(cx);
        } else {
            self.ask_for_queue(cx);
        }
    }

    /// The connection is being closed: what is not sent by now never will be.
    pub(super) fn note_undelivered(&mut self) {
        let end = match self.client {
            Client::Lingering(_) => END_BYTES,
            _ => 0,
        };
        let in_socket = self.rare.send_queue.unsent.unwrap_or(0).saturating_sub(end);
        let undelivered = self.to_client.len() as u64 + u64::from(in_socket);
        if undelivered > 0 {
            self.rare.change().undelivered = undelivered;
        }
    }

    fn report_undelivered(&self) {
        if self.rare.undelivered > 0 {
            about!(
                warn,
                self.label,
                "{} bytes for the client are lost, as it takes nothing more",
                self.rare.undelivered
            );
        }
    }
}
