//! Which era of MCP the server speaks. The proxy finds out with a process of its own, before the first that is shared: the
//! first question decides for good how most servers talk, so no client's is risked for it.

use std::collections::BTreeSet;
use std::time::Duration;

use log::info;
use serde::{Deserialize, Serialize};

use super::client_line::{Legacy, Request, What};
use super::process::Life;
use super::seat::SeatEra;
use super::server_line::{self, ServerLine};
use super::{Context, Effect, ProcessKey, SeatKey, Share};
use crate::protocol::envelope::Message;
use crate::protocol::json;
use crate::protocol::own_messages::{self, ErrorReason};
use crate::util::time::Time;

/// The server has this long to say what it is; what is silent for longer is taken for older than the question for a while.
/// Python servers take seconds to start on a busy machine.
const PROBE_TIME: Duration = Duration::from_secs(10);

/// After this time a server that was silent is asked again: on a machine that is busy enough, none answers in time. Each
/// further silence doubles it, up to [`LONGEST_PAUSE`], as whoever asks first waits for the answer.
const FIRST_PAUSE: Duration = Duration::from_mins(1);

const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// The version of MCP in which the question is asked.
const PROBE_VERSION: &str = "\"2026-07-28\"";

/// The number of the question. Requests of clients have greater ones.
const PROBE_NUMBER: u64 = 0;

/// What a server answers to a version that it does not speak. One that knows this error knows the question.
const UNSUPPORTED_VERSION: &str = "-32022";

/// What the server is known to speak.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ServerEra {
    /// It was not asked.
    Unknown,
    /// It was, or is going to be. These wait for what it says.
    Asked {
        waiting: BTreeSet<SeatKey>,
        until: Option<Time>,
    },
    /// Requests that say what they speak.
    Modern {
        /// The versions, as JSON.
        supported: String,
    },
    /// A handshake, and a session.
    Legacy,
    /// It has said nothing. Until then it is taken for a legacy one.
    Silent { until: Time },
}

impl ServerEra {
    /// Whether a request may come to such a server; if not, why.
    pub(super) fn admit(&self, request: &Request<'_>) -> Result<(), (ErrorReason, &'static str)> {
        if self.is_legacy() {
            let text = "the server is older than MCP 2026-07-28: it is to be asked by initialize";
            return Err((ErrorReason::MethodNotFound, text));
        }
        if request.what == What::Initialize {
            let text = "this session goes without initialize";
            return Err((ErrorReason::UnsupportedVersion, text));
        }
        if !request.is_modern() {
            let text = "the request does not say in params._meta which version of MCP it speaks";
            return Err((ErrorReason::NotModern, text));
        }
        Ok(())
    }

    /// Whether the server is known to need a session for each client, or taken for one of those.
    fn is_legacy(&self) -> bool {
        matches!(self, Self::Legacy | Self::Silent { .. })
    }

    /// Whether the server was silent when it was asked, and it is time to ask it again.
    fn is_outdated(&self, now: Time) -> bool {
        matches!(self, Self::Silent { until } if *until <= now)
    }
}

impl SeatEra {
    /// What a request says of the client that sends it.
    fn after(self, request: &Request<'_>, serves_legacy: bool) -> Self {
        match (self, request.what) {
            (Self::Undecided, What::Discover) => self,
            (Self::Undecided, What::Initialize) if serves_legacy && !request.is_modern() => {
                Self::Legacy(None)
            }
            (Self::Undecided, _) => Self::Modern,
            _ => self,
        }
    }
}

/// Whether a request may be sent in the session of a legacy client; if not, why.
fn admit_legacy(request: &Request<'_>) -> Result<(), (ErrorReason, &'static str)> {
    if request.is_modern() {
        let text = "this session has begun with initialize, and the request is of another era";
        return Err((ErrorReason::NotLegacy, text));
    }
    if request.what == What::Discover {
        let text = "this session has begun with initialize";
        return Err((ErrorReason::MethodNotFound, text));
    }
    if request.legacy == Legacy::Task {
        let text = "a server with many clients has no tasks for any of them";
        return Err((ErrorReason::MethodNotFound, text));
    }
    Ok(())
}

