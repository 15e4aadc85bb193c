//! What is around one session: the connection to its client, and its server.

mod state;

pub(super) use self::state::{PlaceState, client_target};
use super::resuming::Resuming;
use super::seat_side::SeatSide;
use super::server::{NoServer, Server};
use super::servers::{ServerKey, Servers};
use super::services::Services;
use super::start_queue::StartQueue;
use super::swap;
use super::system::{ClientSocket, Linux, System};
use crate::entrance::Identity;
use crate::pump::{Transport, pump, pump_on};
use crate::reactor::io::{Io, Readiness};
use crate::resume::Server as KeptSession;
use crate::resume::wire;
use crate::scheduler::{Driver, SessionKey};
use crate::session::{Context, Event, Session};
use crate::share::SeatKey;
use crate::util::service_key::ServiceKey;

/// The two sides of a session.
pub struct ClientSession<S: System> {
    pub(super) client: Option<Io<S::Client>>,
    /// What it is a session of.
    service: ServiceKey,
    /// The server that it uses.
    pub(super) server: Option<ServerKey>,
    /// The one that is to take the place of that.
    pub(super) successor: Option<ServerKey>,
    /// Its place at shared servers, which it then has instead.
    pub(super) seat: Option<SeatKey>,
    /// What the client has shown, if anything was asked for.
    identity: Option<Box<Identity>>,
    /// Present if the connection may be lost and come back.
    pub(super) resume: Option<Box<KeptSession>>,
    /// Whether it does not count any more among those that may be there.
    pub(super) gave_up_place: bool,
}

/// There are thousands. A release build needs less.
const _: () = assert!(size_of::<ClientSession<Linux>>() <= 128);

impl<S: System> ClientSession<S> {
    pub(super) fn new(
        service: ServiceKey,
        client: Io<S::Client>,
        identity: Option<Identity>,
    ) -> Self {
        Self {
            client: Some(client),
            service,
            server: None,
            successor: None,
            seat: None,
            identity: identity.map(Box::new),
            resume: None,
            gave_up_place: false,
        }
    }

    /// What it is a session of.
    pub(super) fn service(&self) -> ServiceKey {
        self.service
    }

    /// What the client has shown, if anything was asked for.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_deref()
    }

    /// Whether it has lost its connection, and may get another one.
    pub(super) fn is_detached(&self) -> bool {
        let kept = self.resume.as_deref();
        kept.is_some_and(|kept| kept.lost_since().is_some())
    }

    /// The connection to the client, until it is closed.
    pub fn client(&self) -> Option<&Io<S::Client>> {
        self.client.as_ref()
    }

    /// The server that it uses.
    pub fn server(&self) -> Option<ServerKey> {
        self.server
    }

    /// What waits to be written before what the session has, in bytes.
    pub(super) fn unsent(&self) -> usize {
        let resume = self.resume.as_ref();
        resume.map_or(0, |server| server.channel.unsent())
    }

    /// The one that is to take the place of that.
    pub fn successor(&self) -> Option<ServerKey> {
        self.successor
    }

    /// Latches what an event says of the connection. Returns whether it was about this one.
    pub(super) fn latch(&mut self, token: mio::Token, readiness: Readiness) -> bool {
        let client = self.client.as_mut();
        client.is_some_and(|client| client.latch(token, readiness))
    }

    /// Sends the client the end of our side, `why` before it if it may come back for it.
    pub(super) fn end_client(&mut self, why: &str) {
        if let Some(server) = &mut self.resume {
            return server.channel.end_with(&wire::bye(why));
        }
        if let Some(client) = &mut self.client {
            client.source_mut().end();
        }
    }

    /// Closes the connection to the client. If it has everything, TLS says that this is the end.
    pub(super) fn close_client(&mut self) {
        if let Some(client) = &mut self.client
            && client.source().is_tls()
            && !client.source().holds_output()
        {
            client.source_mut().end();
        }
        self.client = None;
    }

    /// Whether the client is known to have ended its side.
    fn is_read_closed(&self) -> bool {
        self.client.as_ref().is_some_and(Io::is_read_closed)
    }

    /// What events told of the client although nothing is read or written at the moment.
    #[inline(never)]
    fn notice_failure(&mut self, session: &mut Session, cx: &mut Context<'_>) {
        let Some(client) = &self.client else {
            return;
        };
        session.handle(Event::ClientHup, cx);
        if client.is_write_closed()
            && let Some(error) = client.source().take_error()
        {
            session.handle(Event::ClientFailed(&error), cx);
        }
    }

    /// Whether it is a TLS connection, with which there is more to be done.
    #[inline]
    fn is_tls(&self) -> bool {
        let client = self.client.as_ref();
        client.is_some_and(|client| client.source().is_tls())
    }

    /// Has what was written before go out, if there is room for it now.
    #[inline(never)]
    fn flush_client(&mut self, session: &mut Session, cx: &mut Context<'_>) {
        if let Some(error) = self.flush_tls() {
            session.handle(Event::ClientFailed(&error), cx);
        }
    }

    /// The same. Returns the error that it has come to.
    fn flush_tls(&mut self) -> Option<std::io::Error> {
        let client = self.client.as_mut()?;
        let is_due = client.source().holds_output() && client.is_writable();
        is_due.then(|| client.flush().err()).flatten()
    }

    /// Has the next run look for what no event tells of. Returns whether there is such a thing.
    #[inline(never)]
    fn note_held_input(&mut self) -> bool {
        let client = self.client.as_mut();
        let client = client.filter(|client| client.source().holds_input());
        client.map(Io::note_readable).is_some()
    }
}

