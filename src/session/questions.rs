//! What a server asks its client (`elicitation/create`, `sampling/createMessage`, `roots/list`), when the server is lost: the
//! client may be showing a dialog about it, whose answer nobody waits for any more.

use super::client_side::OwnLine;
use super::{Context, Session};
use crate::protocol::own_messages;

/// What the client is told.
const GONE: &str = "the MCP server that asked is gone";

/// Up to this many bytes of such lines are sent, so that a server that has asked very much does not fill our memory. Those
/// asked first come first; the answers to the others are dropped without a word.
const MAX_BYTES: usize = 64 * 1024;

impl Session {
    /// Takes back, in the place of a server that is gone, what it has asked.
    pub(super) fn take_back_questions(&mut self, cx: &mut Context<'_>) {
        if self.server_requests.none_open() {
            return;
        }
        let ids = self.server_requests.open_ids();
        self.server_requests.orphan();
        if !self.goal.is_serve() {
            return;
        }
        let mut bytes = 0;
        for id in ids {
            let line = own_messages::cancelled(&id, GONE);
            bytes += line.len();
            if bytes > MAX_BYTES {
                return;
            }
            self.own_line(&line, OwnLine::Other, cx);
        }
    }
}
