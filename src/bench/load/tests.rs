//! The load against servers whose every delay is known, on a clock of its own.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BinaryHeap;

use super::*;
use crate::bench::failure::Failure;
use crate::bench::samples::Samples;
use crate::bench::workload::{Era, Request};

const BEGIN: Time = Time::from_nanos(1 << 40);

/// How often the load looks for what is overdue.
const SWEEP: Duration = Duration::from_millis(100);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What happens at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The server says this in a session.
    Line(usize, u64, String),
    Ended(usize, u64),
    Reopen(usize),
}

/// What a server does about a request: what it says when. `Err` ends the session at a time.
type Answers = Vec<(Time, Result<String, ()>)>;

/// A load, and the servers that it is on.
struct World<S> {
    load: Load,
    now: Time,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    sequence: u64,
    next_sweep: Time,
    /// Each session's connections are numbered.
    connections: BTreeMap<usize, u64>,
    /// Given the time, the session and the id.
    server: S,
}

impl<S: FnMut(Time, usize, u64) -> Answers> World<S> {
    fn new(plan: Plan, server: S) -> Self {
        let workload = Workload::new(&Request::Default, Era::Legacy).unwrap();
        Self {
            load: Load::new(plan, workload),
            now: BEGIN,
            events: BinaryHeap::new(),
            sequence: 0,
            next_sweep: BEGIN + SWEEP,
            connections: BTreeMap::new(),
            server,
        }
    }

    /// Runs to the end, and returns what was measured.
    fn run(mut self) -> (Figures, Option<String>) {
        self.load.begin(self.now);
        loop {
            self.settle();
            if self.load.is_over() {
                return self.load.finish();
            }
            let next = self.events.peek().map(|Reverse((at, ..))| *at);
            let times = [next, self.load.next_due(), Some(self.next_sweep)];
            self.now = times.into_iter().flatten().min().unwrap().max(self.now);
            self.advance();
        }
    }

    fn advance(&mut self) {
        while let Some(Reverse((at, ..))) = self.events.peek()
            && *at <= self.now
        {
            let Some(Reverse((_, _, event))) = self.events.pop() else {
                return;
            };
            self.happen(event);
            self.settle();
        }
        self.load.send_due(self.now);
        if self.next_sweep <= self.now {
            self.next_sweep = self.now + SWEEP;
            self.load.sweep(self.now);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Line(key, connection, line) if self.connections[&key] == connection => {
                // In pieces, as it may come.
                let (one, other) = line.split_at(line.len() / 2);
                self.load.received(key, one.as_bytes(), self.now);
                self.load.received(key, other.as_bytes(), self.now);
            }
            Event::Ended(key, connection) if self.connections[&key] == connection => {
                self.load.ended(key, "it ended", self.now);
            }
            Event::Reopen(key) => self.load.reopen(key, self.now),
            Event::Line(..) | Event::Ended(..) => {}
        }
    }

    /// Does what the load wants, and has servers read what it sends.
    fn settle(&mut self) {
        loop {
            if let Some(action) = self.load.next_action() {
                self.apply(action);
            } else if let Some(key) = self.load.next_dirty() {
                self.take_output(key);
            } else {
                return;
            }
        }
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::Open(key) => {
                *self.connections.entry(key).or_default() += 1;
                self.load.connected(key, self.now);
            }
            Action::OpenLater(key, delay) => self.push(self.now + delay, Event::Reopen(key)),
            Action::Close(key) => *self.connections.entry(key).or_default() += 1,
        }
    }

    fn take_output(&mut self, key: usize) {
        let output = self.load.output(key).to_vec();
        self.load.written(key, output.len());
        let connection = self.connections[&key];
        for line in String::from_utf8(output).unwrap().lines() {
            let message: serde_json::Value = serde_json::from_str(line).unwrap();
            let Some(id) = message["id"].as_u64() else {
                continue;
            };
            if message["method"] == "initialize" {
                self.push(self.now, Event::Line(key, connection, good(id)));
                continue;
            }
            for (at, answer) in (self.server)(self.now, key, id) {
                let event = match answer {
                    Ok(line) => Event::Line(key, connection, line),
                    Err(()) => Event::Ended(key, connection),
                };
                self.push(at, event);
            }
        }
    }

    fn push(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }
}

fn good(id: u64) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}\n")
}

fn closed(sessions: usize, in_flight: usize, goal: Goal) -> Plan {
    Plan {
        sessions,
        pace: Pace::Closed { in_flight },
        goal,
        warm_up: Duration::ZERO,
        timeout: Duration::from_secs(30),
        churn: false,
        first_line: None,
    }
}

fn open(sessions: usize, rate: f64, goal: Goal) -> Plan {
    Plan {
        pace: Pace::Open { rate },
        ..closed(sessions, 1, goal)
    }
}

/// A server that answers each request after this time, however many there are.
fn after(mut delay: impl FnMut(u64) -> Duration) -> impl FnMut(Time, usize, u64) -> Answers {
    move |now, _, id| vec![(now + delay(id), Ok(good(id)))]
}