/// Runs sessions between their clients and their servers.
pub(super) struct Sides<'a, S: System> {
    pub(super) servers: &'a mut Servers<S>,
    pub(super) start_queue: &'a mut StartQueue,
    pub(super) services: &'a mut Services,
    pub(super) resuming: Option<&'a mut Resuming<S::Client>>,
}

impl<S: System> Driver for Sides<'_, S> {
    type Place = ClientSession<S>;

    fn run(
        &mut self,
        key: SessionKey,
        session: &mut Session,
        place: &mut ClientSession<S>,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> bool {
        // What comes of that is for both sides.
        let successor = place.successor.and_then(|key| self.servers.get_mut(key));
        let mut has_more =
            successor.is_some_and(|it| swap::run_successor(it, session, scratch, cx));
        let mut server = place.server.and_then(|key| self.servers.get_mut(key));
        if let Some(server) = &mut server
            && server.has_news()
        {
            tell_news(server, session, scratch, cx);
            has_more |= server.has_stderr();
        }
        if place.resume.is_some() {
            return self.run_kept(key, session, place, scratch, cx) | has_more;
        }
        if place.is_read_closed() {
            place.notice_failure(session, cx);
        }
        let is_tls = place.is_tls();
        if is_tls {
            place.flush_client(session, cx);
        }
        let client = &mut place.client;
        let seat = place.seat;
        let sharing = seat.and_then(|_| self.services.sharing_mut(place.service));
        has_more |= match (server, seat, sharing) {
            (Some(server), None, _) => pump(session, client, server, scratch, cx),
            (_, Some(seat), Some(sharing)) => {
                let side = SeatSide::new(sharing, seat);
                pump_seat(session, client, side, scratch, cx)
            }
            _ => pump(session, client, &mut NoServer, scratch, cx),
        };
        if is_tls && place.note_held_input() {
            has_more |= session.wants_client_input();
        }
        self.note_speaker(key, session);
        has_more
    }
}

/// Pumps between a client and its place at shared servers.
#[inline(never)]
fn pump_seat(
    session: &mut Session,
    client: &mut impl Transport,
    mut side: SeatSide<'_>,
    scratch: &mut [u8],
    cx: &mut Context<'_>,
) -> bool {
    let has_more = pump(session, client, &mut side, scratch, cx);
    side.finish(cx.now, cx.memory);
    has_more
}

/// Tells a session what has become of its server, beside what that says on stdout.
#[inline(never)]
fn tell_news<S: System>(
    server: &mut Server<S>,
    session: &mut Session,
    scratch: &mut [u8],
    cx: &mut Context<'_>,
) {
    // Stderr comes first, so that a dying server's last words are in the log before its end is.
    server.read_stderr(scratch, |bytes| {
        session.handle(Event::UpstreamStderr(bytes), cx);
    });
    if let Some(unread) = server.take_left_unread() {
        session.handle(Event::UpstreamLeftUnread(&unread), cx);
    }
    if let Some(exit) = server.exit.take() {
        if server.stopping.is_some() {
            // What is left of its group is to see the end of its input.
            server.stdin = None;
        }
        session.handle(Event::UpstreamExited(*exit), cx);
    }
}

impl<S: System> Sides<'_, S> {
    /// Whoever has spoken is served before those who have not.
    #[inline]
    fn note_speaker(&mut self, key: SessionKey, session: &Session) {
        if self.start_queue.has_silent() && session.waits_for_upstream() {
            self.start_queue.speaks(key);
        }
    }

    /// Runs a session of which the connection may be lost and come back.
    #[inline(never)]
    fn run_kept(
        &mut self,
        key: SessionKey,
        session: &mut Session,
        place: &mut ClientSession<S>,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> bool {
        let Some(resuming) = self.resuming.as_deref_mut() else {
            return false;
        };
        session.begin_run(cx);
        if place.is_tls()
            && let Some(error) = place.flush_tls()
        {
            place.finish_run(key, Some(error), session, resuming, cx);
        }
        place.receive(key, session, resuming, scratch, cx);
        // An acknowledgement can wait for lines to go along with.
        let flushed = place.flush_channel(usize::MAX, session, resuming, cx);
        let mut failed = flushed.err();
        let (mut has_more, mut is_stalled) = (false, false);
        let (client, resume) = (&mut place.client, &mut place.resume);
        if let Some(server) = resume {
            // That grows no more: all that there is was read.
            let waiting = session.waiting_for_other_side();
            let mut side = ClientSession::<S>::kept_side(client, server, resuming, waiting, cx);
            let seat = place.seat;
            let sharing = seat.and_then(|_| self.services.sharing_mut(place.service));
            if let (Some(seat), Some(sharing)) = (seat, sharing) {
                let mut seat = SeatSide::new(sharing, seat);
                has_more = pump_on(session, &mut side, &mut seat, scratch, cx);
                is_stalled = seat.is_stalled();
                seat.finish(cx.now, cx.memory);
            } else {
                has_more = match place.server.and_then(|key| self.servers.get_mut(key)) {
                    Some(server) => pump_on(session, &mut side, server, scratch, cx),
                    None => pump_on(session, &mut side, &mut NoServer, scratch, cx),
                };
            }
            failed = failed.or(side.into_error());
        }
        if is_stalled && session.is_detached() {
            if let Some(server) = &mut place.resume {
                server.has_overflowed = true;
            }
            let error = "more has come for it than is kept, before it came back";
            let error = std::io::Error::new(std::io::ErrorKind::TimedOut, error);
            session.handle(Event::ClientFailed(&error), cx);
        }
        has_more |= place.finish_run(key, failed, session, resuming, cx);
        if place.is_tls() {
            has_more |= place.note_held_input();
        }
        self.note_speaker(key, session);
        has_more
    }
}
