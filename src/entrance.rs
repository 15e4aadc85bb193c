//! What a connection passes before it is a session, if anything is asked of it.
//!
//! Bytes go in, [`Step`]s come out. Nothing in here knows a file descriptor or a clock. A connection in the entrance starts
//! no server and is no session; where nothing is configured, there is no entrance.
//!
//! # Words
//!
//! - **visitor**: a connection in the entrance.
//! - **peer**: whom the connection itself is with; **client**: whose connection it is. They differ behind a balancer.
//! - **place**: what a visitor takes up. There are as many as [`Capacity`] says, and for each origin (an IPv4 address, the
//!   /64 of an IPv6 one, a user) some of them.
//! - **door**: where a visitor came in, if one server alone is served there; elsewhere the first line says which is wanted.
//! - **identity**: what the client has shown, a token or a certificate.
//!
//! # The way of a visitor (`visitor`)
//!
//! ```text
//!   from a balancer: Header ──┐
//!                             ├─► allow-list ─► Tls ─► Inside ─┬─► FirstLine ─► admitted
//!   from anybody else ────────┘        │         │             ├─► FirstByte ─► admitted
//!                                      │         │             └──────────────► admitted
//!                                      ▼         ▼                  │
//!                                    closed    closed               │ refused
//!                                                                   ▼
//!                                              (Delayed, who fails often) ─► Lingering ─► closed
//! ```
//!
//! Each stage is passed only if it is configured ([`Rules`]). `FirstByte` is for those that come through a balancer and
//! need no first line: without a byte after the header it was a health check. An error line is sent from `Inside` on (and to
//! whoever sends plain text in the place of TLS); before that the connection is just closed. Nothing that follows a
//! refused first line is looked at.
//!
//! # Who gets a place (`places`)
//!
//! Newcomers are not refused: at a limit, the oldest visitor of the same origin, or of the origin that holds most, is closed
//! for them. So whoever sends the first line at once gets in, whatever others do, and silence keeps nobody out: nobody has
//! to make room before what was sent at once is heard. Wrong tokens
//! are answered later and later only for whoever shows them (`failures`); right ones are never.
//!
//! Whoever comes back to a session ([`Returning`]) says so in the first line, which has to be waited for like any other's. So
//! there is a place more for each session that has lost its connection, for the origin that it had: all of an office may come
//! back at once, and strangers among them gain no more than those have left free.
//!
//! # Who drives it
//!
//! - Asks [`Rules::judge`] for each connection at its accept; [`Entrance::enter`] is for those of which something is asked.
//! - Reads while [`Entrance::wants_input`], and hands on what it read with [`Entrance::bytes`]; then carries out the step.
//!   Whoever is displaced by a newcomer is carried out at once.
//! - After [`Step::StartTls`], makes the connection a TLS one that begins with these bytes, and reports
//!   [`Entrance::tls_done`] or [`Entrance::tls_failed`]. What it reads then is what was inside.
//! - Calls [`Entrance::deadline`] once the time of [`Entrance::next_deadline`] has come, which every call may change.

mod directory;
mod failures;
mod first_line;
mod header;
mod identity;
mod networks;
mod places;
mod refusal;
mod returning;
mod rules;
mod state;
#[cfg(test)]
mod tests;
pub mod tokens;
mod visitor;

use std::time::Duration;

use log::{debug, warn};
use serde::{Deserialize, Serialize};
use slab::Slab;

pub use self::directory::Directory;
use self::failures::Failures;
pub use self::identity::{Identity, Name};
pub use self::networks::Network;
pub use self::places::Capacity;
use self::places::Places;
pub use self::refusal::Refusal;
pub use self::returning::Returning;
pub use self::rules::{Arrival, Balancers, Rules};
pub use self::state::EntranceState;
pub use self::visitor::{Admission, Step};
use self::visitor::{Scene, Visitor};
use crate::session::counts::ErrorCounts;
use crate::util::client_address::ClientAddress;
use crate::util::log_rate_limit::{LogRate, LogRateLimit};
use crate::util::service_key::ServiceKey;
use crate::util::time::Time;

/// The longest first line, its line end and blank lines before it included, in bytes.
pub const MAX_FIRST_LINE_BYTES: usize = 8 * 1024;

/// The time for all of it, if nothing else is wanted.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Lines about refusals: at the end of a burst two kilobytes a second, however many there are.
static REFUSALS: LogRate = LogRate {
    burst: 200,
    interval: Duration::from_millis(50),
};

/// Names a visitor. It is used again after the visitor has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VisitorKey(pub usize);