/// A server that does one thing after the other, each for as long as this, and stands still for a second at second 3.
fn stalling(work: Duration) -> impl FnMut(Time, usize, u64) -> Answers {
    let stall = BEGIN + Duration::from_secs(3);
    let mut free = BEGIN;
    let mut has_stalled = false;
    move |now, _, id| {
        let mut begin = free.max(now);
        if begin >= stall && !has_stalled {
            has_stalled = true;
            begin = stall.max(begin) + Duration::from_secs(1);
        }
        free = begin + work;
        vec![(free, Ok(good(id)))]
    }
}

/// Within one percent or 20 microseconds.
#[track_caller]
fn assert_near(found: Option<f64>, expected: Duration) {
    let (found, expected) = (found.unwrap(), expected.as_secs_f64() * 1e6);
    let most = (expected / 100.0).max(20.0);
    assert!(
        (found - expected).abs() <= most,
        "{found} µs is not {expected} µs"
    );
}

fn percentile(samples: &Samples, share: f64) -> Option<f64> {
    samples.percentile(share, 1)
}

#[test]
fn a_fixed_delay_is_what_is_measured_by_either_loop() {
    let delay = Duration::from_micros(1234);
    let second = Goal::Time(Duration::from_secs(1));
    for plan in [closed(3, 4, second), open(3, 5000.0, second)] {
        let (figures, trouble) = World::new(plan, after(|_| delay)).run();
        let latency = &figures.tally.latency;
        for share in [0.0, 0.5, 0.999, 1.0] {
            assert_near(percentile(latency, share), delay);
        }
        assert_near(latency.mean(), delay);
        assert_eq!((figures.tally.failures.total(), trouble), (0, None));
        assert_eq!(figures.measured, Duration::from_secs(1));
    }
}

#[test]
fn a_server_of_two_speeds_is_seen_to_have_both() {
    let delay = |id: u64| {
        if id.is_multiple_of(10) {
            millis(50)
        } else {
            millis(1)
        }
    };
    let plan = closed(1, 1, Goal::Requests(10_000));
    let (figures, _) = World::new(plan, after(delay)).run();
    let latency = &figures.tally.latency;
    assert_eq!(latency.count(), 10_000);
    assert_near(percentile(latency, 0.5), millis(1));
    assert_near(percentile(latency, 0.899), millis(1));
    assert_near(percentile(latency, 0.901), millis(50));
    assert_near(latency.mean(), Duration::from_micros(5900));
    assert_near(latency.max(), millis(50));
    let seconds = figures.measured.as_secs_f64();
    assert!((seconds - 59.0).abs() < 0.1, "{seconds}");
    assert!((figures.requests_per_second().unwrap() - 169.49).abs() < 1.0);
}

#[test]
fn in_an_open_loop_a_stall_is_seen_by_all_who_had_to_wait_for_it() {
    let ten_seconds = Goal::Time(Duration::from_secs(10));
    let work = Duration::from_micros(10);
    let (figures, _) = World::new(open(2, 1000.0, ten_seconds), stalling(work)).run();
    let latency = &figures.tally.latency;
    assert_eq!(latency.count(), 10_000);
    assert_eq!(figures.tally.failures.total(), 0);
    assert_near(latency.max(), millis(1000));
    // A tenth of all were due in that second; a tenth of these waited for more than nine tenths of it. What had to wait was
    // then answered in 10 ms.
    assert_near(percentile(latency, 0.99), millis(901));
    assert_near(percentile(latency, 0.95), millis(505));
    assert_near(percentile(latency, 0.5), work);

    let (figures, _) = World::new(closed(1, 1, ten_seconds), stalling(millis(1))).run();
    let latency = &figures.tally.latency;
    assert_near(latency.max(), millis(1000));
    assert_near(percentile(latency, 0.999), millis(1));
}

#[test]
fn a_schedule_is_kept_with_no_more_open_than_a_session_may_have() {
    let rate = 10_000.0;
    let second = Goal::Time(Duration::from_secs(1));
    // All answers come at the same time.
    let end = BEGIN + Duration::from_secs(2);
    let mut answered = BTreeMap::<usize, usize>::new();
    let mut most = 0;
    let server = |now: Time, key: usize, id: u64| {
        let open = answered.entry(key).or_default();
        if now < end {
            *open += 1;
            most = most.max(*open);
        }
        vec![(now.max(end), Ok(good(id)))]
    };
    let (figures, _) = World::new(open(3, rate, second), server).run();
    assert_eq!(most, MAX_OPEN);
    assert_eq!(figures.tally.latency.count(), 10_000);
    assert_near(figures.tally.latency.max(), Duration::from_secs(2));
    assert_near(percentile(&figures.tally.latency, 0.5), millis(1500));
    assert_near(figures.tally.lag.max(), millis(2000 - 307));
}

