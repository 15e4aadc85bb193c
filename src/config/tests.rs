//! What files say, and what is said of wrong ones.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::options::Value;
use crate::session::Spawn;
use crate::transport::address::Address;

fn variable(name: &str) -> Option<String> {
    (name == "HOME").then(|| "/home/ann".to_owned())
}

fn read_given(text: &str, given: &[&str]) -> Result<Configuration, Errors> {
    let words = given.iter().chain(&["--config", "x"]);
    let parsed = cli::parse(words.map(Into::into).collect());
    let Ok(cli::Command::Serve { given, .. }) = parsed else {
        panic!("{parsed:?}");
    };
    let reader = Reader {
        path: Path::new("/etc/mcp/servers.json"),
        given: &given,
        variable: &variable,
    };
    reader.read(text.as_bytes())
}

fn read(text: &str) -> Configuration {
    read_given(text, &[]).unwrap_or_else(|errors| panic!("{text}: {errors}"))
}

fn errors(text: &str) -> Vec<String> {
    let Err(Errors(errors)) = read_given(text, &[]) else {
        panic!("{text} is fine");
    };
    let file = "/etc/mcp/servers.json: ";
    let errors = errors.iter();
    errors
        .map(|error| error.strip_prefix(file).unwrap().to_owned())
        .collect()
}

/// A configuration with one server that has these keys, too.
fn server(keys: &str) -> String {
    format!(r#"{{"mcpServers":{{"a":{{"command":"cat"{keys}}}}}}}"#)
}

fn command(served: &Served) -> Vec<&str> {
    match &served.options.command {
        ServerCommand::Program(words) => words.iter().map(|word| word.to_str().unwrap()).collect(),
        ServerCommand::Demo => vec!["the demo"],
    }
}

fn value(served: &Served, name: &str) -> Option<Value> {
    let mut all = served.options.env.iter().rev();
    all.find(|variable| variable.name == name)
        .map(|variable| variable.value.clone())
}

fn given(text: &str) -> Value {
    Value::Given(text.into())
}

#[test]
fn the_example_of_the_readme() {
    let configuration = read(
        r#"{
          "listen": ["127.0.0.1:9000", "unix:/run/mcp.sock"],
          "tokenFile": "tokens",
          "mcpServers": {
            "time": { "command": "uvx", "args": ["mcp-server-time"], "env": {"TZ": "UTC"}, "cwd": "/srv",
                      "spawn": "lazy", "prespawn": 2, "idleTimeout": 300, "maxSessions": 100, "listen": ["127.0.0.1:9001"] },
            "git":  { "command": "mcp-server-git", "args": ["--repository", "/srv/repo"], "default": true }
          }
        }"#,
    );
    let tcp = |port| Address::Tcp {
        host: "127.0.0.1".to_owned(),
        port,
    };
    let options = &configuration.options;
    assert_eq!(
        options.addresses(),
        [tcp(9000), Address::Unix("/run/mcp.sock".into())]
    );
    assert_eq!(options.token_file, Some("/etc/mcp/tokens".into()));
    assert_eq!(options.max_sessions, None);
    let [time, git] = &configuration.servers[..] else {
        panic!("{:?}", configuration.servers);
    };
    assert_eq!(
        (command(time), time.is_default),
        (vec!["uvx", "mcp-server-time"], false)
    );
    assert_eq!(time.name.as_ref().unwrap().as_str(), "time");
    assert_eq!(time.options.listen, [tcp(9001)]);
    assert_eq!(
        (time.options.spawn, time.options.prespawn),
        (Spawn::Lazy, 2)
    );
    assert_eq!(time.options.idle_timeout, Some(Duration::from_mins(5)));
    assert_eq!(
        (time.options.max_sessions, &time.options.cwd),
        (Some(100), &Some("/srv".into()))
    );
    assert!(value(time, "TZ") == Some(given("UTC")));
    assert!(git.is_default);
    assert_eq!(
        command(git),
        ["mcp-server-git", "--repository", "/srv/repo"]
    );
    assert_eq!(
        git.options,
        ServerOptions {
            command: git.options.command.clone(),
            ..ServerOptions::default()
        }
    );
    assert_eq!(configuration.warnings, Vec::<String>::new());
}

