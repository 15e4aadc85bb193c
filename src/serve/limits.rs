//! How many of each there may be: what the user wants, as far as there are descriptors for it.

use std::time::Duration;

use log::warn;

use super::accept::{ACCEPTS_PER_ITERATION, MAX_REFUSED};
use super::setup::SetupError;
use super::status::MAX_CONNECTIONS;
use super::{Plan, SessionsOfOne, rules};
use crate::entrance::{Capacity, Directory};
use crate::options::ServeOptions;
use crate::process::DescriptorLimit;
use crate::reactor::token::MAX_KEYS;
use crate::share;

/// Descriptors of one session: the connection and three pipes.
const DESCRIPTORS_PER_SESSION: u64 = 4;

/// Descriptors of a server that waits: three pipes.
const DESCRIPTORS_PER_WAITING: u64 = 3;

/// Descriptors for all else: what is open from the start (a dozen, and what was inherited), the far ends of the pipes of a
/// server that is being started, and the connections of clients that are being turned away.
const SPARE_DESCRIPTORS: u64 = 64 + MAX_REFUSED as u64;

/// What one session takes at the time when its server is started: the far ends of the pipes, too.
const DESCRIPTORS_TO_START: u64 = DESCRIPTORS_PER_SESSION + 3;

/// Descriptors that are opened after the check: the one that asks about clients.
const DESCRIPTORS_TO_COME: u64 = 1;

/// How many of each there may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// More sessions are turned away.
    pub max_sessions: usize,
    /// The same for those of one address, and of one client; `None` if there is no such limit.
    pub sessions_of_one: SessionsOfOne,
    /// As many sessions there are descriptors for.
    pub possible_sessions: usize,
    /// Servers that start up at the same time.
    pub max_starting: usize,
    /// Connections in the entrance.
    pub places: usize,
    /// How long a session is kept of which the connection is lost; `None` if none is.
    pub resume_timeout: Option<Duration>,
}

/// What the user wants, as far as there are descriptors for it.
pub(super) fn limits(
    options: &ServeOptions,
    plans: &[Plan],
    servers: &Directory,
    descriptors: DescriptorLimit,
) -> Limits {
    let places = places(options, servers, descriptors);
    let others = places + status_descriptors(options);
    let spares: usize = plans.iter().map(|plan| plan.spares).sum();
    let shared = plans.iter().filter_map(|plan| plan.share.as_ref());
    let shared: usize = shared.map(share::Limits::most_processes).sum();
    let possible_sessions = if plans.iter().all(|plan| plan.share.is_some()) {
        shared_possible(spares + shared, others, descriptors)
    } else {
        sessions_possible(spares + shared, others, descriptors)
    };
    Limits {
        max_sessions: session_limit(options.max_sessions, possible_sessions, descriptors),
        possible_sessions,
        sessions_of_one: SessionsOfOne {
            address: options.max_sessions_per_address,
            client: options.max_sessions_per_client,
        },
        max_starting: options.max_starting,
        places,
        resume_timeout: options.resume_timeout,
    }
}

/// A proxy that can't serve a single session is not started.
pub(super) fn check_descriptors(limit: DescriptorLimit) -> Result<(), SetupError> {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else {
        return Ok(());
    };
    check_needed(descriptors_needed(open.count() as u64), limit)
}

fn check_needed(needed: u64, limit: DescriptorLimit) -> Result<(), SetupError> {
    if needed > limit.get() {
        return Err(SetupError::from(format!(
            "cannot serve a single session: that needs {needed} descriptors, and {} are allowed (ulimit -Hn)",
            limit.get()
        )));
    }
    Ok(())
}

/// What one session needs, if this many are open.
fn descriptors_needed(open: u64) -> u64 {
    open + DESCRIPTORS_TO_COME + DESCRIPTORS_TO_START
}

/// As many waiting servers as the user wants beside those of other services, unless they would leave no descriptors for a
/// session.
pub(super) fn spares_limit(wanted: usize, others: usize, descriptors: DescriptorLimit) -> usize {
    let all_else = SPARE_DESCRIPTORS + DESCRIPTORS_PER_SESSION;
    let possible = descriptors.get().saturating_sub(all_else) / DESCRIPTORS_PER_WAITING;
    let possible = usize::try_from(possible).unwrap_or(usize::MAX);
    let possible = possible.saturating_sub(others);
    if wanted > possible {
        warn!(
            "--prespawn: {wanted} waiting servers need more than the {} descriptors that are allowed (RLIMIT_NOFILE); \
             there will be {possible}",
            descriptors.get()
        );
    }
    wanted.min(possible)
}

