//! What was simulated, in figures.

use std::fmt;
use std::ops::AddAssign;

/// What can go wrong in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    ClientResets,
    ClientStalls,
    ClientVanishes,
    ClientLeavesMidLine,
    ServerCrashes,
    ServerCrashesMidLine,
    ServerExits,
    ServerClosesStdin,
    ServerClosesStdout,
    ServerStaysAfterEnd,
    ServerIgnoresSigterm,
    ServerUntouchable,
    ServerStalls,
    ServerDiesOfProbe,
    OutputHeldOpen,
    ReplayRefused,
    ConnectionReset,
    ConnectionClosed,
    PeerSilent,
    StartRefused,
    StartExhausted,
    ConnectTimesOut,
    ShortWrite,
    LateClock,
    Shutdown,
    NoFirstMessage,
    Idle,
    Refused,
    AcceptExhausted,
    RegisterExhausted,
    Killed,
    Handed,
    OtherProtocol,
    ShortLines,
    EndTakesTooLong,
    WaitsForMemory,
    Stranger,
    Revoked,
    Hibernates,
    SwapWanted,
    Moved,
    NotFit,
    Upgraded,
}

const FAULTS: usize = Fault::Upgraded as usize + 1;

/// How often each has happened.
#[derive(Debug, Clone)]
struct Faults([u64; FAULTS]);

impl Default for Faults {
    fn default() -> Self {
        Self([0; FAULTS])
    }
}

#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Turns of the loop, each after something has happened in the world.
    pub steps: u64,
    pub sessions: u64,
    pub servers: u64,
    pub client_lines: u64,
    pub server_lines: u64,
    pub requests: u64,
    pub bad_lines: u64,
    pub proxy_errors: u64,
    pub resent: u64,
    /// Lines that lost servers have left unread.
    pub unread: u64,
    pub replays: u64,
    pub virtual_seconds: u64,
    faults: Faults,
}

impl Stats {
    pub fn fault(&mut self, fault: Fault) {
        self.faults.0[fault as usize] += 1;
    }

    pub fn count(&self, fault: Fault) -> u64 {
        self.faults.0[fault as usize]
    }

    pub fn fault_if(&mut self, happens: bool, fault: Fault) {
        self.faults.0[fault as usize] += u64::from(happens);
    }

    pub fn faults(&mut self, fault: Fault, count: u64) {
        self.faults.0[fault as usize] += count;
    }
}

impl AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.sessions += other.sessions;
        self.servers += other.servers;
        self.client_lines += other.client_lines;
        self.server_lines += other.server_lines;
        self.requests += other.requests;
        self.bad_lines += other.bad_lines;
        self.proxy_errors += other.proxy_errors;
        self.resent += other.resent;
        self.unread += other.unread;
        self.replays += other.replays;
        self.virtual_seconds += other.virtual_seconds;
        for (sum, more) in self.faults.0.iter_mut().zip(other.faults.0) {
            *sum += more;
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} steps, {} sessions, {} servers, {} s of virtual time",
            self.steps, self.sessions, self.servers, self.virtual_seconds
        )?;
        writeln!(
            f,
            "{} lines of clients ({} bad, {} requests), {} lines of servers",
            self.client_lines, self.bad_lines, self.requests, self.server_lines
        )?;
        writeln!(
            f,
            "{} errors of the proxy's own, {} lines sent again, {} left unread, {} handshakes replayed",
            self.proxy_errors, self.resent, self.unread, self.replays
        )?;
        write!(f, "faults: {}", self.faults.0.iter().sum::<u64>())?;
        for (name, count) in NAMES.iter().zip(self.faults.0) {
            write!(f, "; {name} {count}")?;
        }
        Ok(())
    }
}

const NAMES: [&str; FAULTS] = [
    "client resets",
    "client stalls",
    "client vanishes",
    "client leaves mid-line",
    "server crashes",
    "server crashes mid-line",
    "server exits",
    "server closes stdin",
    "server closes stdout",
    "server stays after its input's end",
    "server ignores SIGTERM",
    "server that may not be signalled",
    "server stalls",
    "server dies of a probe",
    "output held open",
    "replay refused",
    "connection reset",
    "connection closed",
    "peer silent",
    "start refused",
    "start exhausted",
    "connect times out",
    "short writes",
    "clock late",
    "shutdown",
    "no first message",
    "idle",
    "turned away",
    "accept exhausted",
    "register exhausted",
    "second signal",
    "spare handed out",
    "another protocol",
    "many short lines",
    "end takes too long",
    "turns without memory",
    "strangers",
    "token files read again",
    "servers given back",
    "new servers wanted",
    "moved to a new server",
    "new server not fit",
    "upgrades",
];
