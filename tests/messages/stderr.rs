//! What the server writes to its stderr: tagged, cut, escaped, limited, and always taken.

use std::fs;

use crate::common::{Client, DEADLINE, Proxy, TempFolder, eventually, servers};
use crate::expect_nothing_before_marker;

/// How long a line may be in the log, in bytes.
const CUT_AT: usize = 3900;

#[test]
fn lines_are_tagged_with_session_and_pid() {
    let script = r#"echo "words $((40 + 2))" >&2; exec cat"#;
    let proxy = Proxy::start(&[], &servers::sh(script));
    for session in 1..=2 {
        let mut client = proxy.connect();
        expect_nothing_before_marker(&mut client);
        let server = proxy.only_server();
        let lines = proxy.wait_for_logs("words 42", session);
        let line = lines.last().unwrap();
        let tag = format!("[session {session} 127.0.0.1:");
        assert!(line.contains("INFO") && line.contains(&tag), "{line}");
        assert!(line.contains(&format!("pid {server}]")), "{line}");
        assert!(line.ends_with("words 42"), "{line}");
        client.close();
        proxy.wait_until_childless();
    }
}

#[test]
fn long_lines_are_cut() {
    let script = r#"fill() { head -c "$1" /dev/zero | tr '\0' "$2"; }
{ fill 3900 J; echo; fill 3901 Q; echo; fill 3000000 X; echo; echo "after $((40 + 2))"; } >&2
exec cat"#;
    let proxy = Proxy::start(&[], &servers::sh(script));
    let mut client = proxy.connect();
    expect_nothing_before_marker(&mut client);
    proxy.wait_for_log("after 42");
    let shown = |letter: &str| {
        let line = proxy.wait_for_log(&letter.repeat(100));
        let count = line.matches(letter).count();
        (count, line.ends_with(letter))
    };
    assert_eq!(shown("J"), (CUT_AT, true));
    for letter in ["Q", "X"] {
        assert_eq!(shown(letter), (CUT_AT, false));
        let line = proxy.wait_for_log(&letter.repeat(100));
        assert!(line.ends_with("… (cut at 3900 bytes)"), "{line}");
    }
}

#[test]
fn control_characters_are_escaped() {
    let script =
        r"printf 'a\033[31mb\007c\rd\177e\302\205f\000g\377h %d\n' $((40 + 2)) >&2; exec cat";
    let proxy = Proxy::start(&[], &servers::sh(script));
    let client = proxy.connect();
    let line = proxy.wait_for_log("h 42");
    assert!(!line.contains(char::is_control), "{line:?}");
    let shown = "a\\u{1b}[31mb\\u{7}c\\rd\\u{7f}e\\u{85}f\\u{0}g\u{fffd}h 42";
    assert!(line.ends_with(shown), "{line}");
    client.close();
}

/// A line that only looks like another one, or that says more than can be seen.
#[test]
fn invisible_and_reordering_characters_are_escaped() {
    let script = r"printf 'a\342\200\213b\342\200\256c\363\240\201\201d\357\273\277e\330\234f %d\n' $((40 + 2)) >&2; exec cat";
    let proxy = Proxy::start(&["--debug"], &servers::sh(script));
    let mut client = proxy.connect();
    let line = proxy.wait_for_log("f 42");
    let shown = r"a\u{200b}b\u{202e}c\u{e0041}d\u{feff}e\u{61c}f 42";
    assert!(line.ends_with(shown), "{line}");
    client.send_line("[\"a\u{200b}b\u{202e}c\u{e0041}d\"]");
    client.recv_line();
    let excerpt = proxy.wait_for_log("client → server");
    assert!(
        excerpt.ends_with(r#"["a\u{200b}b\u{202e}c\u{e0041}d"]"#),
        "{excerpt}"
    );
}

#[test]
fn an_unterminated_last_line_is_logged() {
    let script = r"printf 'last words %d' $((40 + 2)) >&2";
    let proxy = Proxy::start(&["--no-auto-restart"], &servers::sh(script));
    let mut client = proxy.connect();
    client.read_to_end();
    assert!(proxy.wait_for_log("last words 42").contains("INFO"));
}

#[test]
fn what_is_left_out_is_counted() {
    const LINES: u64 = 20_000;
    let script = format!(
        r#"awk 'BEGIN {{ for (i = 0; i < {LINES}; i++) print "noise", i + 1000000 }}' >&2"#
    );
    let proxy = Proxy::start(&["--no-auto-restart"], &servers::sh(&script));
    proxy.connect().read_to_end();
    proxy.wait_for_log("closed: ");
    let log = proxy.log();
    let is_logged = |line: &&String| line.contains("noise 1") && line.contains("INFO");
    let logged = log.iter().filter(is_logged).count() as u64;
    let left_out: u64 = log.iter().filter_map(|line| left_out(line)).sum();
    assert_eq!(logged + left_out, LINES);
    assert!(logged < LINES / 2, "{logged} lines were logged");
}

/// How many lines were left out, if that is what a log line says.
fn left_out(line: &str) -> Option<u64> {
    let (_, count) = line.split_once("left out of the log: ")?;
    count.split(' ').next()?.parse().ok()
}

/// Writes 150 lines and why it ends, all at once: after a while, the log would take a line again.
const TALKATIVE: &str = r#"awk 'BEGIN {
    for (i = 0; i < 150; i++) print "debug", i + 1000
    print "RuntimeError: " (40 + 2) " is the wrong password"
}' >&2"#;