/// Connections that may be in the entrance, if anything is asked there: an eighth of the descriptors, at most as many as are
/// of use.
fn places(options: &ServeOptions, servers: &Directory, descriptors: DescriptorLimit) -> usize {
    if !rules::need_places(options, servers) {
        return 0;
    }
    let share = usize::try_from(descriptors.get() / 8).unwrap_or(usize::MAX);
    // Whoever has come is heard before so many others can come.
    share.clamp(2 * ACCEPTS_PER_ITERATION, Capacity::MAX_PLACES)
}

/// Descriptors for those who ask how things are.
fn status_descriptors(options: &ServeOptions) -> usize {
    options.status.as_ref().map_or(0, |_| 1 + MAX_CONNECTIONS)
}

/// As many sessions as there are descriptors for, besides this many servers that wait and connections in the entrance.
fn sessions_possible(spares: usize, places: usize, descriptors: DescriptorLimit) -> usize {
    let others = SPARE_DESCRIPTORS + DESCRIPTORS_PER_WAITING * spares as u64 + places as u64;
    let possible = descriptors.get().saturating_sub(others) / DESCRIPTORS_PER_SESSION;
    usize::try_from(possible)
        .unwrap_or(usize::MAX)
        .clamp(1, MAX_KEYS - MAX_REFUSED)
}

/// The same if no session needs more than its connection, besides this many processes.
fn shared_possible(processes: usize, places: usize, descriptors: DescriptorLimit) -> usize {
    let others = SPARE_DESCRIPTORS + DESCRIPTORS_PER_WAITING * processes as u64 + places as u64;
    let possible = descriptors.get().saturating_sub(others);
    let possible = usize::try_from(possible).unwrap_or(usize::MAX);
    possible.clamp(1, MAX_KEYS - MAX_REFUSED)
}

