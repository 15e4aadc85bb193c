//! When servers are started, and when unused sessions end: late, ahead of time, in fair order and not too many at once.

mod idle;
mod lazy;
mod pool;
mod starting;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::common::{Client, DEADLINE, NoLine};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const HEARTBEAT: &str = r#"{"type":"heartbeat","timestamp":1}"#;

#[track_caller]
fn expect_end(client: &mut Client) {
    let end = NoLine::End { unfinished: vec![] };
    assert_eq!(client.try_recv(DEADLINE), Err(end));
}

/// Now, since 1970. How much later than this something comes can be told on a machine that stalls, too, where lines of
/// the log may themselves be late.
fn unix_time() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs_f64()
}

/// The time at which a line was logged, since 1970.
fn logged_at(line: &str) -> f64 {
    let time = OffsetDateTime::parse(line.split(' ').next().unwrap(), &Rfc3339).unwrap();
    (time - OffsetDateTime::UNIX_EPOCH).as_seconds_f64()
}
