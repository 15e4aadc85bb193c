//! The state machine of one connection in the entrance.

mod choice;
mod farewell;

use std::fmt::{self, Display};

use log::debug;

use self::farewell::refuse_silently;
use super::failures::Failures;
use super::first_line::{FirstLine, Look, Said};
use super::header::{Header, Source};
use super::identity::{Identity, Name};
use super::refusal::Refusal;
use super::rules::Rules;
use crate::protocol::recogniser::{Protocol, Recogniser, Verdict};
use crate::util::client_address::ClientAddress;
use crate::util::service_key::ServiceKey;
use crate::util::time::Time;

/// What it may still send in that time, in bytes.
const LINGER_BYTES: usize = 1024 * 1024;

/// The type of a TLS record with which a client begins.
const TLS_HANDSHAKE: u8 = 0x16;

/// What is to be done about a visitor.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: more has to come.
    Wait,
    /// From here on the connection is TLS, and this is what has come of it.
    StartTls(Vec<u8>),
    /// It becomes a session.
    Admit(Admission),
    /// This is written, and our side ended. What still comes is read up to its end: a close before that would be a reset,
    /// which destroys what was written.
    Answer(String),
    /// It is closed.
    Close,
}

/// What is known of a connection that becomes a session.
#[derive(PartialEq, Eq)]
pub struct Admission {
    /// Whose it is.
    pub client: ClientAddress,
    /// What it is a session of.
    pub service: ServiceKey,
    /// What it has shown, if anything was asked for.
    pub identity: Option<Identity>,
    /// What it has sent.
    pub early: Vec<u8>,
}

impl fmt::Debug for Admission {
    /// What it has sent may be a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Admission({}, {:?})", self.client, self.identity)
    }
}

/// Where a visitor is.
enum Stage {
    /// A balancer is to say whose connection it is.
    Header(Header),
    /// A TLS handshake is to begin.
    TlsToCome,
    /// It is under way; what comes is not seen here.
    Tls,
    /// Something else has come in its place.
    PlainText(Recogniser),
    /// Anything is to come.
    FirstByte,
    /// The first line is to come.
    FirstLine(FirstLine),
    /// It is refused, and told so later.
    Delayed(String),
    /// It was told so, and sent this many bytes since.
    Lingering(usize),
}

/// What a visitor is seen with.
pub(super) struct Scene<'a> {
    pub(super) rules: &'a Rules,
    pub(super) failures: &'a mut Failures,
    pub(super) now: Time,
    /// Why it was refused, if it just was.
    pub(super) refusal: Option<Refusal>,
}

/// A connection in the entrance.
pub(super) struct Visitor {
    /// The server that alone is served where it came in.
    door: Option<ServiceKey>,
    peer: ClientAddress,
    client: Option<ClientAddress>,
    is_behind_balancer: bool,
    certificate: Option<Name>,
    stage: Stage,
    deadline: Time,
}

impl fmt::Debug for Visitor {
    /// What it has sent may be a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Visitor({})", self.address())
    }
}

impl Visitor {
    /// The server that alone is served where it came in.
    pub(super) fn door(&self) -> Option<ServiceKey> {
        self.door
    }

    pub(super) fn set_door(&mut self, door: ServiceKey) {
        self.door = Some(door);
    }

    /// Something is asked of it.
    pub(super) fn new(
        door: Option<ServiceKey>,
        peer: ClientAddress,
        rules: &Rules,
        now: Time,
    ) -> Self {
        let is_balancer = rules.is_balancer(peer);
        let stage = if is_balancer {
            Stage::Header(Header::default())
        } else if rules.takes_tls(peer) {
            Stage::TlsToCome
        } else {
            Stage::FirstLine(FirstLine::new())
        };
        Self {
            door,
            peer,
            client: (!is_balancer).then_some(peer),
            is_behind_balancer: is_balancer,
            certificate: None,
            stage,
            deadline: now + rules.timeout,
        }
    }

    /// Whose connection it is, once that is known.
    pub(super) fn client(&self) -> Option<ClientAddress> {
        self.client
    }

    /// What the log calls it.
    pub(super) fn address(&self) -> ClientAddress {
        self.client.unwrap_or(self.peer)
    }

