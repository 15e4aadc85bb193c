//! What the options say of each service: its plan, and the settings of its sessions and of its shared processes.

use super::Plan;
use super::launcher::Launcher;
use super::limits::spares_limit;
use crate::options::{DEFAULT_FIRST_MESSAGE_TIMEOUT, ServeOptions, ServerOptions};
use crate::process::DescriptorLimit;
use crate::session::idle::IdleLimits;
use crate::session::{Backend, Settings, Spawn};
use crate::share;

/// How each service is served, as far as there are descriptors for it.
pub(super) fn plans(
    options: &ServeOptions,
    launchers: &[Launcher],
    descriptors: DescriptorLimit,
) -> Vec<Plan> {
    let mut others = 0;
    let plan = |launcher: &Launcher| {
        let served = launcher.served();
        let plan = Plan {
            name: served.name.clone(),
            settings: settings(options, &served.options),
            max_sessions: served.options.max_sessions,
            spares: spares_limit(served.options.prespawn, others, descriptors),
            share: (served.options.share > 0).then(|| share_limits(&served.options)),
            swaps_in_place: served.options.swap_in_place,
        };
        others += plan.spares;
        plan
    };
    launchers.iter().map(plan).collect()
}

fn settings(proxy: &ServeOptions, options: &ServerOptions) -> Settings {
    Settings {
        heartbeat_interval: options.heartbeat_interval,
        role: Backend::Process {
            max_restarts: options.max_restarts,
        },
        restarts_upstream: options.auto_restart,
        max_message_bytes: options.max_message_bytes,
        replays: options.replay,
        replay_timeout: options.replay_timeout,
        stop_timeout: proxy.stop_timeout,
        // Its first message tells whether a session has a process of its own.
        spawn: if options.share > 0 {
            Spawn::Lazy
        } else {
            options.spawn
        },
        idle_limits: IdleLimits {
            first_message: options
                .first_message_timeout
                .unwrap_or(Some(DEFAULT_FIRST_MESSAGE_TIMEOUT)),
            exempts_heartbeats: options.first_message_timeout.is_none(),
            idle: options.idle_timeout,
            hibernate: options.hibernate_after,
        },
        server_log: options.server_log,
    }
}

fn share_limits(options: &ServerOptions) -> share::Limits {
    share::Limits {
        processes: options.share.into(),
        in_flight: options.share_in_flight.into(),
        max_restarts: options.max_restarts,
        restarts: options.auto_restart,
        max_message_bytes: options.max_message_bytes,
        legacy: options.share_legacy,
        handshake_time: options.replay_timeout,
        max_age: options.share_max_age,
        max_requests: options.share_max_requests,
        hibernate_after: options.hibernate_after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Served;

    #[test]
    fn what_is_shared_has_no_server_before_a_client_has_said_something() {
        let launcher = |share, prespawn| {
            let options = ServerOptions {
                share,
                prespawn,
                max_restarts: 3,
                first_message_timeout: (share == 0).then_some(None),
                ..ServerOptions::default()
            };
            Launcher::new(Served::only(options), None, DescriptorLimit::of(1 << 20))
        };
        let options = ServeOptions::default();
        let launchers = [launcher(0, 2), launcher(2, 1)];
        let plans = plans(&options, &launchers, DescriptorLimit::of(1 << 20));
        let [own, shared] = &plans[..] else {
            panic!("there are two");
        };
        assert_eq!((own.spares, shared.spares), (2, 1));
        assert_eq!(
            (own.settings.spawn, shared.settings.spawn),
            (Spawn::Eager, Spawn::Lazy)
        );
        assert_eq!(own.share, None);
        let limits = shared.share.unwrap();
        assert_eq!((limits.processes, limits.max_restarts), (2, 3));
        let first_message = |plan: &Plan| {
            let limits = &plan.settings.idle_limits;
            (limits.first_message, limits.exempts_heartbeats)
        };
        assert_eq!(first_message(own), (None, false));
        assert_eq!(
            first_message(shared),
            (Some(DEFAULT_FIRST_MESSAGE_TIMEOUT), true)
        );
    }

    #[test]
    fn waiting_servers_of_all_services_together_leave_descriptors_for_a_session() {
        let launcher = || {
            let options = ServerOptions {
                prespawn: 40,
                ..ServerOptions::default()
            };
            Launcher::new(Served::only(options), None, DescriptorLimit::of(300))
        };
        let launchers = [launcher(), launcher()];
        let plans = plans(
            &ServeOptions::default(),
            &launchers,
            DescriptorLimit::of(300),
        );
        let spares: Vec<usize> = plans.iter().map(|plan| plan.spares).collect();
        assert_eq!(spares, [40, 16]);
    }
}
