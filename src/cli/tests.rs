//! Command lines, and what becomes of them.

use std::time::Duration;

use std::os::unix::ffi::OsStrExt;

use log::LevelFilter;

use super::*;
use crate::entrance::{Name, Network};
use crate::logger::Format;
use crate::options::{Balancer, ServerCommand, ServerOptions, Value, Variable};
use crate::session::Spawn;
use crate::session::stderr::ServerLogging;
use crate::transport::address::Address;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn serve(line: &str) -> ServeOptions {
    match parse(words(line)) {
        Ok(Command::Serve { options, .. }) => *options,
        other => panic!("{line:?} gives {other:?}"),
    }
}

fn error_of(args: Vec<OsString>) -> String {
    let error = parse(args).unwrap_err().to_string();
    assert!(
        !error.contains(char::is_control),
        "{error:?} is not one line"
    );
    error
}

fn error(line: &str) -> String {
    error_of(words(line))
}

fn help(mode: Mode) -> Command {
    Command::Print(help::text(mode))
}

fn version() -> Command {
    Command::Print(format!("{VERSION}\n"))
}

fn connect(line: &str) -> ConnectOptions {
    match parse(words(line)) {
        Ok(Command::Connect(options)) => *options,
        other => panic!("{line:?} gives {other:?}"),
    }
}

fn program(options: &ServeOptions) -> Vec<&str> {
    match &options.server.command {
        ServerCommand::Program(words) => words.iter().map(|w| w.to_str().unwrap()).collect(),
        ServerCommand::Demo => panic!("the demo"),
    }
}

fn variable(name: &str, value: Option<&str>) -> Variable {
    let (name, value) = (name.into(), value.map(Into::into));
    Variable {
        name,
        value: value.map_or(Value::Inherited, Value::Given),
    }
}

fn tcp(host: &str, port: u16) -> Address {
    let host = host.to_owned();
    Address::Tcp { host, port }
}

fn network(text: &str) -> Network {
    Network::parse(text).unwrap()
}

#[test]
fn hibernation_needs_a_replay_and_an_idle_timeout_that_leaves_it_time() {
    let after = |line: &str| serve(line).server.hibernate_after;
    assert_eq!(after("--demo"), None);
    assert_eq!(after("--hibernate-after 0 --no-replay --demo"), None);
    let half = Some(Duration::from_millis(500));
    assert_eq!(after("--hibernate-after .5 --idle-timeout 1 --demo"), half);
    assert_eq!(after("--hibernate-after .5 --no-auto-restart --demo"), half);
    for (line, part) in [
        (
            "--hibernate-after 5 --no-replay --demo",
            "--no-replay keeps it from them",
        ),
        (
            "--hibernate-after 5 --idle-timeout 5 --demo",
            "with --idle-timeout 5 the session has ended after 5 s",
        ),
        (
            "--idle-timeout 3 --hibernate-after 5 --demo",
            "with --idle-timeout 3 the session has ended after 5 s",
        ),
        ("--hibernate-after 0.001 --demo", "--hibernate-after"),
    ] {
        let error = error(line);
        assert!(
            error.starts_with("--hibernate-after") && error.contains(part),
            "{error}"
        );
    }
}

#[test]
fn networks_and_token_files_are_read_and_checked() {
    for (line, part) in [
        (
            "--allow 192.0.2.0/33 cat",
            "--allow: '192.0.2.0/33' is not a network",
        ),
        ("--allow 192.0.2.7/24 cat", "did you mean 192.0.2.0/24?"),
        (
            "--proxy-protocol tcp cat",
            "--proxy-protocol: 'tcp' is not unix, or a network",
        ),
        ("--token-file= cat", "--token-file"),
        (
            "--max-sessions-per-address 0 cat",
            "--max-sessions-per-address",
        ),
        ("token", "token: the name of the client is missing"),
        ("token a/b", "token: 'a/b' is not a name"),
        (
            "token a b",
            "token: takes no more than a name, and 'b' follows",
        ),
    ] {
        let error = error(line);
        assert!(error.contains(part), "{error}");
    }
    let ann = Name::new("ann").unwrap();
    assert_eq!(parse(words("token ann")), Ok(Command::Token(ann)));
    assert_eq!(parse(words("token --help")), Ok(help(Mode::Serve)));
    let options = connect("connect --token-file /t --insecure-token --traceable example:1");
    assert_eq!(options.token_file, Some("/t".into()));
    assert!(options.insecure_token && options.traceable);
}

