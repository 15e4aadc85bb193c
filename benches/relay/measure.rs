//! The measures: each opens its own sessions and runs for a given time.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::process::Child;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::contender::Running;
use super::link::{Link, READ_BYTES, read_some};
use crate::common::messages::{self, FIRST_ID};
use crate::common::stats::{micros, percentile};

/// Requests before anything counts, unless they take longer than the measure may.
const WARM_UP_REQUESTS: usize = 50;

/// What the client reads at once when messages are large.
const BULK_READ_BYTES: usize = 256 * 1024;

/// The most sessions in one go. It bounds what they can leave behind.
const MOST_SESSIONS: usize = 1500;

/// For each client, how many processes of closed sessions may still have to be waited for.
const MOST_UNREAPED: usize = 4;

/// A question to a contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// One request after the other.
    RoundTrip { bytes: usize },
    /// Many requests in flight; as many are sent at once as responses came at once.
    Messages { bytes: usize, in_flight: usize },
    /// Large messages, sent by one thread and received by another.
    Bulk { bytes: usize, in_flight: usize },
    /// Connect, one response, close, over and over.
    Sessions { clients: usize },
}

impl Measure {
    pub(crate) const ALL: [Self; 6] = [
        Self::RoundTrip { bytes: 200 },
        Self::RoundTrip { bytes: 10_000 },
        Self::Messages {
            bytes: 200,
            in_flight: 64,
        },
        Self::Bulk {
            bytes: 1_000_000,
            in_flight: 4,
        },
        Self::Sessions { clients: 1 },
        Self::Sessions { clients: 4 },
    ];

    /// Measures for this time; returns one number for each of its figures.
    pub(crate) fn run(self, running: &Running, time: Duration) -> io::Result<Vec<f64>> {
        match self {
            Self::RoundTrip { bytes } => round_trips(&running.open()?, bytes, time),
            Self::Messages { bytes, in_flight } => {
                messages_in_flight(&running.open()?, bytes, in_flight, time)
            }
            Self::Bulk { bytes, in_flight } => bulk(&running.open()?, bytes, in_flight, time),
            Self::Sessions { clients } => sessions(running, clients, time),
        }
    }
}

/// p50, p99 and p99.9 in µs.
fn round_trips(link: &Link, bytes: usize, time: Duration) -> io::Result<Vec<f64>> {
    let request = messages::call(FIRST_ID, bytes);
    let mut buffer = vec![0; READ_BYTES];
    warm_up(link, &request, &mut buffer, time)?;
    let mut times = Vec::with_capacity(200_000);
    let mut before = Instant::now();
    let end = before + time;
    while before < end {
        let length = link.ask(&request, &mut buffer)?;
        check_length(length, 1, bytes)?;
        let now = Instant::now();
        times.push(micros(now - before));
        before = now;
    }
    Ok([0.5, 0.99, 0.999]
        .map(|share| percentile(&mut times, share))
        .to_vec())
}

/// Messages per second.
fn messages_in_flight(
    link: &Link,
    bytes: usize,
    in_flight: usize,
    time: Duration,
) -> io::Result<Vec<f64>> {
    let mut buffer = vec![0; READ_BYTES];
    warm_up(link, &messages::call(FIRST_ID, bytes), &mut buffer, time)?;
    // Responses come in the order of the requests, so ids become free in turn. All requests stand here twice, so that
    // any run of them is in one piece.
    let ids = FIRST_ID..FIRST_ID + in_flight;
    let requests: Vec<u8> = ids.flat_map(|id| messages::call(id, bytes)).collect();
    let requests = requests.repeat(2);
    let begin = Instant::now();
    link.writer().write_all(&requests[..in_flight * bytes])?;
    let (mut answered, mut received) = (0, 0);
    loop {
        let count = read_some(link.reader(), &mut buffer)?;
        received += count;
        let lines = line_ends(&buffer[..count]);
        if lines == 0 {
            continue;
        }
        let first = answered % in_flight;
        answered += lines;
        let elapsed = begin.elapsed();
        if elapsed >= time {
            check_length(received, answered, bytes)?;
            return Ok(vec![answered as f64 / elapsed.as_secs_f64()]);
        }
        let next = first * bytes..(first + lines) * bytes;
        link.writer().write_all(&requests[next])?;
    }
}

