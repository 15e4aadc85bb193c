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