#[test]
fn the_defaults() {
    let expected = ServeOptions {
        upgrade_from: None,
        host: None,
        port: None,
        listen: Vec::new(),
        unix_mode: 0o600,
        allow: Vec::new(),
        proxy_protocol: Vec::new(),
        token_file: None,
        token_exempt_unix: false,
        entrance_timeout: Duration::from_secs(10),
        max_sessions_per_address: None,
        max_sessions_per_client: None,
        log_level: LevelFilter::Info,
        log_format: Format::Text,
        max_buffer_bytes: None,
        max_sessions: None,
        stop_timeout: Duration::from_secs(30),
        drain_delay: Duration::ZERO,
        status: None,
        status_host: Vec::new(),
        status_public: false,
        resume_timeout: Some(Duration::from_mins(2)),
        max_starting: 2 * std::thread::available_parallelism().unwrap().get(),
        tls_cert: None,
        tls_key: None,
        tls_client_ca: None,
        tls_crl: None,
        user: None,
        traceable: false,
        config: None,
        watch: false,
        server: ServerOptions {
            listen: Vec::new(),
            max_sessions: None,
            heartbeat_interval: Duration::from_secs(30),
            auto_restart: true,
            server_log: ServerLogging::Limited,
            max_message_bytes: 10_485_760,
            max_restarts: 5,
            replay: true,
            replay_timeout: Duration::from_secs(30),
            swap_in_place: false,
            spawn: Spawn::Eager,
            first_message_timeout: None,
            idle_timeout: None,
            hibernate_after: None,
            prespawn: 0,
            share: 0,
            share_in_flight: 8,
            share_legacy: false,
            share_max_age: None,
            share_max_requests: None,
            client_env: false,
            env: Vec::new(),
            env_files: Vec::new(),
            clear_env: false,
            cwd: None,
            command: ServerCommand::Demo,
        },
    };
    assert_eq!(serve("--demo"), expected);
}

#[test]
fn a_server_that_waits_can_not_be_told_of_its_client() {
    assert!(
        serve("--demo").server.tells_clients()
            && serve("--client-env --demo").server.tells_clients()
    );
    assert!(
        serve("--client-env --prespawn 0 --demo")
            .server
            .tells_clients()
    );
    assert!(!serve("--prespawn 1 --demo").server.tells_clients());
    assert!(!serve("--share 1 --demo").server.tells_clients());
    for option in ["--prespawn", "--share"] {
        let error = error(&format!("--client-env {option} 1 --demo"));
        assert!(error.contains(option), "{error}");
    }
}

#[test]
fn shared_processes_live_beside_those_that_they_replace() {
    assert!(serve("--swap-in-place --demo").server.swap_in_place);
    let error = error("--swap-in-place --share 1 --demo");
    assert!(error.starts_with("--swap-in-place"), "{error}");
}

#[test]
fn what_is_no_variable_or_user_is_refused_and_no_value_is_shown_with_the_options() {
    for line in [
        "--env= --demo",
        "--env==1 --demo",
        "--env-file= --demo",
        "--cwd= --demo",
    ] {
        error(line);
    }
    for user in ["", ":", "a:", ":b", "a:b:c"] {
        error(&format!("--user={user} --demo"));
    }
    let options = format!("{:?}", serve("--env NAME=secret --demo"));
    assert!(options.contains("NAME") && !options.contains("secret"));
}

#[test]
fn every_option_in_both_spellings() {
    let expected = ServeOptions {
        upgrade_from: None,
        host: Some("localhost".to_owned()),
        port: Some(0),
        listen: vec![tcp("::1", 9), Address::Unix("/run/x".into())],
        unix_mode: 0o660,
        allow: vec![network("192.0.2.0/24"), network("::1")],
        proxy_protocol: vec![Balancer::Network(network("10.0.0.7")), Balancer::Unix],
        token_file: Some("/t".into()),
        token_exempt_unix: true,
        entrance_timeout: Duration::from_secs(3),
        max_sessions_per_address: Some(8),
        max_sessions_per_client: Some(9),
        log_level: LevelFilter::Debug,
        log_format: Format::Json,
        max_buffer_bytes: None,
        max_sessions: Some(7),
        stop_timeout: Duration::from_millis(1_500),
        drain_delay: Duration::from_millis(2_500),
        status: Some(tcp("::1", 9180)),
        status_host: vec!["a.b".to_owned(), "c".to_owned()],
        status_public: true,
        resume_timeout: Some(Duration::from_mins(2)),
        max_starting: 1,
        tls_cert: Some("c".into()),
        tls_key: Some("k".into()),
        tls_client_ca: Some("a".into()),
        tls_crl: Some("r".into()),
        user: Some("nobody:7".to_owned()),
        traceable: true,
        config: None,
        watch: true,
        server: ServerOptions {
            listen: Vec::new(),
            max_sessions: None,
            heartbeat_interval: Duration::from_millis(2_500),
            auto_restart: false,
            server_log: ServerLogging::All,
            max_message_bytes: 1,
            max_restarts: 0,
            replay: false,
            replay_timeout: Duration::from_millis(10),
            // It can't be with --share.
            swap_in_place: false,
            spawn: Spawn::Lazy,
            first_message_timeout: Some(Some(Duration::from_millis(500))),
            idle_timeout: Some(Duration::from_hours(24)),
            // It needs the replay.
            hibernate_after: None,
            prespawn: 1000,
            share: 4,
            share_in_flight: 2,
            share_legacy: true,
            share_max_age: Some(Duration::from_mins(1)),
            share_max_requests: Some(7),
            client_env: false,
            env: vec![variable("A", Some("1=2")), variable("B", None)],
            env_files: vec!["/a".into(), "b".into()],
            clear_env: true,
            cwd: Some("/srv".into()),
            command: ServerCommand::Program(vec!["cat".into()]),
        },
    };
    let line = "--host localhost --port 0 --listen [::1]:9 --listen unix:/run/x --unix-mode 0660 \
                --allow 192.0.2.0/24 --allow ::1 --proxy-protocol 10.0.0.7 --proxy-protocol unix --token-file /t --token-exempt-unix \
                --entrance-timeout 3 --max-sessions-per-address 8 --max-sessions-per-client 9 --heartbeat-interval 2.5 --no-auto-restart --debug \
                --log-format json --server-log all --max-message-bytes 1 --max-restarts 0 --max-sessions 7 --no-replay --replay-timeout 0.01 \
                --stop-timeout 1.5 --drain-delay 2.5 --status [::1]:9180 --status-host a.b --status-host c --status-public \
                --spawn lazy --first-message-timeout 0.5 --idle-timeout 86400 --max-starting 1 --prespawn 1000 \
                --env A=1=2 --env B --env-file /a --env-file b --clear-env --cwd /srv --user nobody:7 --traceable --tls-cert c --tls-key k --tls-client-ca a \
                --tls-crl r --watch --share 4 --share-in-flight 2 --share-legacy --share-max-age 60 --share-max-requests 7 cat";
    assert_eq!(serve(line), expected);
    let line = "--host=localhost --port=0 --listen=[::1]:9 --listen=unix:/run/x --unix-mode=660 \
                --allow=192.0.2.0/24 --allow=::1 --proxy-protocol=10.0.0.7 --proxy-protocol=unix --token-file=/t --token-exempt-unix \
                --entrance-timeout=3 --max-sessions-per-address=8 --max-sessions-per-client=9 --heartbeat-interval=2.5 --no-auto-restart --debug \
                --log-format=json --server-log=all --max-message-bytes=1 --max-restarts=0 --max-sessions=7 --no-replay --replay-timeout=.01 \
                --stop-timeout=1.5 --drain-delay=2.5 --status=[::1]:9180 --status-host=a.b --status-host=c --status-public \
                --spawn=lazy --first-message-timeout=.5 --idle-timeout=86400 --max-starting=1 --prespawn=1000 \
                --env=A=1=2 --env=B --env-file=/a --env-file=b --clear-env --cwd=/srv --user=nobody:7 --traceable --tls-cert=c --tls-key=k --tls-client-ca=a \
                --tls-crl=r --watch --share=4 --share-in-flight=2 --share-legacy --share-max-age=60 --share-max-requests=7 cat";
    assert_eq!(serve(line), expected);
}

