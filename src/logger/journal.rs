//! Whether stderr is the journal of systemd, which has times and levels of its own (systemd.exec(5), `JOURNAL_STREAM`).

use std::os::fd::AsFd;

use log::Level;
use nix::sys::stat::fstat;

/// Says which stream of the journal a service was given.
const VARIABLE: &str = "JOURNAL_STREAM";

/// Whether this is the stream of the journal. The variable is inherited by programs whose stderr is another one.
pub(super) fn is_journal(stderr: impl AsFd) -> bool {
    let Ok(named) = std::env::var(VARIABLE) else {
        return false;
    };
    fstat(stderr).is_ok_and(|stat| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// What stands before a line, for the journal to know its level (sd-daemon(3)).
pub(super) fn prefix(level: Level) -> &'static str {
    match level {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}