/// Megabytes per second, there and back.
fn bulk(link: &Link, bytes: usize, in_flight: usize, time: Duration) -> io::Result<Vec<f64>> {
    let ids = FIRST_ID..FIRST_ID + in_flight;
    let requests: Vec<Vec<u8>> = ids.map(|id| messages::call(id, bytes)).collect();
    let (permit, permits) = mpsc::channel();
    let begin = Instant::now();
    thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let mut next = requests.iter().cycle();
            for () in permits {
                let request = next.next().map(Vec::as_slice).unwrap_or_default();
                link.writer().write_all(request)?;
            }
            io::Result::Ok(())
        });
        let answered = receive_bulk(link, permit, bytes, in_flight, begin + time);
        let elapsed = begin.elapsed();
        let written = writer.join().unwrap_or(Ok(()));
        let answered = answered?;
        written?;
        Ok(vec![
            (answered * bytes) as f64 / 1e6 / elapsed.as_secs_f64(),
        ])
    })
}

/// Has the writer send one more for each response, until `end`; then receives what is in flight.
fn receive_bulk(
    link: &Link,
    permit: mpsc::Sender<()>,
    bytes: usize,
    in_flight: usize,
    end: Instant,
) -> io::Result<usize> {
    let mut buffer = vec![0; BULK_READ_BYTES];
    let (mut permitted, mut answered, mut received) = (0, 0, 0);
    let mut permit = Some(permit);
    loop {
        if let Some(sender) = &permit {
            while permitted < answered + in_flight {
                // If the writer is gone, it failed, and its error is the one to report.
                let _ = sender.send(());
                permitted += 1;
            }
        }
        let count = read_some(link.reader(), &mut buffer)?;
        received += count;
        answered += line_ends(&buffer[..count]);
        if Instant::now() >= end {
            permit = None;
        }
        if answered == permitted && permit.is_none() {
            check_length(received, answered, bytes)?;
            return Ok(answered);
        }
    }
}

/// Sessions per second.
fn sessions(running: &Running, clients: usize, time: Duration) -> io::Result<Vec<f64>> {
    let begin = Instant::now();
    let counts: Vec<io::Result<usize>> = thread::scope(|scope| {
        let client = || open_and_close(running, begin + time, MOST_SESSIONS / clients);
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        let joined = clients.into_iter().map(thread::ScopedJoinHandle::join);
        joined
            .map(|count| count.unwrap_or_else(|_| Err(io::Error::other("a client panicked"))))
            .collect()
    });
    let elapsed = begin.elapsed();
    let count: usize = counts.into_iter().sum::<io::Result<usize>>()?;
    Ok(vec![count as f64 / elapsed.as_secs_f64()])
}

/// Opens and closes one client's sessions; returns how many there were.
fn open_and_close(running: &Running, end: Instant, most: usize) -> io::Result<usize> {
    let request = messages::call(FIRST_ID, 200);
    let mut buffer = vec![0; READ_BYTES];
    let mut unreaped = VecDeque::new();
    let mut count = 0;
    while count < most && Instant::now() < end {
        let link = running.open()?;
        let length = link.ask(&request, &mut buffer)?;
        check_length(length, 1, request.len())?;
        count += 1;
        unreaped.extend(link.close());
        if unreaped.len() > MOST_UNREAPED {
            reap(unreaped.pop_front())?;
        }
    }
    while !unreaped.is_empty() {
        reap(unreaped.pop_front())?;
    }
    Ok(count)
}

fn reap(process: Option<Child>) -> io::Result<()> {
    process.map_or(Ok(()), |mut process| process.wait().map(drop))
}

fn warm_up(link: &Link, request: &[u8], buffer: &mut [u8], limit: Duration) -> io::Result<()> {
    let begin = Instant::now();
    for _ in 0..WARM_UP_REQUESTS {
        if begin.elapsed() > limit {
            break;
        }
        let length = link.ask(request, buffer)?;
        messages::check_answer(&buffer[..length])?;
    }
    Ok(())
}

/// Responses are as long as their requests, or longer if they were written anew; errors are shorter.
fn check_length(received: usize, answers: usize, bytes: usize) -> io::Result<()> {
    if received >= answers * bytes {
        return Ok(());
    }
    let what = format!("{received} bytes for {answers} responses to requests of {bytes} bytes");
    Err(io::Error::other(what))
}

fn line_ends(bytes: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', bytes).count()
}