#[test]
fn the_servers_own_words_are_untouched() {
    let options = serve("--port 1 python3 server.py --debug --port 2 --help -- --demo");
    let expected = [
        "python3",
        "server.py",
        "--debug",
        "--port",
        "2",
        "--help",
        "--",
        "--demo",
    ];
    assert_eq!(program(&options), expected);
    assert_eq!(
        (options.port, options.log_level),
        (Some(1), LevelFilter::Info)
    );
}

#[test]
fn two_dashes_end_the_options() {
    assert_eq!(
        program(&serve("-- --odd-name --debug")),
        ["--odd-name", "--debug"]
    );
    assert_eq!(program(&serve("--debug -- -- x")), ["--", "x"]);
    assert_eq!(program(&serve("-- connect host:1")), ["connect", "host:1"]);
    assert_eq!(program(&serve("-- demo-server")), ["demo-server"]);
    assert_eq!(program(&serve("-")), ["-"]);
}

#[test]
fn the_last_of_a_repeated_option_counts_whatever_its_spelling() {
    assert_eq!(serve("--demo --port 1 --port=2").port, Some(2));
    assert_eq!(serve("--demo --port=1 --port 2").port, Some(2));
    assert_eq!(serve("--demo --port=1 --port 2 --port=3").port, Some(3));
    assert!(
        serve("--demo --no-auto-restart --auto-restart")
            .server
            .auto_restart
    );
    assert!(
        !serve("--demo --auto-restart --no-auto-restart")
            .server
            .auto_restart
    );
    assert_eq!(
        serve("--demo --demo --debug --debug").log_level,
        LevelFilter::Debug
    );
}

#[test]
fn numbers_out_of_range_are_named_with_their_range() {
    assert_eq!(
        error("--port 99999 x"),
        "--port: '99999' is not a port (0 to 65535)"
    );
    assert_eq!(
        error("--port -1 x"),
        "--port: '-1' is not a port (0 to 65535)"
    );
    assert_eq!(error("--port= x"), "--port: '' is not a port (0 to 65535)");
    for bad in [
        "0", "0.009", "86401", "nan", "inf", "-inf", "-5", "1e99", "5s", "",
    ] {
        for name in ["--heartbeat-interval", "--replay-timeout"] {
            let error = error(&format!("{name}={bad} x"));
            let named = format!("{name}: '{bad}' is not a number of seconds (0.01 to 86400)");
            let missing = format!("{name}: its value is missing, '{bad}' is an option");
            assert!(error == named || error.starts_with(&missing), "{error}");
        }
    }
    let range = "is not a whole number of bytes (1 to 268435456)";
    assert_eq!(
        error("--max-message-bytes 0 x"),
        format!("--max-message-bytes: '0' {range}")
    );
    assert_eq!(
        error("--max-message-bytes 268435457 x"),
        format!("--max-message-bytes: '268435457' {range}")
    );
    let range = "is not a whole number of restarts (0 to 1000000)";
    assert_eq!(
        error("--max-restarts 1000001 x"),
        format!("--max-restarts: '1000001' {range}")
    );
    assert_eq!(
        error("--max-restarts 1.5 x"),
        format!("--max-restarts: '1.5' {range}")
    );
    let range = "is not a whole number of sessions (1 to 1000000)";
    assert_eq!(
        error("--max-sessions 0 x"),
        format!("--max-sessions: '0' {range}")
    );
    assert_eq!(
        error("--max-sessions 99999999999999999999999 x"),
        format!("--max-sessions: '99999999999999999999999' {range}")
    );
}

