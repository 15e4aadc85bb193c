//! When a link is asked for that may come back, when attempts to make it again are made, and when no more are.

use std::io::{self, ErrorKind};
use std::time::Duration;

use log::{debug, warn};

use super::end::CLOSE_TIME;
use super::kept_link::{End, KeptLink, Step};
use super::kept_run::Carrier;
use super::link::Link;
use super::{Connector, Due};
use crate::protocol::own_messages;
use crate::reactor::timers::boot_time;
use crate::resume::wire::{Ask, SessionId};
use crate::session::Event;
use crate::util::secret::Secret;

/// A proxy that goes on as another program loses all its TLS connections at once: their handshakes are spread over this time.
const TLS_SPREAD: Duration = Duration::from_secs(1);

/// Between none and all of it. Without random bits it is half.
fn random_part_of(time: Duration) -> Duration {
    let mut random = [0; 2];
    let part = match getrandom::fill(&mut random) {
        Ok(()) => u16::from_le_bytes(random),
        Err(_) => u16::MAX / 2,
    };
    time.mul_f64(f64::from(part) / f64::from(u16::MAX))
}

impl Connector {
    /// Begins a session that is kept when its connection is lost, if that is wanted.
    pub(super) fn ask(&mut self) {
        let heartbeat = self.scheduler.settings().heartbeat_interval;
        let Some(id) = self.fresh_id() else {
            return;
        };
        let mut kept = KeptLink::new(id, heartbeat, self.reactor.now(), boot_time());
        kept.begin_with(&self.handshake(&kept.ask()));
        self.sides.kept = Some(Box::new(kept));
        self.tell(Event::Kept);
    }

    fn fresh_id(&self) -> Option<SessionId> {
        let mut random = [0; 16];
        let is_random = self.resumes && getrandom::fill(&mut random).is_ok();
        is_random.then(|| SessionId::new(random))
    }

    fn handshake(&self, ask: &Ask) -> String {
        let role = &self.scheduler.settings().role;
        let token = role.token().map(Secret::reveal);
        own_messages::handshake(token, role.server(), Some(&ask.text()))
    }

    /// There is a connection again: says whose it was. Nothing more is sent before the verdict.
    pub(super) fn ask_again(&mut self) {
        let Some(fresh) = self.fresh_id() else {
            return self.give_up_resuming("there are no random bits");
        };
        let now = self.reactor.now();
        let Some(kept) = &mut self.sides.kept else {
            return;
        };
        let ask = kept.ask_again(fresh, now);
        let line = self.handshake(&ask);
        if let Some(kept) = &mut self.sides.kept {
            kept.say_first(&line);
        }
        let timers = &mut self.reactor.timers;
        let at = timers.now() + self.connect_timeout;
        self.retry.set(Some(at), Due::Retry, timers);
        self.scheduler.enqueue(self.session);
    }

    /// An attempt has failed.
    pub(super) fn try_again(&mut self) {
        if let Some(kept) = &mut self.sides.kept {
            kept.try_again();
        }
        self.go_on_resuming();
    }

    /// Plans the next attempt, if one is wanted.
    pub(super) fn go_on_resuming(&mut self) {
        if !self.sides.is_lost() {
            let timers = &mut self.reactor.timers;
            self.retry.clear(timers);
            self.not_resumed.clear(timers);
            return self.end_once_back();
        }
        let timers = &mut self.reactor.timers;
        let Some(kept) = &mut self.sides.kept else {
            return;
        };
        let mut spread = Duration::ZERO;
        if kept.is_down()
            && let Some(link) = self.sides.link.io()
        {
            if link.source().is_tls() {
                spread = random_part_of(TLS_SPREAD);
            }
            self.sides.link.bring_down(timers);
        }
        let now = timers.now();
        let Some(session) = self.scheduler.session_mut(self.session) else {
            return;
        };
        match kept.next_step(session, now, boot_time()) {
            Step::Wait => {}
            Step::GiveUp(why) => self.give_up_resuming(why),
            Step::ConnectAt { at, left } => {
                self.not_resumed
                    .set(Some(now + left), Due::NotResumed, timers);
                let at = at + spread;
                if at <= now {
                    self.retry.clear(timers);
                    self.connect();
                } else {
                    self.retry.set(Some(at), Due::Retry, timers);
                }
            }
        }
    }

