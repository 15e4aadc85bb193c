//! The lines that one side sends, and which of them the other side gets.

use std::collections::VecDeque;

use mcp_tcp_proxy::protocol::envelope::{Control, Envelope, Message, Method};
use mcp_tcp_proxy::protocol::own_messages::SOURCE;
use serde_json::Value;

/// Cuts bytes into lines that end.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    pub(super) fn cut(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                lines.push(std::mem::take(&mut self.rest));
            } else {
                self.rest.push(*byte);
            }
        }
        lines
    }

    /// What came behind the last line.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.rest)
    }

    pub(super) fn is_between_lines(&self) -> bool {
        self.rest.is_empty()
    }
}

/// What the client said that no server has got.
#[derive(Debug, Default)]
pub(super) struct ForServers {
    lines: Vec<Vec<u8>>,
    has_message: bool,
    /// Lines that may reach more than one server.
    resendable: Vec<Vec<u8>>,
}

impl ForServers {
    pub(super) fn said(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if is_resendable(line) {
            self.resendable.push(line.to_vec());
        }
        self.has_message |= is_message(line);
        self.lines.push(line.to_vec());
    }

    /// Whether the client has ever said anything that is for a server.
    pub(super) fn has_message(&self) -> bool {
        self.has_message
    }

    /// A server got this line.
    pub(super) fn got(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        assert!(Message::read(line).is_ok(), "{text}");
        if let Some(at) = self.lines.iter().position(|said| said == line) {
            self.lines.remove(at);
        } else if let Some(at) = self.lines.iter().position(|said| is_left_of(line, said)) {
            self.lines.remove(at);
        } else {
            let known = self.resendable.iter().any(|said| said == line);
            assert!(known || is_to_servers(&text), "said by nobody: {text}");
        }
    }
}

/// Whether a line may be what is left of a batch from which the client has taken requests back.
fn is_left_of(line: &[u8], said: &[u8]) -> bool {
    let is_batch = |line: &[u8]| line.trim_ascii_start().starts_with(b"[");
    let mut rest = said.iter();
    is_batch(line) && is_batch(said) && line.iter().all(|byte| rest.any(|other| other == byte))
}

/// What servers said that the client has not got.
#[derive(Debug, Default)]
pub(super) struct ForClient(VecDeque<Vec<u8>>);

impl ForClient {
    pub(super) fn said(&mut self, line: Vec<u8>) {
        self.0.push_back(line);
    }

    /// The client got this line. What came before it and was left out will not come any more.
    pub(super) fn got(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        assert!(Message::read(line).is_ok(), "{text}");
        if !is_to_client(&text) {
            let at = self.0.iter().position(|said| said == line);
            let at = at.unwrap_or_else(|| panic!("said by nobody: {text}"));
            self.0.drain(..=at);
        }
    }
}

fn is_message(line: &[u8]) -> bool {
    let control = |envelope: &Envelope<'_>| {
        matches!(
            envelope.control,
            Some(Control::Heartbeat | Control::Handshake)
        )
    };
    match Message::read(line) {
        Ok(Message::Single(envelope)) => !control(&envelope),
        Ok(Message::Batch(_)) => true,
        Err(_) => false,
    }
}

fn is_resendable(line: &[u8]) -> bool {
    Message::read(line).is_ok_and(|message| {
        message
            .envelopes()
            .iter()
            .any(|envelope| matches!(envelope.method, Some(Method::Initialize | Method::Discover)))
    })
}

/// What a proxy says to a server, or to another proxy.
fn is_to_servers(text: &str) -> bool {
    let own = [
        "\"mcp-tcp-proxy-replay-",
        "\"mcp-tcp-proxy-restore-",
        r#""reason":"the session ends""#,
        r#""method":"notifications/initialized""#,
        r#""type":"heartbeat""#,
        r#""type":"handshake""#,
    ];
    own.iter().any(|part| text.contains(part))
}

/// What a proxy says to a client.
fn is_to_client(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|line| {
        line["error"]["data"]["source"] == SOURCE
            || (line["type"] == "heartbeat_response" && line["timestamp"] != 1)
            || line["method"] == "$/mcp/serverRestarted"
            // The answer to a `ping` that wakes no server.
            || (line["result"] == Value::Object(serde_json::Map::new()) && line["id"] != Value::Null)
            || line["params"]["reason"] == "the MCP server that asked is gone"
            || (line["result"]["resultType"] == "complete"
                && line["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == line["id"])
            || line["method"]
                .as_str()
                .is_some_and(|method| method.ends_with("/list_changed"))
    })
}
