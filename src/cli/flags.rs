//! Every option, once. Parsing, both help texts, the README's tables, the manual page and the shell completions are
//! made from these rows; a new option is a row here and a field in `options`.
//!
//! A row is: the help; what the option is about; its name; what stands
//! for its value, if it takes one; the default and an example, each a method of [`Flag`]; the field, and its reader, or
//! what a switch sets it to. An option is about the proxy as a whole (`serve`), about each server (`server`), or there is one
//! for the proxy and one for each server (`either`); in a configuration, this is its scope. With `_each`, all of its values
//! count and not only the last one. `connect` has options of its own, or shares them (`_and_connect`), and so has `bench`, of
//! which the rows are in a file of their own. The help is made of sentences in plain ASCII, with literals in backticks; shells show the
//! first sentence.

use log::LevelFilter;

use super::address::listen;
use super::flag::{Flag, add, connect, connect_switch, information, put, serve, serve_switch};
use super::values::{
    attempts, balancer, buffer_bytes, directory, file, first_message, host_name, log_format,
    log_level, message_bytes, network, prespawn, restarts, seconds, seconds_or_none,
    seconds_or_off, server_log, sessions, share, share_in_flight, share_max_requests, some_address,
    some_host, some_name, some_path, some_port, spawn, starting, tls_name, unix_mode, user,
    variable,
};
use crate::options::ServerCommand;