#[test]
fn a_timeout_that_can_be_off_is_off_at_0() {
    for name in ["--first-message-timeout", "--idle-timeout"] {
        for off in ["0", "0.0", "0e5"] {
            let options = serve(&format!("--demo {name} 1 {name} {off}"));
            assert_eq!(
                options
                    .server
                    .first_message_timeout
                    .flatten()
                    .or(options.server.idle_timeout),
                None
            );
        }
        for bad in ["0.009", "86401", "off", "nan", "-0.5", ""] {
            let named =
                format!("{name}: '{bad}' is not a number of seconds (0.01 to 86400, or 0 for off)");
            assert_eq!(error(&format!("{name}={bad} x")), named);
        }
    }
}

#[test]
fn numbers_of_servers() {
    let range = "is not a whole number of servers (1 to 100000)";
    for bad in ["0", "100001", "1.5"] {
        assert_eq!(
            error(&format!("--max-starting {bad} x")),
            format!("--max-starting: '{bad}' {range}")
        );
    }
    assert_eq!(
        error("--share 1001 x"),
        "--share: '1001' is not a whole number of processes (0 to 1000)"
    );
    for option in [
        "--share-in-flight 4",
        "--share-legacy",
        "--share-max-age 60",
        "--share-max-requests 7",
    ] {
        let name = option.split(' ').next().unwrap();
        assert_eq!(
            error(&format!("{option} x")),
            format!("{name}: nothing is shared (--share N says by how many processes)")
        );
    }
    assert_eq!(
        error("--share 1 --share-max-requests 1000000001 x"),
        "--share-max-requests: '1000000001' is not a whole number of requests (0 to 1000000000)"
    );
    assert_eq!(
        error("--prespawn 1001 x"),
        "--prespawn: '1001' is not a whole number of servers (0 to 1000)"
    );
    assert_eq!(serve("--demo --max-starting 100000").max_starting, 100_000);
}

#[test]
fn servers_are_started_eagerly_or_lazily() {
    assert_eq!(
        serve("--demo --spawn lazy --spawn eager").server.spawn,
        Spawn::Eager
    );
    for bad in ["", "Lazy", "later"] {
        let named = format!("--spawn: '{bad}' is not a start mode (eager or lazy)");
        assert_eq!(error(&format!("--spawn={bad} x")), named);
    }
}

#[test]
fn what_servers_say_is_logged_within_limits_or_all_or_not() {
    assert_eq!(serve("--demo").server.server_log, ServerLogging::Limited);
    for (word, logging) in [
        ("all", ServerLogging::All),
        ("limited", ServerLogging::Limited),
        ("none", ServerLogging::None),
    ] {
        let options = serve(&format!("--demo --server-log {word}"));
        assert_eq!(options.server.server_log, logging);
    }
    assert_eq!(
        error("--server-log=off x"),
        "--server-log: 'off' is not what to log of servers (all, limited or none)"
    );
}

#[test]
fn levels_of_the_log_have_names_and_count_more_than_the_short_form() {
    assert_eq!(serve("--demo").log_level, LevelFilter::Info);
    let options = serve("--demo --debug --log-level warn");
    assert_eq!(options.log_level, LevelFilter::Warn);
    let options = serve("--demo --log-level error --debug");
    assert_eq!(options.log_level, LevelFilter::Error);
    assert_eq!(
        error("--log-level=off x"),
        "--log-level: 'off' is not a level (error, warn, info, debug or trace)"
    );
}

#[test]
fn the_ends_of_the_ranges_are_in_them() {
    assert_eq!(serve("--demo --port 65535").port, Some(65535));
    let day = Duration::from_hours(24);
    assert_eq!(
        serve("--demo --heartbeat-interval 86400")
            .server
            .heartbeat_interval,
        day
    );
    assert_eq!(
        serve("--demo --replay-timeout 86400").server.replay_timeout,
        day
    );
    assert_eq!(
        serve("--demo --max-message-bytes 268435456")
            .server
            .max_message_bytes,
        268_435_456
    );
    assert_eq!(
        serve("--demo --max-restarts 1000000").server.max_restarts,
        1_000_000
    );
    assert_eq!(
        serve("--demo --max-sessions 1000000").max_sessions,
        Some(1_000_000)
    );
}

#[test]
fn one_bad_value_is_enough_even_if_a_good_one_follows() {
    assert_eq!(
        error("--port x --port 1 cat"),
        "--port: 'x' is not a port (0 to 65535)"
    );
}

