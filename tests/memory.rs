//! Memory that was needed for a load is given back when it is over, and what that takes is not the servers' business.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread;

use common::{Footprint, Proxy};

/// Enough to tell what each message costs from what the first ones cost.
const MUCH_MB: usize = 15;

/// On a busy machine, what was not used for a while is given back in the middle of it; but not each time.
const ROUNDS: usize = 3;

/// It says what it is told.
fn echo() -> Vec<String> {
    vec!["cat".to_owned()]
}

fn line(bytes: usize) -> Vec<u8> {
    let text = "x".repeat(bytes);
    format!("{{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"params\":\"{text}\"}}\n").into_bytes()
}

/// Has the server say something back, and reads it.
fn exchange(stream: &TcpStream, line: &[u8]) {
    let (mut writer, mut reader) = (stream, stream);
    thread::scope(|scope| {
        scope.spawn(move || writer.write_all(line).unwrap());
        let mut back = vec![0; line.len()];
        reader.read_exact(&mut back).unwrap();
        assert!(back == line);
    });
}

/// How often a process has touched memory that it did not have.
fn page_faults(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // After the name, which is in parentheses, the eighth (proc_pid_stat(5)).
    let (_, figures) = stat.rsplit_once(") ").unwrap();
    figures.split(' ').nth(7).unwrap().parse().unwrap()
}

/// The variables that a process was started with.
fn variables(pid: i32) -> BTreeMap<String, String> {
    let all = fs::read(format!("/proc/{pid}/environ")).unwrap();
    String::from_utf8_lossy(&all)
        .split_terminator('\0')
        .filter_map(|variable| variable.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn start(configure: impl FnOnce(&mut Command)) -> Proxy {
    Proxy::start_configured(&[], &echo(), |command| {
        command.env_remove("GLIBC_TUNABLES");
        configure(command);
    })
}

/// A connection whose server runs its own program by now.
fn served(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    exchange(&stream, &line(1));
    stream
}

#[test]
fn the_memory_of_long_messages_is_given_back_while_their_sessions_are_idle() {
    common::skip_on_reference!("is another program");
    let proxy = start(|_| {});
    let address: SocketAddr = proxy.address();
    let streams: Vec<TcpStream> = (0..24)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    for stream in &streams {
        exchange(stream, &line(100));
    }
    let before = Footprint::of(proxy.pid());
    for round in 0..3 {
        thread::scope(|scope| {
            for (number, stream) in streams.iter().enumerate() {
                // From 0.1 to 9 MB, in another order each time.
                let size = 100_000 + 8_900_000 / 24 * ((number * 7 + round * 5) % 24);
                scope.spawn(move || exchange(stream, &line(size)));
            }
        });
    }
    before.wait_until_restored();
    drop(streams);
}

/// A page fault costs a fraction of a microsecond, and a message of 100 KB has 25 pages, twice.
#[test]
fn a_flow_of_long_messages_goes_through_the_same_memory_again_and_again() {
    common::skip_on_reference!("is another program");
    let proxy = start(|_| {});
    let stream = TcpStream::connect(proxy.address()).unwrap();
    for size in [50_000, 100_000, 300_000] {
        let message = line(size);
        let some = message.repeat(1_000_000 / message.len());
        let much = message.repeat(MUCH_MB * 1_000_000 / message.len());
        exchange(&stream, &some);
        let faults = || {
            let before = page_faults(proxy.pid());
            exchange(&stream, &much);
            (page_faults(proxy.pid()) - before) / MUCH_MB as u64
        };
        let faults = (0..ROUNDS).map(|_| faults()).min().unwrap();
        assert!(
            faults < 20,
            "messages of {size} bytes: {faults} for each MB"
        );
    }
}

#[test]
fn servers_get_the_environment_of_the_proxy_as_it_was() {
    common::skip_on_reference!("is another program");
    let proxy = start(|command| {
        command.env("A_VARIABLE", "of mine");
    });
    let _client = served(&proxy);
    let given = variables(proxy.pid());
    let mut passed = variables(proxy.only_server());
    assert_eq!(passed["A_VARIABLE"], "of mine");
    let hidden: Vec<String> = given
        .into_iter()
        .filter(|(name, value)| passed.remove(name).as_ref() != Some(value))
        .map(|(name, _)| name)
        .collect();
    // Besides that, they are told of their client, which is tested elsewhere.
    passed.retain(|name, _| name != "PROTO" && name != "MCP_SESSION" && !name.starts_with("TCP"));
    assert!(passed.is_empty(), "{passed:?}");
    let expected = [
        "MALLOC_MMAP_THRESHOLD_",
        "MALLOC_TRIM_THRESHOLD_",
        "MCP_TCP_PROXY_SET_MALLOC_IN",
    ];
    assert_eq!(hidden, expected);
}

#[test]
fn thresholds_that_a_user_sets_are_kept_and_are_for_servers_too() {
    common::skip_on_reference!("is another program");
    let proxy = start(|command| {
        command.env("MALLOC_TRIM_THRESHOLD_", "77777");
    });
    let _client = served(&proxy);
    for pid in [proxy.pid(), proxy.only_server()] {
        let variables = variables(pid);
        assert_eq!(variables["MALLOC_TRIM_THRESHOLD_"], "77777");
        assert!(!variables.contains_key("MALLOC_MMAP_THRESHOLD_"));
    }
}
