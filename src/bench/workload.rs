//! What is sent: the requests, each with a gap for its id, and the messages that open a session.
//!
//! Modern requests say in `params._meta` what they speak; legacy sessions are opened by `initialize`.

use std::collections::BTreeMap;
use std::io::Write as _;

use serde_json::value::{RawValue, to_raw_value};

/// The newest legacy version. A server that knows another one answers with that, which is fine.
const LEGACY_VERSION: &str = "2025-11-25";

/// The modern version that is spoken.
const MODERN_VERSION: &str = "2026-07-28";

/// The argument that is added for a payload if none is a text.
const PADDED_ARGUMENT: &str = "text";

/// What a payload is made of.
const PADDING: &str = "x";

/// What is to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Request {
    /// What costs a server least.
    Default,
    /// `tools/call`
    Tool {
        name: String,
        /// JSON.
        arguments: Option<String>,
        padded: Padded,
    },
    /// Any method.
    Method {
        name: String,
        /// JSON.
        params: Option<String>,
        padded: Padded,
    },
    /// Messages, one a line, to be sent in turn.
    Lines(String),
}

/// The length that a text among the arguments is to have, in bytes.
pub(super) type Padded = Option<usize>;

/// How a session is opened, and what each request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Era {
    /// Up to 2025-11-25.
    Legacy,
    /// From 2026-07-28 on.
    Modern,
}

impl Era {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        }
    }
}

/// The requests of a run, which are sent in turn.
#[derive(Debug)]
pub(super) struct Workload {
    opening: Template,
    /// A line that follows the response to the first one.
    opened: &'static [u8],
    requests: Vec<Template>,
    /// Whether a response may be the failure of a tool.
    calls_tools: bool,
}

/// A request without its id.
#[derive(Debug)]
struct Template {
    before_id: Vec<u8>,
    after_id: Vec<u8>,
}