impl Share {
    /// Makes sure that a request is of the era of its session, which the first of them decides.
    pub(super) fn admit(
        &mut self,
        key: SeatKey,
        request: &Request<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), (ErrorReason, &'static str)> {
        if self.era.is_outdated(cx.now) {
            self.era = ServerEra::Unknown;
        }
        let before = self.seats[key.0].era;
        let era = before.after(request, self.limits.legacy);
        self.seats[key.0].era = era;
        let SeatEra::Legacy(_) = era else {
            return self.era.admit(request);
        };
        if before == SeatEra::Undecided {
            // What it has asked before is for another process.
            let text = "the session has gone on with initialize";
            self.refuse_waiting(key, ErrorReason::MethodNotFound, text, cx);
            self.unpin(key, cx);
        }
        admit_legacy(request)
    }

    /// The server may be another by now: it is asked again.
    pub(super) fn forget_era(&mut self) {
        self.silences = 0;
        if !matches!(self.era, ServerEra::Asked { .. }) {
            self.era = ServerEra::Unknown;
        }
    }

    /// Whether the server is known to need a session for each client, or taken for one of those.
    pub fn is_legacy(&self, now: Time) -> bool {
        self.era.is_legacy() && !self.era.is_outdated(now)
    }

    /// The process that is asked for the era. Nobody else uses it.
    pub fn probe(&self) -> ProcessKey {
        ProcessKey(self.limits.processes)
    }

    /// Whether the era is known. If not, the server is asked, and the seat waits.
    pub(super) fn knows_era(&mut self, seat: SeatKey) -> bool {
        match &mut self.era {
            ServerEra::Modern { .. } | ServerEra::Legacy | ServerEra::Silent { .. } => true,
            ServerEra::Asked { waiting, .. } => {
                waiting.insert(seat);
                false
            }
            ServerEra::Unknown => {
                let waiting = BTreeSet::from([seat]);
                let until = None;
                self.era = ServerEra::Asked { waiting, until };
                self.start_probe();
                false
            }
        }
    }

    fn start_probe(&mut self) {
        let probe = self.probe();
        let process = &mut self.processes[probe.0];
        // One that has just answered may not be gone; its end starts the next.
        if process.life == Life::Absent {
            process.life = Life::Asked;
            self.effects.push_back(Effect::Start(probe));
        }
    }

    pub(super) fn probe_started(&mut self, cx: &mut Context<'_>) {
        if let ServerEra::Asked { until, .. } = &mut self.era {
            *until = Some(cx.now + PROBE_TIME);
            let line = own_messages::discover(&PROBE_NUMBER, PROBE_VERSION);
            let probe = self.probe();
            self.tell(probe, (line + "\n").into_bytes(), cx);
        }
    }

    /// Takes a line of the process that is asked for the era. Returns whether it was one.
    pub(super) fn probe_line(
        &mut self,
        key: ProcessKey,
        line: &[u8],
        message: &Message<'_>,
        cx: &mut Context<'_>,
    ) -> bool {
        if key != self.probe() {
            return false;
        }
        if let ServerLine::Response(PROBE_NUMBER, _) = server_line::read(line, message) {
            let era = era_of_response(line);
            self.decide_era(era, cx);
            self.stop_process(key);
        }
        true
    }

    /// It is gone, or was never there. Before it said anything, it is taken for one of those that don't survive the question.
    pub(super) fn probe_ended(&mut self, cx: &mut Context<'_>) {
        let probe = self.probe();
        self.processes[probe.0].life = Life::Absent;
        self.processes[probe.0].forget();
        self.processes[probe.0].outbox.clear();
        match &self.era {
            ServerEra::Asked { until: Some(_), .. } => self.decide_era(ServerEra::Legacy, cx),
            ServerEra::Asked { until: None, .. } => self.start_probe(),
            _ => {}
        }
    }

    /// It could not be started: whoever waits is told, and whoever comes next has it tried again.
    pub(super) fn probe_failed(&mut self, error: &str, cx: &mut Context<'_>) {
        let probe = self.probe();
        self.processes[probe.0].life = Life::Absent;
        let era = std::mem::replace(&mut self.era, ServerEra::Unknown);
        if let ServerEra::Asked { waiting, .. } = era {
            let text = format!("the server could not be started: {error}");
            for seat in waiting {
                self.refuse_waiting(seat, ErrorReason::SpawnFailed, &text, cx);
            }
        }
    }

