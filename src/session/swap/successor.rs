//! The new server that is tried beside the old one. It is asked for the handshake again, or what it is, and is fit if it answers
//! as the session needs it. Of one of which nothing can be asked it is enough that it lives for a while.
//!
//! What else it says is kept for the time when it is used.

use serde::{Deserialize, Serialize};

use crate::protocol::envelope::{Envelope, Message};
use crate::protocol::id::{MAX_ID_BYTES, RequestId};
use crate::protocol::json;
use crate::protocol::lines::{Line, LineLimits, Splitter};
use crate::protocol::own_messages;
use crate::session::handshake::{Handshake, Proposal};
use crate::session::stderr::{ServerLog, excerpt};
use crate::session::upstream::NOTICE_DELAY;
use crate::session::{Context, Session};
use crate::util::about::about;
use crate::util::plural::Counted;
use crate::util::side_bytes;
use crate::util::time::Time;

/// What a new server may say before it is used, in bytes.
const MAX_KEPT: usize = 64 * 1024;

/// The id of the question what a server is.
const DISCOVER_ID: &str = "\"mcp-tcp-proxy-swap\"";

/// What a server says to a method that it does not know. It is there, and answers.
const METHOD_NOT_FOUND: &str = "-32601";

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Successor {
    pub(super) pid: Option<u32>,
    pub(super) started: Time,
    test: Test,
    /// When the test is over.
    deadline: Time,
    /// What it is asked, and how much of it was written.
    #[serde(with = "side_bytes")]
    question: Vec<u8>,
    written: usize,
    lines: Splitter,
    /// What it has said besides.
    #[serde(with = "side_bytes")]
    kept: Vec<u8>,
    pub(super) log: ServerLog,
}

#[derive(Debug, Serialize, Deserialize)]
enum Test {
    /// It is to answer the handshake as the old one did, apart from its capabilities.
    Handshake(RequestId),
    /// It is to say that it speaks this version, which is given as JSON.
    Discover(Box<str>),
    /// It is to live.
    Life,
    Passed(Option<Proposal>),
}

impl Session {
    /// A new server, and what it is asked.
    pub(super) fn new_successor(&mut self, pid: Option<u32>, cx: &Context<'_>) -> Successor {
        let time = self.handshake.replay_time(cx.settings.replay_timeout);
        let mut deadline = cx.now + time;
        let (test, question) = if let Some((id, line)) = self.handshake.next_replay() {
            (Test::Handshake(id), line)
        } else if let Some(version) = self.modern_version() {
            let line = own_messages::discover(&DISCOVER_ID, version);
            (Test::Discover(version.into()), line.into_bytes())
        } else {
            deadline = cx.now + NOTICE_DELAY;
            (Test::Life, Vec::new())
        };
        let mut successor = Successor {
            pid,
            started: cx.now,
            test,
            deadline,
            question,
            written: 0,
            lines: Splitter::verbatim(),
            kept: Vec::new(),
            log: ServerLog::default(),
        };
        if !successor.question.is_empty() {
            let question = excerpt(&successor.question);
            about!(debug, self.label, "proxy → new server: {question}");
            successor.question.push(b'\n');
        }
        successor
    }
}

impl Successor {
    pub(super) fn deadline(&self) -> Time {
        self.deadline
    }

    pub(super) fn unwritten(&self) -> &[u8] {
        &self.question[self.written..]
    }

    pub(super) fn written(&mut self, count: usize) {
        self.written += count;
    }

