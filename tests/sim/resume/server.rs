//! A server: it answers each request in the order in which they came, and says and asks things of its own. Each line bears its
//! process and a serial number.

use std::collections::VecDeque;
use std::io::ErrorKind;

use mcp_tcp_proxy::session::report::Exit;

use super::host::Host;
use crate::outgoing::Outgoing;
use crate::processes::Process;
use crate::rng::Rng;
use crate::text;
use crate::trace;
use crate::transport::End;

#[derive(Debug)]
pub struct Server {
    pub process: Process,
    /// It does not read while it has something to write.
    writes_first: bool,
    /// It takes its time.
    is_slow: bool,
    /// It speaks before it is spoken to.
    speaks_first: bool,
    /// It says things of its own.
    is_talkative: bool,
    has_read: bool,
    said: u64,
    begun: Vec<u8>,
    /// What it was asked, with the length of the answers.
    pending: VecDeque<(u64, usize)>,
    out: Outgoing,
    rng: Rng,
}

impl AsRef<Process> for Server {
    fn as_ref(&self) -> &Process {
        &self.process
    }
}

impl AsMut<Process> for Server {
    fn as_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Server {
    /// One that speaks first may be heard before the proxy has said that the session is kept, which it then is not; and whoever
    /// takes nothing for half a minute is not waited for. Both are only where sessions may end.
    pub fn new(pid: i32, is_rough: bool, rng: &mut Rng) -> Self {
        let mut rng = rng.fork();
        Self {
            process: Process::new(pid, &mut rng),
            writes_first: rng.percent(30),
            is_slow: is_rough && rng.percent(20),
            speaks_first: is_rough && rng.percent(30),
            is_talkative: rng.percent(70),
            has_read: false,
            said: 0,
            begun: Vec::new(),
            pending: VecDeque::new(),
            out: Outgoing::default(),
            rng,
        }
    }

    fn say(&mut self, head: &str, tail: &str) {
        let line = format!(
            "{{\"jsonrpc\":\"2.0\",{head},\"pid\":{},\"m\":{},{tail}}}\n",
            self.process.pid, self.said
        );
        trace::note(|| {
            format!(
                "pid {} says {}",
                self.process.pid,
                text::show(line.as_bytes())
            )
        });
        self.said += 1;
        self.out.push(line.as_bytes());
    }

    pub fn act(&mut self, hosts: &mut [Host]) {
        if !self.process.is_running() || (self.is_slow && self.rng.percent(90)) {
            return;
        }
        if !self.writes_first || self.out.is_empty() {
            let most = self.rng.pick(&[10, 500, 100_000, usize::MAX]);
            self.read(most, hosts);
        }
        if self.out.len() < 1 << 22 {
            self.speak();
        }
        self.out
            .write_to(&mut self.process.pipes.borrow_mut().input, &mut self.rng);
        self.exit_if_done();
    }

    /// Nothing keeps it from working any more.
    pub fn hurry(&mut self) {
        self.is_slow = false;
        self.process.pipes.borrow_mut().make_roomy();
    }

    fn read(&mut self, most: usize, hosts: &mut [Host]) {
        let bytes: Vec<u8> = {
            let mut pipes = self.process.pipes.borrow_mut();
            pipes.output.begun.clear();
            pipes.output.take(most).collect()
        };
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if self.begun.ends_with(b"\n") {
                let line = std::mem::take(&mut self.begun);
                self.take(&line[..line.len() - 1], hosts);
            }
        }
    }

    fn take(&mut self, line: &[u8], hosts: &mut [Host]) {
        trace::note(|| format!("pid {} reads {}", self.process.pid, text::show(line)));
        let Some(host) = text::serial(line, br#""h":"#) else {
            // The proxy takes back what it has for one that is gone.
            let is_cancellation = text::cancelled_by_proxy(line).is_some();
            let may_lose = hosts.iter().any(|host| host.habits.may_lose);
            let shown = text::show(line);
            assert!(
                is_cancellation && may_lose,
                "no host has said this: {shown}"
            );
            return;
        };
        self.has_read = true;
        hosts[host].was_read(line, self.process.pid);
        let size = text::serial(line, br#""size":"#);
        if let (Some(id), Some(size)) = (text::serial(line, br#""id":"#), size) {
            self.pending.push_back((id as u64, size));
        }
    }

    fn speak(&mut self) {
        let is_ended = !self.process.pipes.borrow().writes;
        let may_speak = self.has_read || self.speaks_first;
        let is_talkative = self.is_talkative && may_speak && !is_ended;
        let begins = self.speaks_first && self.said == 0 && !is_ended;
        match self.rng.below(10) {
            _ if begins => self.say(r#""method":"notifications/y""#, r#""params":{}"#),
            0 if is_talkative => {
                let length = self.rng.below(60);
                let pad = text::looks_like_ours('y', length, &mut self.rng);
                let tail = format!(r#""params":{{"x":{pad}}}"#);
                self.say(r#""method":"notifications/y""#, &tail);
            }
            1 if is_talkative && self.rng.percent(20) => {
                let head = format!(r#""id":"q{}","method":"roots/list""#, self.said);
                self.say(&head, r#""params":{}"#);
            }
            _ => {
                if let Some((id, size)) = self.pending.pop_front() {
                    let pad = text::looks_like_ours('z', size, &mut self.rng);
                    let tail = format!(r#""result":{{"protocolVersion":"2025-06-18","x":{pad}}}"#);
                    self.say(&format!(r#""id":{id}"#), &tail);
                }
            }
        }
    }

    /// At the end of its input it says what it has to say, and leaves.
    fn exit_if_done(&mut self) {
        let pipes = self.process.pipes.borrow();
        let is_over = !pipes.writes && pipes.output.unconsumed() == 0;
        drop(pipes);
        if is_over && self.pending.is_empty() && self.out.is_empty() {
            self.ends(Exit::Code(0));
        }
    }

    pub fn ends(&mut self, exit: Exit) {
        if !self.process.is_running() {
            return;
        }
        trace::note(|| format!("pid {} ends: {exit}", self.process.pid));
        self.process.exit = Some(exit);
        let mut pipes = self.process.pipes.borrow_mut();
        pipes.output.break_off(ErrorKind::BrokenPipe);
        pipes.input.end(End::Closed);
        drop(pipes);
        self.process.stderr.borrow_mut().end(End::Closed);
    }
}
