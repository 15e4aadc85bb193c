//! What is changed on a line, and that nothing else is.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{SUBSCRIPTION, VERSION, World, limits, request};
use crate::share::ProcessKey;

/// What a process and a client get.
fn pass(world: &mut World, request: &str, response: impl Fn(u64) -> String) -> (String, String) {
    let seat = world.seat(1);
    world.client_text(seat, request);
    let process = (0..2)
        .map(ProcessKey)
        .find(|process| !world.share.to_process(*process).is_empty())
        .expect("the request is sent");
    let line = world.share.to_process(process).to_vec();
    let line = String::from_utf8(line).unwrap();
    let number = world.get(process)[0]["id"].as_u64().unwrap();
    world.server_text(process, &response(number));
    let got = String::from_utf8(world.read_bytes(seat)).unwrap();
    world.leave(seat);
    (line, got)
}

#[test]
fn only_what_must_be_is_changed() {
    let mut world = World::new(limits());
    let (sent, got) = pass(
        &mut world,
        r#" { "params" : {"x": 1.0e2,"_meta":{ "io.modelcontextprotocol/logLevel" : "debug" , "io.modelcontextprotocol/protocolVersion":"v","progressToken": "t\u00e9"}, "é":"\ud83d\ude00" } ,"id" : "\u0041" , "method":"tools\/call" }"#,
        |number| {
            format!(r#"{{ "result":{{"id":{number}, "x":[ NaN ,"\ud800"]}} ,"id": "{number}" }} "#)
        },
    );
    let number = world.share.last_number;
    assert_eq!(
        sent,
        format!(
            r#" {{ "params" : {{"x": 1.0e2,"_meta":{{  "io.modelcontextprotocol/protocolVersion":"v","progressToken": {number}}}, "é":"\ud83d\ude00" }} ,"id" : {number} , "method":"tools\/call" }}"#
        ) + "\n"
    );
    assert_eq!(
        got,
        format!(r#"{{ "result":{{"id":{number}, "x":[ NaN ,"\ud800"]}} ,"id": "\u0041" }} "#)
            + "\n"
    );
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("1.50".to_owned()),
        Just(r#"{"id":7,"params":{"_meta":{}}}"#.to_owned()),
        Just(r#"[ {"progressToken":1} , "é\n" ]"#.to_owned()),
        "\"[ -!#-\\[\\]-~é]{0,12}\"",
        Just("null".to_owned()),
    ]
}

fn blank() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", " ", "\t ", "  "])
}

/// Members in any order, with blanks around them.
fn object(members: Vec<(String, String)>) -> impl Strategy<Value = String> {
    let len = members.len();
    (
        Just(members).prop_shuffle(),
        prop::collection::vec((blank(), blank(), blank(), blank()), len),
    )
        .prop_map(|(members, blanks)| {
            let members = members.iter().zip(&blanks);
            let members: Vec<String> = members
                .map(|((name, value), (a, b, c, d))| format!("{a}\"{name}\"{b}:{c}{value}{d}"))
                .collect();
            format!("{{{}}}", members.join(","))
        })
}

const LEVEL: &str = "io.modelcontextprotocol/logLevel";

/// A request with marks where something is to be changed.
fn marked() -> impl Strategy<Value = String> {
    let has = any::<(bool, bool)>();
    (value(), value(), has)
        .prop_flat_map(|(a, b, (token, level))| {
            let mut meta = vec![
                (VERSION.to_owned(), "\"v\"".to_owned()),
                ("z".to_owned(), a),
            ];
            if token {
                meta.push(("progressToken".to_owned(), "«T»".to_owned()));
            }
            if level {
                meta.push((LEVEL.to_owned(), "\"debug\"".to_owned()));
            }
            (object(meta), Just(b))
        })
        .prop_flat_map(|(meta, b)| {
            object(vec![
                ("_meta".to_owned(), meta),
                ("arguments".to_owned(), b),
            ])
        })
        .prop_flat_map(|params| {
            object(vec![
                ("id".to_owned(), "«I»".to_owned()),
                ("method".to_owned(), "\"tools/call\"".to_owned()),
                ("params".to_owned(), params),
            ])
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The line that is sent is the client's, with the id and the token replaced, and the level taken out.
    #[test]
    fn a_shared_line_is_the_original_with_the_listed_splices(marked in marked(), id in "[1-9][0-9]{0,6}|\"[a-z]{1,9}\"") {
        let original = marked.replace("«I»", &id).replace("«T»", "\"t\"");
        let mut world = World::new(limits());
        let (sent, got) = pass(&mut world, &original, |number| {
            format!(r#"{{"id": {number} , "result":{{"a":[1,{number}]}}}}"#)
        });
        let number = world.share.last_number;
        let expected = marked.replace("«I»", &number.to_string()).replace("«T»", &number.to_string());
        if expected.contains(LEVEL) {
            // The same with and without the member, as values; and what is left is left as it was.
            let mut value: Value = serde_json::from_str(&expected).unwrap();
            value["params"]["_meta"].as_object_mut().unwrap().remove(LEVEL);
            prop_assert_eq!(serde_json::from_str::<Value>(&sent).unwrap(), value);
            prop_assert!(is_subsequence(sent.trim_end_matches('\n'), &expected));
            let longest = LEVEL.len() + "\"debug\"\"\",:".len() + 16;
            prop_assert!(expected.len() - sent.len() < longest);
        } else {
            prop_assert_eq!(sent, expected + "\n");
        }
        prop_assert_eq!(got, format!("{{\"id\": {id} , \"result\":{{\"a\":[1,{number}]}}}}\n"));
    }
}

/// A number as a server may write it.
fn written(number: u64, form: usize) -> String {
    match form {
        0 => number.to_string(),
        1 => format!("\"{number}\""),
        _ => format!("{number}.0"),
    }
}

/// What a server says, with marks where the proxy's number is.
fn said() -> impl Strategy<Value = String> {
    let member = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let subscribed = || {
        object(vec![
            member(SUBSCRIPTION, "«N»"),
            member("id", "7"),
            member("x", "[NaN]"),
        ])
    };
    let of = |method: &str, marked: &str| {
        let method = format!("\"{method}\"");
        let params = vec![
            member(marked, "«N»"),
            member("id", "1"),
            member("_meta", "{}"),
        ];
        object(params).prop_flat_map(move |params| {
            object(vec![
                ("method".to_owned(), method.clone()),
                ("params".to_owned(), params),
                ("jsonrpc".to_owned(), "\"2.0\"".to_owned()),
            ])
        })
    };
    let changed = (subscribed(), value()).prop_flat_map(move |(meta, x)| {
        object(vec![("_meta".to_owned(), meta), ("x".to_owned(), x)]).prop_flat_map(|params| {
            object(vec![
                ("method".to_owned(), "\"notifications/x\"".to_owned()),
                ("params".to_owned(), params),
            ])
        })
    });
    let closed = (subscribed(), value()).prop_flat_map(move |(meta, x)| {
        object(vec![("_meta".to_owned(), meta), ("x".to_owned(), x)]).prop_flat_map(|result| {
            object(vec![
                ("id".to_owned(), "«N»".to_owned()),
                ("result".to_owned(), result),
            ])
        })
    });
    prop_oneof![
        of("notifications/progress", "progressToken"),
        of("notifications/cancelled", "requestId"),
        changed,
        closed,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// What a client gets is what the server has said, with the number replaced by what the client had written there.
    #[test]
    fn what_is_said_to_one_client_is_the_original_with_the_number_replaced(said in said(), form in 0_usize..3) {
        let mut world = World::new(limits());
        let seat = world.seat(1);
        let is_subscription = said.contains(SUBSCRIPTION);
        let meta = json!({"progressToken": "tök"});
        let method = if is_subscription { "subscriptions/listen" } else { "tools/call" };
        let params = json!({"_meta": meta, "notifications": {"x": true}});
        world.client(seat, &request(json!("ïd"), method, params));
        let number = world.get(ProcessKey(0))[0]["id"].as_u64().unwrap();
        world.server_text(ProcessKey(0), &said.replace("«N»", &written(number, form)));
        let got = String::from_utf8(world.read_bytes(seat)).unwrap();
        let own = if said.contains("progressToken\"") && !is_subscription { "\"tök\"" } else { "\"ïd\"" };
        prop_assert_eq!(got, said.replace("«N»", own) + "\n");
    }

    /// And what a process gets of a cancellation is what the client has said, with the number in place of its id.
    #[test]
    fn a_cancellation_is_the_original_with_the_id_replaced(
        marked in object(vec![("requestId".to_owned(), "«N»".to_owned()), ("reason".to_owned(), "\"\\u00e9\"".to_owned())])
            .prop_flat_map(|params| object(vec![
                ("method".to_owned(), "\"notifications\\/cancelled\"".to_owned()),
                ("params".to_owned(), params),
                ("x".to_owned(), "[1.50]".to_owned()),
            ])),
        id in "[1-9][0-9]{0,6}|\"[a-z]{1,9}\"",
    ) {
        let mut world = World::new(limits());
        let seat = world.seat(1);
        let asked: Value = serde_json::from_str(&id).unwrap();
        world.client(seat, &request(asked, "tools/call", json!({})));
        let number = world.get(ProcessKey(0))[0]["id"].clone();
        world.client_text(seat, &marked.replace("«N»", &id));
        let sent = String::from_utf8(world.share.to_process(ProcessKey(0)).to_vec()).unwrap();
        prop_assert_eq!(sent, marked.replace("«N»", &number.to_string()) + "\n");
    }
}

/// Whether `part` is `whole` with one piece taken out.
fn is_subsequence(part: &str, whole: &str) -> bool {
    let before = part
        .bytes()
        .zip(whole.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    let rest = &part.as_bytes()[before..];
    whole.as_bytes().ends_with(rest)
}

#[test]
fn the_limit_holds_for_the_line_as_it_is_received() {
    let mut limits = limits();
    limits.max_message_bytes = 200;
    let mut world = World::new(limits);
    let result = |number: u64, len: usize| {
        let empty = format!(r#"{{"id":{number},"result":""}}"#);
        let filler = "x".repeat(len - empty.len());
        format!(r#"{{"id":{number},"result":"{filler}"}}"#)
    };
    let line = json!({"id": "a".repeat(40), "method": "x", "params": {"_meta": {VERSION: "v"}}});
    for (len, is_lost) in [(120, false), (199, true), (240, true), (500, true)] {
        let (_, got) = pass(&mut world, &line.to_string(), |number| result(number, len));
        let got: Value = serde_json::from_str(&got).unwrap();
        assert_eq!(got["id"], line["id"], "{len}");
        assert_eq!(
            got["error"]["data"]["reason"] == "response_too_large",
            is_lost,
            "{len}"
        );
    }
}