    pub(super) fn wants_output(&self) -> bool {
        match self.test {
            Test::Handshake(_) | Test::Discover(_) => true,
            Test::Life => self.kept.len() < MAX_KEPT,
            Test::Passed(_) => false,
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.lines.capacity() + self.kept.capacity()
    }

    /// Whether it is fit, once that is known; if not, why.
    pub(super) fn verdict(&mut self, now: Time) -> Option<Result<(), String>> {
        let is_over = self.deadline <= now;
        match self.test {
            Test::Passed(_) => Some(Ok(())),
            Test::Life if is_over => {
                self.test = Test::Passed(None);
                Some(Ok(()))
            }
            Test::Handshake(_) | Test::Discover(_) if is_over => {
                let time = self.deadline.saturating_since(self.started);
                let seconds = time.as_secs_f64();
                Some(Err(format!(
                    "it has not answered within {seconds} s (--replay-timeout)"
                )))
            }
            Test::Handshake(_) | Test::Discover(_) | Test::Life => None,
        }
    }

    /// Takes what it has written. An error says why it is not fit.
    pub(super) fn take(
        &mut self,
        mut bytes: &[u8],
        limits: LineLimits,
        handshake: &Handshake,
    ) -> Result<(), String> {
        while matches!(self.test, Test::Handshake(_) | Test::Discover(_)) && !bytes.is_empty() {
            let Some(line) = self.lines.next(&mut bytes, limits) else {
                break;
            };
            match line {
                Line::Borrowed(text) => self.take_line(text, handshake)?,
                Line::Buffered { bytes, len } => self.take_line(&bytes[..len], handshake)?,
                Line::Skipped(skipped, _) if !skipped.has_method && skipped.has_outcome => {
                    return Err("its answer is too long".to_owned());
                }
                Line::Skipped(..) => {}
            }
        }
        self.kept.extend_from_slice(bytes);
        let is_tried = matches!(self.test, Test::Handshake(_) | Test::Discover(_));
        if is_tried && self.kept.len() > MAX_KEPT {
            let kept = Counted(self.kept.len(), "byte");
            return Err(format!("it has written {kept}, but no answer"));
        }
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], handshake: &Handshake) -> Result<(), String> {
        if let Ok(Message::Single(envelope)) = Message::read(line)
            && let Some(passed) = self.answer(&envelope, handshake)
        {
            self.test = Test::Passed(passed?);
            return Ok(());
        }
        self.kept.extend_from_slice(line);
        self.kept.push(b'\n');
        Ok(())
    }

    /// Reads the answer, if this is one.
    fn answer(
        &self,
        envelope: &Envelope<'_>,
        handshake: &Handshake,
    ) -> Option<Result<Option<Proposal>, String>> {
        let id = envelope.response_id().filter(|id| id.len() <= MAX_ID_BYTES);
        let id = RequestId::of(id?);
        match &self.test {
            Test::Handshake(own) if *own == id => {
                let words = "it does not answer the handshake with the same version of MCP";
                let proposal = handshake.proposal(envelope);
                Some(proposal.map(Some).ok_or_else(|| words.to_owned()))
            }
            Test::Discover(version) if RequestId::new(DISCOVER_ID) == id => {
                Some(if speaks(envelope, version) {
                    Ok(None)
                } else {
                    Err(format!("it does not speak version {version} of MCP"))
                })
            }
            _ => None,
        }
    }

    /// What it has said before it was used, what it has agreed to, and what it has written to its stderr.
    pub(super) fn into_parts(self) -> (Vec<u8>, Option<Proposal>, ServerLog) {
        let Test::Passed(proposal) = self.test else {
            return (self.kept, None, self.log);
        };
        (self.kept, proposal, self.log)
    }
}

/// Whether this answer to `server/discover` is no reason to think that requests of this version are not answered.
fn speaks(answer: &Envelope<'_>, version: &str) -> bool {
    let member = |object: &str, name| {
        let [range] = json::find(object, [name])?;
        Some(object.get(range?)?.to_owned())
    };
    if let Some(result) = answer.result() {
        let versions = member(result, "supportedVersions");
        return versions.is_none_or(|versions| versions.contains(version));
    }
    let code = answer.error().and_then(|error| member(error, "code"));
    code.as_deref() == Some(METHOD_NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_asked_which_versions_it_speaks() {
        for (outcome, speaks_it) in [
            (r#""result":{"supportedVersions":["2026-07-28","x"]}"#, true),
            (r#""result":{"supportedVersions":["2027-01-01"]}"#, false),
            (r#""result":{}"#, true),
            (r#""error":{"code":-32601,"message":"no"}"#, true),
            (r#""error":{"code":-32022,"message":"no"}"#, false),
            (r#""error":7"#, false),
        ] {
            let line = format!(r#"{{"jsonrpc":"2.0","id":1,{outcome}}}"#);
            let message = Message::read(line.as_bytes()).unwrap();
            let answer = &message.envelopes()[0];
            assert_eq!(speaks(answer, r#""2026-07-28""#), speaks_it, "{outcome}");
        }
    }
}
