//! Looks up the name of the proxy's host in a process of its own.
//!
//! getaddrinfo(3) blocks for as long as a name server is silent, and nothing else asks all the sources of names that a
//! system may be set up with (`nsswitch.conf(5)`). So this program is run once more as `mcp-tcp-proxy resolve HOST PORT`: it
//! prints one address per line, or the reason on stderr why there is none. Both go to one pipe, which the loop reads.
//! Unlike a thread, a process can be killed at any time.

use std::env;
use std::ffi::{CStr, CString};
use std::fmt::Write;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use mio::unix::pipe;
use mio::{Interest, Token};
use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::prctl::{set_name, set_pdeathsig};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};

use super::credentials::TOKEN_VARIABLE;
use super::{Channel, Due};
use crate::reactor::Reactor;
use crate::reactor::io::{Input, Io, Readiness};
use crate::reactor::token::Target;

/// This program, even if its file was replaced or removed since it was started (`proc_pid_exe(5)`).
const THIS_PROGRAM: &str = "/proc/self/exe";

/// The name that the process is listed under, in place of [`THIS_PROGRAM`].
const NAME: &CStr = c"mcp-tcp-proxy";

/// What one read takes at most, in bytes: the addresses of nearly any name. Those of others take several reads.
const READ_BYTES: usize = 4096;

/// What that process does. Returns what it has to print: the addresses of a host, one per line.
///
/// Errors are those of getaddrinfo(3).
pub fn look_up(host: &str, port: u16) -> io::Result<String> {
    // It must not outlive the process that asked. If this fails, it lives as long as the name server keeps it waiting.
    let _ = set_pdeathsig(Signal::SIGKILL);
    // Or ps(1) would list it as "exe".
    let _ = set_name(NAME);
    addresses(host, port)
}

fn addresses(host: &str, port: u16) -> io::Result<String> {
    let mut lines = String::new();
    for address in (host, port).to_socket_addrs()? {
        let _ = writeln!(lines, "{address}");
    }
    if lines.is_empty() {
        return Err(io::Error::other("the name has no address"));
    }
    Ok(lines)
}

/// The address, if the host is one and needs no look-up.
pub(super) fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    let address: IpAddr = host.parse().ok()?;
    Some((address, port).into())
}

/// Starts look-ups, and reaps them.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    /// Those that are not reaped.
    children: Vec<Pid>,
}

/// A look-up that is under way. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct LookUp {
    /// `None` once it is over, so that there is nothing to kill.
    child: Option<Pid>,
    output: Io<pipe::Receiver>,
    text: Vec<u8>,
}

/// The addresses, or why there are none.
pub(super) type Outcome = Result<Vec<SocketAddr>, String>;

impl Resolver {
    /// Starts a look-up. A name is looked up anew each time, as its addresses may have changed.
    pub(super) fn start(
        &mut self,
        host: &str,
        port: u16,
        reactor: &mut Reactor<Channel, Due>,
    ) -> io::Result<LookUp> {
        // Where SIGCHLD is ignored, nothing tells that the last one has ended.
        self.reap(None);
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
        let ours = pipe::Receiver::from(ours);
        ours.set_nonblocking(true)?;
        let target = Target {
            key: 0,
            channel: Channel::LookUp,
        };
        let output = reactor.register(ours, target, Interest::READABLE)?;
        let child = spawn(host, port, &theirs).map_err(|error| {
            let text = format!("the name look-up could not be started ({THIS_PROGRAM}: {error})");
            io::Error::new(error.kind(), text)
        })?;
        self.children.push(child);
        Ok(LookUp {
            child: Some(child),
            output,
            text: Vec::new(),
        })
    }

    /// Reaps those that have ended, and tells the one that is under way if it is among them. Other children, which this
    /// program may have been started with, are left alone.
    pub(super) fn reap(&mut self, under_way: Option<&mut LookUp>) {
        let has_ended = |child: &Pid| {
            let status = waitpid(*child, Some(WaitPidFlag::WNOHANG));
            !matches!(status, Ok(WaitStatus::StillAlive))
        };
        let ended: Vec<Pid> = self
            .children
            .extract_if(.., |child| has_ended(child))
            .collect();
        if let Some(look_up) = under_way.filter(|look_up| {
            let child = look_up.child;
            child.is_some_and(|child| ended.contains(&child))
        }) {
            look_up.exited();
        }
    }

    /// Whether all were reaped.
    pub(super) fn is_idle(&self) -> bool {
        self.children.is_empty()
    }
}

