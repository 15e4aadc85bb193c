//! The report on its way out: to a terminal that was stopped, it waits, and then signals end the program again.

use std::io::{self, ErrorKind, Write};
use std::thread;
use std::time::{Duration, Instant};

use crate::reactor::signals;
use crate::reactor::stdio::StandardStreams;

/// How often there may be room.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// How long there may be none before signals, which until then only end a run, end the program. Those that come right after
/// one that has ended a run, as echoes of it, must not.
const PATIENCE: Duration = Duration::from_secs(1);

/// Prints on stdout.
pub fn print(text: &str) -> io::Result<()> {
    let mut output = StandardStreams::open().output;
    let mut rest = text.as_bytes();
    let mut last_room = Instant::now();
    while !rest.is_empty() {
        match output.write(rest) {
            Ok(count) if count > 0 => {
                rest = &rest[count..];
                last_room = Instant::now();
            }
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            _ => {
                if last_room.elapsed() >= PATIENCE {
                    signals::release()?;
                }
                thread::sleep(RETRY_INTERVAL);
            }
        }
    }
    Ok(())
}
