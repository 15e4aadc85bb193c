//! One connection: a request, its response, and the end.

use std::time::Duration;

use super::request::{Head, Hosts, MAX_HEAD_BYTES, read};
use super::response::{Status, plain};
use crate::util::time::Time;

/// How long a request may take, and how long nobody may take anything of its response.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it all may take: whoever takes a byte every four seconds must not have a place for ever.
const LIFE_TIME: Duration = Duration::from_mins(1);

/// After our end of the connection, the peer has this long to end its own: with unread bytes a close is a reset, which
/// would destroy the end of the response.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// What may come in that time, in bytes.
const LINGER_BYTES: usize = 1024 * 1024;

/// More is appended to the response only while less than this waits, in bytes.
const ROOM: usize = 64 * 1024;

/// A connection.
#[derive(Debug)]
pub struct Exchange {
    stage: Stage,
    opened: Time,
    moved: Time,
}

#[derive(Debug)]
enum Stage {
    /// The request is not whole.
    Asking(Vec<u8>),
    /// It is, and is to be answered.
    Asked,
    Answering {
        output: Vec<u8>,
        sent: usize,
        is_whole: bool,
    },
    /// Everything was written, and our side ended.
    Lingering {
        read: usize,
        since: Time,
    },
    Over,
}

impl Exchange {
    /// A connection that was just accepted.
    pub fn new(now: Time) -> Self {
        Self {
            stage: Stage::Asking(Vec::new()),
            opened: now,
            moved: now,
        }
    }

    /// Whether what the peer sends is to be read.
    pub fn wants_input(&self) -> bool {
        matches!(self.stage, Stage::Asking(_) | Stage::Lingering { .. })
    }

    /// The peer sent these bytes. Returns the request once it is whole; what is wrong is answered here.
    pub fn bytes(
        &mut self,
        bytes: &[u8],
        hosts: &Hosts,
        now: Time,
    ) -> Option<super::request::Request> {
        match &mut self.stage {
            Stage::Asking(head) => {
                let room = MAX_HEAD_BYTES - head.len();
                head.extend_from_slice(&bytes[..bytes.len().min(room)]);
                match read(head, hosts) {
                    Head::Partial => None,
                    Head::Bad(status) => {
                        self.respond(plain(status, false), true, now);
                        None
                    }
                    Head::Request(request) => {
                        self.stage = Stage::Asked;
                        Some(request)
                    }
                }
            }
            Stage::Lingering { read, .. } => {
                *read += bytes.len();
                if *read > LINGER_BYTES {
                    self.stage = Stage::Over;
                }
                None
            }
            Stage::Asked | Stage::Answering { .. } | Stage::Over => None,
        }
    }

    /// The peer has ended its side, or the connection broke.
    pub fn ended(&mut self) {
        if self.wants_input() {
            self.stage = Stage::Over;
        }
    }

    /// The connection broke.
    pub fn broken(&mut self) {
        self.stage = Stage::Over;
    }

    /// Answers the request: with a beginning, or with all there is.
    pub fn respond(&mut self, output: Vec<u8>, is_whole: bool, now: Time) {
        self.moved = now;
        self.stage = Stage::Answering {
            output,
            sent: 0,
            is_whole,
        };
    }

    /// Whether more of the response is wanted now.
    pub fn has_room(&self) -> bool {
        matches!(
            &self.stage,
            Stage::Answering { output, sent, is_whole: false } if output.len() - sent < ROOM
        )
    }

    /// Goes on with the response.
    pub fn append(&mut self, more: &[u8], is_last: bool) {
        if let Stage::Answering {
            output,
            sent,
            is_whole,
        } = &mut self.stage
        {
            output.drain(..std::mem::take(sent));
            output.extend_from_slice(more);
            *is_whole = is_last;
        }
    }

    /// What is to be written.
    pub fn output(&self) -> &[u8] {
        match &self.stage {
            Stage::Answering { output, sent, .. } => &output[*sent..],
            _ => &[],
        }
    }

    /// This much of it was written. Returns whether that was the last of all, and our side is to be ended.
    pub fn written(&mut self, count: usize, now: Time) -> bool {
        let Stage::Answering {
            output,
            sent,
            is_whole,
        } = &mut self.stage
        else {
            return false;
        };
        *sent += count;
        if count > 0 {
            self.moved = now;
        }
        let is_done = *is_whole && *sent == output.len();
        if is_done {
            self.stage = Stage::Lingering {
                read: 0,
                since: now,
            };
        }
        is_done
    }

    /// When something has to have happened.
    pub fn deadline(&self) -> Time {
        let end = self.opened + LIFE_TIME;
        match &self.stage {
            Stage::Asking(_) | Stage::Asked => self.opened + PATIENCE,
            Stage::Answering { .. } => end.min(self.moved + PATIENCE),
            Stage::Lingering { since, .. } => *since + LINGER_TIME,
            Stage::Over => self.opened,
        }
    }

