//! How a server ends: by itself, with its input, by a signal, and what its children still hold then.

use std::time::Duration;

use mcp_tcp_proxy::session::report::Exit;
use mcp_tcp_proxy::util::time::Time;
use nix::sys::signal::Signal;

use super::{Kind, Server};
use crate::journal::Journal;
use crate::stats::{Fault, Stats};
use crate::transport::End;

impl Server {
    /// Its input has ended: it goes, sooner or later, unless it doesn't care.
    pub(super) fn input_ended(&mut self, now: Time, journal: &mut Journal, stats: &mut Stats) {
        if self.manners.ignores_end {
            return;
        }
        let is_done = self.jobs.is_empty() && self.out.is_empty();
        if is_done || (!self.manners.calm && self.rng.percent(20)) {
            stats.fault_if(!is_done, Fault::ServerCrashesMidLine);
            self.ends(Exit::Code(0), now, journal, stats);
        }
    }

    pub(super) fn misbehave(&mut self, now: Time, journal: &mut Journal, stats: &mut Stats) {
        match self.rng.below(1000) {
            0..=5 => {
                let (exit, fault) = if self.rng.percent(50) {
                    (
                        Exit::Signal(self.rng.pick(&[6, 9, 11])),
                        Fault::ServerCrashes,
                    )
                } else {
                    (Exit::Code(self.rng.pick(&[0, 1, 3])), Fault::ServerExits)
                };
                stats.fault_if(self.kind == Kind::Process, fault);
                let speaks = self.slot.is_some() && !self.stalls && self.out.is_empty();
                if speaks && self.rng.percent(40) {
                    self.last_words(journal);
                }
                stats.fault_if(self.out.is_part_written(), Fault::ServerCrashesMidLine);
                self.ends(exit, now, journal, stats);
            }
            6 if self.kind == Kind::Process => {
                stats.fault(Fault::ServerClosesStdin);
                self.close_input();
            }
            7 if self.kind == Kind::Process => {
                stats.fault(Fault::ServerClosesStdout);
                self.out.clear();
                self.pipes.borrow_mut().input.end(End::Closed);
            }
            8 | 9 => {
                stats.fault(if self.kind == Kind::Process {
                    Fault::ServerStalls
                } else {
                    Fault::PeerSilent
                });
                self.stalls = true;
            }
            10..=29 => (self.stalls, self.is_deaf) = (false, false),
            _ => {}
        }
    }

    /// The process exits, or the connection is gone.
    pub fn ends(&mut self, exit: Exit, now: Time, journal: &mut Journal, stats: &mut Stats) {
        if !self.is_running() {
            return;
        }
        self.exit = Some(exit);
        if self.kind == Kind::Connection {
            let resets = self.rng.percent(50);
            stats.fault(if resets {
                Fault::ConnectionReset
            } else {
                Fault::ConnectionClosed
            });
            if resets {
                return self.pipes.borrow_mut().reset();
            }
            self.pipes
                .borrow_mut()
                .output
                .break_off(std::io::ErrorKind::ConnectionReset);
            return self.pipes.borrow_mut().input.end(End::Closed);
        }
        if !(self.manners.leaves_child && self.manners.child_holds_input) {
            self.close_input();
        }
        if self.manners.leaves_child {
            stats.fault(Fault::OutputHeldOpen);
            journal.servers[self.index].may_be_cut_off = true;
            let millis = self.rng.pick(&[1, 100, 499, 501, 2000]);
            let until = now + Duration::from_millis(millis);
            self.held_open_until = self.leaves_child_until.or(Some(until));
        } else {
            self.pipes.borrow_mut().input.end(End::Closed);
            self.stderr.borrow_mut().end(End::Closed);
        }
    }

    /// It ends at the end of its input, and leaves a child behind which no signal ends.
    pub fn leave_child(&mut self, until: Time) {
        self.manners.leaves_child = true;
        self.manners.has_deaf_child = true;
        self.leaves_child_until = Some(until);
    }

    fn close_input(&self) {
        let output = &mut self.pipes.borrow_mut().output;
        output.break_off(std::io::ErrorKind::BrokenPipe);
    }

    /// Nobody holds the output of the process open any more.
    pub fn let_go(&mut self, now: Time) {
        if self.held_open_until.is_some_and(|until| until <= now) {
            self.held_open_until = None;
            self.close_input();
            self.pipes.borrow_mut().input.end(End::Closed);
            self.stderr.borrow_mut().end(End::Closed);
        }
    }

    /// Whether anyone is left in its process group.
    pub fn group_is_left(&self) -> bool {
        !self.reaped || self.held_open_until.is_some()
    }

    /// Whether the loop may not signal it.
    pub fn is_untouchable(&self) -> bool {
        self.manners.is_untouchable
    }

    /// What a signal does to its process group.
    pub fn signal(&mut self, signal: Signal, now: Time, journal: &mut Journal, stats: &mut Stats) {
        let is_ignored = signal == Signal::SIGTERM && self.manners.ignores_sigterm;
        self.asked_to_go = self.asked_to_go.or(self.given_back.map(|_| now));
        if self.is_running() {
            stats.fault(Fault::ServerStaysAfterEnd);
            stats.fault_if(is_ignored, Fault::ServerIgnoresSigterm);
        }
        if is_ignored {
            return;
        }
        self.ends(Exit::Signal(signal as i32), now, journal, stats);
        if self.held_open_until.is_some() && !self.manners.has_deaf_child {
            self.held_open_until = Some(now);
            self.let_go(now);
        }
    }
}