#[test]
fn a_missing_value_is_noticed() {
    assert_eq!(error("--port"), "--port: its value is missing (see --help)");
    assert_eq!(
        error("--port -- cat"),
        "--port: its value is missing (see --help)"
    );
    let missing = "--port: its value is missing, '--debug' is an option (see --help)";
    assert_eq!(error("--port --debug cat"), missing);
    assert_eq!(error("--port=--debug cat"), missing);
    // The words "--port" and "80" must not become a port.
    assert!(error("--host --port 80").starts_with("--host: its value is missing"));
}

#[test]
fn a_flag_takes_no_value() {
    let expected = "--debug: takes no value, and '1' is one (leave out '=' and the value)";
    assert_eq!(error("--debug=1 cat"), expected);
    assert!(error("--help=").starts_with("--help: takes no value, and '' is one"));
}

#[test]
fn an_unknown_option_is_named() {
    for line in [
        "--bogus cat",
        "--bogus=3 cat",
        "--bogus 3 --debug",
        "--bogus",
    ] {
        let error = error(line);
        assert!(
            error.starts_with("--bogus: no such option (see --help; "),
            "{error}"
        );
        assert!(error.contains("'--'"), "{error}");
    }
    assert!(error("-p 80").starts_with("-p: no such option"));
    assert!(
        error("--por 80").starts_with("--por: no such option"),
        "no abbreviations"
    );
}

#[test]
fn where_to_listen() {
    let addresses = |line: &str| serve(&format!("--demo {line}")).addresses();
    assert_eq!(addresses(""), [tcp("0.0.0.0", 8080)]);
    assert_eq!(addresses("--host ::1"), [tcp("::1", 8080)]);
    assert_eq!(addresses("--port 9"), [tcp("0.0.0.0", 9)]);
    assert_eq!(
        addresses("--listen a:1 --listen=b:0"),
        [tcp("a", 1), tcp("b", 0)]
    );
    let both = [tcp("0.0.0.0", 9), tcp("a", 1)];
    assert_eq!(addresses("--listen a:1 --port 9"), both);
    assert_eq!(
        error("--demo --listen a:1 --listen 9000"),
        "--listen: '9000' is not an address to listen on (HOST:PORT, [::1]:9000 or unix:PATH)"
    );
}

#[test]
fn permissions_are_octal() {
    for (word, mode) in [("0600", 0o600), ("777", 0o777), ("0", 0)] {
        assert_eq!(serve(&format!("--demo --unix-mode {word}")).unix_mode, mode);
    }
    for bad in ["0800", "1777", "u=rw", "+600", ""] {
        let error = error_of(vec!["--demo".into(), format!("--unix-mode={bad}").into()]);
        let expected = format!("--unix-mode: '{bad}' is not a mode in octal (0 to 0777)");
        assert_eq!(error, expected);
    }
}

#[test]
fn hosts() {
    for (word, host) in [
        ("localhost", "localhost"),
        ("::", "::"),
        ("[::1]", "::1"),
        ("[fe80::1%eth0]", "fe80::1%eth0"),
        ("10.0.0.1", "10.0.0.1"),
    ] {
        let options = serve(&format!("--demo --host {word}"));
        assert_eq!(options.host.as_deref(), Some(host));
    }
    for bad in [
        "localhost:80",
        "[localhost]",
        "[::1",
        "[::1]:80",
        "[]",
        "[::1]]",
        ":",
    ] {
        let error = error(&format!("--demo --host {bad}"));
        let expected = format!("--host: '{bad}' is not a host name or an address (");
        assert!(error.starts_with(&expected), "{error}");
    }
    let empty = error_of(vec!["--demo".into(), "--host".into(), "".into()]);
    assert!(
        empty.starts_with("--host: '' is not a host name"),
        "{empty}"
    );
    assert_eq!(error("--demo --host="), empty);
    let spaced = error_of(vec!["--demo".into(), "--host=a b\n".into()]);
    assert!(
        spaced.starts_with(r"--host: 'a b\n' is not a host name"),
        "{spaced}"
    );
}

#[test]
fn quotes_are_not_ours_to_strip() {
    assert!(error("--port='80' cat").starts_with("--port: ''80'' is not a port"));
}

#[test]
fn words_that_are_not_utf8() {
    let odd = |prefix: &str| {
        let mut bytes = prefix.as_bytes().to_vec();
        bytes.push(0xff);
        OsStr::from_bytes(&bytes).to_owned()
    };
    let separate = error_of(vec!["--host".into(), odd(""), "cat".into()]);
    assert!(
        separate.starts_with("--host: '\u{fffd}' is not UTF-8"),
        "{separate}"
    );
    assert_eq!(
        error_of(vec![odd("--host="), "cat".into()]).replace("='", "'"),
        separate
    );
    assert!(error_of(vec![odd("--x")]).starts_with("--x\u{fffd}: no such option"));
    let Ok(Command::Serve { options, .. }) = parse(vec!["--debug".into(), odd("cat"), odd("-")])
    else {
        panic!("a command may be anything")
    };
    assert_eq!(
        options.server.command,
        ServerCommand::Program(vec![odd("cat"), odd("-")])
    );
}