/// As many sessions as are possible, unless the user wants another number.
fn session_limit(wanted: Option<usize>, possible: usize, descriptors: DescriptorLimit) -> usize {
    let limit = wanted.unwrap_or(possible).min(MAX_KEYS - MAX_REFUSED);
    if limit > possible {
        warn!(
            "--max-sessions: {limit} sessions need more than the {} descriptors that are allowed (RLIMIT_NOFILE); \
             after about {possible} sessions new connections have to wait",
            descriptors.get()
        );
    }
    limit
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::serve::tests::world::plan;
    use crate::transport::address::Address;
    use crate::util::captured_log::captured;

    #[test]
    fn descriptors_are_shared_out_to_sessions_and_waiting_servers() {
        let few = DescriptorLimit::of(SPARE_DESCRIPTORS + 20);
        assert_eq!(spares_limit(2, 0, few), 2);
        assert_eq!(spares_limit(100, 0, few), 5, "one session has to fit");
        assert_eq!(sessions_possible(0, 0, few), 5);
        assert_eq!(sessions_possible(4, 0, few), 2);
        assert_eq!(sessions_possible(7, 0, few), 1, "at least");
        assert_eq!(sessions_possible(0, 8, few), 3);
        let only = Directory::only();
        let with_tokens = ServeOptions {
            token_file: Some("tokens".into()),
            ..ServeOptions::default()
        };
        let places_of = |count| places(&with_tokens, &only, DescriptorLimit::of(count));
        assert_eq!((places_of(800), places_of(1 << 20)), (100, 1000));
        assert_eq!(places(&ServeOptions::default(), &only, few), 0);
        let none = DescriptorLimit::of(10);
        assert_eq!(
            (spares_limit(1, 0, none), sessions_possible(0, 0, none)),
            (0, 1)
        );
        let endless = DescriptorLimit::of(u64::MAX);
        assert_eq!(sessions_possible(0, 0, endless), MAX_KEYS - MAX_REFUSED);
        assert_eq!(session_limit(None, 7, few), 7);
        assert_eq!(session_limit(Some(100), 7, few), 100);
        let most = session_limit(Some(usize::MAX), 7, few);
        assert_eq!(most, MAX_KEYS - MAX_REFUSED);
    }

    #[test]
    fn a_session_needs_its_descriptors_besides_those_that_are_open() {
        assert_eq!(descriptors_needed(10), 10 + 1 + 7);
    }

    #[test]
    fn sessions_on_shared_processes_need_their_connections_alone() {
        let few = DescriptorLimit::of(SPARE_DESCRIPTORS + 20);
        assert_eq!(shared_possible(0, 0, few), 20);
        assert_eq!(shared_possible(4, 3, few), 5);
        assert_eq!(shared_possible(7, 0, few), 1, "at least");
    }

    #[test]
    fn a_proxy_that_can_not_serve_a_session_is_not_started() {
        let enough = |needed| check_needed(needed, DescriptorLimit::of(10)).is_ok();
        assert_eq!([enough(9), enough(10), enough(11)], [true, true, false]);
        let error = check_descriptors(DescriptorLimit::of(3)).unwrap_err();
        assert!(error.to_string().contains("3 are allowed"), "{error}");
        assert!(check_descriptors(DescriptorLimit::of(u64::MAX)).is_ok());
    }

    #[test]
    fn whoever_wants_more_than_is_possible_is_warned() {
        let few = DescriptorLimit::of(SPARE_DESCRIPTORS + 20);
        let sessions = |wanted| captured(|| _ = session_limit(wanted, 7, few)).len();
        let all = [None, Some(6), Some(7), Some(8)].map(sessions);
        assert_eq!(all, [0, 0, 0, 1]);
        let spares = |wanted| captured(|| _ = spares_limit(wanted, 2, few)).len();
        assert_eq!([2, 3, 4].map(spares), [0, 0, 1]);
        assert_eq!(
            [2, 3, 4].map(|wanted| spares_limit(wanted, 2, few)),
            [2, 3, 3]
        );
    }

    #[test]
    fn what_else_needs_descriptors_leaves_fewer_for_sessions() {
        let options = ServeOptions {
            max_sessions_per_address: Some(3),
            max_sessions_per_client: Some(4),
            max_starting: 9,
            ..ServeOptions::default()
        };
        let some = DescriptorLimit::of(SPARE_DESCRIPTORS + 200);
        let of = |options: &ServeOptions, plans: &[Plan]| {
            limits(options, plans, &Directory::only(), some)
        };
        let mut plans = [plan(None), plan(None)];
        let all = of(&options, &plans);
        assert_eq!((all.max_sessions, all.possible_sessions), (50, 50));
        let of_one = all.sessions_of_one;
        assert_eq!((of_one.address, of_one.client), (Some(3), Some(4)));
        assert_eq!((all.max_starting, all.places), (9, 0));
        plans[0].spares = 4;
        plans[1].spares = 4;
        assert_eq!(of(&options, &plans).possible_sessions, (200 - 24) / 4);
        let with_status = ServeOptions {
            status: Some(Address::Unix("status".into())),
            max_sessions: Some(7),
            ..options.clone()
        };
        let all = of(&with_status, &plans);
        let possible = (200 - 24 - 1 - MAX_CONNECTIONS) / 4;
        assert_eq!((all.max_sessions, all.possible_sessions), (7, possible));
        let share = share::Limits {
            processes: 2,
            in_flight: 8,
            max_restarts: 5,
            restarts: true,
            max_message_bytes: 1000,
            legacy: false,
            handshake_time: Duration::ZERO,
            max_age: None,
            max_requests: None,
            hibernate_after: None,
        };
        let shared = share.most_processes();
        plans[0].share = Some(share);
        assert_eq!(
            of(&options, &plans).possible_sessions,
            (200 - 24 - 3 * shared) / 4
        );
        plans[1].share = Some(share);
        assert_eq!(
            of(&options, &plans).possible_sessions,
            200 - 24 - 6 * shared
        );
        let with_tokens = ServeOptions {
            token_file: Some("tokens".into()),
            ..options
        };
        let all = of(&with_tokens, &[plan(None)]);
        let places = all.places;
        assert_eq!(
            (places, all.possible_sessions),
            (
                (264 - 64 + SPARE_DESCRIPTORS as usize) / 8,
                (200 - places) / 4
            )
        );
    }
}
