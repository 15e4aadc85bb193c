//! Servers that are given back, and what must not be open then.

use super::{ClientLine, ClientSays, Heard, Journal, ServerSays};
use crate::text;

impl Journal {
    /// The session gives its server back.
    pub fn hibernates(&mut self) {
        if let Some(present) = self.present() {
            self.servers[present].hibernated = true;
        }
    }

    /// Whether it has ever given one back.
    pub fn has_hibernated(&self) -> bool {
        self.servers.iter().any(|server| server.hibernated)
    }

    /// How many servers took the place of one that was given back.
    pub(super) fn woken(&self) -> usize {
        let before = self.present().unwrap_or_default();
        let before = self.servers[..before].iter();
        before.filter(|server| server.hibernated).count()
    }

    /// What keeps the server from being given back, if anything surely does.
    pub fn surely_open(&self, heard: Heard, server_is_up: bool) -> Option<String> {
        let listens = self.lines.iter().find(|line| {
            let requests = &self.requests[line.requests.clone()];
            let is_open = |request: &super::Request| {
                request.answers == 0 && !request.cancelled && !request.may_be_ended
            };
            line.what == ClientSays::Listen && heard.has(line) && requests.iter().any(is_open)
        });
        if let Some(listens) = listens {
            return Some(format!("{} is open", text::show(&listens.text)));
        }
        if let Some(line) = self.subscription() {
            return Some(format!("{} was agreed to", text::show(&line.text)));
        }
        self.surely_waits(heard, server_is_up)
    }

    /// A subscription to a resource to which a server has agreed.
    fn subscription(&self) -> Option<&ClientLine> {
        let lines = self.lines.iter().enumerate();
        let subscriptions = lines.filter(|(_, line)| {
            line.what == ClientSays::SetsUp && text::is_subscription(&line.text)
        });
        let mut open = subscriptions.filter(|(at, line)| {
            // Another handshake would end it.
            let mut later = self.lines[*at..].iter();
            let is_over = later.any(|line| line.what == ClientSays::Initialize);
            !is_over && self.is_agreed_to(line)
        });
        open.next().map(|(_, line)| line)
    }

    fn is_agreed_to(&self, line: &ClientLine) -> bool {
        let is_cancelled = |at: usize| self.requests[at].cancelled;
        let mut answers = self.said.iter().filter(|said| said.delivered);
        answers.any(|said| {
            let answers_it = matches!(said.what, ServerSays::Answer(at)
                if line.requests.contains(&at) && !is_cancelled(at));
            answers_it && text::is_result(&said.text)
        })
    }

    /// Whether its session can surely be woken, and nothing at all is open in it.
    pub fn can_surely_hibernate(&self, heard: Heard) -> bool {
        let asks = |line: &&ClientLine| {
            !line.requests.is_empty()
                && !matches!(line.what, ClientSays::Discover | ClientSays::TooLong)
        };
        let first = self.lines.iter().find(asks);
        let is_modern = first.is_some_and(|line| text::is_modern(&line.text));
        let mut lines = self.lines.iter();
        let has_handshake = lines.any(|line| line.what == ClientSays::Initialize);
        let can_be_woken = if has_handshake {
            self.may_replay && self.initialize_delivered && self.has_initialized()
        } else {
            is_modern
        };
        let mut lines = self.lines.iter();
        let sets_up = lines.any(|line| line.what == ClientSays::SetsUp);
        let serves = self.present().is_some_and(|at| self.servers[at].serves);
        can_be_woken
            && serves
            && !sets_up
            && self.unanswered() == 0
            && self.surely_done(heard)
            && !self.memory_is_short
    }

    /// The proxy answers a `ping` in the place of a server that was given back.
    pub(super) fn proxy_pongs(&mut self, id: &str, text: &[u8]) {
        let request = self.by_id.get(id).copied();
        let request = request.filter(|request| {
            let line = &self.lines[self.requests[*request].line];
            text::is_ping(&line.text) && line.sent_to.is_none()
        });
        let Some(request) = request.filter(|_| self.has_hibernated()) else {
            panic!(
                "the proxy answers in a server's place: {}",
                text::show(text)
            );
        };
        self.answered(request, true);
        self.requests[request].ponged = true;
    }

    /// Whether it is an answer to the last words of a server that was given back.
    pub(super) fn answers_one_given_back(&self, line: &ClientLine) -> bool {
        let ClientSays::Answer(asked) = line.what else {
            return false;
        };
        let server = &self.servers[self.said[asked].server];
        server.hibernated || server.is_replaced
    }

    /// Whether all requests of this line were answered so.
    pub(super) fn is_ponged(&self, line: &ClientLine) -> bool {
        let requests = &self.requests[line.requests.clone()];
        !requests.is_empty() && requests.iter().all(|request| request.ponged)
    }
}
