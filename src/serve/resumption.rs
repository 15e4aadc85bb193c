//! Who asks for a session to be kept, and who comes back to one.

use std::io::{self, ErrorKind};
use std::time::Duration;

use log::{debug, warn};

use super::newcomers::Arrival;
use super::resuming::RESULTS;
use super::system::System;
use super::{ClientSession, Proxy};
use crate::reactor::io::Io;
use crate::resume::first_look::FirstLook;
use crate::resume::wire::{self, Ask, Grant, Previous, Side};
use crate::resume::{Channel, Ended, Fingerprint, Found, Server, Takeover, WINDOW_BYTES};
use crate::scheduler::SessionKey;
use crate::session::{Event, Session};
use crate::util::about::about;

/// What becomes of whoever comes back.
enum Verdict {
    /// The session goes on.
    Resumed(SessionKey),
    /// It does not, for this reason. So many lines were taken, if that is known.
    Gone(&'static str, Option<u64>),
    /// There was a later attempt: nothing is changed by this one.
    Stale,
}

/// Whether it is the place of the session of this id.
fn is_kept_as<S: System>(place: &ClientSession<S>, id: Fingerprint) -> bool {
    let server = place.resume.as_ref();
    server.is_some_and(|server| server.id() == id)
}

impl<S: System> Proxy<S> {
    /// All is known of a connection that has to be known before it is a session, or goes on with one.
    pub(super) fn decide(&mut self, io: Io<S::Client>, arrival: Arrival, look: FirstLook) {
        let ask = look.line().and_then(|(line, _)| Ask::in_line(line));
        let Some(ask) = ask else {
            if let Some((io, arrival, look)) = self.wait_for_place(io, arrival, look) {
                self.open_plain(io, arrival, look);
            }
            return;
        };
        let rest = look.line().map_or(&[][..], |(_, rest)| rest).to_vec();
        let verdict = ask.previous.map(|previous| self.judge(&previous, &arrival));
        match verdict {
            Some(Verdict::Stale) => debug!("{}: a later attempt has come", arrival.client),
            Some(Verdict::Resumed(key)) => self.attach(key, io, &arrival, rest),
            Some(Verdict::Gone(reason, lines)) => {
                let first = wire::not_resumed(reason, lines);
                self.open_kept(io, arrival, look, &ask, Some(&first));
            }
            None => self.open_kept(io, arrival, look, &ask, None),
        }
    }

    /// A connection becomes a session that is kept when the connection is lost.
    fn open_kept(
        &mut self,
        io: Io<S::Client>,
        arrival: Arrival,
        look: FirstLook,
        ask: &Ask,
        first: Option<&str>,
    ) {
        let Some((io, arrival, look)) = self.wait_for_place(io, arrival, look) else {
            return;
        };
        let Some(place) = self.place_of(io, arrival.service, arrival.identity) else {
            return;
        };
        let key = self.open_session(arrival.client, place);
        self.log_identity(key);
        let session = self.scheduler.session(key);
        if session.is_none_or(Session::was_refused) {
            return;
        }
        let (mut line, rest) = look
            .line()
            .map(|(line, rest)| (line.to_vec(), rest.to_vec()))
            .unwrap_or_default();
        line.push(b'\n');
        if !self.keep(key, ask, first, rest.clone()) {
            line.extend_from_slice(&rest);
        }
        // It announces heartbeats, and is not counted.
        self.tell(key, Event::ClientBytes(&line));
    }

