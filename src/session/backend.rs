//! Everything that differs between the two programs that a session is a part of: `serve`, whose upstreams are server
//! processes, and `connect`, whose upstreams are connections to a proxy.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::liveness::Liveness;
use super::peer::FirstLine;
use super::reconnect::ReconnectPolicy;
use super::report::{EndReason, Exit, Label};
use super::restart::{Decision, RestartPolicy};
use super::stillbirths::Stillbirths;
use crate::entrance::Name;
use crate::protocol::envelope::{Control, Envelope, Message, Method};
use crate::protocol::json;
use crate::protocol::own_messages::{Delivered, ErrorReason};
use crate::resume::wire::Side;
use crate::util::about::about;
use crate::util::defaults::is_default;
use crate::util::secret::Secret;
use crate::util::time::Time;

/// What the upstreams of all sessions are, and how lost ones are replaced.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Backend {
    /// Server processes: the clients come over TCP.
    Process {
        /// How many times a server is restarted within the window of its policy.
        max_restarts: u32,
    },
    /// Connections to a proxy: the client is the program that started this one.
    #[serde(skip)]
    Proxy {
        /// The longest delay between two attempts to connect.
        max_delay: Duration,
        /// How many attempts are made in a row; `None` for no limit.
        max_attempts: Option<u32>,
        /// How long a request may wait for a connection; `None` for ever.
        held_timeout: Option<Duration>,
        /// Whether the host is spared responses and progress that it did not ask for.
        is_tidy: bool,
        /// What is shown to the proxy, if it asks for that.
        token: Option<Secret>,
        /// The server that the proxy is asked for, if it is to have several.
        server: Option<Name>,
    },
}

impl Backend {
    /// What is shown to the other end of a link.
    pub fn token(&self) -> Option<&Secret> {
        match self {
            Self::Proxy { token, .. } => token.as_ref(),
            Self::Process { .. } => None,
        }
    }

    /// Which of the other end's servers is asked for.
    pub fn server(&self) -> Option<&str> {
        match self {
            Self::Proxy { server, .. } => server.as_ref().map(Name::as_str),
            Self::Process { .. } => None,
        }
    }

    pub(super) fn is_tidy(&self) -> bool {
        matches!(self, Self::Proxy { is_tidy: true, .. })
    }

    /// Whether clients may speak another protocol by mistake, or on purpose. The program that started `connect` does not.
    pub(super) fn is_guarded(&self) -> bool {
        matches!(self, Self::Process { .. })
    }
}

/// The same of one session, with what there is to remember from one upstream to the next.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum BackendState {
    Process {
        restarts: RestartPolicy,
        #[serde(default, skip_serializing_if = "is_default")]
        stillbirths: Stillbirths,
        /// Whether a restart cost the client something, and it has not been told.
        #[serde(default, skip_serializing_if = "is_default")]
        notice_owed: bool,
    },
    #[serde(skip)]
    Proxy {
        reconnects: Box<ReconnectPolicy>,
        /// The proxy at the other end, while connected to one.
        liveness: Option<Box<Liveness>>,
        /// What it says first.
        first_line: FirstLine,
    },
}

// What happens to upstreams.
impl BackendState {
    pub(super) fn new(backend: &Backend) -> Self {
        match *backend {
            Backend::Process { max_restarts } => Self::Process {
                restarts: RestartPolicy::new(max_restarts),
                stillbirths: Stillbirths::default(),
                notice_owed: false,
            },
            Backend::Proxy {
                max_delay,
                max_attempts,
                ..
            } => Self::Proxy {
                reconnects: Box::new(ReconnectPolicy::new(max_delay, max_attempts)),
                liveness: None,
                first_line: FirstLine::new(),
            },
        }
    }

    /// An upstream was started.
    pub(super) fn started(&mut self, now: Time, heartbeat_interval: Duration) {
        match self {
            Self::Process { restarts, .. } => restarts.started(now),
            Self::Proxy {
                reconnects,
                liveness,
                first_line,
            } => {
                reconnects.started(now);
                *first_line = FirstLine::new();
                *liveness = Some(Box::new(Liveness::new(now, heartbeat_interval)));
            }
        }
    }

    /// A link that was lost is there again.
    pub(super) fn link_made_again(&mut self, now: Time, heartbeat_interval: Duration) {
        if let Self::Proxy {
            reconnects,
            liveness,
            ..
        } = self
        {
            reconnects.started(now);
            *liveness = Some(Box::new(Liveness::new(now, heartbeat_interval)));
        }
    }

    /// When another attempt may be made to have a link again; `None` if none may.
    pub(super) fn next_attempt(&mut self, now: Time) -> Option<Time> {
        match self {
            Self::Proxy { reconnects, .. } => reconnects.next_attempt(now),
            Self::Process { .. } => None,
        }
    }

    /// The proxy at the other end said something of the connection itself.
    pub(super) fn proxy_heard(&mut self) {
        if let Self::Proxy { reconnects, .. } = self {
            reconnects.reached();
        }
    }

