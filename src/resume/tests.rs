//! Both ends over connections that are cut anywhere: every line arrives once, in order.

use proptest::prelude::*;

use super::intake::Piece;
use super::wire::{self, FromProxy, Heartbeat, Side};
use super::*;
use crate::buffers::budget::BufferBudget;
use crate::protocol::envelope::Control;
use crate::util::time::Time;

/// One end with what is around it.
struct End {
    side: Side,
    channel: Channel,
    memory: BufferBudget,
    /// What the session has for the other end.
    outbox: Vec<u8>,
    /// What it got of it.
    got: Vec<u8>,
    /// What waits there for whoever takes it further.
    waiting: usize,
    /// Of a line that is not finished.
    half: usize,
}

impl End {
    fn new(side: Side, window: usize) -> Self {
        Self {
            side,
            channel: Channel::new(side, window),
            memory: BufferBudget::new(1 << 30),
            outbox: Vec::new(),
            got: Vec::new(),
            waiting: 0,
            half: 0,
        }
    }

    fn receive(&mut self, mut input: &[u8], now: Time) -> Result<(), Lie> {
        while !input.is_empty() {
            match self.channel.next(&mut input, now).transpose()? {
                Some(Piece::Lines(lines)) => {
                    let lines = lines.to_vec();
                    self.take(&lines);
                }
                Some(Piece::Joined(line)) => self.take(&line),
                Some(Piece::Control(control, line)) => self.control(control, &line, now)?,
                None => {}
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) {
        self.got.extend_from_slice(bytes);
        self.waiting += bytes.len();
        self.half = match memchr::memrchr(b'\n', bytes) {
            Some(end) => bytes.len() - end - 1,
            None => self.half + bytes.len(),
        };
    }

    fn control(&mut self, control: Control, line: &[u8], now: Time) -> Result<(), Lie> {
        let lines = match self.side {
            Side::Proxy => match Heartbeat::in_line(line).lines {
                Some(lines) => lines.ok(),
                None => return Ok(()),
            },
            Side::Client => match FromProxy::read(control, line) {
                Some(FromProxy::Ack(lines)) => lines,
                _ => return Ok(()),
            },
        };
        self.channel.acknowledged(lines, now, &mut self.memory)
    }

    /// Writes what can be written, at most so much.
    fn write(&mut self, mut room: usize, now: Time) -> Vec<u8> {
        let mut wire = Vec::new();
        let mut write = |pieces: [&[u8]; 2]| {
            let bytes = pieces.concat();
            let count = bytes.len().min(room);
            room -= count;
            wire.extend_from_slice(&bytes[..count]);
            Ok(count)
        };
        let waiting = self.waiting;
        let flush = |bytes: &[u8]| write([bytes, &[]]);
        self.channel.flush(waiting, now, flush).unwrap();
        if !self.outbox.is_empty() {
            let window = usize::MAX;
            let sent = self
                .channel
                .send(
                    &self.outbox,
                    window,
                    waiting,
                    now,
                    &mut self.memory,
                    &mut write,
                )
                .unwrap();
            self.outbox.drain(..sent);
        }
        let flush = |bytes: &[u8]| write([bytes, &[]]);
        self.channel.flush(waiting, now, flush).unwrap();
        wire
    }

    fn lose(&mut self) {
        self.channel.detach();
        self.got
            .truncate(self.got.len() - std::mem::take(&mut self.half));
    }
}

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// An end has another line of this length.
    Say(bool, usize),
    /// It is asked to write, at most this much.
    Write(bool, usize),
    /// What it wrote arrives, at most this much.
    Arrive(bool, usize),
    /// Whoever is behind it takes what waits.
    Drain(bool),
    /// It has a heartbeat.
    Beat(bool),
    Wait(u64),
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<bool>(), prop_oneof![5 => 0usize..40, 1 => 0usize..3000]).prop_map(|(end, len)| Step::Say(end, len)),
        8 => (any::<bool>(), 0usize..400).prop_map(|(end, room)| Step::Write(end, room)),
        8 => (any::<bool>(), 0usize..400).prop_map(|(end, count)| Step::Arrive(end, count)),
        2 => any::<bool>().prop_map(Step::Drain),
        1 => any::<bool>().prop_map(Step::Beat),
        2 => (0u64..1500).prop_map(Step::Wait),
        2 => Just(Step::Cut),
    ]
}