    /// Grants a session what its client has asked for; `first` is said before. Returns whether that is possible.
    fn keep(&mut self, key: SessionKey, ask: &Ask, first: Option<&str>, rest: Vec<u8>) -> bool {
        let now = self.now();
        let (Some(resuming), Some(place)) = (&mut self.resuming, self.scheduler.place_mut(key))
        else {
            return false;
        };
        let id = Fingerprint::of(&ask.session);
        if !resuming.registry.begin(id, key.0) {
            return false;
        }
        let mut channel = Channel::new(Side::Proxy, WINDOW_BYTES);
        if let Some(first) = first {
            channel.begin_with(first);
        }
        let grant = Grant {
            timeout: resuming.timeout,
            window: WINDOW_BYTES,
        };
        channel.begin_with(&grant.line());
        let mut server = Server::new(id, channel, ask.heartbeat, now);
        server.set_early(rest);
        place.resume = Some(Box::new(server));
        self.tell(key, Event::Kept);
        true
    }

    /// What becomes of whoever says that it has been here.
    fn judge(&mut self, previous: &Previous, arrival: &Arrival) -> Verdict {
        let verdict = self.verdict(previous, arrival);
        let result = match verdict {
            Verdict::Resumed(_) => "resumed",
            Verdict::Stale => "stale",
            Verdict::Gone(reason, _) => reason,
        };
        let number = RESULTS.iter().position(|name| *name == result);
        if let (Some(resuming), Some(number)) = (&mut self.resuming, number) {
            resuming.results[number] += 1;
        }
        verdict
    }

    fn verdict(&mut self, previous: &Previous, arrival: &Arrival) -> Verdict {
        let now = self.now();
        let Some(resuming) = &mut self.resuming else {
            return Verdict::Gone("unknown", None);
        };
        let id = Fingerprint::of(&previous.session);
        let key = match resuming.registry.find(id, now) {
            None => return Verdict::Gone("unknown", None),
            Some(Found::Ended(end)) => {
                let reason = if end.has_overflowed {
                    "overflow"
                } else {
                    "ended"
                };
                return Verdict::Gone(reason, Some(end.lines));
            }
            Some(Found::Session(number)) => SessionKey(number),
        };
        let place = self.scheduler.place_mut(key);
        let Some(place) = place.filter(|place| is_kept_as(place, id)) else {
            return Verdict::Gone("unknown", None);
        };
        let is_its_own =
            place.identity() == arrival.identity.as_ref() && place.service() == arrival.service;
        if !is_its_own {
            warn!(
                "refused to resume a session for {}: it is another client's, or for another server",
                arrival.client
            );
            if let Some(visitors) = &mut self.visitors {
                visitors.entrance.note_failure(arrival.client, now);
            }
            return Verdict::Gone("unknown", None);
        }
        let Some(server) = &mut place.resume else {
            return Verdict::Gone("unknown", None);
        };
        let taken = server.channel.taken();
        if server.has_left || server.has_ended {
            // It has said that nothing follows, or its end was read before it had said anything: the session is about to end.
            return Verdict::Gone("ended", Some(taken));
        }
        let reason = match server.take_over(previous.attempt, previous.lines, now) {
            Takeover::Stale => return Verdict::Stale,
            Takeover::Contended => "contended",
            Takeover::Granted => {
                let attached = server.channel.attach(previous.lines, &mut resuming.buffers);
                match attached {
                    Ok(()) => return Verdict::Resumed(key),
                    Err(lie) => lie.name(),
                }
            }
        };
        let error = io::Error::new(ErrorKind::InvalidData, reason);
        self.tell(key, Event::ClientFailed(&error));
        Verdict::Gone(reason, Some(taken))
    }

    /// A session goes on with this connection.
    fn attach(&mut self, key: SessionKey, io: Io<S::Client>, arrival: &Arrival, rest: Vec<u8>) {
        let Some(io) = self.hand_to_session(io, key) else {
            return;
        };
        let now = self.now();
        let (Some(resuming), Some(place)) = (&mut self.resuming, self.scheduler.place_mut(key))
        else {
            return;
        };
        let Some(server) = &mut place.resume else {
            return;
        };
        let away = server
            .lost_since()
            .map(|since| now.saturating_since(since).as_secs_f64());
        server.resumed(now);
        let taken = server.channel.taken();
        server.channel.begin_with(&wire::resumed(taken));
        server.set_early(rest);
        place.client = Some(io);
        let has_place = !place.gave_up_place;
        if let Some(label) = self.scheduler.session(key).map(Session::label) {
            let client = arrival.client;
            if let Some(away) = away {
                resuming.is_away_no_more(label.client().origin(), has_place);
                about!(info, label, "resumed by {client} after {away:.3} s");
            } else {
                about!(info, label, "taken over by {client}");
            }
        }
        self.tell(key, Event::Attached);
    }