    /// An upstream could not be started. [`Self::lost`] follows.
    pub(super) fn start_failed(&mut self, now: Time) {
        match self {
            Self::Process { restarts, .. } => restarts.started(now),
            Self::Proxy { reconnects, .. } => reconnects.started(now),
        }
    }

    /// The upstream is gone: is there to be another, and when?
    pub(super) fn lost(&mut self, now: Time) -> Decision {
        match self {
            Self::Process { restarts, .. } => restarts.lost(now),
            Self::Proxy { reconnects, .. } => reconnects.lost(now),
        }
    }

    /// The upstream ended for a reason that those before it did not have.
    pub(super) fn ended_otherwise(&mut self) {
        if let Self::Process { stillbirths, .. } = self {
            stillbirths.interrupted();
        }
    }

    /// The upstream ended like this. Returns whether the next one would do the same, so that none is to be started.
    pub(super) fn is_hopeless(&mut self, exit: Exit, lived: Duration, has_spoken: bool) -> bool {
        match self {
            Self::Process { stillbirths, .. } => stillbirths.ended(exit, lived, has_spoken),
            Self::Proxy { .. } => false,
        }
    }

    /// The link is gone. `was_idle` if the other side ended it while nothing was waited for.
    pub(super) fn disconnected(&mut self, was_idle: bool, now: Time) {
        if let Self::Proxy {
            reconnects,
            liveness,
            ..
        } = self
        {
            *liveness = None;
            if was_idle {
                reconnects.ended_idle(now);
            }
        }
    }

    /// The server accepted the replayed handshake.
    pub(super) fn server_heard(&mut self) {
        if let Self::Proxy { reconnects, .. } = self {
            reconnects.heard();
        }
    }

    /// A message arrived from upstream. Only what the server itself says shows that there is one behind the proxy.
    pub(super) fn message_heard(&mut self, message: &Message<'_>) {
        if let Self::Proxy { reconnects, .. } = self
            && !message.envelopes().iter().any(Envelope::is_proxy_error)
        {
            reconnects.heard();
        }
    }

    /// Takes a line with which the proxy at the other end informs us of itself. Returns whether it was one.
    pub(super) fn take_link_line(
        &mut self,
        envelope: &Envelope<'_>,
        line: &[u8],
        label: &Label,
        now: Time,
    ) -> bool {
        let Self::Proxy {
            liveness: Some(liveness),
            reconnects,
            ..
        } = self
        else {
            return false;
        };
        if envelope.control == Some(Control::HeartbeatResponse) {
            reconnects.reached();
            liveness.note_heartbeat(timestamp(line), now);
            return true;
        }
        let is_restart = envelope.method == Some(Method::ServerRestarted);
        if is_restart {
            about!(
                warn,
                label,
                "the server was restarted; what it kept in memory is lost"
            );
        }
        is_restart
    }

    /// What the peer says first; `None` for a process.
    pub(super) fn first_line(&mut self) -> Option<&mut FirstLine> {
        match self {
            Self::Proxy { first_line, .. } => Some(first_line),
            Self::Process { .. } => None,
        }
    }

    /// Whether anything was heard over the present link, or the last one.
    pub(super) fn was_link_heard(&self) -> bool {
        matches!(self, Self::Proxy { first_line, .. } if first_line.has_come())
    }

    /// Whether a proxy was ever at the other end.
    pub(super) fn was_reached(&self) -> bool {
        matches!(self, Self::Proxy { reconnects, .. } if reconnects.was_reached())
    }

    /// The proxy at the other end, while connected to one.
    pub(super) fn liveness(&mut self) -> Option<&mut Liveness> {
        match self {
            Self::Proxy { liveness, .. } => liveness.as_deref_mut(),
            Self::Process { .. } => None,
        }
    }

    /// When something is to be done about the proxy at the other end; see [`Liveness::deadline`].
    pub(super) fn liveness_deadline(&self, is_read: bool) -> Option<Time> {
        match self {
            Self::Proxy { liveness, .. } => Some(liveness.as_ref()?.deadline(is_read)),
            Self::Process { .. } => None,
        }
    }

    /// The loss of an upstream cost the client something. In `connect`, the proxy at the other end gives the notice of
    /// its own restarts, and the loss of a link is not a restart.
    pub(super) fn owe_notice(&mut self) {
        if let Self::Process { notice_owed, .. } = self {
            *notice_owed = true;
        }
    }

    pub(super) fn owes_notice(&self) -> bool {
        matches!(
            self,
            Self::Process {
                notice_owed: true,
                ..
            }
        )
    }

    pub(super) fn notice_given(&mut self) {
        if let Self::Process { notice_owed, .. } = self {
            *notice_owed = false;
        }
    }
}

