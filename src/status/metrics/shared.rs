//! What there is to say of processes that sessions share. Each is known by its place: as it is used again for the next one,
//! there are no more of these than processes at a time.

use super::Families;
use crate::status::facts::{ServerFacts, SharedFacts};

/// Adds it all.
pub(super) fn shared(to: &mut Families, all: &[ServerFacts<'_>]) {
    to.counter(
        "share_dropped_total",
        "Lines of shared processes and their clients that reached nobody, by what they were.",
    );
    to.for_each_of(all, "what", |server| &server.dropped);
    to.gauge(
        "share_process_sessions",
        "Sessions that use a shared process.",
    );
    for_each_process(to, all, |process| process.sessions as f64);
    to.gauge(
        "share_process_requests_in_flight",
        "Requests that a shared process has and that count, listens not.",
    );
    for_each_process(to, all, |process| process.in_flight as f64);
    to.gauge(
        "share_process_silent",
        "Whether a shared process has taken and said nothing for 10 s although work waits: 1 or 0.",
    );
    for_each_process(to, all, |process| f64::from(u8::from(process.is_silent)));
}

fn for_each_process(
    to: &mut Families,
    all: &[ServerFacts<'_>],
    value: impl Fn(&SharedFacts) -> f64,
) {
    for server in all {
        for process in &server.shared {
            let place = process.place.to_string();
            let labels = [
                ("server", server.name),
                ("process", &place),
                ("kind", process.kind.name()),
            ];
            to.add(&labels, value(process));
        }
    }
}