    /// What became of connections that were to go on with a session, if any can.
    pub(super) fn resumes(&self) -> Vec<(&'static str, u64)> {
        let resuming = self.resuming.as_ref();
        resuming.map_or_else(Vec::new, |resuming| {
            RESULTS.into_iter().zip(resuming.results).collect()
        })
    }

    /// How long a session is still kept that has no connection.
    pub(super) fn kept_for(&self, key: SessionKey) -> Option<Duration> {
        let timeout = self.resuming.as_ref()?.timeout;
        let server = self.scheduler.place(key)?.resume.as_ref()?;
        let until = server.lost_since()? + timeout;
        Some(until.saturating_since(self.now()))
    }

    /// The first line of a session came late, and asks for it to be kept, or for another one.
    pub(super) fn answer_ask(&mut self, key: SessionKey) {
        let session = self.scheduler.session(key);
        let line = session.and_then(Session::asked_to_resume);
        let ask = line.and_then(Ask::in_line);
        let has_spoken = session.is_some_and(Session::has_spoken_to_client);
        let Some(ask) = ask.filter(|_| self.resuming.is_some() && !has_spoken) else {
            self.tell(key, Event::NotKept);
            return;
        };
        let rest = self
            .scheduler
            .session_mut(key)
            .map(Session::take_unread)
            .unwrap_or_default();
        let session = self.scheduler.session(key);
        let both = session.zip(self.scheduler.place(key));
        let arrival = both.map(|(session, place)| Arrival {
            client: session.label().client(),
            service: place.service(),
            identity: place.identity().cloned(),
        });
        let Some(arrival) = arrival else {
            return;
        };
        let verdict = ask.previous.map(|previous| self.judge(&previous, &arrival));
        match verdict {
            Some(Verdict::Resumed(other)) => {
                let place = self.scheduler.place_mut(key);
                let io = place.and_then(|place| place.client.take());
                if let Some(io) = io {
                    self.attach(other, io, &arrival, rest);
                }
                let error =
                    io::Error::new(ErrorKind::ConnectionReset, "goes on as another session");
                self.tell(key, Event::ClientFailed(&error));
            }
            Some(Verdict::Stale) => {
                let error = io::Error::new(ErrorKind::ConnectionReset, "a later attempt has come");
                self.tell(key, Event::ClientFailed(&error));
            }
            Some(Verdict::Gone(reason, lines)) => {
                let first = wire::not_resumed(reason, lines);
                self.keep_late(key, &ask, Some(&first), &rest);
            }
            None => self.keep_late(key, &ask, None, &rest),
        }
    }

    fn keep_late(&mut self, key: SessionKey, ask: &Ask, first: Option<&str>, rest: &[u8]) {
        if !self.keep(key, ask, first, rest.to_vec()) {
            self.tell(key, Event::NotKept);
            self.tell(key, Event::ClientBytes(rest));
        }
    }

    /// Ends the session that has been without a connection longest. Returns whether there was one.
    pub(super) fn give_up_oldest_detached(&mut self) -> bool {
        while let Some((key, since)) = self
            .resuming
            .as_mut()
            .and_then(|resuming| resuming.lost.pop_front())
        {
            if self.is_lost_since(key, since) {
                let error = "its place was needed before it came back";
                let error = io::Error::new(ErrorKind::TimedOut, error);
                self.tell(key, Event::ClientFailed(&error));
                return true;
            }
        }
        false
    }

