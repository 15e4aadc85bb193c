//! What the two programs say to each other about the connection itself, as whoever is between them sees it.

use super::network::Side;
use crate::text;

/// No line about a connection is longer, in bytes. Of others, no more is kept.
const SHOWN: usize = 400;

#[derive(Debug)]
pub struct Talk {
    connection: usize,
    /// What has come of a line, to the client and to the proxy.
    begun: [Vec<u8>; 2],
    /// How many lines have come.
    lines: [u64; 2],
    /// How many bytes have come.
    bytes: [u64; 2],
    /// Where lines that count have ended in these, and how many had come over other connections.
    ends: [Vec<u64>; 2],
    before: [u64; 2],
    /// Whether one has said that none follows but acknowledgements.
    has_bye: [bool; 2],
    /// The client wants to go on with a session, and has no answer yet.
    awaits_verdict: bool,
    /// The proxy has another session for the client.
    begins_anew: bool,
    /// The proxy keeps the session.
    is_granted: bool,
}

impl Talk {
    pub fn new(connection: usize) -> Self {
        Self {
            connection,
            begun: [const { Vec::new() }; 2],
            lines: [0; 2],
            bytes: [0; 2],
            ends: [const { Vec::new() }; 2],
            before: [0; 2],
            has_bye: [false; 2],
            awaits_verdict: false,
            begins_anew: false,
            is_granted: false,
        }
    }

    /// Whether the proxy has said that it keeps the session.
    pub fn is_granted(&self) -> bool {
        self.is_granted
    }

    /// The end of the other side has arrived there, who still listens.
    pub fn check_end(&self, to: Side) {
        assert!(
            !self.is_granted || self.has_bye[to as usize],
            "connection {}: nobody has said that nothing follows for the {to:?}",
            self.connection
        );
    }

    /// These bytes have arrived there.
    pub fn note(&mut self, to: Side, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if to == Side::Proxy {
                assert!(
                    !self.awaits_verdict,
                    "connection {}: the client goes on before the verdict: {}",
                    self.connection,
                    text::show(piece)
                );
            }
            let begun = &mut self.begun[to as usize];
            let room = SHOWN.saturating_sub(begun.len());
            begun.extend_from_slice(&piece[..piece.len().min(room)]);
            self.bytes[to as usize] += piece.len() as u64;
            if piece.ends_with(b"\n") {
                let line = std::mem::take(begun);
                self.note_line(to, &line);
                self.lines[to as usize] += 1;
            }
        }
    }

    /// Whether there is a new session of which the client does not know whether it is kept.
    pub fn is_in_doubt(&self) -> bool {
        self.begins_anew && !self.is_granted
    }

    /// Where the last of the first `lines` lines that have come there ended, if it came over this connection.
    pub fn end_of(&self, to: Side, lines: u64) -> Option<u64> {
        let number = lines.checked_sub(self.before[to as usize] + 1)?;
        self.ends[to as usize].get(number as usize).copied()
    }

    fn note_line(&mut self, to: Side, line: &[u8]) {
        if !line.starts_with(br#"{"type":"#) {
            self.ends[to as usize].push(self.bytes[to as usize]);
        }
        let bye = match to {
            Side::Connector => br#"{"type":"bye","#.as_slice(),
            Side::Proxy => br#"{"type":"heartbeat","bye":true"#.as_slice(),
        };
        self.has_bye[to as usize] |= line.starts_with(bye);
        let is_first = self.lines[to as usize] == 0;
        if to == Side::Proxy {
            let resumes = text::find(line, br#""previous":"#).is_some();
            self.awaits_verdict = is_first && resumes;
            if self.awaits_verdict {
                let taken = text::serial(line, br#""lines":"#);
                self.before[Side::Connector as usize] = taken.unwrap_or_default() as u64;
            }
            return;
        }
        let says = |what: &str| line.starts_with(format!(r#"{{"type":"{what}""#).as_bytes());
        let is_verdict = says("resumed") || says("not_resumed");
        assert!(
            !is_verdict || is_first,
            "connection {}: a verdict is the first line: {}",
            self.connection,
            text::show(line)
        );
        // No session is so old here that its end would be forgotten.
        assert!(
            !says("not_resumed") || text::serial(line, br#""lines":"#).is_some(),
            "connection {}: nobody knows what was taken: {}",
            self.connection,
            text::show(line)
        );
        self.awaits_verdict = false;
        if says("resumed") {
            let taken = text::serial(line, br#""lines":"#);
            self.before[Side::Proxy as usize] = taken.unwrap_or_default() as u64;
        } else if says("not_resumed") {
            self.before = [0; 2];
            self.begins_anew = true;
        }
        self.is_granted |= says("resumed") || says("resumable");
    }
}