/// Stdin is nothing, stdout and stderr are `output`. The signals that the loop takes as events are not blocked there.
fn spawn(host: &str, port: u16, output: &OwnedFd) -> io::Result<Pid> {
    let mut actions = PosixSpawnFileActions::init()?;
    let nothing = File::open("/dev/null")?;
    actions.add_dup2(nothing.as_raw_fd(), 0)?;
    for number in [1, 2] {
        actions.add_dup2(output.as_raw_fd(), number)?;
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK)?;
    let host = CString::new(host)?;
    let port = CString::new(port.to_string())?;
    let arguments = [NAME, c"resolve", &host, &port];
    // The token is no business of a process that others can look into.
    let inherited = env::vars_os().filter(|(name, _)| name != TOKEN_VARIABLE);
    let environment = inherited.filter_map(|(name, value)| {
        CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
    });
    let environment: Vec<CString> = environment.collect();
    Ok(posix_spawn(
        THIS_PROGRAM,
        &actions,
        &attributes,
        &arguments,
        &environment,
    )?)
}

impl LookUp {
    /// Latches what an event says, if it is about the output.
    pub(super) fn latch(&mut self, token: Token, readiness: Readiness) {
        self.output.latch(token, readiness);
    }

    /// The process was reaped. All that it printed is in the pipe, even if something else holds that open.
    fn exited(&mut self) {
        self.child = None;
        self.output.assume_readable();
    }

    /// Reads what there is. Returns the outcome once the process has said everything.
    pub(super) fn read(&mut self) -> Option<Outcome> {
        let mut buffer = [0; READ_BYTES];
        while self.output.is_readable() {
            match self.output.read(&mut buffer) {
                Input::Bytes(count) => self.text.extend_from_slice(&buffer[..count]),
                Input::Blocked if self.child.is_some() => {}
                Input::Blocked | Input::End | Input::Broken(_) => {
                    self.child = None;
                    return Some(outcome(&String::from_utf8_lossy(&self.text)));
                }
            }
        }
        None
    }
}

impl Drop for LookUp {
    fn drop(&mut self) {
        if let Some(child) = self.child {
            // It has not been reaped, so the pid is still its own.
            let _ = kill(child, Signal::SIGKILL);
        }
    }
}

/// The libraries that resolve names may have printed something else.
fn outcome(text: &str) -> Outcome {
    let addresses: Vec<SocketAddr> = text.lines().filter_map(|line| line.parse().ok()).collect();
    if !addresses.is_empty() {
        return Ok(addresses);
    }
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    Err(last
        .unwrap_or("the name look-up ended without an answer")
        .to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A look-up without a process, and what it writes to.
    fn look_up() -> (LookUp, pipe::Sender) {
        let (sender, receiver) = pipe::new().unwrap();
        let look_up = LookUp {
            child: None,
            output: Io::new(receiver, Token(1), Interest::READABLE),
            text: Vec::new(),
        };
        (look_up, sender)
    }

    #[test]
    fn addresses_need_no_look_up() {
        for (host, expected) in [
            ("127.0.0.1", Some("127.0.0.1:80")),
            ("::1", Some("[::1]:80")),
            ("localhost", None),
            ("127.1", None),
            ("fe80::1%lo", None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(literal(host, 80), expected, "{host}");
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        let text = addresses("127.0.0.1", 80).unwrap();
        assert_eq!(text, "127.0.0.1:80\n");
        let scoped = "[fe80::1%3]:80";
        let both = outcome(&format!("{text}{scoped}\n")).unwrap();
        assert_eq!(both[1].to_string(), scoped);
    }

    #[test]
    fn an_outcome_is_addresses_or_the_last_line() {
        let one = |port| Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]);
        let error = |text: &str| Err(text.to_owned());
        for (text, expected) in [
            ("127.0.0.1:1\n", one(1)),
            ("libnss_x: warning\n127.0.0.1:2\n", one(2)),
            ("warning\nNo such name\n\n", error("No such name")),
            ("", error("the name look-up ended without an answer")),
        ] {
            assert_eq!(outcome(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_end_of_the_output_is_the_outcome_in_whatever_pieces_it_came() {
        let (mut look_up, mut sender) = look_up();
        // As long as the process lives.
        look_up.child = Some(Pid::from_raw(i32::MAX));
        assert!(look_up.read().is_none());
        for piece in ["127.0.", "0.1:80\n[::1]", ":80\n"] {
            sender.write_all(piece.as_bytes()).unwrap();
            look_up.latch(Token(1), Readiness::READABLE);
            assert!(look_up.read().is_none());
        }
        drop(sender);
        crate::util::others_end::wait_until_others_have_closed(look_up.output.source());
        look_up.latch(Token(1), Readiness::READABLE | Readiness::READ_CLOSED);
        assert_eq!(look_up.read().unwrap().unwrap().len(), 2);
        assert_eq!(look_up.child, None, "it would be killed");
    }

    #[test]
    fn the_exit_is_the_end_also_if_others_hold_the_output_open() {
        let (mut look_up, mut sender) = look_up();
        sender.write_all(b"127.0.0.1:80\n").unwrap();
        look_up.exited();
        assert_eq!(look_up.read().unwrap().unwrap().len(), 1);
    }
}