    fn is_lost_since(&self, key: SessionKey, since: crate::util::time::Time) -> bool {
        let place = self.scheduler.place(key);
        let server = place.and_then(|place| place.resume.as_deref());
        server.is_some_and(|server| server.lost_since() == Some(since))
    }

    /// No more than half of the places are for sessions without a connection.
    pub(super) fn limit_detached(&mut self) {
        let most = (self.limits.max_sessions / 2).max(1);
        let detached = self.resuming.as_ref().map_or(0, |it| it.detached);
        for _ in most..detached {
            self.give_up_oldest_detached();
        }
        // Those that came back are forgotten now and then.
        let Some(resuming) = &mut self.resuming else {
            return;
        };
        if resuming.lost.len() > 2 * resuming.detached + 16 {
            let lost = std::mem::take(&mut resuming.lost);
            let lost = lost
                .into_iter()
                .filter(|(key, since)| self.is_lost_since(*key, *since))
                .collect();
            if let Some(resuming) = &mut self.resuming {
                resuming.lost = lost;
            }
        }
    }

    /// A client has vanished without a word. Returns whether it may come back.
    pub(super) fn vanished_for_now(&mut self, key: SessionKey) -> bool {
        let place = self.scheduler.place_mut(key);
        let server = place.and_then(|place| place.resume.as_mut());
        let Some(server) = server.filter(|server| server.channel.is_used()) else {
            return false;
        };
        server.vanished();
        self.scheduler.enqueue(key);
        true
    }

    /// Ends a session that is away, as nobody can come back to it; `why` completes "it was away when". Returns whether it was.
    pub(super) fn stop_detached(&mut self, key: SessionKey, why: &str) -> bool {
        let place = self.scheduler.place(key);
        let is_detached = place.is_some_and(ClientSession::is_detached);
        if is_detached {
            let words = format!("it was away when {why}");
            let error = io::Error::new(ErrorKind::TimedOut, words);
            self.tell(key, Event::ClientFailed(&error));
        }
        is_detached
    }

    /// The connection of a session is closed for good: nobody can come back to it.
    pub(super) fn forget_kept(&mut self, key: SessionKey) {
        let now = self.reactor.now();
        let Some(resuming) = &mut self.resuming else {
            return;
        };
        let Some(place) = self.scheduler.place_mut(key) else {
            return;
        };
        let has_place = !place.gave_up_place;
        let Some(mut server) = place.resume.take() else {
            return;
        };
        if server.lost_since().is_some()
            && let Some(session) = self.scheduler.session(key)
        {
            resuming.is_away_no_more(session.label().client().origin(), has_place);
        }
        let end = Ended {
            lines: server.channel.taken(),
            has_overflowed: server.has_overflowed,
        };
        resuming.registry.end(server.id(), end, now);
        let (_, memory) = self.scheduler.scratch_and_memory();
        server.release(&mut resuming.totals, memory);
    }

    /// Once a session has no server and has said all, it needs no place while its client takes that.
    pub(super) fn note_lingering(&mut self, key: SessionKey) {
        let Some(resuming) = &mut self.resuming else {
            return;
        };
        let session = self.scheduler.session(key);
        if !session.is_some_and(Session::is_only_lingering) {
            return;
        }
        let Some(place) = self.scheduler.place_mut(key) else {
            return;
        };
        if place.resume.is_none() || std::mem::replace(&mut place.gave_up_place, true) {
            return;
        }
        resuming.lingering += 1;
        if let (Some(session), Some(place)) =
            (self.scheduler.session(key), self.scheduler.place(key))
        {
            let service = self.services.get_mut(place.service());
            service.sessions -= 1;
            service.counts.closed(session);
            self.quotas.free(session.label().client(), place.identity());
            if place.is_detached() {
                resuming.returning.remove(session.label().client().origin());
            }
        }
        self.place_is_free();
    }
}