/// All visitors. `P` is what the driver keeps beside each of them.
#[derive(Debug)]
pub struct Entrance<P> {
    rules: Rules,
    visitors: Slab<Entry<P>>,
    places: Places,
    failures: Failures,
    refusals: RefusalCounts,
    log: LogRateLimit,
}

/// How many connections were not let in.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub struct RefusalCounts {
    /// By the numbers of the refusals.
    pub by_reason: [u64; Refusal::NAMES.len()],
    /// Errors that they were told.
    pub errors: ErrorCounts,
}

#[derive(Debug)]
struct Entry<P> {
    visitor: Visitor,
    place: P,
}

/// A visitor that had to make room.
#[derive(Debug)]
pub struct Displaced<P> {
    /// What was kept beside it.
    pub place: P,
    /// What is written to it before it is closed, if it can be told.
    pub farewell: Option<String>,
}

impl<P> Entrance<P> {
    /// Nobody is in it.
    pub fn new(rules: Rules, capacity: Capacity) -> Self {
        Self {
            rules,
            visitors: Slab::new(),
            places: Places::new(capacity),
            failures: Failures::default(),
            refusals: RefusalCounts::default(),
            log: LogRateLimit::new(&REFUSALS),
        }
    }

    /// What is asked of whom.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The same, to be changed: for whoever comes in from now on.
    pub fn rules_mut(&mut self) -> &mut Rules {
        &mut self.rules
    }

    /// From now on, there are so many places.
    pub fn set_capacity(&mut self, capacity: Capacity) {
        self.places.set_capacity(capacity);
    }

    /// Has visitors who came in by the door of one server go on to the one that has taken its place. Returns those for whom
    /// there is none.
    pub fn move_doors(
        &mut self,
        new: impl Fn(ServiceKey) -> Option<ServiceKey>,
    ) -> Vec<VisitorKey> {
        let mut left = Vec::new();
        for (key, Entry { visitor, .. }) in &mut self.visitors {
            match visitor.door().map(&new) {
                None => {}
                Some(Some(door)) => visitor.set_door(door),
                Some(None) => left.push(VisitorKey(key)),
            }
        }
        left
    }

    /// How many were not let in so far.
    pub fn refusals(&self) -> RefusalCounts {
        self.refusals
    }

    /// How many visitors there are.
    pub fn len(&self) -> usize {
        self.visitors.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.visitors.is_empty()
    }

    /// The key of the next visitor, if nobody leaves before.
    pub fn next_key(&self) -> VisitorKey {
        VisitorKey(self.visitors.vacant_key())
    }

    /// All visitors, with what is kept beside them.
    pub fn iter(&self) -> impl Iterator<Item = (VisitorKey, &P)> {
        let visitors = self.visitors.iter();
        visitors.map(|(key, entry)| (VisitorKey(key), &entry.place))
    }

    /// What is kept beside a visitor.
    pub fn place_mut(&mut self, key: VisitorKey) -> Option<&mut P> {
        self.visitors.get_mut(key.0).map(|entry| &mut entry.place)
    }

    /// A round of connections is about to be accepted, after all that visitors have said at once was heard: whoever comes in
    /// it does not have to make room for those that come in the same round.
    pub fn begin_round(&mut self) {
        self.places.begin_round();
    }

    /// Makes room for one more from here. Call it before [`Self::enter`], until it finds nobody.
    pub fn make_room(
        &mut self,
        peer: ClientAddress,
        returning: Option<&Returning>,
        now: Time,
    ) -> Option<Displaced<P>> {
        let origin = (!self.rules.is_balancer(peer)).then(|| peer.origin());
        let key = self.places.whom_to_displace(origin, returning)?;
        self.displace(key, now)
    }

    /// A connection of which something is asked comes in.
    pub fn enter(&mut self, peer: ClientAddress, place: P, now: Time) -> VisitorKey {
        self.enter_for(None, peer, place, now)
    }

    /// The same where one server alone is served, if it is not `None`.
    pub fn enter_for(
        &mut self,
        door: Option<ServiceKey>,
        peer: ClientAddress,
        place: P,
        now: Time,
    ) -> VisitorKey {
        let visitor = Visitor::new(door, peer, &self.rules, now);
        let origin = visitor.client().map(ClientAddress::origin);
        let key = VisitorKey(self.visitors.insert(Entry { visitor, place }));
        self.places.take(key, origin);
        key
    }

    /// Whether what a visitor sends is to be read now.
    pub fn wants_input(&self, key: VisitorKey) -> bool {
        let entry = self.visitors.get(key.0);
        entry.is_some_and(|entry| entry.visitor.wants_input())
    }

