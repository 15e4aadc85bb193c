//! The lines of the simulated clients and servers, as text. Each bears a serial number, by which it is known again.

use std::borrow::Cow;

use crate::rng::Rng;

/// What stands before the serial number of a client's line, and of a server's.
pub const CLIENT_SERIAL: &[u8] = br#""n":"#;
pub const SERVER_SERIAL: &[u8] = br#""m":"#;

/// What a proxy says for a client whose handshake it replays.
pub const INITIALIZED: &[u8] = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

const REPLAY_ID: &[u8] = b"\"mcp-tcp-proxy-replay-";

const RESTORE_ID: &[u8] = b"\"mcp-tcp-proxy-restore-";

const SWAP_ID: &[u8] = b"\"mcp-tcp-proxy-swap\"";

/// Where `what` is in a text. Texts are short: to prepare for the search takes longer than the search.
pub fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    let (first, rest) = what.split_first()?;
    memchr::memchr_iter(*first, text).find(|at| text[at + 1..].starts_with(rest))
}

/// The serial number in a line.
pub fn serial(text: &[u8], key: &[u8]) -> Option<usize> {
    let start = find(text, key)? + key.len();
    let digits = text[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    std::str::from_utf8(&text[start..start + digits])
        .ok()?
        .parse()
        .ok()
}

/// The id of a replayed handshake.
pub fn replay_id(text: &[u8]) -> Option<String> {
    own_id(text, REPLAY_ID)
}

/// The id of what is set up anew.
pub fn restore_id(text: &[u8]) -> Option<String> {
    own_id(text, RESTORE_ID)
}

/// The id of the question what a server is.
pub fn swap_id(text: &[u8]) -> Option<String> {
    own_id(text, SWAP_ID)
}

fn own_id(text: &[u8], begin: &[u8]) -> Option<String> {
    let start = find(text, begin)?;
    let len = memchr::memchr(b'"', &text[start + 1..])? + 2;
    String::from_utf8(text[start..start + len].to_vec()).ok()
}

/// A line with another id, which is the first thing in it that reads like `old` behind `"id":`.
pub fn with_id(text: &[u8], old: &str, new: &str) -> Vec<u8> {
    let old = format!("\"id\":{old}");
    let Some(at) = find(text, old.as_bytes()) else {
        return Vec::new();
    };
    [
        &text[..at],
        b"\"id\":",
        new.as_bytes(),
        &text[at + old.len()..],
    ]
    .concat()
}

/// The start of a line, for a message.
pub fn show(text: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&text[..text.len().min(200)])
}

/// What a modern client says in each request.
pub const MODERN: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;

pub fn is_modern(text: &[u8]) -> bool {
    let named = MODERN
        .trim_start_matches(r#""_meta":{"#)
        .trim_end_matches('}');
    find(text, named.as_bytes()).is_some()
}

/// The id of a `ping` that the proxy answers.
pub fn pong(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let rest = text.strip_prefix(r#"{"jsonrpc":"2.0","id":"#)?;
    rest.strip_suffix(r#","result":{}}"#).map(str::to_owned)
}

pub fn is_ping(text: &[u8]) -> bool {
    find(text, br#""method":"ping""#).is_some()
}

pub fn is_subscription(text: &[u8]) -> bool {
    find(text, br#""method":"resources/subscribe""#).is_some()
}

pub fn is_result(text: &[u8]) -> bool {
    find(text, br#""result":"#).is_some()
}

/// The id of a subscription that the proxy closes.
pub fn closed_subscription(text: &[u8]) -> Option<String> {
    const CLOSED: &str =
        r#","result":{"resultType":"complete","_meta":{"io.modelcontextprotocol/subscriptionId":"#;
    let text = std::str::from_utf8(text).ok()?;
    let rest = text.strip_prefix(r#"{"jsonrpc":"2.0","id":"#)?;
    let (id, again) = rest.split_once(CLOSED)?;
    (again.strip_suffix("}}}") == Some(id)).then(|| id.to_owned())
}

/// The id of a request that the proxy takes back.
pub fn cancelled_by_proxy(text: &[u8]) -> Option<String> {
    const CANCELLED: &str =
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"#;
    let rest = std::str::from_utf8(text).ok()?.strip_prefix(CANCELLED)?;
    let (id, reason) = rest.split_once(r#","reason":""#)?;
    reason.ends_with(r#""}}"#).then(|| id.to_owned())
}

/// An error of the proxy's own.
#[derive(Debug)]
pub struct OwnError {
    pub id: String,
    pub code: i32,
    pub delivered: String,
    pub reason: String,
}

impl OwnError {
    pub fn read(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let rest = text.strip_prefix(r#"{"jsonrpc":"2.0","id":"#)?;
        let (id, rest) = rest.split_once(r#","error":{"code":"#)?;
        let (code, rest) = rest.split_once(',')?;
        let delivered = rest.split_once(r#","delivered":"#);
        let delivered = delivered.and_then(|(_, value)| value.strip_suffix("}}}"));
        let delivered = delivered.unwrap_or_default().to_owned();
        let (_, rest) = rest.split_once(r#""data":{"source":"mcp-tcp-proxy","reason":""#)?;
        let (reason, _) = rest.split_once('"')?;
        Some(Self {
            id: id.to_owned(),
            code: code.parse().ok()?,
            delivered,
            reason: reason.to_owned(),
        })
    }
}

/// The `count`th id of a client, in one of many spellings. No two have the same value.
pub fn id(count: usize, rng: &mut Rng) -> String {
    match rng.below(10) {
        0 | 1 => format!("\"call-{count}\""),
        2 => format!("{count}.50"),
        3 => format!("\"\\u00e9-{count}\""),
        4 => format!("\"0b6f2a3c-7a51-4c8e-9d0f-1e2d3c4b5a69-{count:08}\""),
        5 => format!("-{}", count + 1),
        _ => count.to_string(),
    }
}

/// An id as another JSON library writes it.
pub fn respelt(id: &str, rng: &mut Rng) -> String {
    if rng.percent(50) {
        return id.to_owned();
    }
    match id.strip_suffix(".50") {
        Some(whole) => format!("{whole}.5"),
        None => id.replace("\\u00e9", "é"),
    }
}

/// A JSON value of about `len` bytes, which may look like a line about a connection: within another line it is none.
pub fn looks_like_ours(filler: char, len: usize, rng: &mut Rng) -> String {
    let pad = filler.to_string().repeat(len);
    if rng.percent(20) {
        let name = rng.pick(&["ack", "heartbeat", "resumed", "bye"]);
        return format!(r#"{{"type":"{name}","lines":3,"pad":"{pad}"}}"#);
    }
    format!(r#""{pad}""#)
}

/// What fills a line up to about `len` bytes.
pub fn padding(len: usize, rng: &mut Rng) -> String {
    let piece = rng.pick(&["x", "x", "x", "\\n", "ü", "{}", "\\\"id\\\":1"]);
    piece.repeat(len / piece.len())
}