#[test]
fn the_most_specific_counts() {
    let text = r#"{"idleTimeout": 1, "spawn": "lazy", "maxRestarts": 1, "replay": false, "stopTimeout": 1,
        "maxSessions": 7, "entranceTimeout": 2, "clearEnv": true,
        "mcpServers": {"a": {"command": "cat", "idleTimeout": 3, "replay": true, "clearEnv": false}, "b": {"command": "cat"}}}"#;
    let flags = [
        "--idle-timeout",
        "2",
        "--max-restarts",
        "2",
        "--stop-timeout",
        "9",
        "--max-sessions",
        "8",
    ];
    let configuration = read_given(text, &flags).unwrap();
    let [a, b] = [0, 1].map(|at| &configuration.servers[at].options);
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!((a.idle_timeout, b.idle_timeout), (seconds(3), seconds(2)));
    assert_eq!((a.max_restarts, b.max_restarts), (2, 2));
    assert_eq!((a.spawn, b.spawn), (Spawn::Lazy, Spawn::Lazy));
    assert_eq!(
        (a.replay, b.replay, a.clear_env, b.clear_env),
        (true, false, false, true)
    );
    let proxy = &configuration.options;
    assert_eq!(Some(proxy.stop_timeout), seconds(9));
    assert_eq!(Some(proxy.entrance_timeout), seconds(2));
    assert_eq!((proxy.max_sessions, a.max_sessions), (Some(8), None));
}

#[test]
fn variables_of_all_levels_come_together_and_the_most_specific_counts() {
    let text = r#"{"env": {"A": "top", "B": "top", "C": "top", "D": "top"}, "mcpServers": {"a": {"command": "cat",
        "env": {"B": 2, "C": null, "E": true, "F": "${HOME}/x", "G": "$${HOME}"}, "envFile": "x.env"}}}"#;
    let configuration =
        read_given(text, &["--env", "A=line", "--env", "B=line", "--env", "H"]).unwrap();
    let served = &configuration.servers[0];
    for (name, expected) in [
        ("A", Some(given("line"))),
        ("B", Some(given("2"))),
        ("C", Some(Value::Removed)),
        ("D", Some(given("top"))),
        ("E", Some(given("true"))),
        ("F", Some(given("/home/ann/x"))),
        ("G", Some(given("${HOME}"))),
        ("H", Some(Value::Inherited)),
        ("I", None),
    ] {
        assert!(value(served, name) == expected, "{name}");
    }
    assert_eq!(served.options.env_files, [Path::new("/etc/mcp/x.env")]);
}

