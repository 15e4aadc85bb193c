//! Which lines may reach the client: the servers', in order and unaltered, and answers in a server's place.

use super::{ClientSays, Comes, Journal, SAFE_BYTES, ServerLine, ServerSays};
use crate::text;

impl Journal {
    /// The session began to send this line to the client.
    pub fn sent_to_client(&mut self, text: &[u8]) -> Comes {
        if let Some(line) =
            text::serial(text, text::SERVER_SERIAL).filter(|line| *line < self.said.len())
        {
            return self.server_line_begins(line, text);
        }
        if text.starts_with(br#"{"type":"heartbeat_response","timestamp":"#) {
            assert!(
                self.announced && !self.is_connector,
                "a heartbeat for a client that did not ask"
            );
            assert!(
                text.ends_with(br#""mcp_alive":false}"#) || !self.servers.is_empty(),
                "a server is said to live that was never started"
            );
        } else if text.starts_with(br#"{"jsonrpc":"2.0","method":"$/mcp/serverRestarted","#) {
            self.notices += 1;
            assert!(
                !self.is_connector
                    && self.notices + self.woken() + self.swapped() < self.servers.len(),
                "a restart is told of that was none"
            );
            let has_asked = self.lines.iter().any(|line| {
                line.what != ClientSays::Discover
                    && !line.requests.is_empty()
                    && line.sent_to.is_some()
            });
            assert!(
                self.announced || self.has_legacy_request || !has_asked,
                "a modern client is told of a restart"
            );
            return Comes::Restarted;
        } else if text == br#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"# {
            self.list_changes += 1;
            let agreed = self.servers.iter().filter(|server| {
                let tells = !server.wakes || server.is_other_version;
                tells && server.replay_responded && !server.replay_differs
            });
            assert!(
                self.list_changes <= agreed.count(),
                "the lists are said to have changed without a replay"
            );
        } else if let Some(id) = text::cancelled_by_proxy(text) {
            self.proxy_takes_back(&id);
        } else if let Some(id) = text::closed_subscription(text) {
            self.proxy_closes(&id, text);
        } else if let Some(id) = text::pong(text) {
            self.proxy_pongs(&id, text);
        } else if self.is_other_protocol {
            self.turned_away(text);
        } else {
            self.proxy_answers(text);
        }
        Comes::Nothing
    }

    /// Only who speaks HTTP is told something, always the same.
    fn turned_away(&mut self, text: &[u8]) {
        // There may be no room for anyone; what is cut off may be anything, and a PROXY header two lines.
        if let Some(error) = text::OwnError::read(text) {
            let is_expected =
                matches!(error.code, 401 | 503) || (error.code == -32700 && self.parse_errors < 2);
            assert!(error.id == "null" && is_expected, "a stranger is served");
            return self.proxy_answers(text);
        }
        let speaks_http = self.lines.iter().any(|line| {
            line.what == ClientSays::OtherProtocol && line.text.windows(6).any(|it| it == b" HTTP/")
        });
        let is_response = [
            &b"HTTP/1.1 400 "[..],
            b"Content-",
            b"Connection: close",
            b"This port ",
            b"MCP applications ",
        ];
        assert!(
            speaks_http && (text == b"\r" || is_response.iter().any(|it| text.starts_with(it))),
            "a client of another protocol gets {}",
            text::show(text)
        );
    }

    fn server_line_begins(&mut self, index: usize, text: &[u8]) -> Comes {
        let line = &self.said[index];
        // A carriage return at its end may have been lost with the rest of what the server wrote.
        let server = &self.servers[line.server];
        let was_cut_off = line.text.strip_suffix(b"\r") == Some(text)
            && (server.written < line.end || server.may_be_cut_off);
        assert!(
            line.text == text || was_cut_off,
            "a line is altered: {} was {}",
            text::show(text),
            text::show(&line.text)
        );
        assert!(
            !line.delivered,
            "a line reaches the client twice: {}",
            text::show(text)
        );
        let server = line.server;
        assert!(
            index >= self.servers[server].next_said,
            "the server's lines overtake each other: {}",
            text::show(text)
        );
        // Those before it have nothing more to say, and it has said something before.
        for other in 0..server {
            self.skip_said(other, self.said.len());
        }
        self.skip_said(server, index);
        self.servers[server].next_said = index + 1;
        let line = &mut self.said[index];
        line.delivered = true;
        match line.what {
            ServerSays::Answer(request) => {
                let is_initialize =
                    self.lines[self.requests[request].line].what == ClientSays::Initialize;
                self.answered(request, false);
                if is_initialize {
                    // A request that was taken back is not waited for, so its answer is nobody's.
                    self.initialize_delivered |= !self.requests[request].cancelled;
                    return Comes::Initialized;
                }
            }
            ServerSays::Request(_) => return Comes::Request(index),
            ServerSays::Other => {}
            ServerSays::Noise | ServerSays::Swallowed | ServerSays::TooLong(_) => {
                panic!("the client gets what is not for it: {}", text::show(text))
            }
        }
        Comes::Nothing
    }

    /// None of the lines of this server up to this one will reach the client any more.
    fn skip_said(&mut self, server: usize, end: usize) {
        for skipped in self.servers[server].next_said..end {
            assert!(
                self.said[skipped].server != server || !self.is_owed(skipped),
                "a line of server {server} is lost: {}",
                text::show(&self.said[skipped].text)
            );
        }
        self.servers[server].next_said = end;
    }

