//! Ids: equal exactly if their values are, with equal hashes, and echoed as they were written.

use std::hash::{BuildHasher, RandomState};

use mcp_tcp_proxy::protocol::id::RequestId;
use serde::de::IgnoredAny;

use crate::json;

/// The input is up to three ids as JSON, each on a line of its own.
pub(crate) fn id(input: &[u8]) {
    let texts: Vec<&str> = input
        .split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(|text| text.trim_matches([' ', '\t', '\r']))
        .filter(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
        .take(3)
        .collect();
    let ids: Vec<RequestId> = texts.iter().map(RequestId::new).collect();
    for (text, id) in texts.iter().zip(&ids) {
        assert_eq!(id.to_string(), *text, "as written");
        assert!(*id == id.clone() && *id == RequestId::new(text), "{text}");
    }
    let hashing = RandomState::new();
    for (a, text_a) in ids.iter().zip(&texts) {
        check_coerced(a, text_a);
        for (b, text_b) in ids.iter().zip(&texts) {
            let (forth, back) = (a == b, b == a);
            assert_eq!(forth, back, "symmetric: {text_a} and {text_b}");
            let have_equal_hashes = hashing.hash_one(a) == hashing.hash_one(b);
            assert_eq!(forth, have_equal_hashes, "hashes: {text_a} and {text_b}");
            check(text_a, text_b, forth);
        }
    }
    if let [a, b, c] = ids.as_slice() {
        assert!(!(a == b && b == c) || a == c, "transitive: {texts:?}");
    }
}

/// Only strings and integers become each other, and back.
fn check_coerced(id: &RequestId, text: &str) {
    let Some(coerced) = id.coerced() else {
        let is_integer = text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok();
        assert!(!is_integer, "{text}");
        return;
    };
    assert!(coerced != *id, "{text}");
    assert_eq!(coerced.coerced(), Some(id.clone()), "{text}");
}

fn check(a: &str, b: &str, same: bool) {
    match (kind(a), kind(b)) {
        (Kind::String, Kind::String) => {
            assert_eq!(same, json::units(a) == json::units(b), "{a} and {b}");
        }
        (Kind::Number, Kind::Number) => check_numbers(a, b, same),
        (a_kind, b_kind) if a_kind != b_kind => assert!(!same, "{a} and {b}"),
        _ => assert!(same || a != b, "{a} and {b}"),
    }
}

fn check_numbers(a: &str, b: &str, same: bool) {
    let doubles = (a.parse::<f64>().unwrap(), b.parse::<f64>().unwrap());
    if doubles.0.is_infinite() || doubles.1.is_infinite() {
        assert_eq!(same, a == b, "{a} and {b}");
        return;
    }
    let differ = doubles.0.to_bits() != doubles.1.to_bits() && doubles != (0.0, 0.0);
    assert!(!(same && differ), "{a} and {b}");
    let equal = decimal(a) == decimal(b);
    if is_64_bit_integer(a) && is_64_bit_integer(b) {
        assert_eq!(same, equal, "{a} and {b}");
    } else if equal && doubles.0.abs() < 2_f64.powi(53) {
        assert!(same, "{a} and {b}");
    }
}

#[derive(PartialEq, Eq)]
enum Kind {
    Number,
    String,
    /// By its first byte.
    Other(u8),
}

fn kind(text: &str) -> Kind {
    match text.as_bytes()[0] {
        b'"' => Kind::String,
        b'-' | b'0'..=b'9' => Kind::Number,
        other => Kind::Other(other),
    }
}

fn is_64_bit_integer(text: &str) -> bool {
    text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok()
}

/// A number as its sign, its digits without zeros at either end, and the power of ten of the last one.
fn decimal(text: &str) -> (bool, String, i64) {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        // An exponent beyond this type makes zero, or no finite double.
        Some((mantissa, exponent)) => (mantissa, exponent.parse().unwrap_or(i64::MIN)),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{}{fraction}", whole.trim_start_matches('-'));
    let digits = digits.trim_start_matches('0');
    let trimmed = digits.trim_end_matches('0');
    if trimmed.is_empty() {
        return (false, String::new(), 0);
    }
    let len = |text: &str| i64::try_from(text.len()).unwrap();
    let power = len(digits) - len(trimmed) - len(fraction);
    let is_negative = whole.starts_with('-');
    (
        is_negative,
        trimmed.to_owned(),
        power.saturating_add(exponent),
    )
}
