//! What the proxy itself says to clients: errors, each with a reason to be what it is, and the ends of listens.

use super::{Kind, Record, Request, What};

impl Record {
    /// A line of the proxy's own.
    pub(super) fn gets_own(&mut self, client: usize, line: &str, is_stopping: bool) {
        if self.closes_listen(client, line, is_stopping) || self.gets_empty(client, line) {
            return;
        }
        let before = r#"{"jsonrpc":"2.0","id":"#;
        let parts = line
            .strip_prefix(before)
            .and_then(|rest| rest.split_once(r#","error":{"#));
        let (id, error) = parts.unwrap_or_else(|| panic!("nobody has said this: {line}"));
        assert!(error.contains(r#""source":"mcp-tcp-proxy""#), "{line}");
        let reason = error
            .split_once(r#""reason":""#)
            .and_then(|(_, rest)| rest.split_once('"'));
        let reason = reason.map_or("", |(reason, _)| reason);
        self.failed += 1;
        if id == "null" {
            let left = self.unnamed.entry(client).or_default();
            assert!(
                *left > 0,
                "client {client} gets an error of nothing: {line}"
            );
            *left -= 1;
            return;
        }
        let fits = |key: &usize| {
            let request = &self.requests[*key];
            let is_awaited = request.id == id && !request.is_cancelled_for_sure;
            is_awaited && self.may_fail(request, reason, is_stopping, line)
        };
        // Ids are used again once what had them was taken back.
        let rank = |key: &usize| {
            let request = &self.requests[*key];
            let is_at_dead = request.sent_to.is_some_and(|pid| self.dead.contains(&pid));
            // A client that reads late gets what is said of one that reached nobody when the next of its id is lost already.
            let is_other = is_at_dead != line.contains("\"delivered\":true");
            (is_other, request.is_cancelled)
        };
        let open = self.open_of(client).iter().copied();
        let key = open.filter(fits).min_by_key(rank).unwrap_or_else(|| {
            let open = self.open_of(client).iter().map(|key| &self.requests[*key]);
            let of: Vec<_> = open.filter(|request| request.id == id).collect();
            panic!("client {client} gets an error without a reason: {line}\nopen: {of:#?}")
        });
        if reason == "server_changed" {
            // What waited for it was dropped.
            self.requests[key].expected.clear();
        }
        self.end(key, line);
    }

    /// The proxy ends a listen when the session ends, or its process is replaced. Returns whether the line is that.
    fn closes_listen(&mut self, client: usize, line: &str, is_stopping: bool) -> bool {
        let is_closed = |key: &usize| {
            let request = &self.requests[*key];
            let id = request.id;
            let closed = format!(
                r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}}}"#
            );
            let is_open = !request.is_over && !request.is_cancelled_for_sure;
            matches!(request.kind, Kind::Listen(_)) && is_open && line == closed
        };
        let may_end = is_stopping || self.gone.contains(&client) || self.replaces;
        let closed = self
            .open_of(client)
            .iter()
            .copied()
            .filter(is_closed)
            .min_by_key(|key| self.requests[*key].is_cancelled)
            .filter(|_| may_end);
        if let Some(key) = closed {
            if self.replaces {
                // What the process has said meanwhile was not read.
                self.requests[key].expected.clear();
            }
            self.end(key, line);
        }
        closed.is_some()
    }

    /// Whether a request may have failed for this reason.
    fn may_fail(&self, request: &Request, reason: &str, is_stopping: bool, line: &str) -> bool {
        let too_long = || {
            let answer = request.answer.map(|serial| self.said[serial].what);
            matches!(answer, Some(What::TooLong(_)))
        };
        match reason {
            // Whoever has ended its side is not waited for without end.
            "process_terminated" if self.gone.contains(&request.client) => {
                // One that shares a listen was not sent anywhere.
                let at = request.listens_at.map(|(pid, _)| pid).or(request.sent_to);
                let is_listen = matches!(request.kind, Kind::Listen(_));
                let is_lost = at.is_some_and(|pid| self.dead.contains(&pid))
                    || (is_listen && at.is_none() && !self.dead.is_empty());
                let is_alone = self.alone.contains(&request.client);
                is_lost || is_alone || line.contains("the session left")
            }
            "shutdown" if self.gone.contains(&request.client) => true,
            "response_too_large" => too_long(),
            "server_changed" => self.may_be_ended(request.client),
            _ if request.answer.is_some() && request.kind != Kind::Double => false,
            "process_terminated" => {
                let is_lost = request.sent_to.is_some_and(|pid| self.dead.contains(&pid));
                let is_listen = matches!(request.kind, Kind::Listen(_));
                // A spare may have misbehaved before it became a client's own.
                let is_alone = self.alone.contains(&request.client);
                let may_be_lost = is_lost || is_alone || (is_listen && !self.dead.is_empty());
                may_be_lost && line.contains("\"delivered\":true")
            }
            "restart_limit" | "spawn_failed" | "quarantined" => {
                line.contains("\"delivered\":false") && !self.is_at_process(request)
            }
            "in_flight_limit" => !self.is_at_process(request),
            "shutdown" => is_stopping,
            "method_not_found" if self.may_be_legacy => true,
            other => match request.kind {
                Kind::Flawed(flaw) => flaw == other,
                Kind::Double => other == "invalid_request" && request.number.is_none(),
                _ => false,
            },
        }
    }

    fn is_at_process(&self, request: &Request) -> bool {
        request.sent_to.is_some_and(|pid| !self.dead.contains(&pid))
    }
}
