//! Large messages, many of them, and clients that send without reading: nothing is lost, and memory is bounded.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::thread;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, send};
use serde_json::{Value, json};

use crate::common::{Client, Proxy, processes, servers, skip_on_reference};
use crate::{assert_own_error, expect_nothing_before_marker, notification_of};

/// Nine million bytes in which every stretch is different, so that none can be lost, doubled or moved unnoticed.
fn nine_megabytes() -> String {
    let mut text = String::with_capacity(9_000_100);
    text.push_str(r#"{"jsonrpc":"2.0","method":"large","params":["#);
    let mut number = 0_u64;
    while text.len() < 9_000_000 {
        write!(text, "\"{number:x} \\u00e9é\",{number}.50,").unwrap();
        number += 1;
    }
    text.push_str("null]}");
    text
}

#[test]
fn nine_megabytes_arrive_byte_for_byte_both_ways() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    let line = nine_megabytes();
    let mut writer = client.writer();
    let sent = format!("{line}\n");
    let sender = thread::spawn(move || writer.write_all(sent.as_bytes()).unwrap());
    assert!(client.recv_line() == line, "it was changed on its way");
    sender.join().unwrap();
    expect_nothing_before_marker(&mut client);
}

#[test]
fn the_server_gets_nine_megabytes_byte_for_byte() {
    let line = nine_megabytes();
    let bytes = line.len() + 1;
    let script = format!(
        r#"printf '"%s"\n' "$(head -c {bytes} | cksum)" | sed 's/.*/{{"got":&}}/'; exec cat"#
    );
    let proxy = Proxy::start(&[], &servers::sh(&script));
    let mut client = proxy.connect();
    client.send_line(&line);
    let got = client.recv_json()["got"].as_str().unwrap().to_owned();
    assert_eq!(
        got,
        format!("{} {bytes}", cksum(format!("{line}\n").as_bytes()))
    );
}

/// Long lines would take a change of processes for every 64 KiB. `mirror` is one process.
#[test]
fn a_server_of_long_lines_gets_wider_pipes() {
    skip_on_reference!("leaves pipes as they are");
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    let line = nine_megabytes();
    let server = proxy.only_server();
    let mut pass = || {
        client.send_line(&notification_of(1000));
        client.recv_line();
    };
    // Then it has its pipes.
    pass();
    let rooms = || [0, 1].map(|number| pipe_room(server, number));
    let usual = rooms();
    pass();
    assert_eq!(rooms(), usual, "no cause was given");
    let mut writer = client.writer();
    let sent = format!("{line}\n");
    let sender = thread::spawn(move || writer.write_all(sent.as_bytes()).unwrap());
    client.recv_line();
    sender.join().unwrap();
    let wide = rooms();
    assert!(
        wide[0] > usual[0] && wide[1] > usual[1],
        "{usual:?} {wide:?}"
    );
}

/// What a pipe of a process holds, in bytes.
fn pipe_room(pid: i32, number: i32) -> i32 {
    // Opened for both, as that does not wait for the other side (fifo(7)).
    let pipe = OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/fd/{number}"))
        .unwrap();
    fcntl(&pipe, FcntlArg::F_GETPIPE_SZ).unwrap()
}

/// The checksum of cksum(1): the CRC of POSIX, of the bytes and then of their number.
fn cksum(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x04c1_1db7;
    let table: Vec<u32> = (0..256_u32)
        .map(|byte| {
            (0..8).fold(byte << 24, |crc, _| {
                (crc << 1) ^ if crc >> 31 == 1 { POLYNOMIAL } else { 0 }
            })
        })
        .collect();
    let step = |crc: u32, byte: u8| (crc << 8) ^ table[usize::from((crc >> 24) as u8 ^ byte)];
    let crc = bytes.iter().fold(0, |crc, byte| step(crc, *byte));
    let length = (bytes.len() as u64).to_le_bytes();
    let significant = length
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    !length[..significant]
        .iter()
        .fold(crc, |crc, byte| step(crc, *byte))
}