impl Template {
    fn new(method: &str, params: Option<&RawValue>) -> Self {
        // What a method is called may need escapes.
        let method = serde_json::Value::from(method);
        let params = params.map_or_else(String::new, |params| format!(r#","params":{params}"#));
        Self {
            before_id: br#"{"jsonrpc":"2.0","id":"#.to_vec(),
            after_id: format!(",\"method\":{method}{params}}}\n").into_bytes(),
        }
    }

    fn write(&self, id: u64, out: &mut Vec<u8>) -> usize {
        let before = out.len();
        out.extend_from_slice(&self.before_id);
        // Writing to a buffer does not fail.
        let _ = write!(out, "{id}");
        out.extend_from_slice(&self.after_id);
        out.len() - before
    }
}

impl Workload {
    /// What `request` asks for, for servers of this era. The error is one line.
    pub(super) fn new(request: &Request, era: Era) -> Result<Self, String> {
        let mut requests = Vec::new();
        let mut calls_tools = false;
        for (method, params) in messages(request, era)? {
            calls_tools |= method == "tools/call";
            let params = match era {
                Era::Legacy => params,
                Era::Modern => Some(with_meta(params)?),
            };
            requests.push(Template::new(&method, params.as_deref()));
        }
        let (opening, opened): (_, &[u8]) = match era {
            Era::Legacy => (
                Template::new("initialize", Some(&raw(&legacy_opening())?)),
                b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n",
            ),
            Era::Modern => (discover()?, b""),
        };
        Ok(Self {
            opening,
            opened,
            requests,
            calls_tools,
        })
    }

    /// What asks a server whether it is a modern one.
    pub(super) fn probe() -> Result<Self, String> {
        Ok(Self {
            opening: discover()?,
            opened: b"",
            requests: Vec::new(),
            calls_tools: false,
        })
    }

    /// Writes the first request of a session.
    pub(super) fn open(&self, id: u64, out: &mut Vec<u8>) -> usize {
        self.opening.write(id, out)
    }

    /// What follows the response to that.
    pub(super) fn opened(&self) -> &'static [u8] {
        self.opened
    }

    /// Writes a request: the first, the second, and so on, and then the first again. Returns its length.
    pub(super) fn write(&self, turn: usize, id: u64, out: &mut Vec<u8>) -> usize {
        let requests = &self.requests;
        requests[turn % requests.len()].write(id, out)
    }

    pub(super) fn calls_tools(&self) -> bool {
        self.calls_tools
    }
}

type Params = Option<Box<RawValue>>;
type Members = BTreeMap<String, Box<RawValue>>;

/// The method and the parameters of each request.
fn messages(request: &Request, era: Era) -> Result<Vec<(String, Params)>, String> {
    Ok(match request {
        Request::Default => {
            let method = match era {
                Era::Legacy => "ping",
                Era::Modern => "server/discover",
            };
            vec![(method.to_owned(), None)]
        }
        Request::Tool {
            name,
            arguments,
            padded,
        } => {
            let mut arguments = members("--arguments", arguments.as_deref().unwrap_or("{}"))?;
            pad(&mut arguments, *padded)?;
            let params = format!(
                r#"{{"name":{},"arguments":{}}}"#,
                serde_json::Value::from(name.as_str()),
                text(&arguments)?
            );
            vec![("tools/call".to_owned(), Some(raw(&params)?))]
        }
        Request::Method {
            name,
            params,
            padded,
        } => {
            let params = match (params, padded) {
                (None, None) => None,
                (params, _) => {
                    let mut params = members("--params", params.as_deref().unwrap_or("{}"))?;
                    pad(&mut params, *padded)?;
                    Some(raw(&text(&params)?)?)
                }
            };
            vec![(name.clone(), params)]
        }
        Request::Lines(lines) => {
            let lines = lines.lines().enumerate();
            let lines = lines.filter(|(_, line)| !line.trim().is_empty());
            let messages: Result<Vec<_>, _> = lines
                .map(|(at, line)| {
                    message(line).map_err(|what| format!("--message: line {} {what}", at + 1))
                })
                .collect();
            messages?
        }
    })
}

/// A message as it stands in a file. The error completes a sentence about its line.
fn message(line: &str) -> Result<(String, Params), String> {
    let members: Result<Members, _> = serde_json::from_str(line);
    let mut members = members.map_err(|error| format!("is not a message: {error}"))?;
    let method = members.get("method");
    let method = method.and_then(|method| serde_json::from_str::<String>(method.get()).ok());
    let method = method.ok_or("has no method, and so is not a request")?;
    Ok((method, members.remove("params")))
}

/// The members of an object that an option gives.
fn members(option: &str, json: &str) -> Result<Members, String> {
    serde_json::from_str(json).map_err(|error| format!("{option}: not a JSON object: {error}"))
}

/// Makes the first text among the members, by name, this long, or adds one.
fn pad(members: &mut Members, padded: Padded) -> Result<(), String> {
    let Some(bytes) = padded else {
        return Ok(());
    };
    let is_text = |value: &RawValue| value.get().starts_with('"');
    let first = members.iter().find(|(_, value)| is_text(value));
    let (name, mut value) = match first {
        Some((name, value)) => (name.clone(), serde_json::from_str(value.get())),
        None => (PADDED_ARGUMENT.to_owned(), Ok(String::new())),
    };
    if let Ok(value) = &mut value {
        value.push_str(&PADDING.repeat(bytes.saturating_sub(value.len())));
        let padded = to_raw_value(value).map_err(|error| error.to_string())?;
        members.insert(name, padded);
    }
    Ok(())
}

/// Parameters with what a modern request has to say, unless they say so themselves.
fn with_meta(params: Params) -> Result<Box<RawValue>, String> {
    let mut params = match params {
        Some(params) => members("params", params.get())?,
        None => Members::new(),
    };
    let mut meta = match params.get("_meta") {
        Some(meta) => members("params._meta", meta.get())?,
        None => Members::new(),
    };
    for (name, value) in [
        ("protocolVersion", format!("\"{MODERN_VERSION}\"")),
        ("clientCapabilities", "{}".to_owned()),
        ("clientInfo", client_info()),
    ] {
        let name = format!("io.modelcontextprotocol/{name}");
        meta.entry(name).or_insert(raw(&value)?);
    }
    params.insert("_meta".to_owned(), raw(&text(&meta)?)?);
    raw(&text(&params)?)
}

fn discover() -> Result<Template, String> {
    Ok(Template::new("server/discover", Some(&with_meta(None)?)))
}

fn legacy_opening() -> String {
    format!(
        r#"{{"protocolVersion":"{LEGACY_VERSION}","capabilities":{{}},"clientInfo":{}}}"#,
        client_info()
    )
}

fn client_info() -> String {
    concat!(
        r#"{"name":"mcp-tcp-proxy-bench","version":""#,
        env!("CARGO_PKG_VERSION"),
        r#""}"#
    )
    .to_owned()
}

fn raw(json: &str) -> Result<Box<RawValue>, String> {
    RawValue::from_string(json.to_owned()).map_err(|error| error.to_string())
}

fn text(members: &Members) -> Result<String, String> {
    serde_json::to_string(members).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(request: &Request, era: Era, count: usize) -> Vec<String> {
        let workload = Workload::new(request, era).unwrap();
        let write = |turn| {
            let mut line = Vec::new();
            let bytes = workload.write(turn, 7, &mut line);
            assert_eq!(bytes, line.len());
            assert_eq!(line.pop(), Some(b'\n'));
            String::from_utf8(line).unwrap()
        };
        (0..count).map(write).collect()
    }

    fn tool(arguments: Option<&str>, padded: Padded) -> Request {
        Request::Tool {
            name: "echo".to_owned(),
            arguments: arguments.map(str::to_owned),
            padded,
        }
    }

    #[test]
    fn by_default_a_server_is_asked_what_costs_it_least() {
        let ping = requests(&Request::Default, Era::Legacy, 1);
        assert_eq!(ping, [r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#]);
        let discover = requests(&Request::Default, Era::Modern, 1);
        let discover: serde_json::Value = serde_json::from_str(&discover[0]).unwrap();
        assert_eq!(discover["method"], "server/discover");
        let meta = &discover["params"]["_meta"];
        assert_eq!(
            meta["io.modelcontextprotocol/protocolVersion"],
            MODERN_VERSION
        );
        assert!(meta["io.modelcontextprotocol/clientCapabilities"].is_object());
    }

    #[test]
    fn a_payload_fills_the_first_text_or_adds_one() {
        for (arguments, padded, expected) in [
            (None, None, "{}"),
            (None, Some(3), r#"{"text":"xxx"}"#),
            (
                Some(r#"{"a":1,"b":"","c":"d"}"#),
                Some(2),
                r#"{"a":1,"b":"xx","c":"d"}"#,
            ),
            (Some(r#"{"b":"long"}"#), Some(2), r#"{"b":"long"}"#),
            (Some(r#"{"b":"é"}"#), Some(3), r#"{"b":"éx"}"#),
            (Some(r#"{"n":1.50}"#), None, r#"{"n":1.50}"#),
        ] {
            let line = requests(&tool(arguments, padded), Era::Legacy, 1).remove(0);
            let end = format!(r#""params":{{"name":"echo","arguments":{expected}}}}}"#);
            assert!(line.ends_with(&end), "{line}");
        }
        let method = Request::Method {
            name: "x\"y".to_owned(),
            params: None,
            padded: Some(1),
        };
        let line = requests(&method, Era::Legacy, 1).remove(0);
        assert!(
            line.ends_with(r#""method":"x\"y","params":{"text":"x"}}"#),
            "{line}"
        );
    }

    #[test]
    fn lines_are_sent_in_turn_with_ids_of_our_own() {
        let lines =
            "\n{\"id\":\"x\",\"method\":\"a\",\"params\":{\"b\":1.0}}\n{\"method\":\"c\"}\n";
        let request = Request::Lines(lines.to_owned());
        let sent = requests(&request, Era::Legacy, 3);
        assert_eq!(
            sent[..2],
            [
                r#"{"jsonrpc":"2.0","id":7,"method":"a","params":{"b":1.0}}"#,
                r#"{"jsonrpc":"2.0","id":7,"method":"c"}"#
            ]
        );
        assert_eq!(sent[2], sent[0]);
        let modern = requests(&request, Era::Modern, 1).remove(0);
        assert!(
            modern.contains("_meta") && modern.contains(r#""b":1.0"#),
            "{modern}"
        );
    }

    #[test]
    fn what_makes_no_request_is_named() {
        for (request, part) in [
            (tool(Some("[1]"), None), "--arguments: not a JSON object"),
            (
                Request::Lines("{\"method\":\"a\"}\n\n{}".to_owned()),
                "--message: line 3 has no method",
            ),
            (
                Request::Lines("x".to_owned()),
                "--message: line 1 is not a message",
            ),
        ] {
            let error = Workload::new(&request, Era::Legacy).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