    pub(super) fn probe_deadline(&self) -> Option<Time> {
        match self.era {
            ServerEra::Asked { until, .. } => until,
            _ => None,
        }
    }

    pub(super) fn probe_timeout(&mut self, cx: &mut Context<'_>) {
        if self.probe_deadline().is_some_and(|until| until <= cx.now) {
            let pause = FIRST_PAUSE * (1 << self.silences.min(6));
            let until = cx.now + pause.min(LONGEST_PAUSE);
            self.silences += 1;
            self.decide_era(ServerEra::Silent { until }, cx);
            let probe = self.probe();
            self.stop_process(probe);
        }
    }

    fn decide_era(&mut self, era: ServerEra, cx: &mut Context<'_>) {
        match &era {
            ServerEra::Modern { supported } => {
                info!("the server speaks {supported}: its processes are shared");
            }
            ServerEra::Silent { until } => {
                let (time, pause) = (PROBE_TIME.as_secs(), until.saturating_since(cx.now));
                info!(
                    "the server has not said within {time} s which versions of MCP it speaks; it is taken for older than \
                     2026-07-28, and asked again after {} s",
                    pause.as_secs()
                );
            }
            _ if self.limits.legacy => info!("the server is older than MCP 2026-07-28"),
            _ => info!(
                "the server is older than MCP 2026-07-28: each session gets a process of its own"
            ),
        }
        let before = std::mem::replace(&mut self.era, era);
        let ServerEra::Asked { waiting, .. } = before else {
            return;
        };
        for seat in waiting {
            let seat_is_there = self.seats.contains(seat.0);
            if !seat_is_there || matches!(self.seats[seat.0].era, SeatEra::Legacy(_)) {
                continue;
            }
            if self.era.is_legacy() {
                let text =
                    "the server is older than MCP 2026-07-28: it is to be asked by initialize";
                self.refuse_waiting(seat, ErrorReason::MethodNotFound, text, cx);
            } else {
                self.seek_turn(seat, cx);
            }
        }
    }
}

fn era_of_response(line: &[u8]) -> ServerEra {
    let find = || {
        let line = str::from_utf8(line).ok()?;
        let [result, error] = json::find(line, ["result", "error"])?;
        if let Some(result) = result {
            let result = line.get(result)?;
            let [supported] = json::find(result, ["supportedVersions"])?;
            return result.get(supported?);
        }
        let error = line.get(error?)?;
        let [code, data] = json::find(error, ["code", "data"])?;
        if error.get(code?)? != UNSUPPORTED_VERSION {
            return None;
        }
        let data = error.get(data?)?;
        let [supported] = json::find(data, ["supported"])?;
        data.get(supported?)
    };
    match find() {
        Some(supported) if is_list(supported) => ServerEra::Modern {
            supported: supported.to_owned(),
        },
        _ => ServerEra::Legacy,
    }
}

/// Whether this is a list of strings, of which one may be passed on.
fn is_list(text: &str) -> bool {
    serde_json::from_str::<Vec<String>>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_understands_the_question_is_modern() {
        let modern = |supported: &str| ServerEra::Modern {
            supported: supported.to_owned(),
        };
        for (line, era) in [
            (
                r#"{"id":0,"result":{"supportedVersions":["2026-07-28"],"x":1}}"#,
                modern(r#"["2026-07-28"]"#),
            ),
            (
                r#"{"id":0,"error":{"code":-32022,"data":{"supported":["2027-01-01"]}}}"#,
                modern(r#"["2027-01-01"]"#),
            ),
            (r#"{"id":0,"error":{"code":-32601}}"#, ServerEra::Legacy),
            (r#"{"id":0,"error":{"code":-32022}}"#, ServerEra::Legacy),
            (r#"{"id":0,"result":{}}"#, ServerEra::Legacy),
            (r#"{"id":0}"#, ServerEra::Legacy),
        ] {
            assert_eq!(era_of_response(line.as_bytes()), era, "{line}");
        }
    }
}