macro_rules! flags {
    ($(
        $(#[doc = $help:literal])+
        $mode:ident $name:literal $($value:literal)? $(, $column:ident $text:literal)*
        $(: $field:ident = $read:expr)?;
    )+) => {
        pub(super) static FLAGS: &[Flag] = &[$(
            flag!($mode $name [$($value)?] $($field = $read)?)
                $(.$column($text))*
                .help(concat!($($help),+))
        ),+];
    };
}

macro_rules! flag {
    (serve $name:literal [] $field:ident = $set:expr) => {
        serve_switch($name, |o| o.$field = $set)
    };
    (serve $name:literal [$value:literal] $field:ident = $read:expr) => {
        serve($name, $value, |o, v| put(&mut o.$field, $read(v)))
    };
    (serve_each $name:literal [$value:literal] $field:ident = $read:expr) => {
        serve($name, $value, |o, v| add(&mut o.$field, $read(v))).repeatable()
    };
    (server $name:literal [] $field:ident = $set:expr) => {
        serve_switch($name, |o| o.server.$field = $set).and_server_switch(|o| o.$field = $set)
    };
    (server $name:literal [$value:literal] $field:ident = $read:expr) => {
        serve($name, $value, |o, v| put(&mut o.server.$field, $read(v)))
            .and_server(|o, v| put(&mut o.$field, $read(v)))
    };
    (server_each $name:literal [$value:literal] $field:ident = $read:expr) => {
        serve($name, $value, |o, v| add(&mut o.server.$field, $read(v)))
            .and_server(|o, v| add(&mut o.$field, $read(v)))
            .repeatable()
    };
    (either $name:literal [$value:literal] $field:ident = $read:expr) => {
        serve($name, $value, |o, v| put(&mut o.$field, $read(v)))
            .and_server(|o, v| put(&mut o.$field, $read(v)))
            .with_both_scopes()
    };
    (either_each $name:literal [$value:literal] $field:ident = $read:expr) => {
        serve($name, $value, |o, v| add(&mut o.$field, $read(v)))
            .and_server(|o, v| add(&mut o.$field, $read(v)))
            .with_both_scopes()
            .repeatable()
    };
    (connect $name:literal [] $field:ident = $set:expr) => {
        connect_switch($name, |o| o.$field = $set)
    };
    (connect $name:literal [$value:literal] $field:ident = $read:expr) => {
        connect($name, $value, |o, v| put(&mut o.$field, $read(v)))
    };
    (serve_and_connect $name:literal [$value:literal] $field:ident = $read:expr) => {
        serve($name, $value, |o, v| put(&mut o.$field, $read(v)))
            .and_connect(|o, v| put(&mut o.$field, $read(v)))
    };
    (server_and_connect $name:literal [$value:literal] $field:ident = $read:expr) => {
        flag!(server $name [$value] $field = $read)
            .and_connect(|o, v| put(&mut o.$field, $read(v)))
    };
    (connect_and_bench $name:literal [] $field:ident = $set:expr) => {
        connect_switch($name, |o| o.$field = $set).and_bench_switch(|o| o.access.$field = $set)
    };
    (connect_and_bench $name:literal [$value:literal] $field:ident = $read:expr) => {
        connect($name, $value, |o, v| put(&mut o.$field, $read(v)))
            .and_bench(|o, v| put(&mut o.access.$field, $read(v)))
    };
    (bench $name:literal [] $field:ident = $set:expr) => {
        bench_switch($name, |o| o.$field = $set)
    };
    (bench $name:literal [$value:literal] $field:ident = $read:expr) => {
        bench($name, $value, |o, v| put(&mut o.$field, $read(v)))
    };
    (information $name:literal [$short:literal]) => {
        information($name, $short)
    };
}

flags! {
    /// Host name or address to listen on. Every address of a name is bound. `::` is IPv6, and IPv4 as well where the
    /// system maps it.
    serve "--host" "HOST", default_is "0.0.0.0, without `--listen`", example "127.0.0.1": host = some_host;

    /// TCP port to listen on, 0 to 65535. `0` picks a free one, the same for all addresses; the log names it.
    serve "--port" "PORT", default_is "8080, without `--listen`", example "9000": port = some_port;

    /// Address to listen on: `HOST:PORT`, `[::1]:9000` or `unix:PATH`. Can be given any number of times. Then that of `--host` and
    /// `--port` is listened on only if one of the two is given.
    either_each "--listen" "ADDRESS", example "unix:/run/mcp.sock": listen = listen;

    /// Permissions of unix sockets, in octal, 0 to 0777. To connect takes the right to write.
    serve "--unix-mode" "MODE", default "0600", example "0660": unix_mode = unix_mode;

    /// Let in clients of this network only (`192.0.2.0/24`, `2001:db8::/32` or an address). Can be given any number of
    /// times. Unix sockets are not concerned.
    serve_each "--allow" "CIDR", example "192.0.2.0/24": allow = network;

    /// Let in clients only that show a token of this file. Each line of it is `NAME TOKEN [SERVER,...]`; TOKEN has at least
    /// 16 characters, or is `sha256:` and 64 hexadecimal digits, as `mcp-tcp-proxy token NAME` prints it. The file is read
    /// again on SIGHUP.
    serve "--token-file" "FILE", example "/etc/mcp/tokens": token_file = some_path;

    /// Ask clients on unix sockets for no token.
    serve "--token-exempt-unix": token_exempt_unix = true;

    /// Take a PROXY header from connections of this network, or of unix sockets (`unix`). It is of version 1 or 2, and the
    /// client is whom it names. Can be given any number of times.
    serve_each "--proxy-protocol" "CIDR|unix", example "10.0.0.7": proxy_protocol = balancer;

    /// Seconds that a connection has to be let in where a PROXY header or a token is asked for, 0.01 to 86400.
    serve "--entrance-timeout" "S", default "10", example "3": entrance_timeout = seconds;

    /// Sessions at a time of one address, 1 to 1000000. An IPv6 network of 64 bits counts as one, and so does a user of a
    /// unix socket.
    serve "--max-sessions-per-address" "N", default_is "no limit", example "20": max_sessions_per_address = sessions;

    /// Sessions at a time of one client, by the name of its token or its certificate, 1 to 1000000.
    serve "--max-sessions-per-client" "N", default_is "no limit", example "20": max_sessions_per_client = sessions;

    /// Seconds between heartbeats to clients that use them, 0.01 to 86400.
    server "--heartbeat-interval" "S", default "30", example "2.5": heartbeat_interval = seconds;

    /// Restart a server that died. This is the default.
    server "--auto-restart": auto_restart = true;

    /// Close a session when its server dies, instead of restarting the server.
    server "--no-auto-restart": auto_restart = false;

    /// Restarts of a session's server within max(60, 6 x N) seconds, 0 to 1000000. One more closes the session.
    server "--max-restarts" "N", default "5", example "20": max_restarts = restarts;

    /// Replay nothing to a restarted server: neither the handshake nor subscriptions and the log level.
    server "--no-replay": replay = false;

    /// Seconds that a restarted server has to respond to the replayed handshake, 0.01 to 86400.
    server "--replay-timeout" "S", default "30", example "60": replay_timeout = seconds;

    /// On SIGUSR1, end a session's server before the new one is started. For servers that can't live twice. Without it, the new
    /// one is started beside the old one, which stays if the new one is not fit.
    server "--swap-in-place": swap_in_place = true;

    /// Seconds that a stop may take, 0.01 to 86400. After them, what is still in flight gets 503 `shutdown`, and servers
    /// are killed.
    serve "--stop-timeout" "S", default "30", example "60": stop_timeout = seconds;

    /// Seconds for which new sessions are still served after the signal to stop, 0.01 to 86400, or 0. `/readyz` says at once
    /// that they are not welcome. Another signal ends that time.
    serve "--drain-delay" "S", default "0", example "10": drain_delay = seconds_or_none;

    /// Answer over HTTP how things are, at `HOST:PORT`, `[::1]:9180` or `unix:PATH`. There are `/healthz`, `/readyz`, `/metrics`
    /// for Prometheus, `/status.json`, and a page for browsers. Port `0` picks a free one; the log names it.
    serve "--status" "ADDRESS", default_is "off", example "127.0.0.1:9180": status = some_address;

    /// Name under which `--status` may be asked, besides addresses and `localhost`. Other names are refused, as web pages could
    /// use them. Can be given any number of times.
    serve_each "--status-host" "NAME", example "proxy.example": status_host = host_name;

    /// Let other machines see all of `--status`, and not only `/healthz`, `/readyz` and `/metrics`.
    serve "--status-public": status_public = true;

    /// Longest line in either direction, in bytes without its line end, 1 to 268435456.
    server_and_connect "--max-message-bytes" "N", default "10485760", example "1048576": max_message_bytes = message_bytes;

    /// Memory for messages under way, all sessions together, in bytes, 1 to 1099511627776. The first 64 KiB of each buffer
    /// do not count. By default 268435456, or a quarter of what the process can have at most (limits on address space and data, the
    /// control group, the machine) if that is less.
    serve_and_connect "--max-buffer-bytes" "N", default_is "256 MiB, or less", example "67108864": max_buffer_bytes = buffer_bytes;

    /// Sessions at a time, 1 to 1000000. By default as many as the hard limit on open files (`ulimit -Hn`) allows at
    /// four each; with `--share` at one each.
    either "--max-sessions" "N", default_is "from the limit on open files", example "100": max_sessions = sessions;

    /// Start a session's server when the client connects (`eager`) or when its first message arrives (`lazy`).
    server "--spawn" "eager|lazy", default "eager", example "lazy": spawn = spawn;

    /// Close a connection that has sent no message for its server within S seconds, 0.01 to 86400, or 0 for off. If it
    /// is not given, clients that have announced heartbeats may take their time.
    server "--first-message-timeout" "S", default_is "300, without heartbeats", example "30": first_message_timeout = first_message;

    /// Close a session after S seconds without a message in either direction, 0.01 to 86400, or 0 for off. A session
    /// that waits for a response, other than to `subscriptions/listen`, or has something to deliver is not idle. Heartbeats
    /// are not messages. Where a server waits for its user (`input_required`) or works on a task, it is kept for 10 min
    /// at most.
    server "--idle-timeout" "S", default "0", example "3600": idle_timeout = seconds_or_off;

    /// Keep a session for S seconds after its connection was lost, 0.01 to 86400, or 0 for off. It is for clients that
    /// ask for it, as `connect` does: the server lives on, and whoever comes back in that time has lost nothing.
    serve "--resume-timeout" "S", default "120", example "600": resume_timeout = seconds_or_off;

    /// Stop a session's server after S seconds without a message in either direction, 0.01 to 86400, or 0 for off. The
    /// connection stays, and the next message starts another server. Only for servers that keep nothing between two
    /// calls. A session in which anything is open keeps its server: a request, a subscription, a task, or a question to
    /// the user.
    server "--hibernate-after" "S", default "0", example "300": hibernate_after = seconds_or_off;

    /// Servers that may be starting up at a time, 1 to 100000. A server counts until it writes something, or for a
    /// second.
    serve "--max-starting" "N", default_is "twice the number of processors", example "3": max_starting = starting;

    /// Spare servers, started ahead of time and waiting for sessions, 0 to 1000. There are fewer if they would leave no
    /// descriptors for a session.
    server "--prespawn" "N", default "0", example "2": prespawn = prespawn;

    /// Speak TLS on all TCP addresses, with the certificate in this file. After it come those between it and its authority, all
    /// in PEM. The file is read again on SIGHUP, as are the other files of TLS.
    serve "--tls-cert" "FILE", example "server.pem": tls_cert = some_path;

    /// Key of the certificate, in PEM. Others must not be able to read the file (`chmod 640`).
    serve "--tls-key" "FILE", example "server.key": tls_key = some_path;

    /// Take only clients with a certificate of the authority in this file, in PEM. Its common name, else its first DNS name,
    /// is the client's name.
    serve "--tls-client-ca" "FILE", example "ca.pem": tls_client_ca = some_path;

    /// Certificates of clients that are revoked: a list of each authority, in PEM.
    serve "--tls-crl" "FILE", example "crl.pem": tls_crl = some_path;

    /// Processes that serve all sessions together, 0 to 1000, or 0 for a process for each session. Only for servers that
    /// keep nothing for one client that another must not see. Clients and servers older than MCP 2026-07-28 still get a
    /// process for each session, unless there is `--share-legacy`.
    server "--share" "N", default "0", example "4": share = share;

    /// Requests of a session that may be at a shared process at a time, 1 to 1024. What is beyond waits in the proxy.
    server "--share-in-flight" "N", default "8", example "2": share_in_flight = share_in_flight;

    /// Have sessions that open with `initialize` share processes, too. The proxy initialises these itself, once for each
    /// version of MCP that clients ask for, and what it was answered is what all of them get.
    server "--share-legacy": share_legacy = true;

    /// Replace a shared process when it is S seconds old, 0.01 to 86400, or 0 for off. It has 30 s to answer what it was
    /// asked.
    server "--share-max-age" "S", default "0", example "3600": share_max_age = seconds_or_off;

    /// Replace a shared process in the same way after N requests, 0 to 1000000000, with 0 for off.
    server "--share-max-requests" "N", default "0", example "10000": share_max_requests = share_max_requests;

    /// Tell each server about its client: `TCPREMOTEIP`, `MCP_SESSION` and others. This is the default, except with
    /// `--prespawn`, whose servers are started before there is a client, and with `--share`.
    server "--client-env": client_env = true;

    /// Variable for servers. Without a value: the proxy's own, also if servers would not get it otherwise. May be given
    /// any number of times. `ps` shows values to everybody: see `--env-file`.
    server_each "--env" "NAME[=VALUE]", example "TZ=UTC": env = variable;

    /// File of variables for servers, with `NAME=VALUE` or `NAME` on each line. `#` begins a comment, and quotes around a
    /// value are left out. May be given any number of times. `--env` counts more.
    server_each "--env-file" "FILE", example "/etc/my-server.env": env_files = file;

    /// Give servers no variables of the proxy's but `PATH`, `HOME`, `USER`, `LANG`, `LC_*`, `TZ` and `TMPDIR`.
    server "--clear-env": clear_env = true;

    /// Directory in which servers are started, and which the server's command is relative to.
    server "--cwd" "DIR", default_is "the proxy's", example "/srv": cwd = directory;

    /// User to become, with its servers, after everything was opened. Only root can. `GROUP` takes the place of the user's
    /// main group. Both may be numbers.
    serve "--user" "NAME[:GROUP]", example "nobody": user = user;

    /// Let other processes of the same user, such as servers, look into the memory and the descriptors of the proxy. For
    /// strace, perf and gdb.
    serve "--traceable": traceable = true;

    /// Serve the servers of this file, in JSON. Each option is a key in it, too (`idleTimeout`), but this one. It takes
    /// the place of a command. The file is read again on SIGHUP.
    serve "--config" "FILE", example "/etc/mcp/servers.json": config = some_path;

    /// Look every 10 seconds whether the files that SIGHUP has read again have changed, and read them again if so.
    serve "--watch": watch = true;

    /// Where the program lies that goes on, with all sessions, on SIGUSR2 and `mcp-tcp-proxy upgrade PID`. By default it is
    /// the path at which this one was found.
    serve "--upgrade-from" "FILE", example "/opt/mcp-tcp-proxy/current": upgrade_from = some_path;

    /// Serve the built-in demo server. It takes the place of a command.
    server "--demo": command = ServerCommand::Demo;

    /// The same as `--log-level debug`. If both are given, `--log-level` counts.
    serve "--debug": log_level = LevelFilter::Debug;

    /// The least severe messages that are logged. `debug` shows every message with its direction, cut at 1 KiB.
    serve "--log-level" "error|warn|info|debug|trace", default "info", example "warn": log_level = log_level;

    /// What the lines of the log look like. `json` is an object a line, with what is known as fields: `session`, `client`,
    /// `pid`, `reason`.
    serve_and_connect "--log-format" "text|json", default "text", example "json": log_format = log_format;

    /// What servers write to stderr and the log shows. `limited` is at most 100 lines at once and 20 a second for each
    /// session, and when a server ends although it was not asked to, the last 50 lines that were left out.
    server "--server-log" "all|limited|none", default "limited", example "all": server_log = server_log;

    /// Seconds between heartbeats to the other side, 0.01 to 86400.
    connect "--heartbeat-interval" "S", default "30", example "5": heartbeat_interval = seconds;

    /// Longest delay between attempts to connect, 0.01 to 86400 seconds. The first attempt is made after 0.1 s, and the
    /// delay doubles up to this.
    connect "--reconnect-delay" "S", default "2", example "10": reconnect_delay = seconds;

    /// Attempts to connect in a row, 0 to 1000000, where 0 is for no limit. A line from the server resets the count (an
    /// error of the proxy at the other end does not), and so does the end of an idle connection that had lasted longer
    /// than the delay.
    connect "--max-reconnect-attempts" "N", default "0", example "50": max_reconnect_attempts = attempts;

    /// End when the connection is lost, instead of reconnecting.
    connect "--no-reconnect": reconnect = false;

    /// Begin a new session after a reconnect, instead of going on with the one that was lost.
    connect "--no-resume": resume = false;

    /// Seconds that a request waits for a connection, 0.01 to 86400, or 0 for off. Then it is answered with 502
    /// `unreachable`, and attempts to connect go on.
    connect "--held-request-timeout" "S", default "60", example "10": held_request_timeout = seconds_or_off;

    /// Seconds that an attempt to connect may take, 0.01 to 86400. To look up the name is a part of it.
    connect "--connect-timeout" "S", default "10", example "3": connect_timeout = seconds;

    /// Replay nothing after a reconnect: neither the handshake nor subscriptions and the log level.
    connect "--no-replay": replay = false;

    /// Seconds that the server has after a reconnect to respond to the replayed handshake, 0.01 to 86400.
    connect "--replay-timeout" "S", default "30", example "60": replay_timeout = seconds;

    /// Drop responses to no request and progress of no request. Some applications end the session at such a line. What is
    /// dropped is logged.
    connect "--tidy": tidy = true;

    /// Speak TLS. The certificate of the proxy has to be for the host of the address, and of an authority that the system
    /// trusts. There is no way back to plain text.
    connect_and_bench "--tls": tls = true;

    /// Speak TLS, and trust the authorities in this file, in PEM, instead of the system's.
    connect_and_bench "--tls-ca" "FILE", example "ca.pem": tls_ca = some_path;

    /// Name that the certificate of the proxy has to be for. By default the host of the address.
    connect_and_bench "--tls-name" "NAME", example "mcp.example": tls_name = tls_name;

    /// Certificate to show to the proxy, with those between it and its authority, in PEM.
    connect_and_bench "--tls-cert" "FILE", example "client.pem": tls_cert = some_path;

    /// Key of the certificate, in PEM. Others must not be able to read the file (`chmod 640`).
    connect_and_bench "--tls-key" "FILE", example "client.key": tls_key = some_path;

    /// Ask for this server of those that the proxy has in its configuration. Names are 1 to 64 of letters, digits and ._@:-
    /// in any order.
    connect_and_bench "--server" "NAME", example "git": server = some_name;

    /// Show the proxy the token in the first line of this file. Without this option, the environment variable
    /// `MCP_TCP_PROXY_TOKEN` counts.
    connect_and_bench "--token-file" "FILE", example "/etc/mcp/token": token_file = some_path;

    /// Send the token even where others on the way can read it: in plain text, to an address other than loopback.
    connect_and_bench "--insecure-token": insecure_token = true;

    /// Let other processes of the same user look into this one, although it holds a token or a key. For strace, perf and
    /// gdb.
    connect_and_bench "--traceable": traceable = true;

    /// The same as `--log-level debug`. If both are given, `--log-level` counts.
    connect "--debug": log_level = LevelFilter::Debug;

    /// The least severe messages that are logged. `debug` shows every message with its direction, cut at 1 KiB.
    connect "--log-level" "error|warn|info|debug|trace", default "warn", example "info": log_level = log_level;

    /// Print help.
    information "--help" "-h";

    /// Print the version.
    information "--version" "-V";
}

mod bench;

/// The options of all modes. Those of `bench` alone come first: what it shares with others is of less interest there.
pub(super) fn all() -> impl Iterator<Item = &'static Flag> {
    bench::FLAGS.iter().chain(FLAGS)
}

#[cfg(test)]
mod tests;
