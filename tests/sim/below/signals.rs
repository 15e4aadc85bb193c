//! Signals to servers and from the system, and events that come too late.

use mcp_tcp_proxy::reactor::io::Readiness;
use mio::Token;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Below;
use crate::place::Place;
use crate::server::Server;
use crate::stats::Fault;
use crate::strangers::Stranger;
use crate::trace;

impl Below {
    pub fn signal_process(&mut self, leader: Pid, signal: Signal) -> nix::Result<()> {
        let key = self.by_pid.get(&leader.as_raw()).copied();
        let server = &mut self.servers[key.ok_or(Errno::ESRCH)?];
        assert!(!server.reaped, "a signal to a pid that may be another's");
        if server.is_untouchable() && server.is_running() {
            self.stats.fault(Fault::ServerUntouchable);
            server.kill_refused |= signal == Signal::SIGKILL;
            // It is not listened to for ever.
            if let Some(place) = server.slot.and_then(|slot| self.places.get_mut(slot)) {
                place.journal.servers[server.index].may_be_cut_off = true;
            }
            return Err(Errno::EPERM);
        }
        self.signal(leader, signal)
    }

    pub fn signal_group(&mut self, leader: Pid, signal: Signal) -> nix::Result<()> {
        let is_reaped = self.process(leader).is_none_or(|server| server.reaped);
        assert!(is_reaped, "its leader may have left the group");
        self.signal(leader, signal)
    }

    fn signal(&mut self, leader: Pid, signal: Signal) -> nix::Result<()> {
        self.group_reasons += 1;
        let key = self.by_pid.get(&leader.as_raw()).copied();
        let key = key.filter(|key| self.servers[*key].group_is_left());
        let key = key.ok_or(Errno::ESRCH)?;
        trace::note(|| format!("{signal} to pid {leader}"));
        self.with_server(key, |server, journal, now, stats| {
            server.signal(signal, now, journal, stats);
        });
        Ok(())
    }

    /// SIGCHLD comes, if it is due.
    pub fn raise_child(&mut self) {
        if !self.exited.is_empty() {
            self.signals.child = true;
            self.raise();
        }
    }

    /// SIGUSR1 comes.
    pub fn raise_swap(&mut self) {
        self.signals.swap = true;
        self.stats.fault(Fault::SwapWanted);
        self.raise();
    }

    /// SIGTERM comes.
    pub fn raise_stop(&mut self) {
        self.signals.stop = true;
        self.raise();
    }

    pub fn raise(&mut self) {
        self.for_processes
            .push((self.signal_token, Readiness::READABLE));
    }

    /// An event comes that is about what is gone.
    pub fn raise_stale(&mut self) {
        let is_stale = |token: &Token| {
            let is_place = |place: &Place| place.socket.borrow().input.token == Some(*token);
            let is_server = |server: &Server| server.has_token(*token);
            let is_stranger = |it: &Stranger| it.socket.borrow().input.token == Some(*token);
            !self.places.iter().any(|(_, place)| is_place(place))
                && !self.strangers.iter().any(|(_, it)| is_stranger(it))
                && !self.servers.iter().any(|(_, server)| is_server(server))
        };
        let stale = self.old_tokens.iter().copied().filter(is_stale);
        let stale: Vec<Token> = stale.collect();
        if !stale.is_empty() {
            let token = self.rng.pick(&stale);
            let all = Readiness::READABLE | Readiness::WRITABLE;
            let all = all | Readiness::READ_CLOSED | Readiness::WRITE_CLOSED;
            self.for_processes.push((token, all));
            self.for_connections.push((token, all));
        }
    }
}
