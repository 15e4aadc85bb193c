//! The question to another program whether it could go on: it gets the state without its buffers, and no descriptor.

use std::io;

use mio::{Interest, Token};

use super::super::Channel;
use super::super::server::Reactor;
use super::super::system::System;
use crate::process::Spawned;
use crate::reactor::io::{Input, Io, Readiness};
use crate::reactor::token::Target;
use crate::upgrade::text;
use crate::util::side_bytes::Written;

/// What it says if it could.
pub(super) const ABLE: &[u8] = b"able\n";

/// As much as is read of an answer, and of what it says on stderr, in bytes.
const MAX_ANSWER_BYTES: usize = 4096;

/// Its pipes, by the keys of their tokens.
const STDIN: usize = 0;
const STDOUT: usize = 1;
const STDERR: usize = 2;

/// The other program while it is asked.
pub(super) struct Rehearsal<S: System> {
    question: Vec<u8>,
    asked: usize,
    answer: Vec<u8>,
    complaint: Vec<u8>,
    stdin: Option<Io<S::Stdin>>,
    stdout: Option<Io<S::Output>>,
    stderr: Option<Io<S::Output>>,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Able,
    /// It can't, for this reason.
    Unable(String),
}

impl<S: System> Rehearsal<S> {
    pub(super) fn begin(
        spawned: Spawned<S::Stdin, S::Output>,
        written: &Written,
        reactor: &mut Reactor<S>,
    ) -> io::Result<Self> {
        let mut question = Vec::new();
        text::write(written, &mut question)?;
        let target = |key| Target {
            key,
            channel: Channel::Rehearsal,
        };
        let (write, read) = (Interest::WRITABLE, Interest::READABLE);
        let Spawned {
            stdin,
            stdout,
            stderr,
            ..
        } = spawned;
        Ok(Self {
            question,
            asked: 0,
            answer: Vec::new(),
            complaint: Vec::new(),
            stdin: Some(reactor.register(stdin, target(STDIN), write)?),
            stdout: Some(reactor.register(stdout, target(STDOUT), read)?),
            stderr: Some(reactor.register(stderr, target(STDERR), read)?),
        })
    }

    pub(super) fn latch(&mut self, key: usize, token: Token, readiness: Readiness) {
        let output = match key {
            STDIN => {
                if let Some(stdin) = &mut self.stdin {
                    stdin.latch(token, readiness);
                }
                return;
            }
            STDOUT => &mut self.stdout,
            _ => &mut self.stderr,
        };
        if let Some(output) = output {
            output.latch(token, readiness);
        }
    }

    /// Asks and listens as far as that is possible now.
    pub(super) fn go_on(&mut self) -> Option<Verdict> {
        self.ask();
        read_into(&mut self.stderr, &mut self.complaint);
        read_into(&mut self.stdout, &mut self.answer);
        self.stdout.is_none().then(|| self.verdict())
    }

    fn ask(&mut self) {
        while let Some(stdin) = self.stdin.as_mut().filter(|stdin| stdin.is_writable()) {
            match stdin.write(&self.question[self.asked..]) {
                Ok(count) => self.asked += count,
                // It has not read to the end, and will say why.
                Err(_) => self.stdin = None,
            }
            if self.asked == self.question.len() {
                self.stdin = None;
            }
        }
    }

    fn verdict(&self) -> Verdict {
        if self.answer == ABLE {
            return Verdict::Able;
        }
        let said = [&self.answer, &self.complaint];
        let said = said.into_iter().find(|said| !said.is_empty());
        let words = said.map_or_else(
            || "it has ended without an answer".to_owned(),
            |said| String::from_utf8_lossy(said).trim_end().to_owned(),
        );
        Verdict::Unable(words)
    }
}

/// Closes it at its end. What is too much is dropped.
fn read_into<D: io::Read>(output: &mut Option<Io<D>>, all: &mut Vec<u8>) {
    let mut buffer = [0; MAX_ANSWER_BYTES];
    while let Some(open) = output.as_mut().filter(|open| open.is_readable()) {
        match open.read(&mut buffer) {
            Input::Bytes(count) => {
                let room = MAX_ANSWER_BYTES - all.len();
                all.extend_from_slice(&buffer[..count.min(room)]);
            }
            Input::Blocked => {}
            Input::End | Input::Broken(_) => *output = None,
        }
    }
}
