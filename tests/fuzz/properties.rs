//! Properties over inputs made by rule: what random changes to a corpus seldom hit, and what is too large for a file.

use proptest::prelude::*;
use proptest::sample::select;

use crate::targets;

const DEPTH: usize = 100_000;

/// A string that is a key or a value, in every way in which it can be written.
fn string() -> impl Strategy<Value = String> {
    let known = select(vec![
        "id",
        "method",
        "type",
        "params",
        "result",
        "error",
        "requestId",
        "heartbeat",
        "handshake",
        "initialize",
        "notifications/cancelled",
        "notifications/initialized",
        "é😀",
        "",
    ]);
    let plain = known.prop_map(|text| format!("\"{text}\""));
    let escaped = (plain.clone(), any::<u64>()).prop_map(|(text, which)| escape(&text, which));
    let odd = select(vec![
        r#""\ud800""#,
        r#""\udc00\ud83d""#,
        r#""\"\\\/\b\f\n\r\t""#,
        r#""\u0000""#,
        "\"\u{feff}\u{7f}\"",
    ]);
    prop_oneof![4 => plain, 4 => escaped, 1 => odd.prop_map(str::to_owned)]
}

/// The characters that `which` has a bit for are written as escapes.
fn escape(text: &str, which: u64) -> String {
    let inner = text.trim_matches('"').encode_utf16().enumerate();
    let inner = inner.map(|(at, unit)| match char::from_u32(u32::from(unit)) {
        Some(plain) if which >> (at % 64) & 1 == 0 => plain.to_string(),
        _ if at % 2 == 0 => format!("\\u{unit:04x}"),
        _ => format!("\\u{unit:04X}"),
    });
    format!("\"{}\"", inner.collect::<String>())
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        (any::<u64>(), select(vec!["", ".0", ".50", "e0", "0e-1"]))
            .prop_map(|(number, end)| format!("{number}{end}")),
        any::<i64>().prop_map(|number| number.to_string()),
        (300usize..2000).prop_map(|len| "7".repeat(len)),
    ]
}

fn scalar() -> impl Strategy<Value = String> {
    let word = select(vec![
        "null",
        "true",
        "false",
        "NaN",
        "Infinity",
        "-Infinity",
    ]);
    prop_oneof![string(), number(), word.prop_map(str::to_owned)]
}

fn blanks() -> impl Strategy<Value = &'static str> {
    select(vec!["", "", "", " ", "\t", "\r", "  \t "])
}

/// Any JSON, with blanks wherever there may be some, and with keys that come twice.
fn value() -> impl Strategy<Value = String> {
    scalar().prop_recursive(4, 40, 6, |inner| {
        let spaced = || (blanks(), inner.clone(), blanks()).prop_map(|(a, b, c)| [a, &b, c].concat());
        let key = (blanks(), string(), blanks()).prop_map(|(a, b, c)| [a, &b, c].concat());
        let field = (key, spaced()).prop_map(|(key, value)| format!("{key}:{value}"));
        prop_oneof![
            2 => prop::collection::vec(field, 1..6).prop_map(|all| format!("{{{}}}", all.join(","))),
            1 => prop::collection::vec(spaced(), 1..6).prop_map(|all| format!("[{}]", all.join(","))),
            1 => select(vec!["{}", "[ ]"]).prop_map(str::to_owned),
        ]
    })
}

/// A value, and the same with one byte changed, left out or put in.
fn nearly_value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![any::<u8>(), select(b"\"\\{}[]:,0-eN \0".to_vec())];
    (value(), any::<prop::sample::Index>(), byte, 0..4).prop_map(|(text, at, byte, change)| {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        match change {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 => drop(bytes.remove(at)),
            _ => {}
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_envelope_reads_what_plain_json_says(line in nearly_value()) {
        targets::envelope(&line);
    }

    #[test]
    fn ids_are_compared_by_value(a in value(), b in value(), c in string(), which in any::<u64>()) {
        targets::id(format!("{a}\n{b}\n{a}").as_bytes());
        targets::id(format!("{c}\n{}\n{b}", escape(&c, which)).as_bytes());
    }

    #[test]
    fn numbers_are_compared_by_value(a in number(), b in number()) {
        targets::id(format!("{a}\n{b}\n{a}e0").as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn programs_of_all_kinds(program in prop::collection::vec(any::<u8>(), 0..300)) {
        targets::wheel(&program);
        targets::outbox(&program);
        targets::splitter(&program);
        targets::session(&program);
    }
}

#[test]
fn depth_costs_no_stack() {
    let (open, close) = ("[".repeat(DEPTH), "]".repeat(DEPTH));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(DEPTH), "}".repeat(DEPTH));
    for text in [
        format!("{open}{close}"),
        format!(r#"{{"params":{open}{{"id":5}}{close},"id":7,"method":"m"}}"#),
        format!(r#"{{"id":{open}1{close},"method":"m"}}"#),
        format!("[{open}{close},{{\"id\":{objects}}}]"),
        objects,
        open.clone(),
        format!("{open}{close}]"),
    ] {
        targets::envelope(text.as_bytes());
    }
    targets::id(format!("{open}{close}\n{open} {close}").as_bytes());
}

#[test]
fn length_costs_nothing_but_time() {
    let digits = "9".repeat(1_000_000);
    for text in [
        format!(r#"{{"id":{digits},"method":"m"}}"#),
        format!(r#"{{"id":0.{digits}e-{digits},"method":"m"}}"#),
        format!(r#"{{"x":"{}","id":1}}"#, "\\ud800é".repeat(100_000)),
        format!(r#"{{"{}":1,"id":2}}"#, "\\u0069".repeat(100_000)),
        format!(r#"{{"id":1,"x":[NaN,{}NaN]}}"#, " ".repeat(1_000_000)),
        format!("[{}]", vec![r#"{"id":1,"method":"m"}"#; 5_000].join(",")),
    ] {
        targets::envelope(text.as_bytes());
    }
    targets::id(format!("{digits}\n{digits}0\n{digits}.0").as_bytes());
}