    /// The deadline may have come. A request that took too long is answered; all else has had its time.
    pub fn timeout(&mut self, now: Time) {
        if now < self.deadline() {
            return;
        }
        match &self.stage {
            Stage::Asking(head) if !head.is_empty() => {
                self.respond(plain(Status::Timeout, false), true, now);
            }
            _ => self.stage = Stage::Over,
        }
    }

    /// Since when nothing has moved.
    pub fn idle_since(&self) -> Time {
        self.moved
    }

    /// Whether the connection is to be closed.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Time = Time::from_nanos(1 << 40);
    const SECOND: Duration = Duration::from_secs(1);

    fn hosts() -> Hosts {
        Hosts::default()
    }

    /// Takes all that is to be written. Returns it, and whether that was the last.
    fn take(exchange: &mut Exchange, now: Time) -> (String, bool) {
        let output = String::from_utf8(exchange.output().to_vec()).unwrap();
        let is_last = exchange.written(output.len(), now);
        (output, is_last)
    }

    #[test]
    fn a_request_a_response_and_the_end() {
        let mut exchange = Exchange::new(BEGIN);
        let head = b"GET /x HTTP/1.0\r\n\r\n";
        for byte in &head[..head.len() - 1] {
            assert_eq!(exchange.bytes(&[*byte], &hosts(), BEGIN), None);
        }
        let request = exchange.bytes(b"\nGET /pipelined HTTP/1.0\r\n\r\n", &hosts(), BEGIN);
        assert_eq!(request.unwrap().path, "/x");
        assert!(!exchange.wants_input() && exchange.output().is_empty());
        exchange.respond(b"head ".to_vec(), false, BEGIN);
        assert!(exchange.has_room());
        assert!(!exchange.written(2, BEGIN));
        exchange.append(b"body ", false);
        assert_eq!(take(&mut exchange, BEGIN), ("ad body ".to_owned(), false));
        exchange.append(b"end", true);
        assert!(!exchange.has_room());
        assert_eq!(take(&mut exchange, BEGIN), ("end".to_owned(), true));
        assert!(exchange.wants_input() && !exchange.is_over());
        exchange.bytes(b"more", &hosts(), BEGIN);
        exchange.ended();
        assert!(exchange.is_over());
    }

    #[test]
    fn whoever_does_not_take_the_response_stops_its_making() {
        let mut exchange = Exchange::new(BEGIN);
        exchange.respond(vec![0; ROOM], false, BEGIN);
        assert!(!exchange.has_room());
        exchange.written(1, BEGIN);
        assert!(exchange.has_room());
    }

    #[test]
    fn a_slow_request_is_told_so_and_a_silent_one_is_not() {
        let late = BEGIN + 5 * SECOND;
        let mut exchange = Exchange::new(BEGIN);
        assert_eq!(exchange.deadline(), late);
        exchange.timeout(BEGIN + SECOND);
        assert!(!exchange.is_over());
        exchange.timeout(late);
        assert!(exchange.is_over());
        let mut exchange = Exchange::new(BEGIN);
        exchange.bytes(b"GET", &hosts(), BEGIN + 4 * SECOND);
        exchange.timeout(late);
        let (response, is_last) = take(&mut exchange, late);
        assert!(response.starts_with("HTTP/1.1 408 ") && is_last);
        exchange.timeout(late + SECOND);
        assert!(exchange.is_over());
    }

    #[test]
    fn a_response_that_nobody_takes_has_an_end_and_so_has_one_that_is_taken_byte_by_byte() {
        let mut exchange = Exchange::new(BEGIN);
        exchange.respond(vec![0; 1000], true, BEGIN);
        exchange.timeout(BEGIN + 5 * SECOND);
        assert!(exchange.is_over());
        let mut exchange = Exchange::new(BEGIN);
        exchange.respond(vec![0; 1000], true, BEGIN);
        let mut now = BEGIN;
        while !exchange.is_over() {
            now += 4 * SECOND;
            exchange.written(1, now);
            exchange.timeout(now);
        }
        assert_eq!(now, BEGIN + 60 * SECOND);
    }

    #[test]
    fn too_much_is_refused_and_not_read_for_ever() {
        let mut exchange = Exchange::new(BEGIN);
        let much = vec![b'x'; 100_000];
        exchange.bytes(&much, &hosts(), BEGIN);
        let (response, is_last) = take(&mut exchange, BEGIN);
        assert!(response.starts_with("HTTP/1.1 4") && is_last, "{response}");
        for _ in 0..=LINGER_BYTES / 100_000 {
            exchange.bytes(&much, &hosts(), BEGIN);
        }
        assert!(exchange.is_over());
    }
}
