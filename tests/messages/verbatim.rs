//! Client to server and back: which lines are forwarded, that their bytes are the same, and which lines are refused.

use serde_json::Value;

use crate::common::{Client, Proxy, servers};
use crate::{expect_nothing_before_marker, expect_own_error};

/// Lines that have to arrive as they are.
const ODD_LINES: &[&str] = &[
    "{}",
    "[]",
    r#" { "jsonrpc" :"2.0" ,	"method": "spaced"  } "#,
    r#"{"params":{"z":1,"a":[3,2,1]},"method":"order","jsonrpc":"2.0"}"#,
    r#"{"method":"numbers","params":[1.50,1.0,-0,-0.0,1e5,1E+05,0.1e-7,123456789012345678901234567890,1e400,-1e999]}"#,
    r#"{"method":"escapes","params":["\u0041\u00e9\/\b\f\n\r\t\"\\","A\u0000B","\ud83e\udd80"]}"#,
    r#"{"method":"not escaped","params":["é","🦀","  ","/",""]}"#,
    r#"{"method":"python","params":[NaN,Infinity,-Infinity,{"a":NaN}]}"#,
    r#"{"method":"python in a string","params":["NaN","-Infinity \"NaN","\\"],"x":NaN}"#,
    r#"{"method":"twice","method":"thrice","params":1,"params":2}"#,
    r#"{"method":"surrogates","params":["\ud800","\udc00\ud800","\uDBFF x"]}"#,
    r#"{"\ud800":1,"method":"a surrogate in a key"}"#,
    r#"{"m\u0065thod":"an escaped key"}"#,
    r#"{"":"","method":""}"#,
    r#"{"method":5,"id":[]}"#,
    r#"{"id":null,"method":"null id"}"#,
    r#"{"jsonrpc":"1.0","neither":"request","nor":"answer"}"#,
    r#"{"jsonrpc":"2.0","id":77,"result":{"to":"nobody's request"}}"#,
    r#"{"jsonrpc":"2.0","id":"x","error":{"code":-1,"message":"m"}}"#,
    r#"[1,"two",null,[],{}]"#,
    r#"[{"jsonrpc":"2.0","method":"a"},{"jsonrpc":"2.0","method":"b"}]"#,
    "[ [ [ NaN ] ] ]",
    "[\t{\"method\" : \"m\"}\t, 1.50 ]\t",
];

#[test]
fn odd_lines_come_back_as_they_went() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    for line in ODD_LINES {
        client.send_line(line);
        assert_eq!(client.recv_line(), *line);
    }
    client.reset();
}

#[test]
fn a_byte_order_mark_at_the_beginning_is_dropped() {
    let proxy = Proxy::start(&[], &servers::mirror());
    for pieces in [
        &[&b"\xef\xbb\xbf{\"method\":\"a\"}\n"[..]][..],
        &[b"\xef", b"\xbb", b"\xbf", b"{\"method\":\"a\"}\n"],
    ] {
        let mut client = proxy.connect();
        for piece in pieces {
            client.send_raw(piece);
        }
        assert_eq!(client.recv_line(), r#"{"method":"a"}"#);
        client.reset();
    }
}

#[test]
fn odd_lines_in_one_piece_come_back_in_order() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    client.send_raw((ODD_LINES.join("\n") + "\n").as_bytes());
    for line in ODD_LINES {
        assert_eq!(client.recv_line(), *line);
    }
    client.reset();
}

#[test]
fn odd_lines_byte_by_byte_come_back_in_order() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    for byte in (ODD_LINES.join("\n") + "\n").bytes() {
        client.send_raw(&[byte]);
    }
    for line in ODD_LINES {
        assert_eq!(client.recv_line(), *line);
    }
    client.reset();
}

/// Starts a session with a server that takes so many bytes and says what they were.
fn with_recorder(bytes: usize) -> (Proxy, Client) {
    let script = format!(
        r#"printf '"%s"\n' "$(head -c {bytes} | od -A n -v -t x1 | tr -d ' \n')" | sed 's/.*/{{"got":&}}/'; cat"#
    );
    let proxy = Proxy::start(&[], &servers::sh(&script));
    let client = proxy.connect();
    (proxy, client)
}

#[track_caller]
fn assert_server_gets(sent: &[u8], expected: &[u8]) {
    let (_proxy, mut client) = with_recorder(expected.len());
    client.send_raw(sent);
    let hex = expected.iter().map(|byte| format!("{byte:02x}"));
    assert_eq!(
        client.recv_json()["got"],
        hex.collect::<String>(),
        "{:?}",
        String::from_utf8_lossy(sent)
    );
    // Nothing but that has reached the server.
    expect_nothing_before_marker(&mut client);
}

#[test]
fn a_line_reaches_the_server_with_one_line_feed() {
    assert_server_gets(b"{\"a\": 1.50}\n", b"{\"a\": 1.50}\n");
}

#[test]
fn one_carriage_return_before_the_line_feed_is_dropped() {
    assert_server_gets(b"{\"a\":1}\r\n[2]\r\n{ }\r\r\n", b"{\"a\":1}\n[2]\n{ }\r\n");
}

#[test]
fn a_carriage_return_inside_a_line_stays() {
    assert_server_gets(b"{\r\"a\"\r:1}\n", b"{\r\"a\"\r:1}\n");
}

#[test]
fn an_unterminated_last_line_is_a_line() {
    let (_proxy, mut client) = with_recorder(b"{\"a\":1}\n".len());
    client.send_raw(b"{\"a\":1}");
    client.shutdown_write();
    assert_eq!(client.recv_json()["got"], "7b2261223a317d0a");
}