#[test]
fn the_demo_or_a_command_and_exactly_one_of_them() {
    assert_eq!(
        error("--demo python3 x.py"),
        "--demo: takes the place of a command, and 'python3' starts one \
         (leave out one of the two)"
    );
    for line in ["", "--debug", "--port 80", "--"] {
        let error = error(line);
        assert!(error.starts_with("no command to serve"), "{error}");
        assert!(
            error.contains("COMMAND") && error.contains("--demo"),
            "{error}"
        );
    }
}

#[test]
fn help_and_version_win_over_what_is_wrong() {
    for line in [
        "--help",
        "-h",
        "--bogus --help",
        "--port --help",
        "--port x -h",
        "-h -V cat",
    ] {
        assert_eq!(parse(words(line)), Ok(help(Mode::Serve)), "{line}");
    }
    for line in [
        "--version",
        "-V",
        "--debug --version --help",
        "--demo -V cat",
    ] {
        assert_eq!(parse(words(line)), Ok(version()), "{line}");
    }
    assert_eq!(program(&serve("cat --help")), ["cat", "--help"]);
}

#[test]
fn subcommands() {
    assert_eq!(parse(words("demo-server")), Ok(Command::DemoServer));
    assert_eq!(parse(words("demo-server --help")), Ok(help(Mode::Serve)));
    let extra = error("demo-server --debug");
    assert!(
        extra.starts_with("demo-server: takes no arguments, and '--debug' is"),
        "{extra}"
    );
    assert_eq!(parse(words("connect --help")), Ok(help(Mode::Connect)));
    assert!(error("connect").starts_with("connect: the address is missing"));
}

#[test]
fn connect_has_options_of_its_own() {
    let options = connect("connect localhost:1");
    let seconds = Duration::from_secs;
    assert_eq!(
        options,
        ConnectOptions {
            address: tcp("localhost", 1),
            heartbeat_interval: seconds(30),
            reconnect: true,
            resume: true,
            reconnect_delay: seconds(2),
            max_reconnect_attempts: None,
            held_request_timeout: Some(seconds(60)),
            connect_timeout: seconds(10),
            replay: true,
            replay_timeout: seconds(30),
            max_message_bytes: 10 * 1024 * 1024,
            max_buffer_bytes: None,
            tidy: false,
            tls: false,
            tls_ca: None,
            tls_name: None,
            tls_cert: None,
            tls_key: None,
            token_file: None,
            server: None,
            insecure_token: false,
            traceable: false,
            log_level: LevelFilter::Warn,
            log_format: Format::Text,
        }
    );
    assert!(!connect("connect --no-replay [::1]:2").replay);
    let line = "connect --no-reconnect --max-reconnect-attempts=7 --connect-timeout 3 [::1]:2";
    let options = connect(line);
    assert_eq!(
        (options.reconnect, options.max_reconnect_attempts),
        (false, Some(7))
    );
    let endless = connect("connect --max-reconnect-attempts=0 [::1]:2");
    assert_eq!(endless.max_reconnect_attempts, None);
    let patient = connect("connect --held-request-timeout 0 [::1]:2");
    assert_eq!(patient.held_request_timeout, None);
    assert!(connect("connect --tidy [::1]:2").tidy);
    assert_eq!(
        (options.connect_timeout, options.address),
        (seconds(3), tcp("::1", 2))
    );
    assert!(error("connect --port 1 host").starts_with("--port: no such option"));
    assert!(error("--no-reconnect --demo").starts_with("--no-reconnect: no such option"));
}

#[test]
fn options_of_tls_need_each_other() {
    for (line, complaint) in [
        ("--demo --tls-cert c", "--tls-cert: needs --tls-key"),
        ("--demo --tls-key k", "--tls-key: needs --tls-cert"),
        (
            "--demo --tls-client-ca a",
            "--tls-client-ca: needs --tls-cert",
        ),
        (
            "--demo --tls-cert c --tls-key k --tls-crl r",
            "--tls-crl: needs --tls-client-ca",
        ),
        (
            "connect --tls --tls-cert c h:1",
            "--tls-cert: needs --tls-key",
        ),
        (
            "connect --tls-cert c --tls-key k h:1",
            "--tls-cert: needs --tls (or --tls-ca)",
        ),
        (
            "connect --tls-name n h:1",
            "--tls-name: needs --tls (or --tls-ca)",
        ),
        (
            "connect --tls-name a_b! --tls h:1",
            "--tls-name: 'a_b!' is not whom a certificate can be for (a host name or an address)",
        ),
    ] {
        assert_eq!(error(line), complaint, "{line}");
    }
    for line in ["connect --tls unix:/x", "connect --tls-ca a unix:/x"] {
        assert!(error(line).starts_with("--tls: a unix socket takes no TLS"));
    }
    let options = connect("connect --tls-ca a --tls-name n --tls-cert c --tls-key k h:1");
    assert!(options.wants_tls() && !options.tls);
    assert_eq!(options.tls_name.as_deref(), Some("n"));
    assert!(connect("connect --tls h:1").wants_tls() && !connect("connect h:1").wants_tls());
}