#[test]
fn the_last_words_of_a_server_that_crashes_are_logged_however_much_it_said_before() {
    let script = format!("{TALKATIVE}\nread line; exit 3");
    let proxy = Proxy::start(&["--no-auto-restart"], &servers::sh(&script));
    let mut client = proxy.connect();
    client.send_line(r#"{"method":"go"}"#);
    client.read_to_end();
    let ended = proxy.wait_for_log("the server ended (exit code 3)");
    let log = proxy.log();
    let end = log.iter().position(|line| *line == ended).unwrap();
    let last = &log[end - 1];
    assert!(
        last.contains("WARN") && last.ends_with("stderr: RuntimeError: 42 is the wrong password"),
        "{log:#?}"
    );
    let shown = |number: u32| {
        let line = format!("stderr: debug {number}");
        log.iter().filter(|it| it.ends_with(&line)).count()
    };
    assert_eq!((shown(1000), shown(1149)), (1, 1), "{log:#?}");
}

#[test]
fn a_server_that_is_asked_to_end_has_no_last_words() {
    const ATTEMPTS: usize = 10;
    let script = format!("{TALKATIVE}\ncat");
    let has_gone_by_itself = || {
        let proxy = Proxy::start(&[], &servers::sh(&script));
        let mut client = proxy.connect();
        expect_nothing_before_marker(&mut client);
        client.shutdown_write();
        client.read_to_end();
        proxy.wait_for_log("closed: ");
        let mut warnings = proxy.log();
        warnings.retain(|line| line.contains("WARN"));
        // On a busy machine it may have had to be told to, which is a warning.
        if warnings.iter().any(|line| line.contains("SIGTERM")) {
            return false;
        }
        assert_eq!(warnings, [""; 0]);
        true
    };
    let has_gone_by_itself = (0..ATTEMPTS).any(|_| has_gone_by_itself());
    assert!(has_gone_by_itself, "in {ATTEMPTS} attempts");
}

#[test]
fn the_log_has_all_or_nothing_if_that_is_wanted() {
    let script = format!("{TALKATIVE}\nexit 3");
    for (option, expected) in [("all", 150), ("none", 0)] {
        let options = ["--no-auto-restart", "--server-log", option];
        let proxy = Proxy::start(&options, &servers::sh(&script));
        proxy.connect().read_to_end();
        proxy.wait_for_log("closed: ");
        let log = proxy.log();
        let count = log.iter().filter(|line| line.contains("debug 1")).count();
        assert_eq!(count, expected, "{log:#?}");
        let has_reason = log.iter().any(|line| line.contains("RuntimeError: 42"));
        assert_eq!(has_reason, expected > 0, "{log:#?}");
    }
}

#[test]
fn five_megabytes_do_not_hold_up_the_server() {
    let noise = r#"head -c 2500000 /dev/zero | tr '\0' x >&2
awk 'BEGIN { for (i = 0; i < 50000; i++) printf "noise %043d\n", i }' >&2"#;
    let proxy = Proxy::start(&[], &servers::echo_after(noise));
    let mut client = proxy.connect();
    let id = client.send_request("m", &serde_json::json!({}));
    client.answer_to(id);
}

#[test]
fn it_is_taken_also_while_the_client_takes_nothing() {
    let folder = TempFolder::new();
    let done = folder.path().join("done");
    let script = format!(
        r#"awk 'BEGIN {{ for (;;) printf "{{\"method\":\"flood\",\"params\":\"%0500d\"}}\n", 0 }}' &
read line
head -c 5000000 /dev/zero | tr '\0' '\n' >&2
echo done >"{}""#,
        done.display()
    );
    let proxy = Proxy::start(&["--no-auto-restart"], &servers::sh(&script));
    let mut client = Client::connect_with_receive_buffer(proxy.address(), 4096);
    // The flood has nothing to do but to write: when it sleeps, look after look, nobody takes what it writes.
    let mut asleep = 0;
    eventually("the flood to stand still", DEADLINE, || {
        let processes = proxy.descendants();
        let flood = processes
            .iter()
            .find(|process| process.name.contains("awk"));
        let sleeps = flood.is_some_and(|process| process.state == 'S');
        asleep = if sleeps { asleep + 1 } else { 0 };
        asleep == 50
    });
    client.send_line(r#"{"method":"go"}"#);
    eventually("all of stderr to be taken", DEADLINE, || {
        fs::read_to_string(&done).is_ok_and(|text| text == "done\n")
    });
    client.reset();
}
