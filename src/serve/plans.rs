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