#[test]
fn the_order_of_lines_of_every_kind_is_kept() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    let counted = |number: u32| format!(r#"{{"method":"count","params":{number}}}"#);
    let mut sent = String::new();
    for number in 0..2_000 {
        sent += &counted(number);
        sent += "\r\n \n";
        sent += "{\"type\":\"heartbeat\"}\n";
    }
    let mut writer = client.writer();
    let sender = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, sent.as_bytes()).unwrap();
    });
    for number in 0..2_000 {
        assert_eq!(client.recv_line(), counted(number));
    }
    sender.join().unwrap();
}

#[test]
fn deep_nesting_passes() {
    const DEPTH: usize = 100_000;
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    let deep = "[".repeat(DEPTH) + &"]".repeat(DEPTH);
    let objects = r#"{"a":"#.repeat(DEPTH) + "1" + &"}".repeat(DEPTH);
    let lines = [
        format!(r#"{{"method":"deep","params":{deep}}}"#),
        format!(r#"{{"id":1,"result":{objects}}}"#),
        format!(r#"{{"method":"deep","other":{objects},"params":[NaN]}}"#),
        deep.clone(),
        objects,
        format!("[{deep},{{\"method\":\"m\",\"params\":{deep}}}]"),
    ];
    for line in &lines {
        client.send_line(line);
        assert!(client.recv_line() == *line, "{}…", &line[..40]);
    }
    client.reset();
}

#[test]
fn a_deeply_nested_id_is_answered() {
    let proxy = Proxy::start(&["--no-auto-restart"], &servers::sh("read line; exit 3"));
    let mut client = proxy.connect();
    let id = "[".repeat(500) + &"]".repeat(500);
    client.send_line(&format!(r#"{{"id":{id},"method":"m"}}"#));
    let answer = client.recv_line();
    assert!(answer.contains(&id) && answer.contains("502"), "{answer}");
}

#[test]
fn blank_lines_are_nothing() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    client.send_raw(b"\n\r\n \n\t\n  \t \r\n\r\r\n\n");
    expect_nothing_before_marker(&mut client);
}

/// Lines that are refused with -32700.
const BAD_LINES: &[&[u8]] = &[
    b"no JSON",
    b"{",
    b"}",
    b"{\"cut\": ",
    b"{\"cut\": \"",
    b"{\"a\":1}{\"b\":2}",
    b"{\"a\":1} x",
    b"{a:1}",
    b"{'a':1}",
    b"{\"a\":01}",
    b"{\"a\":1.}",
    b"{\"a\":+1}",
    b"{\"a\":.5}",
    b"{\"a\":1,}",
    b"[1,]",
    b"[1 2]",
    b"[",
    b"{\"a\":nan}",
    b"{\"a\":infinity}",
    b"{\"a\":+Infinity}",
    b"{\"a\":-NaN}",
    b"{NaN:1}",
    b"{\"a\":NaNs}",
    b"{\"a\":tru}",
    b"{\"a\":\"\\x\"}",
    b"{\"a\":\"\\u12\"}",
    b"{\"a\":\"a raw tab\t\"}",
    b"{\"a\":\"a raw nul\0\"}",
    b"{\"a\":1}\0",
    b"\0",
    b"\0{\"a\":1}",
    // A byte order mark that is not at the beginning of the stream.
    b"\xef\xbb\xbf{\"a\":1}",
    // Not UTF-8: a stray byte, Latin-1, an encoded surrogate, an overlong form, beyond the last character, cut.
    b"\xff",
    b"{\"a\":\"\xff\"}",
    b"{\"a\":\"caf\xe9\"}",
    b"{\"a\":\"\xed\xa0\x80\"}",
    b"{\"a\":\"\xc0\xaf\"}",
    b"{\"a\":\"\xf4\x90\x80\x80\"}",
    b"{\"a\":\"\xe2\x82\"}",
    // Blanks of Unicode are none of JSON's.
    "\u{a0}{\"a\":1}".as_bytes(),
    "\u{2028}[]".as_bytes(),
    // Bare scalars.
    b"42",
    b"-1.5e3",
    b"null",
    b"true",
    b"\"text\"",
    b" \"blanks around\" ",
    b"NaN",
    b"-Infinity",
    // Other line starts that people send to a port.
    b"GET / HTTP/1.1",
    b"Content-Length: 17",
];

#[test]
fn what_is_no_message_is_refused_and_the_session_goes_on() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    for line in BAD_LINES {
        client.send_raw(line);
        client.send_raw(b"\n");
        let error = client.recv_json();
        let shown = String::from_utf8_lossy(line);
        assert_eq!(error["error"]["code"], -32700, "{shown:?} gives {error}");
        crate::assert_own_error(&error, &Value::Null, -32700, "parse_error");
        expect_nothing_before_marker(&mut client);
    }
}

#[test]
fn bad_lines_in_one_piece_are_all_refused() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    client.send_raw(&[&BAD_LINES.join(&b'\n')[..], b"\n"].concat());
    for _ in BAD_LINES {
        expect_own_error(&mut client, &Value::Null, -32700, "parse_error");
    }
    expect_nothing_before_marker(&mut client);
}

#[test]
fn the_id_of_a_line_that_is_no_json_is_not_guessed() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    client.send_line(r#"{"jsonrpc":"2.0","id":7,"method":"m","params":{]}"#);
    expect_own_error(&mut client, &Value::Null, -32700, "parse_error");
}

#[test]
fn an_unterminated_bad_last_line_is_refused() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    client.send_raw(b"{\"cut");
    client.shutdown_write();
    expect_own_error(&mut client, &Value::Null, -32700, "parse_error");
    assert!(client.read_to_end().is_empty());
}
