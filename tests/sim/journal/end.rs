//! What has to be true of a session that is over: everyone was answered, nothing was lost, and it ended for a reason.

use mcp_tcp_proxy::session::report::EndReason;

use super::{ClientLine, ClientSays, Heard, Journal, SAFE_BYTES, ServerSays, Swap};
use crate::text;

/// Whether a session ended because it was not used.
pub fn is_unused(reason: &EndReason) -> bool {
    matches!(
        reason,
        EndReason::FirstMessageTimeout(_) | EndReason::IdleTimeout(_)
    )
}

impl Journal {
    /// The session is over, and its client was there up to then. `is_late` if a stop has taken too long.
    pub fn check_end(&self, heard: Heard, reason: Option<&EndReason>, calm: bool, is_late: bool) {
        if self.is_other_protocol {
            return;
        }
        let heard_lines = || self.lines.iter().filter(|line| heard.has(line));
        for line in heard_lines() {
            // A batch for which there is no memory has no id to be refused by.
            let refused_whole = self.memory_is_short
                && line.text.starts_with(b"[")
                && line.text.len() > SAFE_BYTES
                && self.null_too_large > 0;
            for request in &self.requests[line.requests.clone()] {
                assert!(
                    request.answers == 1
                        || (request.cancelled && !request.refused_unseen)
                        || self.may_be_forgotten(request)
                        || request.may_be_ended
                        || refused_whole,
                    "request {} is never answered; the session ended with {reason:?}",
                    request.id
                );
            }
        }
        let refused = heard_lines()
            .filter(|line| line.what == ClientSays::Invalid)
            .count();
        let all = self
            .lines
            .iter()
            .filter(|line| line.what == ClientSays::Invalid)
            .count();
        // The last line may have been cut off.
        assert!(
            (refused..=all + 1).contains(&self.parse_errors) || self.memory_is_short,
            "{} parse errors for {refused} lines",
            self.parse_errors
        );
        let refused = heard_lines()
            .filter(|line| line.what == ClientSays::AboutLink)
            .count();
        let about_link = self.lines.iter();
        let all = about_link.filter(|line| line.what == ClientSays::AboutLink);
        assert!(
            (refused..=all.count()).contains(&self.about_link) || self.memory_is_short,
            "{} control lines of the host were refused, and not {refused}",
            self.about_link
        );
        // A session that can't go on with a server, or that is not used, does not wait for what else it has to say.
        let is_unused = reason.is_some_and(is_unused);
        let cut_short = is_unused
            || is_late
            || self
                .servers
                .iter()
                .any(|server| server.replayed && !server.serves && server.swap != Swap::Dropped);
        if !cut_short && !self.is_connector {
            for (index, line) in self.said.iter().enumerate() {
                let is_late = index < self.servers[line.server].next_said;
                assert!(
                    is_late || !self.is_owed(index),
                    "a line of the server is lost at the end: {}",
                    text::show(&self.said[index].text)
                );
            }
        }
        if calm {
            // Its client may have had more to say, too.
            let said = self.lines.iter();
            self.check_calm(said.filter(|line| !is_unused || heard.has(line)));
        }
    }

    /// Nothing went wrong: all that is to be forwarded was, and only servers have answered.
    fn check_calm<'a>(&self, lines: impl Iterator<Item = &'a ClientLine>) {
        for line in lines {
            let is_void = self.is_ponged(line) || self.answers_one_given_back(line);
            assert!(
                !line.what.is_forwarded() || line.sent_to.is_some() || is_void,
                "a line is lost though nothing went wrong: {}",
                text::show(&line.text)
            );
            for request in &self.requests[line.requests.clone()] {
                let refused = line.what == ClientSays::TooLong;
                assert!(
                    refused
                        || !request.answered_by_proxy
                        || request.closed
                        || request.ponged
                        || self
                            .said
                            .iter()
                            .any(|line| matches!(line.what, ServerSays::TooLong(Some(_)))),
                    "the proxy answers request {} though nothing went wrong",
                    request.id
                );
            }
        }
    }

    /// The session was turned away: its client was told so, and nothing of what it said was read.
    pub fn check_refused(&self, heard: Heard, has_introduced_itself: bool) {
        assert!(self.proxy_errors <= 1 && self.said.is_empty() && self.servers.is_empty());
        let is_heard = heard.bytes > 0 && !has_introduced_itself;
        assert!(!is_heard, "a client is heard that was turned away");
    }

    /// A reason to end has to have a cause.
    pub fn check_reason(&self, reason: &EndReason, restarts_upstream: bool, max_restarts: u32) {
        let losses = self.losses + self.spawn_failures;
        let is_caused = match reason {
            EndReason::ServerEnded(_) => !restarts_upstream && self.losses > 0,
            EndReason::RestartLimit { .. } => losses > max_restarts,
            EndReason::SpawnFailed(_) => {
                // It was not started, or did not live.
                (self.spawn_failures > 0 && (!restarts_upstream || losses > max_restarts))
                    || self.most_same_codes >= 3
            }
            EndReason::ServerChanged => {
                let differs = self.servers.iter().any(|server| server.replay_differs);
                differs || self.has_other_capabilities
            }
            EndReason::ReplayTimeout(_) => {
                // Without restarts there is a second server only after one that was given back.
                let is_last = losses > max_restarts || (!restarts_upstream && losses > 0);
                is_last && self.servers.iter().any(|server| server.replayed)
            }
            EndReason::OtherProtocol(_) => self.is_other_protocol,
            _ => true,
        };
        assert!(
            is_caused,
            "the session ended with {reason:?}, for which there was no cause"
        );
    }
}
