//! Every option, once. Parsing, both help texts, the README's tables, the manual page and the shell completions are
//! made from these rows; a new option is a row here and a field in `options`.

use super::flag::{Flag, connect, connect_switch, information, put, serve, serve_switch};
use super::values::{
    attempts, host, message_bytes, port, prespawn, restarts, seconds, seconds_or_off, sessions,
    spawn, starting,
};
use crate::options::ServerCommand;

pub(super) static FLAGS: &[Flag] = &[
    serve("--host", "HOST", |o, v| put(&mut o.host, host(v)))
        .default("0.0.0.0")
        .example("127.0.0.1")
        .help(
            "Host name or address to listen on. Every address of a name is bound. `::` is IPv6, \
             and IPv4 as well where the system maps it.",
        ),
    serve("--port", "PORT", |o, v| put(&mut o.port, port(v)))
        .default("8080")
        .example("9000")
        .help(
            "TCP port to listen on, 0 to 65535. `0` picks a free one, the same for all addresses; \
             the log names it.",
        ),
    serve("--heartbeat-interval", "S", |o, v| {
        put(&mut o.heartbeat_interval, seconds(v))
    })
    .default("30")
    .example("2.5")
    .help("Seconds between heartbeats to clients that use them, 0.01 to 86400."),
    serve_switch("--auto-restart", |o| o.auto_restart = true)
        .help("Restart a server that died. This is the default."),
    serve_switch("--no-auto-restart", |o| o.auto_restart = false)
        .help("Close a session when its server dies, instead of restarting the server."),
    serve("--max-restarts", "N", |o, v| {
        put(&mut o.max_restarts, restarts(v))
    })
    .default("5")
    .example("20")
    .help(
        "Restarts of a session's server within max(60, 6 x N) seconds, 0 to 1000000. One more \
             closes the session.",
    ),
    serve("--replay-timeout", "S", |o, v| {
        put(&mut o.replay_timeout, seconds(v))
    })
    .default("30")
    .example("60")
    .help(
        "Seconds that a restarted server has to respond to the replayed handshake, 0.01 to \
             86400.",
    ),
    serve("--max-message-bytes", "N", |o, v| {
        put(&mut o.max_message_bytes, message_bytes(v))
    })
    .and_connect(|o, v| put(&mut o.max_message_bytes, message_bytes(v)))
    .default("10485760")
    .example("1048576")
    .help("Longest line in either direction, in bytes without its line end, 1 to 268435456."),
    serve("--max-sessions", "N", |o, v| {
        put(&mut o.max_sessions, sessions(v).map(Some))
    })
    .default_is("from the limit on open files")
    .example("100")
    .help(
        "Sessions at a time, 1 to 1000000. By default as many as the hard limit on open files \
             (`ulimit -Hn`) allows at four each.",
    ),
    serve("--spawn", "eager|lazy", |o, v| put(&mut o.spawn, spawn(v)))
        .default("eager")
        .example("lazy")
        .help(
            "Start a session's server when the client connects (`eager`) or when its first \
             message arrives (`lazy`).",
        ),
    serve("--first-message-timeout", "S", |o, v| {
        put(&mut o.first_message_timeout, seconds_or_off(v))
    })
    .default("0")
    .example("30")
    .help(
        "Close a connection that has sent no message for its server within S seconds, 0.01 to \
             86400, or 0 for off.",
    ),
    serve("--idle-timeout", "S", |o, v| {
        put(&mut o.idle_timeout, seconds_or_off(v))
    })
    .default("0")
    .example("3600")
    .help(
        "Close a session after S seconds without a message in either direction, 0.01 to \
             86400, or 0 for off. A session that waits for a response or has something to deliver \
             is not idle. Heartbeats are not messages.",
    ),
    serve("--max-starting", "N", |o, v| {
        put(&mut o.max_starting, starting(v))
    })
    .default_is("twice the number of processors")
    .example("100")
    .help(
        "Servers that may be starting up at a time, 1 to 100000. A server counts until it \
             writes something, or for a second.",
    ),
    serve("--prespawn", "N", |o, v| put(&mut o.prespawn, prespawn(v)))
        .default("0")
        .example("2")
        .help(
            "Spare servers, started ahead of time and waiting for sessions, 0 to 1000. There are \
             fewer if they would leave no descriptors for a session.",
        ),
    serve_switch("--demo", |o| o.server = ServerCommand::Demo)
        .help("Serve the built-in demo server. It takes the place of a command."),
    serve_switch("--debug", |o| o.debug = true).help(
        "Log debug messages too. Among them is every message with its direction, cut at 1 \
             KiB.",
    ),
    connect("--heartbeat-interval", "S", |o, v| {
        put(&mut o.heartbeat_interval, seconds(v))
    })
    .default("30")
    .example("5")
    .help("Seconds between heartbeats to the other side, 0.01 to 86400."),
    connect("--reconnect-delay", "S", |o, v| {
        put(&mut o.reconnect_delay, seconds(v))
    })
    .default("2")
    .example("10")
    .help(
        "Longest delay between attempts to connect, 0.01 to 86400 seconds. The first attempt \
             is made after 0.1 s, and the delay doubles up to this.",
    ),
    connect("--max-reconnect-attempts", "N", |o, v| {
        put(&mut o.max_reconnect_attempts, attempts(v))
    })
    .default("50")
    .example("0")
    .help(
        "Attempts to connect in a row, 0 to 1000000. 0 is for no limit. A line from the \
             server resets the count (an error of the proxy at the other end does not), and so \
             does the end of an idle connection that had lasted longer than the delay.",
    ),
    connect_switch("--no-reconnect", |o| o.reconnect = false)
        .help("End when the connection is lost, instead of reconnecting."),
    connect("--connect-timeout", "S", |o, v| {
        put(&mut o.connect_timeout, seconds(v))
    })
    .default("10")
    .example("3")
    .help("Seconds that an attempt to connect may take, 0.01 to 86400."),
    connect("--replay-timeout", "S", |o, v| {
        put(&mut o.replay_timeout, seconds(v))
    })
    .default("30")
    .example("60")
    .help(
        "Seconds that the server has after a reconnect to respond to the replayed handshake, \
             0.01 to 86400.",
    ),
    connect_switch("--debug", |o| o.debug = true)
        .help("Log every message, and more. Without it only warnings and errors are logged."),
    information("--help", "-h").help("Print help."),
    information("--version", "-V").help("Print the version."),
];

#[cfg(test)]
mod tests;