#[test]
fn what_finds_no_room_in_time_was_not_sent() {
    let plan = Plan {
        timeout: millis(500),
        ..open(1, 40_000.0, Goal::Time(Duration::from_secs(1)))
    };
    let (figures, _) = World::new(plan, |_, _, _| Vec::new()).run();
    let failures = &figures.tally.failures;
    let unsent = failures.count(&Failure::Unsent);
    let timeouts = failures.count(&Failure::Timeout);
    assert_eq!(
        (unsent + timeouts, figures.tally.requests),
        (40_000, 40_000)
    );
    assert!(unsent > 0 && timeouts >= 1024, "{failures:?}");
}

#[test]
fn the_warm_up_counts_for_nothing() {
    let slow_at_first = |id| if id <= 100 { millis(10) } else { millis(1) };
    for goal in [Goal::Requests(500), Goal::Time(Duration::from_secs(1))] {
        let plan = Plan {
            warm_up: millis(1000),
            ..closed(1, 1, goal)
        };
        let (figures, _) = World::new(plan, after(slow_at_first)).run();
        assert_near(figures.tally.latency.max(), millis(1));
        let count = figures.tally.latency.count();
        match goal {
            Goal::Requests(expected) => assert_eq!(count, expected),
            Goal::Time(_) => assert!((990..=1001).contains(&count), "{count}"),
        }
        assert_eq!(figures.tally.requests, count);
    }
}

#[test]
fn each_kind_of_failure_is_counted_and_is_no_sample() {
    let server = |now: Time, _, id: u64| {
        let line = |text: &str| (now + millis(1), Ok(format!("{text}\n")));
        match id % 5 {
            0 => vec![line(good(id).trim()), line(good(id).trim())],
            1 => vec![line(r#"{"jsonrpc":"2.0","id":999999,"result":1}"#)],
            2 => vec![line("}"), line(good(id).trim())],
            3 => vec![line(&format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-5}}}}"#
            ))],
            _ => vec![(now + millis(300), Ok(good(id)))],
        }
    };
    let plan = Plan {
        timeout: millis(150),
        ..closed(1, 1, Goal::Requests(50))
    };
    let (figures, trouble) = World::new(plan, server).run();
    let failures = &figures.tally.failures;
    for (failure, count) in [
        (Failure::UnknownId, 10),
        (Failure::Malformed, 10),
        (Failure::Error(-5, None), 10),
        // Those of which another's response was heard, and those that were too slow.
        (Failure::Timeout, 20),
    ] {
        assert_eq!(failures.count(&failure), count, "{failure}");
    }
    // What comes after the last request is settled is not waited for.
    assert!(
        (9..=10).contains(&failures.count(&Failure::Twice)),
        "{failures:?}"
    );
    assert!(
        (9..=10).contains(&failures.count(&Failure::Late)),
        "{failures:?}"
    );
    assert_eq!(figures.tally.latency.count(), 20);
    assert_eq!(trouble, None);
}

#[test]
fn a_session_that_ends_is_opened_again_and_what_was_open_is_lost() {
    let mut answered = 0_u64;
    let server = |now: Time, _, id: u64| {
        answered += 1;
        if answered.is_multiple_of(90) {
            vec![(now, Err(()))]
        } else {
            vec![(now + millis(1), Ok(good(id)))]
        }
    };
    let (figures, trouble) = World::new(closed(1, 2, Goal::Requests(500)), server).run();
    let lost = figures.tally.failures.count(&Failure::SessionEnded);
    assert_eq!(figures.tally.latency.count() + lost, 500);
    assert!((5..=10).contains(&lost), "{lost}");
    assert_eq!((figures.tally.opened, trouble), (6, None));
}

#[test]
fn a_session_that_ends_too_often_ends_the_run() {
    let (figures, trouble) = World::new(closed(1, 1, Goal::Requests(500)), |now, _, _| {
        vec![(now, Err(()))]
    })
    .run();
    assert_eq!(trouble.as_deref(), Some("it ended (after 11 attempts)"));
    assert_eq!(figures.tally.opened, 11);
    assert_eq!(figures.tally.failures.count(&Failure::SessionEnded), 11);
}

#[test]
fn with_churn_each_request_has_a_session_of_its_own() {
    let requests = Goal::Requests(200);
    for plan in [closed(3, 1, requests), open(3, 1000.0, requests)] {
        let plan = Plan {
            churn: true,
            ..plan
        };
        let (figures, trouble) = World::new(plan, after(|_| millis(1))).run();
        assert_eq!(figures.tally.latency.count(), 200);
        assert!(figures.tally.opened >= 200, "{}", figures.tally.opened);
        assert_near(figures.tally.latency.max(), millis(1));
        assert_eq!((figures.tally.failures.total(), trouble), (0, None));
    }
}

#[test]
fn many_sessions_are_opened_a_few_at_a_time_and_all_take_part() {
    let mut seen = std::collections::BTreeSet::new();
    let server = |now: Time, key, id: u64| {
        seen.insert(key);
        vec![(now + millis(1), Ok(good(id)))]
    };
    let (figures, _) = World::new(closed(1000, 1, Goal::Requests(5000)), server).run();
    assert_eq!(figures.tally.opened, 1000);
    assert_eq!(figures.tally.first_response.count(), 1000);
    assert_eq!(seen.len(), 1000);
}