/// `connect` runs it; users need not know of it.
#[test]
fn resolve_is_a_subcommand_that_no_help_mentions() {
    let expected = Command::Resolve {
        host: "h.example".to_owned(),
        port: 80,
    };
    assert_eq!(parse(words("resolve h.example 80")), Ok(expected));
    for line in ["resolve", "resolve h", "resolve h x", "resolve h 80 x"] {
        let error = error(line);
        assert!(
            error.starts_with("resolve: takes a host and a port"),
            "{error}"
        );
        assert!(error.contains("mcp-tcp-proxy -- resolve"), "{error}");
    }
    assert_eq!(program(&serve("-- resolve h 80")), ["resolve", "h", "80"]);
    assert_eq!(
        program(&serve("--debug resolve h 80")),
        ["resolve", "h", "80"]
    );
    let shells = ["bash", "zsh", "fish"].map(|shell| format!("completions {shell}"));
    let asked = ["--help", "connect --help", "man-page"].map(str::to_owned);
    for line in asked.into_iter().chain(shells) {
        let Ok(Command::Print(text)) = parse(words(&line)) else {
            panic!("{line} prints nothing");
        };
        assert!(!text.contains("resolve"), "{line}");
    }
}

#[test]
fn options_of_connect_may_follow_the_address() {
    for line in [
        "connect --debug --connect-timeout 3 host:1",
        "connect host:1 --debug --connect-timeout 3",
        "connect --debug host:1 --connect-timeout=3",
        "connect host --debug 1 --connect-timeout 3",
        "connect --debug --connect-timeout 3 -- host:1",
        "connect host --debug --connect-timeout 3 -- 1",
    ] {
        let options = connect(line);
        assert_eq!(options.address, tcp("host", 1), "{line}");
        assert_eq!(options.log_level, LevelFilter::Debug, "{line}");
        assert_eq!(options.connect_timeout, Duration::from_secs(3), "{line}");
    }
    for line in ["connect host:1 --debug x", "connect host:1 -- x"] {
        let expected = "connect: takes one address, and 'x' is a word too many (";
        assert!(error(line).starts_with(expected), "{line}");
    }
    assert!(error("connect host 1 --debug x").starts_with("connect: takes one address, and 'x'"));
    assert_eq!(
        parse(words("connect host:1 --help")),
        Ok(help(Mode::Connect))
    );
    assert!(error("connect host:1 -- --debug").contains("'--debug' is a word too many"));
}

#[test]
fn connect_by_host_and_port_options_is_told_what_to_write() {
    for (line, given, instead) in [
        (
            "connect --port 9000",
            "--port: no such option",
            "localhost:9000",
        ),
        (
            "connect --port=9000",
            "--port: no such option",
            "localhost:9000",
        ),
        ("connect --host x", "--host: no such option", "x:8080"),
        (
            "connect --host x --port 9",
            "--host, --port: no such options",
            "x:9",
        ),
        (
            "connect --debug --port 9 --host ::1",
            "--host, --port: no such options",
            "[::1]:9",
        ),
        ("connect --port 9 x", "--port: no such option", "x:9"),
        (
            "connect x --connect-timeout 7 --port 9",
            "--port: no such option",
            "x:9",
        ),
        ("connect --host x 9", "--host: no such option", "x:9"),
        ("connect --port", "--port: no such option", "HOST:PORT"),
        ("connect --port x", "--port: no such option", "HOST:PORT"),
        (
            "connect --port 9 x:8",
            "--port: no such option",
            "HOST:PORT",
        ),
    ] {
        let expected = format!(
            "{given} of connect, which takes the address alone: mcp-tcp-proxy connect {instead}"
        );
        assert_eq!(error(line), expected, "{line}");
    }
    assert_eq!(
        parse(words("connect --port 9 --help")),
        Ok(help(Mode::Connect))
    );
}

#[test]
fn an_option_of_the_other_command_is_said_to_be_one() {
    let theirs = error("connect --max-sessions 3 host:1");
    assert!(
        theirs.starts_with("--max-sessions: no such option of connect; "),
        "{theirs}"
    );
    let theirs = error("--reconnect-delay 3 --demo");
    assert!(
        theirs.contains("mcp-tcp-proxy connect --reconnect-delay S HOST:PORT"),
        "{theirs}"
    );
}

#[test]
fn an_option_that_is_close_to_a_known_one_names_it() {
    for (line, meant) in [
        (
            "--prot 80 cat",
            "--prot: no such option, did you mean --port? (see --help; ",
        ),
        (
            "--max-restart=3 cat",
            "--max-restart: no such option, did you mean --max-restarts? (",
        ),
        (
            "connect --reconnect-dely 3 host",
            "--reconnect-dely: no such option, did you mean --reconnect-delay? (",
        ),
    ] {
        let error = error(line);
        assert!(error.starts_with(meant), "{error}");
    }
}

#[test]
fn a_subcommand_after_options_has_to_come_first() {
    assert_eq!(
        error("--debug connect host:1"),
        "connect: a subcommand has to be the first word (mcp-tcp-proxy connect --debug host:1; to serve a program \
         of that name: mcp-tcp-proxy --debug -- connect host:1)"
    );
    for name in ["bench", "demo-server", "completions", "man-page"] {
        let error = error(&format!("--port 0 {name}"));
        assert!(
            error.starts_with(&format!(
                "{name}: a subcommand has to be the first word (mcp-tcp-proxy {name} "
            )),
            "{error}"
        );
    }
    assert_eq!(
        program(&serve("--debug -- connect host:1")),
        ["connect", "host:1"]
    );
}