    pub(super) fn deadline(&self) -> Time {
        self.deadline
    }

    pub(super) fn wants_input(&self) -> bool {
        !matches!(self.stage, Stage::Delayed(_))
    }

    /// Whether it was refused already.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self.stage, Stage::Delayed(_) | Stage::Lingering(_))
    }

    pub(super) fn bytes(&mut self, mut input: &[u8], scene: &mut Scene<'_>) -> Step {
        if let Stage::Header(header) = &mut self.stage {
            match header.take(&mut input) {
                Ok(None) => return Step::Wait,
                Ok(Some(Source::Client(client))) => {
                    if let Some(step) = self.named(client, scene) {
                        return step;
                    }
                }
                Ok(Some(Source::Local)) => return self.health_check(),
                Err(_) => return refuse_silently(Refusal::NoHeader, scene),
            }
        }
        if input.is_empty() {
            return Step::Wait;
        }
        match &mut self.stage {
            Stage::Header(_) | Stage::Tls | Stage::Delayed(_) => Step::Wait,
            Stage::TlsToCome => self.begin_tls(input, scene),
            Stage::PlainText(_) => self.plain_text(input, scene),
            Stage::FirstByte => self.admit_unasked(input.to_vec(), scene),
            Stage::FirstLine(first_line) => {
                let look = first_line.take(&mut input);
                self.look(look, input, scene)
            }
            Stage::Lingering(discarded) => {
                *discarded += input.len();
                if *discarded > LINGER_BYTES {
                    return Step::Close;
                }
                Step::Wait
            }
        }
    }

    /// The visitor has ended its side. What has no line end is its first line, too.
    pub(super) fn eof(&mut self, scene: &mut Scene<'_>) -> Step {
        match &mut self.stage {
            Stage::FirstLine(first_line) if !first_line.line().is_empty() => {
                self.judge_line(&[], scene)
            }
            Stage::PlainText(_) => self.refuse(Refusal::NoTls, None, scene),
            Stage::Delayed(_) => Step::Wait,
            _ => self.gone(),
        }
    }

    /// The connection is over before it was let in. Health checks end like that, some of them by a reset.
    pub(super) fn gone(&mut self) -> Step {
        match &self.stage {
            Stage::Lingering(_) | Stage::Delayed(_) => {}
            Stage::FirstLine(first_line) if !first_line.is_empty() => self.note_leaving(),
            Stage::Tls | Stage::PlainText(_) => self.note_leaving(),
            _ if self.is_behind_balancer => return self.health_check(),
            _ => self.note_leaving(),
        }
        Step::Close
    }

    fn note_leaving(&self) {
        debug!("entrance: {} left before it was let in", self.address());
    }

    /// The handshake is done, with a certificate of this name if any was asked for.
    pub(super) fn tls_done(&mut self, name: Option<&str>, scene: &mut Scene<'_>) -> Step {
        if !matches!(self.stage, Stage::Tls) {
            return Step::Wait;
        }
        self.certificate = name.and_then(Name::new);
        if name.is_some() && self.certificate.is_none() {
            return self.refuse(Refusal::CertificateName, None, scene);
        }
        if self.is_asked_for_line(scene.rules) {
            let service = self.known_service(scene.rules);
            if service.is_some_and(|service| !self.may_use(service, scene.rules)) {
                return self.refuse(Refusal::Forbidden, None, scene);
            }
            self.stage = Stage::FirstLine(FirstLine::new());
            return Step::Wait;
        }
        self.admit_unasked(Vec::new(), scene)
    }

    /// There is no TLS session. TLS itself has told the client why, which a close with something unread would destroy.
    pub(super) fn tls_failed(&mut self, scene: &mut Scene<'_>) -> Step {
        scene.refusal = Some(Refusal::TlsFailed);
        self.answer(String::new(), scene)
    }

    pub(super) fn timeout(&mut self, scene: &mut Scene<'_>) -> Step {
        if scene.now < self.deadline {
            return Step::Wait;
        }
        match &mut self.stage {
            Stage::Delayed(answer) => {
                let answer = std::mem::take(answer);
                self.answer(answer, scene)
            }
            Stage::Lingering(_) => Step::Close,
            Stage::FirstLine(_) => self.refuse(Refusal::TimedOut, None, scene),
            Stage::PlainText(_) => self.refuse(Refusal::NoTls, None, scene),
            Stage::Header(_) | Stage::TlsToCome | Stage::Tls | Stage::FirstByte => {
                refuse_silently(Refusal::TimedOut, scene)
            }
        }
    }

    /// A balancer has said whose connection it is. Returns what follows from that at once.
    fn named(&mut self, client: ClientAddress, scene: &mut Scene<'_>) -> Option<Step> {
        self.client = Some(client);
        if let Err(refusal) = scene.rules.admit(client) {
            return Some(refuse_silently(refusal, scene));
        }
        self.stage = if scene.rules.takes_tls(self.peer) {
            Stage::TlsToCome
        } else if self.is_asked_for_line(scene.rules) {
            Stage::FirstLine(FirstLine::new())
        } else {
            Stage::FirstByte
        };
        None
    }

    fn health_check(&self) -> Step {
        debug!("entrance: a health check of {}", self.peer);
        Step::Close
    }

    /// A client begins a TLS handshake, or something else.
    fn begin_tls(&mut self, input: &[u8], scene: &mut Scene<'_>) -> Step {
        if input.first() == Some(&TLS_HANDSHAKE) {
            self.stage = Stage::Tls;
            return Step::StartTls(input.to_vec());
        }
        self.stage = Stage::PlainText(Recogniser::of_client());
        self.plain_text(input, scene)
    }

    /// Whoever speaks our protocol, or HTTP, is told in its own.
    fn plain_text(&mut self, input: &[u8], scene: &mut Scene<'_>) -> Step {
        let Stage::PlainText(recogniser) = &mut self.stage else {
            return Step::Wait;
        };
        match recogniser.look(input) {
            Verdict::Undecided => Step::Wait,
            Verdict::Ours | Verdict::Other(Protocol::Tls) => {
                self.refuse(Refusal::NoTls, None, scene)
            }
            Verdict::Other(protocol) => self.refuse_protocol(protocol, scene),
        }
    }

    fn look(&mut self, look: Look, rest: &[u8], scene: &mut Scene<'_>) -> Step {
        match look {
            Look::Undecided => Step::Wait,
            Look::Line => self.judge_line(rest, scene),
            Look::TooLong => self.judge_long_line(rest, scene),
            Look::Other(protocol) => self.refuse_protocol(protocol, scene),
        }
    }

    /// The first line has come, and this after it.
    fn judge_line(&mut self, rest: &[u8], scene: &mut Scene<'_>) -> Step {
        let Stage::FirstLine(first_line) = std::mem::replace(&mut self.stage, Stage::FirstByte)
        else {
            return Step::Wait;
        };
        let said = Said::in_line(first_line.line());
        match self.judge_said(&said, scene.rules) {
            Ok((service, name)) => {
                let mut early = first_line.into_bytes();
                early.extend_from_slice(rest);
                self.admit(service, name, early)
            }
            Err(refusal) => {
                let id = said.id.as_ref().map(|id| id as &dyn Display);
                match refusal {
                    Refusal::NoToken | Refusal::WrongToken => self.refuse_token(refusal, id, scene),
                    _ => self.refuse(refusal, id, scene),
                }
            }
        }
    }

    /// A line that is longer than one that shows or asks for anything. It may be a message for the server that one gets
    /// without asking.
    fn judge_long_line(&mut self, rest: &[u8], scene: &mut Scene<'_>) -> Step {
        if self.is_asked_for_token(scene.rules) {
            return self.refuse_token(Refusal::LongFirstLine, None, scene);
        }
        match std::mem::replace(&mut self.stage, Stage::FirstByte) {
            Stage::FirstLine(first_line) => {
                let mut early = first_line.into_bytes();
                early.extend_from_slice(rest);
                self.admit_unasked(early, scene)
            }
            _ => Step::Wait,
        }
    }

    fn admit(&mut self, service: ServiceKey, token: Option<Name>, early: Vec<u8>) -> Step {
        let certificate = self.certificate.take();
        let is_known = token.is_some() || certificate.is_some();
        Step::Admit(Admission {
            client: self.address(),
            service,
            identity: is_known.then_some(Identity { token, certificate }),
            early,
        })
    }
}
