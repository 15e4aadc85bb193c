//! Which lines may reach a server: the client's, in order, each at most once, and a handshake that is replayed.

use super::{ClientLine, ClientSays, Journal, Received, SAFE_BYTES, ServerLine, ServerSays};
use crate::text;

impl Journal {
    /// The session began to send this line to a server.
    pub fn sent_to_server(&mut self, server: usize, text: &[u8], end: u64) -> Received {
        if let Some(line) =
            text::serial(text, text::CLIENT_SERIAL).filter(|line| *line < self.lines.len())
        {
            let received = self.client_line_begins(server, line, text);
            let text = text.trim_ascii_start();
            self.lines[line].sent_at = end - text.len() as u64 - 1;
            return received;
        }
        if let Some(id) = text::swap_id(text) {
            return self.asked(server, id, text);
        }
        self.check_beside(server, text);
        if text == text::INITIALIZED {
            let said = self
                .lines
                .iter()
                .any(|line| line.what == ClientSays::Initialized);
            assert!(
                said && self.initialize_answered,
                "the proxy says 'initialized' for a client that did not"
            );
            self.servers[server].initialized = true;
        } else if let Some(id) = text::cancelled_by_proxy(text) {
            let request = self.by_id.get(&id).copied();
            let is_right = request.is_some_and(|request| {
                let sent_to = self.lines[self.requests[request].line].sent_to;
                self.is_listen(request) && sent_to == Some(server)
            });
            assert!(is_right, "the proxy takes back what is not its own: {id}");
        } else {
            assert!(
                self.is_connector
                    && (text.starts_with(br#"{"type":"handshake","#)
                        || text.starts_with(br#"{"type":"heartbeat","#)),
                "a server gets what no client said: {}",
                text::show(text)
            );
            return Received::Heartbeat;
        }
        Received::Nothing
    }

    fn client_line_begins(&mut self, server: usize, index: usize, text: &[u8]) -> Received {
        assert!(
            !self.is_other_protocol,
            "a server gets what follows another protocol's first line: {}",
            text::show(text)
        );
        if self.is_altered(index, text) {
            return self.replay(server, index, text);
        }
        self.check_beside(server, text);
        let line = &self.lines[index];
        if let ClientSays::Cancel(request) = line.what {
            self.check_cancellation(request);
        }
        let line = &self.lines[index];
        assert!(
            line.what.is_forwarded(),
            "a server gets a line that is not to be forwarded: {}",
            text::show(text)
        );
        match line.what {
            ClientSays::Answer(_) | ClientSays::StrayAnswer => {
                assert!(
                    line.sent_to.is_none(),
                    "an answer is sent twice: {}",
                    text::show(text)
                );
                self.answer_begins(server, index);
            }
            _ => self.other_line_begins(server, index),
        }
        self.lines[index].sent_to = Some(server);
        for request in &mut self.requests[self.lines[index].requests.clone()] {
            if request.taken_out {
                continue;
            }
            assert!(
                request.answers == 0,
                "a request is sent after it was answered: {}",
                text::show(text)
            );
            request.begun = Some(self.begun);
            self.begun += 1;
        }
        Received::Line(index)
    }

    /// Whether a line is not as the client said it. What may be missing in a batch is noted as taken out.
    fn is_altered(&mut self, index: usize, text: &[u8]) -> bool {
        let line = &self.lines[index];
        // A server may have read the blanks before a line that goes to another.
        if line.text.trim_ascii_start() == text.trim_ascii_start() {
            return false;
        }
        if !line.text.starts_with(b"[") {
            return true;
        }
        let Some(missing) = self.missing_in_batch(line, text) else {
            return true;
        };
        for request in missing {
            self.requests[request].taken_out = true;
        }
        false
    }

    /// An answer reaches the server that asked, or any if the request was taken back.
    fn answer_begins(&mut self, server: usize, index: usize) {
        let line = &self.lines[index];
        let ClientSays::Answer(request) = line.what else {
            return;
        };
        let request = &self.said[request];
        if request.taken_back {
            return;
        }
        let asked = request.server;
        assert!(
            asked == server || self.was_taken_back(request),
            "an answer to server {asked} reaches server {server}: {}",
            text::show(&line.text)
        );
        if request.is_answerable_by(server) {
            self.skip_answers(index, server);
        }
    }

    /// Any other line reaches a server that knows the client, in order, and another one only if the first was lost.
    fn other_line_begins(&mut self, server: usize, index: usize) {
        let (line, record) = (&self.lines[index], &self.servers[server]);
        assert!(
            !record.due || record.replayed || line.what == ClientSays::Initialize,
            "a server that knows no client gets {}",
            text::show(&line.text)
        );
        assert!(
            !record.replayed || record.replay_responded,
            "a server gets a line before it has answered the replayed handshake: {}",
            text::show(&line.text)
        );
        let is_told = record.initialized || line.what == ClientSays::Initialize;
        assert!(
            !record.replayed || record.replay_differs || is_told || !self.has_initialized(),
            "a server that was not told 'initialized' gets {}",
            text::show(&line.text)
        );
        if let Some(before) = line.sent_to {
            let lost = self.servers[before].read_at_release.is_some();
            let may_be_resent = line.what.may_be_resent(self.is_connector) || self.is_unread(line);
            assert!(
                may_be_resent && lost && before != server,
                "a line is sent twice, to server {before} and server {server}: {}",
                text::show(&line.text)
            );
            self.resent += 1;
        } else if !self.may_overtake(index) {
            self.skip_others(index);
        }
        let is_initialized = self.lines[index].what == ClientSays::Initialized;
        let record = &mut self.servers[server];
        (record.due, record.serves) = (false, true);
        record.initialized |= is_initialized;
    }

    /// Whether it takes back what a server has that is about to go, and for which nothing is waited that is new.
    fn may_overtake(&self, index: usize) -> bool {
        let line = &self.lines[index];
        let is_at_server = |request: usize| self.requests[request].begun.is_some();
        self.was_swapped
            && matches!(line.what, ClientSays::Cancel(request) if is_at_server(request))
    }

    /// Whether the client has surely brought its handshake to an end: there was one, and all that it has said about its end
    /// was read.
    pub(super) fn has_initialized(&self) -> bool {
        let all = |what| self.lines.iter().filter(move |line| line.what == what);
        let is_read = |line: &ClientLine| line.sent_to.is_some() && !self.is_unread(line);
        let mut ends = all(ClientSays::Initialized).filter(|line| line.sent_to.is_some());
        all(ClientSays::Initialize).count() == 1
            && all(ClientSays::Initialized).any(is_read)
            && ends.all(is_read)
    }

    /// What no server was sent is taken back without telling one, unless it can't be.
    fn check_cancellation(&mut self, request: usize) {
        let same = ClientSays::Cancel(request);
        let is_repeated = self.lines.iter().filter(|line| line.what == same).count() > 1;
        let unanswered = self.unanswered();
        // The answer may not have been sent yet, either.
        let line = &self.lines[self.requests[request].line];
        let may_be_ponged = self.has_hibernated() && text::is_ping(&line.text);
        let request = &mut self.requests[request];
        let what = self.lines[request.line].what;
        // The error may not have been sent yet.
        let may_be_refused = what == ClientSays::TooLong
            || self.memory_is_short
            || self.is_stopping
            || unanswered > 1000;
        if request.begun.is_some()
            || request.answers > 0
            || may_be_refused
            || may_be_ponged
            || is_repeated
            || what == ClientSays::Initialize
        {
            return;
        }
        // It may have waited too long for a connection. Whether there is an error for it is checked at the end.
        request.refused_unseen = self.is_connector;
        assert!(
            request.refused_unseen,
            "a server is told that {} was taken back, which it was not sent",
            request.id
        );
    }

    /// Lines are left out only if they are not to be forwarded, or were refused, which is checked at the end.
    fn skip_others(&mut self, index: usize) {
        assert!(
            index >= self.next_other,
            "lines overtake each other: {}",
            text::show(&self.lines[index].text)
        );
        for line in &self.lines[self.next_other..index] {
            let is_answer = matches!(line.what, ClientSays::Answer(_) | ClientSays::StrayAnswer);
            let may_be_refused = matches!(line.what, ClientSays::Cancel(_))
                || !line.requests.is_empty()
                || (self.memory_is_short && line.text.len() > SAFE_BYTES);
            assert!(
                !line.what.is_forwarded() || is_answer || line.sent_to.is_some() || may_be_refused,
                "a line of the client is lost: {}",
                text::show(&line.text)
            );
        }
        self.next_other = index + 1;
    }

    /// Whether another request of this id was taken back. If that was answered all the same, nothing tells the answers
    /// apart.
    fn was_taken_back(&self, request: &ServerLine) -> bool {
        self.said
            .iter()
            .any(|line| line.taken_back && line.what == request.what)
    }

    fn skip_answers(&mut self, index: usize, server: usize) {
        assert!(
            index >= self.next_answer,
            "answers overtake each other: {}",
            text::show(&self.lines[index].text)
        );
        for line in &self.lines[self.next_answer..index] {
            let is_lost = matches!(line.what, ClientSays::Answer(request) if self.said[request].is_answerable_by(server))
                && line.sent_to.is_none()
                && !(self.memory_is_short && line.text.len() > SAFE_BYTES);
            assert!(
                !is_lost,
                "an answer of the client is lost: {}",
                text::show(&line.text)
            );
        }
        self.next_answer = index + 1;
    }

    fn replay(&mut self, server: usize, index: usize, text: &[u8]) -> Received {
        if self.lines[index].what == ClientSays::SetsUp {
            return self.restored(server, index, text);
        }
        let line = &self.lines[index];
        assert!(
            line.what == ClientSays::Initialize,
            "a line is altered: {} was {}",
            text::show(text),
            text::show(&line.text)
        );
        let id = text::replay_id(text)
            .unwrap_or_else(|| panic!("a line is altered: {}", text::show(text)));
        let old = &self.requests[line.requests.start].id;
        assert!(
            text::with_id(&line.text, old, &id) == text,
            "the replay is not what the client said: {}",
            text::show(text)
        );
        assert!(
            self.initialize_answered && self.may_replay,
            "a handshake is replayed that did not take place"
        );
        let record = &mut self.servers[server];
        assert!(
            !record.replayed,
            "a handshake is replayed twice to one server"
        );
        record.replayed = true;
        record.due = false;
        self.replays += 1;
        Received::Replay(id)
    }

    /// What the client had set up at a server before is set up at one that has agreed to the replayed handshake.
    fn restored(&mut self, server: usize, index: usize, text: &[u8]) -> Received {
        let line = &self.lines[index];
        let request = &self.requests[line.requests.start];
        let id = text::restore_id(text);
        let id = id.unwrap_or_else(|| panic!("a line is altered: {}", text::show(text)));
        assert!(
            text::with_id(&line.text, &request.id, &id) == text,
            "what is restored is not what the client said: {}",
            text::show(text)
        );
        // The client may not have read the answer yet.
        let answer = ServerSays::Answer(line.requests.start);
        let is_answered = self.said.iter().any(|said| said.what == answer);
        assert!(
            is_answered && !request.answered_by_proxy,
            "what no server has agreed to is restored: {}",
            text::show(text)
        );
        let record = &self.servers[server];
        assert!(
            record.replay_responded && !record.replay_differs && line.sent_to != Some(server),
            "what a server knows is restored: {}",
            text::show(text)
        );
        Received::Restored(id)
    }
}
