//! What the log says at the start: each service, and how many sessions there may be.

use log::{debug, info};

use super::launcher::Launcher;
use super::{Limits, Plan};
use crate::options::{ServeOptions, Served, ServerCommand};
use crate::process::DescriptorLimit;
use crate::util::plural::Counted;
use crate::util::shell_words;

/// What is served, and where.
pub(super) fn log_services(summary: &str, launchers: &[Launcher], plans: &[Plan]) {
    info!("Starting TCP proxy on {summary}");
    for (launcher, plan) in launchers.iter().zip(plans) {
        log_served(launcher.served(), plan.spares);
    }
}

/// Arguments hold secrets more often than not, so they are for `--debug`.
fn log_command(command: &ServerCommand, of: &str) {
    let ServerCommand::Program(command) = command else {
        return info!("{of}MCP command: the built-in demo server");
    };
    let program = command
        .first()
        .map_or_else(String::new, |word| shell_words::quoted(word));
    match command.len().saturating_sub(1) {
        0 => info!("{of}MCP command: {program}"),
        count => info!(
            "{of}MCP command: {program} and {}",
            Counted(count, "argument")
        ),
    }
    debug!("{of}MCP command in full: {}", shell_words::join(command));
}

/// What a service is. A name is there if there are several.
fn log_served(served: &Served, spares: usize) {
    let options = &served.options;
    let of = served.name.as_ref();
    let of = of.map_or_else(String::new, |name| format!("{name}: "));
    log_command(&options.command, &of);
    info!(
        "{of}Heartbeat interval: {}s",
        options.heartbeat_interval.as_secs_f64()
    );
    info!(
        "{of}Auto-restart: {}",
        if options.auto_restart {
            "enabled"
        } else {
            "disabled"
        }
    );
    if options.share > 0 {
        info!(
            "{of}Shared: {}",
            Counted(usize::from(options.share), "server")
        );
    }
    if spares > 0 {
        info!("{of}Pool: {}", Counted(spares, "spare server"));
    }
}

/// How many sessions there may be, and why.
pub(super) fn log_session_limit(
    options: &ServeOptions,
    limits: Limits,
    descriptors: DescriptorLimit,
) {
    let sessions = Counted(limits.max_sessions, "session");
    if options.max_sessions.is_some() {
        info!("Limit: {sessions} (--max-sessions)");
    } else {
        info!(
            "Limit: {sessions}, as {} are allowed (ulimit -Hn)",
            Counted(descriptors.get(), "descriptor")
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::entrance::Name;
    use crate::options::ServerOptions;
    use crate::serve::tests::world::plan;
    use crate::util::captured_log::captured;

    fn launcher(name: Option<&str>, command: &[&str], share: u16) -> Launcher {
        let options = ServerOptions {
            command: ServerCommand::Program(command.iter().map(Into::into).collect()),
            heartbeat_interval: Duration::from_millis(2500),
            auto_restart: share > 0,
            share,
            ..ServerOptions::default()
        };
        let mut served = Served::only(options);
        served.name = name.and_then(Name::new);
        Launcher::new(served, None, DescriptorLimit::of(100))
    }

    #[test]
    fn what_is_served_is_said_and_no_argument_with_it() {
        let launchers = [launcher(None, &["my program"], 0)];
        let logged = captured(|| log_services("127.0.0.1:7", &launchers, &[plan(None)]));
        assert_eq!(
            logged,
            [
                "INFO: Starting TCP proxy on 127.0.0.1:7",
                "INFO: MCP command: 'my program'",
                "INFO: Heartbeat interval: 2.5s",
                "INFO: Auto-restart: disabled",
            ]
        );
        let launchers = [launcher(Some("files"), &["serve", "--key", "secret"], 2)];
        let mut plan = plan(Some("files"));
        plan.spares = 1;
        let logged = captured(|| log_services("two sockets", &launchers, &[plan]));
        assert_eq!(
            logged[1..],
            [
                "INFO: files: MCP command: serve and 2 arguments",
                "INFO: files: Heartbeat interval: 2.5s",
                "INFO: files: Auto-restart: enabled",
                "INFO: files: Shared: 2 servers",
                "INFO: files: Pool: 1 spare server",
            ]
        );
    }

    #[test]
    fn the_limit_is_said_and_why_it_is_that() {
        let limits = crate::serve::tests::world::Choice::default().limits;
        let few = DescriptorLimit::of(2000);
        let mut options = ServeOptions::default();
        let logged = captured(|| log_session_limit(&options, limits, few));
        assert_eq!(
            logged,
            ["INFO: Limit: 1000 sessions, as 2000 descriptors are allowed (ulimit -Hn)"]
        );
        options.max_sessions = Some(1000);
        let logged = captured(|| log_session_limit(&options, limits, few));
        assert_eq!(logged, ["INFO: Limit: 1000 sessions (--max-sessions)"]);
    }
}