    /// Our side was to end while there was no connection.
    fn end_once_back(&mut self) {
        let kept = self.sides.kept.as_ref();
        let is_due = kept.is_some_and(|kept| kept.is_ending());
        if is_due && matches!(self.sides.link, Link::Up { .. }) {
            let timers = &mut self.reactor.timers;
            let at = timers.now() + CLOSE_TIME;
            self.sides.link.half_close(at, timers);
            self.scheduler.enqueue(self.session);
        }
    }

    /// The session has no use for its link any more. The other side ends its own when it has said everything.
    pub(super) fn end_our_side(&mut self) {
        // Whoever has ended stdin waits for what was said before; nobody else does.
        let may_wait = self.end_deadline.at().is_some() && self.stop_deadline.at().is_none();
        let kept = self.sides.kept.as_mut();
        let end = kept.map_or(End::Now, |kept| kept.end(may_wait));
        let connection = self.sides.link.io_mut();
        let connection = connection.filter(|_| matches!(end, End::Now | End::OnceSaid));
        match (end, connection) {
            (End::OnceBack, _) => return,
            (_, None) => return self.drop_connection(),
            (End::Now, Some(connection)) => connection.source_mut().end(),
            (_, Some(_)) => self.scheduler.enqueue(self.session),
        }
        let timers = &mut self.reactor.timers;
        let at = timers.now() + CLOSE_TIME;
        self.sides.link.half_close(at, timers);
    }

    /// The time for the next attempt has come, or that for the verdict is over.
    pub(super) fn retry_due(&mut self) {
        self.retry.fired();
        let Some(kept) = &self.sides.kept else {
            return;
        };
        if kept.awaits_verdict() {
            self.give_up_resuming("the proxy does not answer");
        } else if kept.is_down() && matches!(self.sides.link, Link::Down) {
            self.connect();
        }
    }

    /// The proxy has no session any more, if the clock is right that goes on while the machine sleeps.
    pub(super) fn resume_overdue(&mut self) {
        self.not_resumed.fired();
        let kept = self.sides.kept.as_ref().filter(|kept| kept.is_lost());
        let Some(left) = kept.map(|kept| kept.time_left(boot_time())) else {
            return;
        };
        match left {
            Some(left) => {
                let timers = &mut self.reactor.timers;
                let at = timers.now() + left;
                self.not_resumed.set(Some(at), Due::NotResumed, timers);
            }
            None => self.give_up_resuming("its time is over"),
        }
    }

    /// What is in flight is lost, and the session begins anew.
    fn give_up_resuming(&mut self, why: &str) {
        warn!("{}: the session is not resumed: {why}", self.address);
        self.forget_kept();
        let timers = &mut self.reactor.timers;
        self.retry.clear(timers);
        self.not_resumed.clear(timers);
        self.sides.link.bring_down(timers);
        let error = io::Error::from(ErrorKind::TimedOut);
        self.tell(Event::UpstreamEof(Some(&error)));
    }

    /// The link is not to come back.
    pub(super) fn forget_kept(&mut self) {
        if let Some(mut kept) = self.sides.kept.take() {
            kept.release(self.scheduler.memory_mut());
        }
    }

    /// Makes a link, or takes the one that is there for a new session.
    pub(super) fn start_link(&mut self) {
        let kept = self.sides.kept.as_mut();
        let Some(early) = kept.and_then(|kept| kept.begin_fresh()) else {
            return self.connect();
        };
        self.tell(Event::Kept);
        self.tell(Event::UpstreamStarted { pid: None });
        if !early.is_empty() {
            self.tell(Event::UpstreamBytes(&early));
        }
    }

    /// The session has no use for its link any more. One that is for the next is not meant.
    pub(super) fn release_link(&mut self) {
        let kept = self.sides.kept.as_ref();
        if kept.is_some_and(|kept| kept.is_fresh()) {
            return;
        }
        self.forget_kept();
        self.sides.link.bring_down(&mut self.reactor.timers);
    }

    /// Nothing comes over the link any more.
    pub(super) fn link_is_silent(&mut self) {
        let Some(kept) = &mut self.sides.kept else {
            return;
        };
        if !kept.is_silent() {
            self.drop_connection();
            return;
        }
        debug!("the link is silent, and taken for lost");
        self.sides.link.bring_down(&mut self.reactor.timers);
        self.tell(Event::Detached);
    }

    /// At the end of the program: nobody comes back.
    pub(super) fn say_bye(&mut self) {
        let now = self.reactor.now();
        let Some(kept) = &mut self.sides.kept else {
            return;
        };
        if self.sides.link.io().is_some() && kept.end_for_good() {
            kept.flush(usize::MAX, now, &mut self.sides.link);
            self.sides.link.end();
        }
    }
}