/// What a heartbeat says of when it was sent, since 1970.
fn timestamp(line: &[u8]) -> Option<Duration> {
    let line = str::from_utf8(line).ok()?;
    let [timestamp] = json::find(line, ["timestamp"])?;
    let seconds = line.get(timestamp?)?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

// What each of the two can and can't do.
impl BackendState {
    /// Whether the upstream is a connection, which is gone both ways at once, and exits without a status.
    pub(super) fn is_link(&self) -> bool {
        matches!(self, Self::Proxy { .. })
    }

    /// Whether requests may come back that no server has seen.
    pub(super) fn may_refuse_unseen(&self) -> bool {
        matches!(self, Self::Proxy { .. })
    }

    /// Whether a control line of the client is for us. `connect` takes none: between it and the program that started it
    /// there is no link.
    pub(super) fn takes_control_line(&self, control: Control) -> bool {
        matches!(self, Self::Process { .. }) && control.side() == Side::Client
    }

    /// Whether an error of the proxy at the other end, in place of a response to the replay, says nothing about the
    /// server: the next attempt may find the one that the client knows.
    pub(super) fn may_find_server_later(&self, response: &Envelope<'_>) -> bool {
        matches!(self, Self::Proxy { .. }) && response.is_proxy_error()
    }

    /// Whether a stop of the program ends the session although requests are open: whoever stops `connect` does not wait
    /// long.
    pub(super) fn ends_at_once_when_stopped(&self) -> bool {
        matches!(self, Self::Proxy { .. })
    }

    /// Whether a client that takes nothing at the end is given up. Stdout breaks once nobody is going to read it; until
    /// then somebody may.
    pub(super) fn gives_up_stalled_client(&self) -> bool {
        matches!(self, Self::Process { .. })
    }
}

// What each of the two says.
impl BackendState {
    pub(super) fn log_started(&self, label: &Label, is_first: bool) {
        match self {
            Self::Process { .. } if is_first => about!(info, label, "opened"),
            Self::Process { .. } => about!(info, label, "goes on with a new server"),
            Self::Proxy { .. } => about!(info, label, "connected to {}", label.peer()),
        }
    }

    pub(super) fn log_start_failed(&self, label: &Label, error: &str) {
        match self {
            Self::Process { .. } => about!(warn, label, "the server could not be started: {error}"),
            Self::Proxy { .. } => about!(warn, label, "no connection to {}: {error}", label.peer()),
        }
    }

    /// A refusal may be repeated for days: the first one is logged.
    pub(super) fn log_lost(&mut self, label: &Label, exit: Exit) {
        let reconnects = match self {
            Self::Process { .. } => return about!(warn, label, "the server ended ({exit})"),
            Self::Proxy { reconnects, .. } => reconnects,
        };
        if matches!(exit, Exit::Denied(_)) && !reconnects.denied() {
            return about!(debug, label, "{exit}");
        }
        let peer = label.peer();
        about!(warn, label, "lost the connection to {peer}: {exit}");
    }

    pub(super) fn log_retry(&self, label: &Label, delay: Duration) {
        let seconds = delay.as_secs_f64();
        match self {
            Self::Process { .. } => about!(info, label, "restarting the server in {seconds:.3} s"),
            Self::Proxy { .. } => about!(info, label, "next attempt in {seconds:.3} s"),
        }
    }

    /// Why a session ends whose client can't be read or written.
    pub(super) fn client_failed(&self, error: &io::Error) -> EndReason {
        match self {
            Self::Process { .. } => EndReason::ClientGone(error.to_string()),
            Self::Proxy { .. } => EndReason::StdioFailed(error.to_string()),
        }
    }

    /// Why a session ends whose upstream could not be started and is not to be tried again.
    pub(super) fn start_failure(&self, error: &str) -> EndReason {
        match self {
            Self::Process { .. } => EndReason::SpawnFailed(error.to_string()),
            Self::Proxy { .. } => EndReason::ConnectionLost(error.to_string()),
        }
    }

    /// Why a session ends whose upstream ended and is not to be replaced.
    pub(super) fn loss(&self, exit: Exit) -> EndReason {
        match self {
            Self::Process { .. } => EndReason::ServerEnded(exit.to_string()),
            Self::Proxy { .. } => EndReason::ConnectionLost(exit.to_string()),
        }
    }

    /// Whether what was written to an upstream may have reached a server.
    pub(super) fn delivers(&self) -> Delivered {
        match self {
            Self::Process { .. } => Delivered::Yes,
            Self::Proxy { .. } => Delivered::Unknown,
        }
    }

    /// Why a request gets an error if its upstream was lost before the response arrived.
    pub(super) fn lost_request(&self) -> (ErrorReason, &'static str) {
        match self {
            Self::Process { .. } => (
                ErrorReason::ProcessTerminated,
                "the MCP server went away before it answered",
            ),
            Self::Proxy { .. } => (
                ErrorReason::ConnectionLost,
                "the connection was lost before the MCP server answered",
            ),
        }
    }
}