#[test]
fn paths_are_relative_to_the_folder_of_the_file() {
    let text = server(r#","cwd":"${HOME}/srv""#);
    assert_eq!(
        read(&text).servers[0].options.cwd,
        Some("/home/ann/srv".into())
    );
    for (keys, program) in [
        (r#""command":"./x""#, "/etc/mcp/./x"),
        (r#""command":"bin/x","cwd":"/srv""#, "bin/x"),
        (r#""command":"x""#, "x"),
        (r#""command":"/bin/x""#, "/bin/x"),
        (r#""command":"${HOME}/x""#, "/home/ann/x"),
    ] {
        let configuration = read(&format!(r#"{{"mcpServers":{{"a":{{{keys}}}}}}}"#));
        let program = Path::new(program);
        assert_eq!(Path::new(command(&configuration.servers[0])[0]), program);
    }
    let text =
        r#"{"listen":"unix:s","tlsCert":"c","tlsKey":"/k","mcpServers":{"a":{"demo":true}}}"#;
    let configuration = read(text);
    let options = &configuration.options;
    assert_eq!(options.listen, [Address::Unix("/etc/mcp/s".into())]);
    assert_eq!(options.tls_cert, Some("/etc/mcp/c".into()));
    assert_eq!(options.tls_key, Some("/k".into()));
    assert_eq!(command(&configuration.servers[0]), ["the demo"]);
}

#[test]
fn a_block_can_be_pasted_from_any_host() {
    for container in CONTAINERS {
        let text = format!(
            r#"{{"$schema": "x", "inputs": [], "{container}": {{
                "a": {{"type": "stdio", "command": "cat", "timeout": 60, "alwaysAllow": [], "disabled": false}},
                "b": {{"url": "https://example.org/mcp", "headers": {{"x": "${{input:key}}"}}}},
                "c": {{"serverUrl": "https://example.org/mcp"}},
                "d": {{"command": "cat", "disabled": true}}}}}}"#
        );
        let configuration = read(&text);
        assert_eq!(configuration.servers.len(), 1);
        let warnings = configuration.warnings.join("\n");
        assert_eq!(configuration.warnings.len(), 3, "{warnings}");
        assert!(
            warnings.contains(&format!("$.{container}.b: it is skipped")),
            "{warnings}"
        );
        for key in [
            "\"$schema\"",
            "\"alwaysAllow\"",
            "\"inputs\"",
            "\"timeout\"",
            "\"type\"",
        ] {
            assert_eq!(warnings.matches(key).count(), 1, "{warnings}");
        }
    }
}

#[test]
fn a_variable_that_is_missing_keeps_one_server_from_being_started() {
    let text = r#"{"mcpServers":{"a":{"command":"cat","args":["${NONE}"]},"b":{"command":"cat"}}}"#;
    let configuration = read(text);
    let fault = configuration.servers[0].fault.as_ref().unwrap();
    assert!(
        fault.starts_with("$.mcpServers.a.args[0]: the proxy has no variable NONE"),
        "{fault}"
    );
    assert_eq!(configuration.servers[1].fault, None);
}

#[track_caller]
fn assert_told(mistakes: &[(&str, &str)]) {
    for (text, expected) in mistakes {
        let errors = errors(text);
        assert_eq!(errors.len(), 1, "{text}: {errors:?}");
        assert!(errors[0].starts_with(expected), "{text}: {errors:?}");
    }
}

#[test]
fn each_mistake_is_a_line_with_its_place() {
    assert_told(&[
        ("[]", "$: it is a list, and has to be an object"),
        ("{}", "$: it has no servers"),
        (r#"{"mcpServers":{}}"#, "$: no server is left"),
        (r#"{"mcpServers":[]}"#, "$.mcpServers: it is a list"),
        (
            r#"{"mcpServers":{"a":"cat"}}"#,
            "$.mcpServers.a: it is a string, and has to be an object",
        ),
        (
            r#"{"mcpServers":{"a":{"command":"cat"}},"servers":{}}"#,
            "$.servers: the servers stand elsewhere",
        ),
        (
            r#"{"mcpServers":{"a b":{"command":"cat"}}}"#,
            "$.mcpServers[\"a b\"]: it is not the name of a server",
        ),
        (
            r#"{"mcpServers":{"a":{"command":"cat"},"a":{"command":"cat"}}}"#,
            "$.mcpServers.a: it stands there twice",
        ),
        (
            r#"{"mcpServers":{"a":{"args":[]}}}"#,
            "$.mcpServers.a: it has no \"command\"",
        ),
        (
            r#"{"mcpServers":{"a":{"command":""}}}"#,
            "$.mcpServers.a.command: it is empty",
        ),
        (
            r#"{"mcpServers":{"a":{"command":["cat"]}}}"#,
            "$.mcpServers.a.command: it is a list, and has to be a string (what follows",
        ),
        (
            r#"{"mcpServer":{"a":{"command":"cat"}}}"#,
            "$.mcpServer: there is no such key, did you mean \"mcpServers\"?",
        ),
    ]);
}

#[test]
fn each_mistake_of_a_value_is_a_line_with_its_place() {
    assert_told(&[
        (
            &server(r#","args":"x""#),
            "$.mcpServers.a.args: it is a string, and has to be a list",
        ),
        (
            &server(r#","args":[1]"#),
            "$.mcpServers.a.args[0]: it is a number, and has to be a string (\"1\")",
        ),
        (
            &server(r#","args":["${input:x}"]"#),
            "$.mcpServers.a.args[0]: `${input:x}` asks the user",
        ),
        (
            &server(r#","args":["a\u0000b"]"#),
            "$.mcpServers.a.args[0]: it has a NUL",
        ),
        (
            &server(r#","env":{"A=":"x"}"#),
            "$.mcpServers.a.env[\"A=\"]: it is not the name of a variable",
        ),
        (
            &server(r#","env":{"A":{}}"#),
            "$.mcpServers.a.env.A: it is an object",
        ),
        (
            &server(r#","env":{"A":"x","A":"y"}"#),
            "$.mcpServers.a.env.A: it stands there twice",
        ),
        (
            &server(r#","idle_timeout":3"#),
            "$.mcpServers.a.idle_timeout: there is no such key, did you mean \"idleTimeout\"?",
        ),
        (
            &server(r#","bananas":3"#),
            "$.mcpServers.a.bananas: there is no such key (leave it out)",
        ),
        (
            &server(r#","idleTimeout":"3""#),
            "$.mcpServers.a.idleTimeout: it is a string, and has to be a number (without quotes)",
        ),
        (
            &server(r#","idleTimeout":-3"#),
            "$.mcpServers.a.idleTimeout: '-3' is not a number of seconds",
        ),
        (
            &server(r#","prespawn":1.5"#),
            "$.mcpServers.a.prespawn: '1.5' is not a whole number",
        ),
        (
            &server(r#","spawn":true"#),
            "$.mcpServers.a.spawn: it is true or false, and has to be a string",
        ),
        (
            &server(r#","listen":[1]"#),
            "$.mcpServers.a.listen[0]: it is a number",
        ),
        (
            &server(r#","listen":["x"]"#),
            "$.mcpServers.a.listen[0]: 'x' is not",
        ),
        (
            &server(r#","clearEnv":"yes""#),
            "$.mcpServers.a.clearEnv: it is a string, and has to be true or false",
        ),
        (
            &server(r#","user":"x""#),
            "$.mcpServers.a.user: it is for the proxy as a whole",
        ),
        (
            &server(r#","demo":true"#),
            "$.mcpServers.a.demo: it takes the place of a command",
        ),
        (
            &server(r#","clientEnv":true,"prespawn":1"#),
            "$.mcpServers.a: --client-env: ",
        ),
        (
            &server(r#","default":1"#),
            "$.mcpServers.a.default: it is a number, and has to be true or false",
        ),
    ]);
    assert!(errors(r#"{"tlsCert":"x","mcpServers":{"a":{"demo":true}}}"#)[0].contains("--tls-key"));
}

#[test]
fn all_mistakes_are_told_at_once_but_not_without_end() {
    let text = r#"{"spawn":"warm","banana":1,"mcpServers":{"a":{"args":[1,2]},"b":{"command":"cat","default":true},
        "c":{"command":"cat","default":true,"listen":"unix:/x"},"d":{"command":"cat","listen":"unix:/x"}}}"#;
    let errors = errors(text);
    for place in [
        "spawn",
        "banana",
        "mcpServers.a.args[0]",
        "mcpServers.a.args[1]",
        "mcpServers.a:",
        "mcpServers.c.default",
        "mcpServers.d.listen",
    ] {
        let place = format!("$.{place}");
        assert!(
            errors.iter().any(|error| error.starts_with(&place)),
            "{place}: {errors:?}"
        );
    }
    let many: Vec<String> = (0..1000).map(|number| format!("\"x{number}\":1")).collect();
    let many = super::tests::errors(&server(&format!(",{}", many.join(","))));
    assert_eq!(many.len(), 51);
    assert_eq!(many[50], "and 950 more");
}

#[test]
fn there_is_no_default_address() {
    let text = server("");
    assert_eq!(read(&text).options.addresses(), []);
    let with_port = read_given(&text, &["--port", "9000"]).unwrap();
    assert_eq!(with_port.options.addresses()[0].to_string(), "0.0.0.0:9000");
    let text =
        r#"{"mcpServers":{"a":{"command":"cat","listen":"127.0.0.1:1"},"b":{"command":"cat"}}}"#;
    let warnings = read(text).warnings;
    assert!(
        warnings[0].contains("$.mcpServers.b: nobody can reach it"),
        "{warnings:?}"
    );
}

fn json() -> impl Strategy<Value = String> {
    let keys = prop::sample::select(vec![
        "mcpServers",
        "servers",
        "listen",
        "command",
        "args",
        "env",
        "cwd",
        "a",
        "git",
        "default",
        "disabled",
        "spawn",
        "idleTimeout",
        "prespawn",
        "url",
        "demo",
        "envFile",
        "autoRestart",
        "maxSessions",
        "x\u{7}y",
    ]);
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i32>().prop_map(|number| number.to_string()),
        "[ -~]{0,8}".prop_map(|text| format!("{text:?}")),
        prop::sample::select(vec![
            "\"cat\"",
            "\"${HOME}\"",
            "\"${\"",
            "\"lazy\"",
            "\"unix:x\"",
            "\"\\u0000\""
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let entry =
            (keys.clone(), inner.clone()).prop_map(|(key, value)| format!("{key:?}:{value}"));
        let object =
            prop::collection::vec(entry, 0..6).prop_map(|all| format!("{{{}}}", all.join(",")));
        let list =
            prop::collection::vec(inner, 0..4).prop_map(|all| format!("[{}]", all.join(",")));
        prop_oneof![3 => object, 1 => list]
    })
}

proptest! {
    /// Whatever stands in a file, it is either fine or each of its mistakes is one line that begins with the file's name.
    #[test]
    fn whatever_a_file_says_is_served_or_explained(text in json(), cut in any::<prop::sample::Index>()) {
        for text in [&text[..], text.get(..cut.index(text.len() + 1)).unwrap_or("{")] {
            match read_given(text, &[]) {
                Ok(configuration) => prop_assert!(!configuration.servers.is_empty()),
                Err(Errors(errors)) => {
                    prop_assert!(!errors.is_empty());
                    for error in errors {
                        prop_assert!(error.starts_with("/etc/mcp/servers.json: "), "{}", error);
                        prop_assert!(!error.contains(char::is_control), "{:?}", error);
                    }
                }
            }
        }
    }
}
