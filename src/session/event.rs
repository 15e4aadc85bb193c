//! What goes into a session, and what comes out: events and actions.

use std::io;
use std::time::Duration;

use super::Settings;
use super::counts::Counts;
use super::log_limits::LogLimits;
use super::records::Records;
use super::report::Exit;
use crate::buffers::budget::BufferBudget;
use crate::protocol::own_messages::ErrorReason;
use crate::util::time::Time;

/// What every event is handled with.
#[derive(Debug)]
pub struct Context<'a> {
    /// The time, read once for all events of an iteration of the loop.
    pub now: Time,
    /// What all sessions have in common.
    pub settings: &'a Settings,
    /// The memory that all sessions share.
    pub memory: &'a mut BufferBudget,
    /// The limits on what all sessions together may log.
    pub logs: &'a mut LogLimits,
    /// The handshakes that sessions have in common.
    pub records: &'a mut Records,
    /// What is counted of all sessions.
    pub counts: &'a mut Counts,
    /// Where actions are collected; they are carried out after the event.
    pub actions: &'a mut Vec<Action>,
}

/// What the session asks its driver to do with its two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the upstream, and report [`Event::UpstreamStarted`] or [`Event::UpstreamFailed`].
    StartUpstream,
    /// End the upstream: close its input, and use force if it does not exit.
    StopUpstream,
    /// The same, but with little patience: it is not used, and may be released before it is gone. If it is a seat at shared
    /// servers, it stays, and is not used for now.
    HibernateUpstream,
    /// The upstream is gone, and its output was read to the end: release it.
    ReleaseUpstream,
    /// Half-close the connection to the client; nothing more will be sent.
    ShutdownClient,
    /// Close the connection to the client.
    CloseClient,
    /// Look at the send queue of the connection to the client, and report [`Event::ClientQueue`].
    MeasureClient,
    /// The client may have vanished. If the system knows that it has, report [`Event::ClientFailed`].
    CheckClient,
    /// A client asks in its first line for its session to be kept while its connection is lost
    /// ([`Session::asked_to_resume`](super::Session::asked_to_resume)). Say what becomes of that: [`Event::Kept`] or
    /// [`Event::NotKept`].
    ResumeAsked,
    /// Nothing has come over a link that may be lost and come back for too long: take it for lost.
    LinkSilent,
    /// The session is to get a new server, once it can.
    BeginSwap,
    /// It can: start a server beside its own, and report [`Event::SuccessorStarted`] or [`Event::SuccessorFailed`]; or report
    /// [`Event::SwapInPlace`]. That may wait, but only while [`Session::waits_for_turn`](super::Session::waits_for_turn).
    QueueSwap,
    /// While [`Session::wants_move`](super::Session::wants_move): put the new server in the place of the old one, which is to
    /// end, and report [`Event::UpstreamMoved`].
    MoveUpstream,
    /// It is over. If there is a new server that was not put in the place of the old one, it is not wanted.
    EndSwap(SwapEnd),
    /// The proxy at the other end may have vanished. If the system knows that it has, report [`Event::UpstreamEof`].
    CheckUpstream,
}

/// How the attempt ended to have a session go on with a new server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapEnd {
    /// It does.
    Moved,
    /// The new server is not fit. [`Session::swap_failure`](super::Session::swap_failure) says why, until
    /// [`Event::SwapOver`].
    Failed {
        /// Whether it was its turn.
        had_turn: bool,
    },
    /// There is nothing to be moved any more.
    Over {
        /// Whether it was its turn.
        had_turn: bool,
    },
    /// It was its turn, and it will have to be once more.
    Again,
}