    /// A visitor sent these bytes.
    pub fn bytes(&mut self, key: VisitorKey, bytes: &[u8], now: Time) -> Step {
        self.event(key, now, |visitor, scene| visitor.bytes(bytes, scene))
    }

    /// A visitor has ended its side.
    pub fn eof(&mut self, key: VisitorKey, now: Time) -> Step {
        self.event(key, now, Visitor::eof)
    }

    /// The connection of a visitor has broken.
    pub fn broken(&mut self, key: VisitorKey, now: Time) -> Step {
        self.event(key, now, |visitor, _| visitor.gone())
    }

    /// The TLS handshake is done. The client has shown a certificate of this name, if any.
    pub fn tls_done(&mut self, key: VisitorKey, certificate_name: Option<&str>, now: Time) -> Step {
        self.event(key, now, |visitor, scene| {
            visitor.tls_done(certificate_name, scene)
        })
    }

    /// TLS did not come about. `why` is for `--debug`.
    pub fn tls_failed(&mut self, key: VisitorKey, why: &str, now: Time) -> Step {
        if let Some(entry) = self.visitors.get(key.0) {
            debug!("entrance: {}: no TLS: {why}", entry.visitor.address());
        }
        self.event(key, now, Visitor::tls_failed)
    }

    /// The time of [`Self::next_deadline`] has come.
    pub fn deadline(&mut self, key: VisitorKey, now: Time) -> Step {
        self.event(key, now, Visitor::timeout)
    }

    /// When [`Self::deadline`] is due, if nothing else happens before.
    pub fn next_deadline(&self, key: VisitorKey) -> Option<Time> {
        let entry = self.visitors.get(key.0);
        entry.map(|entry| entry.visitor.deadline())
    }

    /// Whoever has come to hold more places than one origin may have gives one up: a balancer may have said so of a visitor.
    /// Call it after each event.
    pub fn make_room_beside(
        &mut self,
        key: VisitorKey,
        returning: Option<&Returning>,
        now: Time,
    ) -> Option<Displaced<P>> {
        let other = self.places.whom_to_displace_beside(key, returning)?;
        self.displace(other, now)
    }

    /// A visitor is in no longer.
    pub fn leave(&mut self, key: VisitorKey) -> Option<P> {
        self.places.give_up(key);
        self.visitors.try_remove(key.0).map(|entry| entry.place)
    }

    /// Logs that a connection was not let in, unless too many are logged.
    pub fn refused(&mut self, address: ClientAddress, refusal: Refusal, now: Time) {
        self.refusals.by_reason[refusal.number()] += 1;
        if let Some(error) = refusal.error() {
            self.refusals.errors.note(error);
        }
        if self.log.admit(now) {
            warn!(client = address, reason = refusal.name(); "entrance: refused {address}: {refusal}");
        }
    }

    /// Somebody has shown what is not his: that counts like a wrong token.
    pub fn note_failure(&mut self, address: ClientAddress, now: Time) {
        self.failures.note(address.origin(), now);
    }

    /// Logs how many lines were left out, if any were. Call it now and then.
    pub fn report_left_out(&mut self) {
        let count = self.log.take_left_out();
        if count > 0 {
            warn!("lines about refusals at the entrance that were left out of the log: {count}");
        }
    }

    fn event(
        &mut self,
        key: VisitorKey,
        now: Time,
        handle: impl FnOnce(&mut Visitor, &mut Scene<'_>) -> Step,
    ) -> Step {
        let Some(entry) = self.visitors.get_mut(key.0) else {
            return Step::Close;
        };
        let mut scene = Scene {
            rules: &self.rules,
            failures: &mut self.failures,
            now,
            refusal: None,
        };
        let step = handle(&mut entry.visitor, &mut scene);
        let refusal = scene.refusal;
        let (client, address) = (entry.visitor.client(), entry.visitor.address());
        if let Some(client) = client {
            self.places.belongs_to(key, client.origin());
        }
        if let Some(refusal) = refusal {
            self.refused(address, refusal, now);
        }
        step
    }

    fn displace(&mut self, key: VisitorKey, now: Time) -> Option<Displaced<P>> {
        self.places.give_up(key);
        let Entry { mut visitor, place } = self.visitors.try_remove(key.0)?;
        let address = visitor.address();
        if !visitor.is_refused() {
            self.refused(address, Refusal::Displaced, now);
        }
        Some(Displaced {
            place,
            farewell: visitor.farewell(),
        })
    }
}