#[test]
fn a_client_that_writes_all_before_it_reads_gets_all_answers_in_order() {
    const MESSAGES: u64 = 60;
    let proxy = Proxy::start(&[], &servers::demo());
    let mut client = proxy.connect();
    client.initialize();
    let text = "0123456789abcdef".repeat(65_536);
    let ids: Vec<u64> = (0..MESSAGES)
        .map(|_| {
            let arguments = json!({"name": "echo", "arguments": {"text": text}});
            client.send_request("tools/call", &arguments)
        })
        .collect();
    for id in ids {
        let answer = client.recv_json();
        assert_eq!(answer["id"], id);
        let content = &answer["result"]["content"][0]["text"];
        assert!(content == text.as_str(), "the text was changed on its way");
    }
}

#[test]
fn lines_sent_in_one_piece_arrive_one_by_one() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    let lines: Vec<String> = (100..2_100).map(notification_of).collect();
    let mut writer = client.writer();
    let sent = lines.join("\n") + "\n";
    let sender = thread::spawn(move || writer.write_all(sent.as_bytes()).unwrap());
    for line in &lines {
        assert_eq!(client.recv_line(), *line);
    }
    sender.join().unwrap();
}

#[test]
fn a_client_that_floods_and_does_not_read_costs_no_memory_and_loses_nothing() {
    const LINES: usize = 200_000;
    /// Less than a tenth of what the errors come to.
    const GROWTH_KIB: u64 = 3 * 1024;
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut other = proxy.connect();
    expect_nothing_before_marker(&mut other);
    let mut client = Client::connect_with_receive_buffer(proxy.address(), 4096);
    expect_nothing_before_marker(&mut client);
    let before = processes::rss_kib(proxy.pid());
    let mut writer = client.writer();
    let sender = thread::spawn(move || writer.write_all(&b"x\n".repeat(LINES)).unwrap());
    let mut peak = 0;
    for _ in 0..200 {
        expect_nothing_before_marker(&mut other);
        peak = peak.max(processes::rss_kib(proxy.pid()));
    }
    for number in 0..LINES {
        let error: Value = client.recv_json();
        assert_own_error(&error, &Value::Null, -32700, "parse_error");
        if number % 1_000 == 0 {
            expect_nothing_before_marker(&mut other);
            peak = peak.max(processes::rss_kib(proxy.pid()));
        }
    }
    sender.join().unwrap();
    expect_nothing_before_marker(&mut client);
    assert!(
        peak < before + GROWTH_KIB,
        "it grew from {before} KiB to {peak} KiB"
    );
}

#[test]
fn the_ids_of_a_server_s_requests_cost_no_memory() {
    const LINES: usize = 60;
    // The ids of open requests are remembered, but not if they are a megabyte each.
    let script = format!(
        r#"id=$(head -c 1000000 /dev/zero | tr '\0' x)
for i in $(awk 'BEGIN {{ for (i = 0; i < {LINES}; i++) print i }}'); do
    printf '{{"jsonrpc":"2.0","method":"ping","id":"%s%s"}}\n' "$id" "$i"
done
exec cat"#
    );
    let proxy = Proxy::start(&[], &servers::sh(&script));
    let before = processes::rss_kib(proxy.pid());
    let mut client = proxy.connect();
    for number in 0..LINES {
        let line = client.recv_line();
        assert!(line.ends_with(&format!("x{number}\"}}")), "not verbatim");
    }
    expect_nothing_before_marker(&mut client);
    let after = processes::rss_kib(proxy.pid());
    assert!(
        after < before + 20 * 1024,
        "it grew from {before} KiB to {after} KiB"
    );
}

#[test]
fn lines_behind_urgent_data_are_read() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    for round in 0..3 {
        let line = |part: u32| format!(r#"{{"round":{round},"part":{part}}}"#);
        // All of it is there when the proxy looks, so that there is one event for it.
        proxy.signal(Signal::SIGSTOP);
        processes::wait_until_stopped(proxy.pid());
        let second = line(2);
        let (start, end) = second.split_at(8);
        client.send_raw(format!("{}\n{start}", line(1)).as_bytes());
        // It is no part of the stream (tcp(7), SO_OOBINLINE).
        let sent = send(client.writer().as_raw_fd(), b"!", MsgFlags::MSG_OOB);
        assert_eq!(sent, Ok(1));
        client.send_raw(format!("{end}\n{}\n", line(3)).as_bytes());
        proxy.signal(Signal::SIGCONT);
        for part in 1..=3 {
            assert_eq!(client.recv_line(), line(part));
        }
    }
}