/// What happens to a session.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// The client sent these bytes.
    ClientBytes(&'a [u8]),
    /// The end of the client's side was read.
    ClientEof,
    /// The client is known to have ended its side, although that was not read yet.
    ClientHup,
    /// The connection to the client broke, or can't be read or written for another reason.
    ClientFailed(&'a io::Error),
    /// The first bytes of [`Session::to_client`](super::Session::to_client), this many, were written.
    ClientWritten(usize),
    /// The result of [`Action::MeasureClient`].
    ClientQueue {
        /// How many bytes were written to the client and are not acknowledged yet; the end of our side counts as one.
        /// `None` if the system does not tell.
        unsent: Option<u32>,
    },
    /// The upstream was started.
    UpstreamStarted {
        /// Its process, if it is one.
        pid: Option<u32>,
    },
    /// The upstream is a seat at servers that others use, too.
    Seated {
        /// Whether a session that opens with `initialize` may keep it.
        serves_legacy: bool,
    },
    /// The servers behind the seat are others than the client knows.
    ServerChanged,
    /// The upstream could not be started. That counts as a loss.
    UpstreamFailed(&'a str),
    /// The upstream could not be started, and no attempt changes that before somebody puts right what is wrong.
    UpstreamMissing(&'a str),
    /// There is an upstream, but none may be used, for this reason.
    UpstreamDenied(&'a str),
    /// The upstream could not be started, and could not be by another attempt.
    UpstreamRefused {
        /// What requests are told.
        reason: ErrorReason,
        /// What is wrong.
        words: &'a str,
    },
    /// The upstream sent these bytes; a process, on its stdout.
    UpstreamBytes(&'a [u8]),
    /// The end of the upstream's output was read, or an error instead: of the kind [`io::ErrorKind::PermissionDenied`] if a link
    /// was refused after all.
    UpstreamEof(Option<&'a io::Error>),
    /// A write to the upstream failed: nobody reads its input any more.
    UpstreamInputBroke,
    /// The same, with the tail of what was written, which nobody has read. It may begin in the middle of a line.
    UpstreamLeftUnread(&'a [u8]),
    /// In place of [`Self::Deadline`]: the server process has yet to read some of what was written to it, and is not to be
    /// given back.
    UpstreamReadsLate,
    /// The first bytes of [`Session::to_upstream`](super::Session::to_upstream), this many, were written.
    UpstreamWritten(usize),
    /// The server process wrote these bytes to its stderr.
    UpstreamStderr(&'a [u8]),
    /// The server process exited, and was reaped.
    UpstreamExited(Exit),
    /// The user wants it to go on with a new server.
    SwapWanted,
    /// The new server was started beside the old one.
    SuccessorStarted {
        /// Its process.
        pid: Option<u32>,
    },
    /// The new server could not be started.
    SuccessorFailed(&'a str),
    /// The new server is started when the old one is gone.
    SwapInPlace,
    /// The new server wrote these bytes to its stdout.
    SuccessorBytes(&'a [u8]),
    /// The first bytes of [`Session::to_successor`](super::Session::to_successor), this many, were written.
    SuccessorWritten(usize),
    /// The new server wrote these bytes to its stderr.
    SuccessorStderr(&'a [u8]),
    /// The new server exited, or closed a pipe.
    SuccessorEnded(Option<Exit>),
    /// The new server has taken the place of the old one.
    UpstreamMoved,
    /// No more new servers are wanted, as one was not fit.
    SwapOver,
    /// The time of [`Session::next_deadline`](super::Session::next_deadline) has come.
    Deadline {
        /// The time since 1970, for the time stamps of heartbeats and notices.
        unix_time: Duration,
    },
    /// A run begins, and lines that were read before can be handled in it.
    RunBegan,
    /// The memory that all sessions share is short, and an unfinished line of this one is the heaviest of all.
    MemoryShort,
    /// The connection to the client, or the link, may be lost and come back.
    Kept,
    /// It can't.
    NotKept,
    /// A connection that may come back is lost.
    Detached,
    /// It is back, or another is in its place; over it, everything that was not taken is sent again.
    Attached,
    /// A link came back, but the session at its other end is gone. [`Event::Kept`] does not hold any more.
    NotResumed {
        /// The last lines that were written, which were not taken there, if that is known.
        untaken: Option<&'a [u8]>,
    },
    /// A line of the proxy at the other end about the connection itself.
    LinkSaid(&'a [u8]),
    /// The client may not use the server any more.
    Revoked,
    /// The program is being stopped.
    ShutDown,
}