    /// Whether the client is to get this line of a server, as the session has read it or still can.
    pub(super) fn is_owed(&self, index: usize) -> bool {
        let line = &self.said[index];
        let server = &self.servers[line.server];
        let may_be_lost = self.memory_is_short && line.text.len() > SAFE_BYTES;
        let was_cut_off =
            server.may_be_cut_off && server.read_at_release.is_some_and(|read| read < line.end);
        let is_for_client = matches!(
            line.what,
            ServerSays::Answer(..) | ServerSays::Request(_) | ServerSays::Other
        );
        let is_late = matches!(line.what, ServerSays::Answer(of) if self.requests[of].closed);
        is_for_client
            && !is_late
            && line.end <= server.written
            && !line.delivered
            && !may_be_lost
            && !was_cut_off
    }

    /// Each question of a server is taken back once at most, and only after the client has got it.
    fn proxy_takes_back(&mut self, id: &str) {
        let is_open = |line: &&mut ServerLine| {
            let is_same = matches!(&line.what, ServerSays::Request(own) if own == id);
            is_same && line.delivered && !line.orphaned
        };
        let asked = self.said.iter_mut().find(is_open);
        let asked = asked.unwrap_or_else(|| panic!("{id} is taken back, which nobody has asked"));
        asked.orphaned = true;
        let server = asked.server;
        assert!(
            Some(server) == self.present() || self.servers[server].read_at_release.is_some(),
            "what a server has asked that is there is taken back: {id}"
        );
    }

    fn proxy_closes(&mut self, id: &str, text: &[u8]) {
        let request = self.by_id.get(id).copied();
        let request = request.filter(|request| self.is_listen(*request));
        let Some(request) = request else {
            panic!(
                "a subscription is closed that is none: {}",
                text::show(text)
            );
        };
        self.answered(request, true);
        self.requests[request].closed = true;
    }

    fn proxy_answers(&mut self, text: &[u8]) {
        let error = text::OwnError::read(text)
            .unwrap_or_else(|| panic!("the client gets what nobody said: {}", text::show(text)));
        self.proxy_errors += 1;
        if error.id == "null" {
            match error.code {
                -32700 => self.parse_errors += 1,
                -32600 if error.reason == "invalid_request" => {
                    assert!(self.is_connector, "a control line is refused");
                    self.about_link += 1;
                }
                -32600 => self.null_too_large += 1,
                _ => {}
            }
            return;
        }
        let Some(&request) = self.by_id.get(&error.id) else {
            panic!(
                "an error for an id that no request has: {}",
                text::show(text)
            );
        };
        self.answered(request, true);
        let begun = self.requests[request].begun;
        if self.lines[self.requests[request].line].what != ClientSays::Initialize {
            // That may have been read by a server before, too.
            self.check_delivered(&error, begun.is_some());
        }
        self.check_error(&error, request, text);
    }

    /// An error has a reason to be what it is.
    fn check_error(&mut self, error: &text::OwnError, request: usize, text: &[u8]) {
        let begun = self.requests[request].begun;
        let line = &self.lines[self.requests[request].line];
        match error.code {
            502 if error.reason == "unreachable" => assert!(
                self.is_connector && (begun.is_none() || line.what.may_be_resent(true)),
                "unreachable, for a request that was sent: {}",
                text::show(text)
            ),
            502 if error.reason == "response_too_large" => {
                let what = ServerSays::TooLong(Some(request));
                let was_said = self.said.iter().rev().any(|said| said.what == what);
                assert!(
                    was_said || self.memory_is_short,
                    "no response was too large: {}",
                    text::show(text)
                );
            }
            502 => {
                let begun = begun.unwrap_or_else(|| {
                    panic!("502 for a request that no server got: {}", text::show(text))
                });
                let record = &mut self.servers[line.sent_to.unwrap_or_default()];
                assert!(
                    !record.hibernated,
                    "a request is lost with a server that was given back: {}",
                    text::show(text)
                );
                assert!(
                    record.last_lost <= begun,
                    "lost requests are answered out of order: {}",
                    text::show(text)
                );
                record.last_lost = begun;
                self.lost_initialize |= line.what == ClientSays::Initialize
                    && matches!(&*error.reason, "process_terminated" | "connection_lost")
                    && !self.memory_is_short
                    && !self.is_stopping;
            }
            429 => assert!(
                begun.is_none(),
                "429 for a request that a server got: {}",
                text::show(text)
            ),
            -32600 => assert!(
                line.what == ClientSays::TooLong || self.memory_is_short,
                "nothing was too large: {}",
                text::show(text)
            ),
            401 | 503 => {}
            code => panic!("an unknown error code {code}: {}", text::show(text)),
        }
    }

    /// An error says whether a server may have acted on the request.
    fn check_delivered(&self, error: &text::OwnError, begun: bool) {
        let expected = match error.code {
            401 | 502 | 503 if !begun => "false",
            401 | 502 | 503 if self.is_connector => "\"unknown\"",
            401 | 502 | 503 => "true",
            _ => return,
        };
        assert_eq!(
            error.delivered, expected,
            "whether it was delivered: {error:?}"
        );
    }

    pub(super) fn answered(&mut self, request: usize, by_proxy: bool) {
        self.listening -= usize::from(self.is_listen(request));
        let request = &mut self.requests[request];
        request.answers += 1;
        assert!(
            request.answers == 1,
            "request {} is answered twice, the second time by {}",
            request.id,
            if by_proxy { "the proxy" } else { "a server" }
        );
        request.answered_by_proxy = by_proxy;
        self.answered += 1;
    }
}
