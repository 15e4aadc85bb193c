//! What a lost server has never read: it counts as never sent, and has to go to the next one.

use super::{ClientLine, ClientSays, Journal, Request};
use crate::text;

impl Journal {
    /// The session has taken back what this server was sent from there on, and nobody has read.
    pub fn left_unread(&mut self, server: usize, from: Option<u64>) {
        let record = &mut self.servers[server];
        if record.unread_from == from {
            return;
        }
        record.unread_from = from;
        for index in (0..self.lines.len()).rev() {
            let line = &self.lines[index];
            if !self.is_unread(line) || !is_sent_again(line.what) {
                continue;
            }
            self.next_other = self.next_other.min(index);
            self.unread += 1;
            let line = &mut self.lines[index];
            line.sent_to = None;
            for request in &mut self.requests[line.requests.clone()] {
                request.begun = None;
            }
        }
    }

    /// Whether no server has read the line.
    pub(super) fn is_unread(&self, line: &ClientLine) -> bool {
        line.sent_to.is_none_or(|server| {
            let from = self.servers[server].unread_from;
            from.is_some_and(|from| from <= line.sent_at)
        })
    }

    /// The requests that are missing in a batch, if it is otherwise as it was. They have to be taken back.
    pub(super) fn missing_in_batch(&self, line: &ClientLine, got: &[u8]) -> Option<Vec<usize>> {
        let missing = |at: &usize| {
            let request = &self.requests[*at];
            request.cancelled && text::find(got, item(request).as_bytes()).is_none()
        };
        let missing: Vec<usize> = line.requests.clone().filter(missing).collect();
        let mut expected = String::from_utf8(line.text.clone()).ok()?;
        for at in &missing {
            expected = expected.replacen(&item(&self.requests[*at]), "", 1);
        }
        (expected.as_bytes() == got).then_some(missing)
    }
}

/// Whether the line goes to another server if none has read it. What was for one server does not, and what ends a
/// handshake is told by the proxy if it repeats that.
fn is_sent_again(what: ClientSays) -> bool {
    !matches!(
        what,
        ClientSays::Answer(_)
            | ClientSays::StrayAnswer
            | ClientSays::Cancel(_)
            | ClientSays::Initialized
    )
}

/// A request in a batch, as the client writes it.
fn item(request: &Request) -> String {
    format!(r#",{{"id":{},"method":"m"}}"#, request.id)
}