struct World {
    ends: [End; 2],
    /// What was written by each and has not arrived.
    wires: [Vec<u8>; 2],
    said: [Vec<u8>; 2],
    now: Time,
    next: usize,
}

impl World {
    fn new(window: usize) -> Self {
        Self {
            ends: [
                End::new(Side::Client, window),
                End::new(Side::Proxy, window),
            ],
            wires: [Vec::new(), Vec::new()],
            said: [Vec::new(), Vec::new()],
            now: Time::from_nanos(1 << 40),
            next: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        let at = |end: bool| usize::from(end);
        match *step {
            Step::Say(end, len) => {
                let line = format!("{{\"n\":{},\"x\":\"{}\"}}\n", self.next, "y".repeat(len));
                self.next += 1;
                self.ends[at(end)].outbox.extend_from_slice(line.as_bytes());
                self.said[at(end)].extend_from_slice(line.as_bytes());
            }
            Step::Write(end, room) => {
                let bytes = self.ends[at(end)].write(room, self.now);
                self.wires[at(end)].extend_from_slice(&bytes);
            }
            Step::Arrive(end, count) => {
                let count = count.min(self.wires[at(end)].len());
                let bytes: Vec<u8> = self.wires[at(end)].drain(..count).collect();
                self.ends[1 - at(end)].receive(&bytes, self.now).unwrap();
            }
            Step::Drain(end) => self.ends[at(end)].waiting = 0,
            Step::Beat(end) => {
                let line = match self.ends[at(end)].side {
                    Side::Client => r#"{"type":"heartbeat","timestamp":1.5}"#,
                    Side::Proxy => r#"{"type":"heartbeat_response","timestamp":1.5}"#,
                };
                self.ends[at(end)].channel.beat(line);
            }
            Step::Wait(millis) => self.now += Duration::from_millis(millis),
            Step::Cut => self.cut(),
        }
        self.check();
    }

    /// Everything on the wires is lost, and there is another connection.
    fn cut(&mut self) {
        self.wires = [Vec::new(), Vec::new()];
        for end in &mut self.ends {
            end.lose();
        }
        let [client, proxy] = &mut self.ends;
        let (n, m) = (client.channel.taken(), proxy.channel.taken());
        proxy.channel.attach(Some(n), &mut proxy.memory).unwrap();
        client.channel.attach(Some(m), &mut client.memory).unwrap();
    }

    /// What each has got is what the other has said, up to there.
    fn check(&self) {
        for (from, to) in [(0, 1), (1, 0)] {
            assert!(self.said[from].starts_with(&self.ends[to].got));
            let kept = self.ends[from].channel.kept();
            assert!(kept.lines() <= 1 || kept.len() <= self.ends[from].channel.window());
        }
    }

    /// Without further cuts all arrives.
    fn finish(&mut self) {
        for _ in 0..10_000 {
            for end in [false, true] {
                self.step(&Step::Drain(end));
                self.step(&Step::Write(end, 1 << 20));
                self.step(&Step::Arrive(end, 1 << 20));
            }
            self.now += Duration::from_millis(100);
            let [client, proxy] = &self.ends;
            let is_done = client.got == self.said[1] && proxy.got == self.said[0];
            if is_done && client.channel.kept().is_empty() && proxy.channel.kept().is_empty() {
                return;
            }
        }
        panic!(
            "not all arrives: {:?} {:?}",
            self.ends[0].channel, self.ends[1].channel
        );
    }
}

proptest! {
    #[test]
    fn every_line_arrives_once_and_in_order(
        steps in prop::collection::vec(step(), 0..250),
        window in prop_oneof![Just(1usize), Just(100), Just(1000), Just(1 << 20)],
    ) {
        let mut world = World::new(window);
        for step in &steps {
            world.step(step);
        }
        world.finish();
    }
}

/// What one end writes in a small session, and where each byte of it is.
#[test]
fn a_cut_at_every_byte_of_either_direction_loses_nothing() {
    for direction in [false, true] {
        for cut_after in 0..260 {
            let mut world = World::new(1 << 20);
            for number in 0..6 {
                world.step(&Step::Say(number % 2 == 0, number));
                world.step(&Step::Say(number % 2 == 1, 3));
            }
            world.step(&Step::Beat(direction));
            world.step(&Step::Write(direction, 130));
            world.step(&Step::Wait(1100));
            world.step(&Step::Arrive(!direction, 60));
            world.step(&Step::Write(direction, 1000));
            world.step(&Step::Write(!direction, 1000));
            world.step(&Step::Arrive(direction, cut_after));
            world.step(&Step::Cut);
            world.finish();
        }
    }
}

#[test]
fn more_than_the_window_allows_is_a_lie() {
    let mut end = End::new(Side::Proxy, 10);
    let now = Time::from_nanos(1 << 40);
    assert_eq!(end.receive(b"0123456789012345\n", now), Ok(()), "one line");
    assert_eq!(end.receive(b"x\n", now), Err(Lie::Protocol));
    for lie in [
        &b"{\"type\":\"heartbeat\",\"lines\":1}\n"[..],
        b"{\"type\":\"heartbeat\",\"lines\":-1}\n",
        b"{\"type\":\"heartbeat\",\"lines\":\"0\"}\n",
    ] {
        let mut end = End::new(Side::Proxy, 10);
        assert_eq!(end.receive(lie, now), Err(Lie::Protocol));
    }
}

/// It acknowledges nothing any more, and the other end goes on all the same.
#[test]
fn an_end_that_has_nothing_more_to_say_takes_all_that_still_comes() {
    let mut end = End::new(Side::Client, 10);
    let now = Time::from_nanos(1 << 40);
    end.channel.end_with(wire::CLIENT_BYE);
    for _ in 0..3 {
        assert_eq!(end.receive(b"0123456789012345\n", now), Ok(()));
    }
    assert_eq!((end.channel.taken(), end.got.len()), (3, 51));
}

#[test]
fn less_than_was_acknowledged_is_a_lie_of_whoever_comes_back() {
    let mut end = End::new(Side::Proxy, 100);
    let now = Time::from_nanos(1 << 40);
    end.outbox = b"a\nb\nc\n".to_vec();
    end.write(1000, now);
    end.receive(b"{\"type\":\"heartbeat\",\"lines\":2}\n", now)
        .unwrap();
    end.receive(b"{\"type\":\"heartbeat\",\"lines\":1}\n", now)
        .unwrap();
    end.lose();
    for lie in [Some(1), Some(4), None] {
        assert_eq!(end.channel.attach(lie, &mut end.memory), Err(Lie::Protocol));
    }
    assert_eq!(end.channel.attach(Some(2), &mut end.memory), Ok(()));
    assert_eq!(end.write(1000, now), b"c\n");
}

/// Whoever has a line that does not fit is not to ask over and over.
#[test]
fn there_is_no_room_for_a_line_that_did_not_fit_before_there_is_an_acknowledgement() {
    let mut end = End::new(Side::Proxy, 10);
    let now = Time::from_nanos(1 << 40);
    end.outbox = b"abc\ndefghijkl\n".to_vec();
    assert_eq!(end.write(1000, now), b"abc\n");
    assert_eq!(end.write(1000, now), b"");
    assert!(!end.channel.has_room(usize::MAX));
    end.receive(b"{\"type\":\"heartbeat\",\"lines\":1}\n", now)
        .unwrap();
    assert!(end.channel.has_room(usize::MAX));
    assert_eq!(end.write(1000, now), b"defghijkl\n");
}

#[test]
fn a_window_that_stays_full_is_not_waited_for_for_ever() {
    let mut end = End::new(Side::Proxy, 4);
    let now = Time::from_nanos(1 << 40);
    end.outbox = b"abc\ndef\n".to_vec();
    assert_eq!(end.write(1000, now), b"abc\n");
    let beat = b"{\"type\":\"heartbeat\",\"lines\":0}\n";
    let later = now + NO_ACK_TIME;
    assert_eq!(end.receive(beat, later - Duration::from_nanos(1)), Ok(()));
    assert_eq!(end.receive(beat, later), Err(Lie::NoAck));
}

#[test]
fn an_acknowledgement_of_a_part_makes_room_in_a_full_window_and_starts_the_time_anew() {
    let mut end = End::new(Side::Proxy, 8);
    let now = Time::from_nanos(1 << 40);
    end.outbox = b"abc\ndef\nghi\njkl\n".to_vec();
    assert_eq!(end.write(1000, now), b"abc\ndef\n");
    assert_eq!(end.write(1000, now), b"");
    let beat = b"{\"type\":\"heartbeat\",\"lines\":1}\n";
    let half = now + NO_ACK_TIME / 2;
    assert_eq!(end.receive(beat, half), Ok(()));
    assert_eq!(end.write(1000, half), b"ghi\n");
    assert_eq!(end.receive(beat, now + NO_ACK_TIME), Ok(()));
    assert_eq!(end.receive(beat, half + NO_ACK_TIME), Err(Lie::NoAck));
}

#[test]
fn an_idle_end_owes_nothing_and_an_acknowledgement_is_withheld_while_much_waits() {
    let mut end = End::new(Side::Client, 1000);
    let now = Time::from_nanos(1 << 40);
    assert_eq!(end.channel.deadline(0), None);
    end.receive(b"{\"id\":1}\n", now).unwrap();
    assert_eq!(end.channel.deadline(0), Some(now + Duration::from_secs(1)));
    assert_eq!(end.channel.deadline(ACK_BYTES + 1), None);
    let later = now + Duration::from_secs(1);
    end.waiting = ACK_BYTES + 1;
    assert_eq!(end.write(1000, later), b"");
    end.waiting = ACK_BYTES;
    assert_eq!(
        end.write(1000, later),
        b"{\"type\":\"heartbeat\",\"lines\":1}\n"
    );
    assert_eq!(end.write(1000, later), b"");
}

#[test]
fn the_last_line_follows_all_others_and_goes_over_the_next_connection_too() {
    let mut end = End::new(Side::Proxy, 1000);
    let now = Time::from_nanos(1 << 40);
    end.outbox = b"a\nb\n".to_vec();
    end.channel.end_with(&wire::bye("shutdown"));
    let bye = b"{\"type\":\"bye\",\"reason\":\"shutdown\"}\n";
    assert!(!end.channel.is_flushed());
    end.outbox = b"a\nb\n".to_vec();
    end.channel = {
        let mut channel = Channel::new(Side::Proxy, 1000);
        channel.keep(b"a\nb\n", &mut end.memory);
        channel.end_with(&wire::bye("shutdown"));
        channel
    };
    end.outbox.clear();
    let expected = [&b"a\nb\n"[..], bye].concat();
    assert_eq!(end.write(1000, now), expected);
    assert!(end.channel.is_flushed());
    end.lose();
    end.channel.attach(Some(1), &mut end.memory).unwrap();
    assert_eq!(end.write(1000, now), [&b"b\n"[..], bye].concat());
}
