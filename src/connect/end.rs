//! The end of the stdio side, and of each of its connections: how long what is left has, and what is left undone.

use std::io;
use std::time::Duration;

use log::error;
use mio::Events;

use super::{Connector, Due};
use crate::session::{Event, Session};
use crate::util::plural::Counted;

/// After the end of our side of the connection, the other side has this long to end its own. It stops its server in that
/// time, by force if need be: two seconds until SIGTERM, five more until SIGKILL, and three to spare.
pub(super) const CLOSE_TIME: Duration = Duration::from_secs(10);

/// After a signal, what is left to be delivered has this long. Whoever sends it does not wait much longer before SIGKILL:
/// the MCP SDKs for TypeScript and Python two seconds.
pub(super) const STOP_TIME: Duration = Duration::from_secs(1);

/// After the end of stdin, everything has this long: half a minute to be served, and [`CLOSE_TIME`]. Who has closed it
/// waits for our end, and may not read what we have to say.
pub(super) const END_TIME: Duration = Duration::from_secs(40);

/// At the end, a look-up that was killed is waited for this long, so that it is not left as a zombie for others to reap. It
/// takes a millisecond; the rest is for a machine under load.
const REAP_TIME: Duration = Duration::from_secs(1);

/// In that time it is checked this often, as no signal tells of its end where SIGCHLD is ignored. Nobody notices a wait
/// as short as this.
const REAP_INTERVAL: Duration = Duration::from_millis(10);

impl Connector {
    /// Ends as soon as what is there is delivered; when told a second time, at once.
    pub(super) fn stop(&mut self) {
        if self.stop_deadline.at().is_some() {
            self.done = true;
            return;
        }
        let timers = &mut self.reactor.timers;
        let at = timers.now() + STOP_TIME;
        self.stop_deadline.set(Some(at), Due::Stop, timers);
        if self.is_end_put_off() {
            self.drop_connection();
        }
        self.tell(Event::ShutDown);
    }

    pub(super) fn note_end_of_stdin(&mut self) {
        let session = self.scheduler.session(self.session);
        if self.end_deadline.at().is_none() && session.is_some_and(Session::client_has_left) {
            let timers = &mut self.reactor.timers;
            let at = timers.now() + END_TIME;
            self.end_deadline.set(Some(at), Due::End, timers);
        }
    }

    /// Whatever is still to be served or delivered: it had its time. Who waits for a response is told, if he reads.
    pub(super) fn end_overdue(&mut self) {
        let is_said = !self.is_end_put_off();
        self.drop_connection();
        self.scheduler.enqueue(self.session);
        self.scheduler
            .run_ready(&mut self.sides, &mut self.reactor.timers);
        let session = self.scheduler.session(self.session);
        let is_heard = session.is_none_or(|session| session.to_client().is_empty());
        self.is_cut_off = !is_said || !is_heard;
        self.done = true;
    }

    /// Whether the end waits for a connection, over which something is still to be said.
    fn is_end_put_off(&self) -> bool {
        let kept = self.sides.kept.as_ref();
        kept.is_some_and(|kept| kept.is_lost() && kept.is_ending())
    }

    /// The time is for the other side, not for a program that is slow to read our stdout: while that has to be waited for,
    /// it begins anew.
    pub(super) fn close_overdue(&mut self) {
        self.sides.link.deadline_fired();
        let memory = self.scheduler.memory();
        let session = self.scheduler.session(self.session);
        let has_had_time = self.sides.has_ended_side()
            && session.is_some_and(|session| session.wants_upstream_output(memory));
        if has_had_time {
            self.drop_connection();
        } else {
            let timers = &mut self.reactor.timers;
            let at = timers.now() + CLOSE_TIME;
            self.sides.link.extend_close(at, timers);
        }
    }

    /// Kills a look-up that is still under way, and leaves no process behind.
    pub(super) fn reap_look_ups(&mut self, events: &mut Events) -> io::Result<()> {
        self.sides.link.bring_down(&mut self.reactor.timers);
        self.resolver.reap(None);
        let until = self.reactor.now() + REAP_TIME;
        while !self.resolver.is_idle() && self.reactor.now() < until {
            let at = self.reactor.now() + REAP_INTERVAL;
            self.reactor.timers.set(at, Due::Reap);
            self.reactor.wait(events, false)?;
            for event in &*events {
                self.reactor.target(event.token());
            }
            // Neither signals nor deadlines mean anything any more, but both must be taken to be waited for again.
            self.signals.take();
            while self.reactor.timers.pop().is_some() {}
            self.resolver.reap(None);
        }
        Ok(())
    }
}

/// Whether the host got all that it wanted; if not, the reason is logged.
pub(super) fn has_ended_well(session: &Session) -> bool {
    let peer = session.label().peer();
    if let Some(reason) = session.failure() {
        error!("{peer}: {reason}");
        return false;
    }
    match session.unserved() {
        0 => true,
        count => {
            error!(
                "{peer}: not served, as the connection was lost or not there: {}",
                Counted(count, "request")
            );
            false
        }
    }
}
