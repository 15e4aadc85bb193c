//! What is waited for in a session, as far as the lines tell that were said in it.

use super::{ClientLine, ClientSays, Heard, Journal, SAFE_BYTES, ServerSays};
use crate::text;

impl Journal {
    /// Whether a line has come that is for a server.
    pub fn has_message(&self, heard: Heard) -> bool {
        self.messages(heard).next().is_some()
    }

    /// How many lines for servers have come since the last call. Answers do not count: they may be to a server that is
    /// gone.
    pub fn hear(&mut self, heard: Heard) -> usize {
        let lines = &self.lines[self.next_heard..];
        let news = || lines.iter().take_while(|line| heard.has(line));
        let is_ours = !self.is_other_protocol;
        let is_message =
            |line: &&ClientLine| is_ours && line.what.is_forwarded() && !is_answer(line);
        let messages = news().filter(is_message).count();
        self.next_heard += news().count();
        messages
    }

    fn messages(&self, heard: Heard) -> impl Iterator<Item = &ClientLine> {
        let lines = self.lines.iter().filter(|_| !self.is_other_protocol);
        lines.filter(move |line| line.what.is_forwarded() && heard.has(line))
    }

    /// What is still to be done, if anything surely is: a message to be sent, or a request to be answered.
    pub fn surely_waits(&self, heard: Heard, server_is_up: bool) -> Option<String> {
        for line in self.messages(heard) {
            let is_refused = self.memory_is_short && line.text.len() > SAFE_BYTES;
            let has_requests = !line.requests.is_empty();
            let is_dropped = matches!(line.what, ClientSays::Cancel(_));
            if line.sent_to.is_none()
                && !has_requests
                && !is_answer(line)
                && !is_dropped
                && !is_refused
            {
                return Some(format!("{} is not sent", text::show(&line.text)));
            }
            let waits = self.requests[line.requests.clone()].iter().find(|request| {
                line.what != ClientSays::Listen
                    && request.answers == 0
                    && !request.cancelled
                    && !is_refused
                    && !self.may_be_forgotten(request)
            });
            if let Some(request) = waits {
                return Some(format!("request {} is not answered", request.id));
            }
        }
        let asked = self.open_server_request(heard).filter(|_| server_is_up)?;
        Some(format!("{} is not answered", text::show(&asked.text)))
    }

    /// A request of the present server that the client has got and not answered.
    fn open_server_request(&self, heard: Heard) -> Option<&super::ServerLine> {
        let present = self.present()?;
        let is_answered = |asked: usize| {
            self.messages(heard)
                .any(|line| line.what == ClientSays::Answer(asked))
        };
        let said = self.said.iter().enumerate();
        said.filter(|(_, line)| line.delivered && matches!(line.what, ServerSays::Request(_)))
            .find(|(at, line)| line.is_answerable_by(present) && !is_answered(*at))
            .map(|(_, line)| line)
    }

    /// Whether surely nothing is to be done: all that has come was sent and answered, and no server has asked anything.
    pub fn surely_done(&self, heard: Heard) -> bool {
        let all_sent = || {
            let mut messages = self.messages(heard).filter(|line| !is_answer(line));
            messages.all(|line| line.sent_to.is_some() || self.is_ponged(line))
        };
        let has_asked = || {
            let mut said = self.said.iter();
            said.any(|line| matches!(line.what, ServerSays::Request(_)))
        };
        self.awaited() == 0 && !has_asked() && all_sent()
    }
}

fn is_answer(line: &ClientLine) -> bool {
    matches!(line.what, ClientSays::Answer(_) | ClientSays::StrayAnswer)
}