#[test]
fn words_that_look_like_subcommands_are_refused_with_a_pointer() {
    for line in [
        "help",
        "help connect",
        "serve python3 x.py",
        "--port 0 serve",
    ] {
        let error = error(line);
        let name = if line.contains("help") {
            "help"
        } else {
            "serve"
        };
        assert!(
            error.starts_with(&format!("{name}: not a subcommand")),
            "{error}"
        );
        assert!(
            error.contains("see mcp-tcp-proxy --help") || error.contains("see --help"),
            "{error}"
        );
        assert!(error.contains(&format!("-- {name}")), "{error}");
    }
    assert_eq!(program(&serve("-- help")), ["help"]);
    assert_eq!(program(&serve("-- serve x")), ["serve", "x"]);
    assert_eq!(program(&serve("./serve help")), ["./serve", "help"]);
}

#[test]
fn options_of_the_proxy_after_the_command_are_hinted_at() {
    let hint = |line: &str| match parse(words(line)) {
        Ok(Command::Serve { hint, .. }) => hint,
        other => panic!("{line:?} gives {other:?}"),
    };
    for (line, name) in [
        ("cat --port 9000", "--port"),
        ("cat --port=9000", "--port"),
        ("-- cat x --host y", "--host"),
        (
            "--host h cat --host y --no-auto-restart",
            "--no-auto-restart",
        ),
    ] {
        let expected = format!(
            "{name} after 'cat' is the server's, not the proxy's (options of the proxy go before the command)"
        );
        assert_eq!(hint(line), Some(expected), "{line}");
    }
    for line in [
        "cat",
        "--demo",
        "cat --debug --help --version -h -V",
        "cat port --portx --reconnect-delay",
        "--port 1 cat --port 2",
        "--port=1 cat --port 2",
        "-- --port 3",
    ] {
        assert_eq!(hint(line), None, "{line}");
    }
}

#[test]
fn completions_and_the_manual_page_are_printed() {
    for (line, part) in [
        ("completions bash", "complete -F"),
        ("completions zsh", "#compdef mcp-tcp-proxy"),
        ("completions fish", "complete -c mcp-tcp-proxy"),
        ("man-page", ".TH MCP"),
    ] {
        let Ok(Command::Print(text)) = parse(words(line)) else {
            panic!("{line}")
        };
        assert!(text.contains(part), "{line}");
    }
    assert_eq!(
        error("completions"),
        "completions: the shell is missing (bash, zsh or fish)"
    );
    assert_eq!(
        error("completions tcsh"),
        "completions: 'tcsh' is not a shell that is known here (bash, zsh or fish)"
    );
    assert!(error("completions bash zsh").starts_with("completions: takes no more than that"));
    assert!(error("man-page x").starts_with("man-page: takes no arguments, and 'x' is one"));
}

#[test]
fn the_help_names_every_option_and_fits_the_screen() {
    for mode in Mode::ALL {
        let help = help::text(mode);
        for flag in mode.flags() {
            for name in flag.short.into_iter().chain([flag.name]) {
                assert!(help.contains(&format!(" {name}")), "{name}");
            }
        }
        for line in help.lines() {
            assert!(line.is_ascii() && line.len() <= 100, "{line}");
            assert!(!line.ends_with(' ') && !line.contains('`'), "{line}");
        }
        assert!(help.ends_with('\n') && !help.ends_with("\n\n"));
    }
    assert!(VERSION.starts_with("mcp-tcp-proxy 0."));
}

#[test]
fn status_takes_an_address_or_none() {
    let asked = |line: &str| parse(words(line));
    let status = |address, watch| Ok(Command::Status { address, watch });
    assert_eq!(asked("status"), status(None, false));
    let there = Some(tcp("::1", 9180));
    assert_eq!(
        asked("status --watch [::1]:9180"),
        status(there.clone(), true)
    );
    assert_eq!(asked("status [::1]:9180 --watch"), status(there, true));
    let unix = Some(Address::Unix("/run/s".into()));
    assert_eq!(asked("status unix:/run/s"), status(unix, false));
    for (line, part) in [
        ("status nowhere", "'nowhere' is not an address"),
        ("status a:1 b:2", "'b:2' is a word too many"),
        ("status --all", "'--all' is not an option"),
    ] {
        let error = error(line);
        assert!(
            error.starts_with("status: ") && error.contains(part),
            "{error}"
        );
    }
    let variable = address_of_variable("NAME", OsStr::new("x")).unwrap_err();
    assert!(variable.to_string().starts_with("NAME: 'x' is not"));
}

#[test]
fn the_help_begins_with_all_that_the_program_can_be() {
    let help = help::text(Mode::Serve);
    let first: String = help.lines().take(16).collect();
    for subcommand in pages::SUBCOMMANDS {
        let usage = format!("mcp-tcp-proxy {}", subcommand.name);
        assert!(first.contains(&usage), "{usage}");
        for help in ["--help", "-h"] {
            let asked = parse(words(&format!("{} {help}", subcommand.name)));
            assert!(matches!(asked, Ok(Command::Print(_))), "{asked:?}");
        }
    }
}
