//! The lines of clients and servers, with marks for what is different on either side of the proxy.

/// Where the id of a request is, the client's own or the proxy's number.
pub const ID: char = '\u{1}';
/// The same of its progress token.
pub const TOKEN: char = '\u{2}';
/// Around what only the client's side has.
pub const CLIENT_ONLY: char = '\u{3}';
/// The same of the server's side.
const SERVER_ONLY: char = '\u{4}';

/// A line with marks.
#[derive(Debug, Clone)]
pub struct Marked(pub String);

impl Marked {
    /// As it is on the side of the client.
    pub fn at_client(&self, id: &str, token: &str) -> String {
        self.filled(true, id, token)
    }

    /// As it is on the side of the server.
    pub fn at_server(&self, number: &str) -> String {
        self.filled(false, number, number)
    }

    /// The line with these in the place of its marks, with or without what only the client's side has.
    fn filled(&self, is_client: bool, id: &str, token: &str) -> String {
        let mut line = String::with_capacity(self.0.len() + 2 * id.len() + token.len());
        let (mut rest, mut is_kept) = (&*self.0, true);
        let marks = ID as u8..=SERVER_ONLY as u8;
        while let Some(at) = rest.bytes().position(|byte| marks.contains(&byte)) {
            let (before, after) = rest.split_at(at);
            if is_kept {
                line.push_str(before);
            }
            match after.as_bytes()[0] as char {
                CLIENT_ONLY => is_kept = is_client || !is_kept,
                SERVER_ONLY => is_kept = !is_client || !is_kept,
                ID if is_kept => line.push_str(id),
                TOKEN if is_kept => line.push_str(token),
                _ => {}
            }
            rest = &after[1..];
        }
        if is_kept {
            line.push_str(rest);
        }
        line
    }
}

/// The number in the first mark `{kind}123.` of a line.
pub fn mark(line: &str, kind: char) -> Option<usize> {
    let mut quotes = memchr::memchr_iter(b'"', line.as_bytes());
    quotes.find_map(|at| {
        let (number, _) = line[at + 1..].strip_prefix(kind)?.split_once('.')?;
        number.parse().ok()
    })
}

const VERSION: &str = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;
const LEVEL: &str = r#""io.modelcontextprotocol/logLevel":"debug""#;

/// What is in `_meta`, in one of several orders.
pub fn meta(has_token: bool, has_level: bool, order: usize) -> String {
    let token = format!("\"progressToken\" :{TOKEN}");
    let mut members = vec![VERSION.to_owned()];
    if has_token {
        members.insert(order % 2, token);
    }
    if !has_level {
        return format!("{{{}}}", members.join(", "));
    }
    // A member goes with the comma after it, or, if it is the last, with the one before it.
    if order < 2 {
        let rest = members.join(",");
        return format!("{{ {CLIENT_ONLY}{LEVEL} ,{CLIENT_ONLY} {rest}}}");
    }
    let rest = members.join(" ,");
    format!("{{{rest}{CLIENT_ONLY}, {LEVEL}{CLIENT_ONLY} }}")
}

/// The same for a legacy client, which says less.
pub fn legacy_meta(has_token: bool) -> String {
    if has_token {
        format!("{{\"progressToken\" :{TOKEN}}}")
    } else {
        "{}".to_owned()
    }
}

/// A call.
pub fn call(key: usize, meta: &str, kills: bool, pad: usize, order: usize) -> Marked {
    let pad = "x".repeat(pad);
    let word = if kills { "kill" } else { "live" };
    let params = format!(r#"{{"_meta":{meta},"mark":"r{key}.","do":"{word}","pad":"{pad}"}}"#);
    Marked(match order {
        0 => format!(r#"{{"jsonrpc":"2.0","id":{ID},"method":"tools/call","params":{params}}}"#),
        1 => format!(r#"{{"method":"tools/call","params":{params},"id": {ID} ,"jsonrpc":"2.0"}}"#),
        _ => format!(r#" {{ "params" : {params} , "id":{ID},"method":"tools\/call"}}"#),
    })
}

/// A request to listen. `what` is all that may tell two of them apart.
pub fn listen(key: usize, what: &str, meta: &str) -> Marked {
    Marked(format!(
        r#"{{"id":{ID},"method":"subscriptions/listen","params":{{"mark":"r{key}.","notifications":{{"{what}":true}},"_meta":{meta}}}}}"#
    ))
}

/// A call in the manner of before, and what it begins with.
pub fn legacy(key: usize, method: &str) -> Marked {
    Marked(format!(
        r#"{{"jsonrpc":"2.0","id":{ID},"method":"{method}","params":{{"mark":"r{key}.","protocolVersion":"2025-06-18"}}}}"#
    ))
}

/// What a legacy client begins with that shares servers. None of them is ever told.
pub fn initialize(key: usize, version: &str) -> Marked {
    Marked(format!(
        r#"{{"jsonrpc":"2.0","id":{ID},"method":"initialize","params":{{"mark":"r{key}.","protocolVersion":"{version}","capabilities":{{}}}}}}"#
    ))
}

/// A legacy client wants to hear of a resource, or no more.
pub fn about_resource(key: usize, what: &str, uri: &str) -> Marked {
    Marked(format!(
        r#"{{"jsonrpc":"2.0","id":{ID},"method":"resources/{what}","params":{{"uri":"{uri}","mark":"r{key}."}}}}"#
    ))
}

/// Nobody but the client decides what it logs.
pub fn set_level(key: usize) -> Marked {
    Marked(format!(
        r#"{{"id":{ID},"method":"logging/setLevel","params":{{"level":"debug","mark":"r{key}."}}}}"#
    ))
}

/// The client takes a request back.
pub fn cancelled(key: usize) -> Marked {
    Marked(format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{ID},"reason":"r{key}."}}}}"#
    ))
}

/// How a server writes a number.
pub fn written(number: u64, manner: usize) -> String {
    match manner {
        0 => format!("\"{number}\""),
        1 => format!("{number}.0"),
        _ => number.to_string(),
    }
}

pub fn response(serial: usize, number: u64, pad: usize, order: usize) -> Marked {
    let pad = "y".repeat(pad);
    let result = format!(r#"{{"serial":"s{serial}.","n":{number},"pad":"{pad}","x":[1.0e1,NaN]}}"#);
    Marked(match order {
        0 => format!(r#"{{"jsonrpc":"2.0","id":{ID},"result":{result}}}"#),
        _ => format!(r#"{{"result":{result} , "id" : {ID} }}"#),
    })
}

pub fn error_response(serial: usize) -> Marked {
    Marked(format!(
        r#"{{"error":{{"code":-1,"message":"s","data":"s{serial}."}},"jsonrpc":"2.0","id":{ID}}}"#
    ))
}

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// The end of a listen.
pub fn closed(serial: usize) -> Marked {
    Marked(format!(
        r#"{{"id":{ID},"result":{{"serial":"s{serial}.","_meta":{{"{SUBSCRIPTION}":{ID}}}}}}}"#
    ))
}

pub fn progress(serial: usize) -> Marked {
    Marked(format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"serial":"s{serial}.","progress":1.50,"progressToken": {TOKEN} }}}}"#
    ))
}

/// The server gives a request up.
pub fn given_up(serial: usize) -> Marked {
    Marked(format!(
        r#"{{"method":"notifications/cancelled","params":{{"requestId":{ID},"reason":"s","x":"s{serial}."}}}}"#
    ))
}

pub fn event(serial: usize, method: &str) -> Marked {
    Marked(format!(
        r#"{{"method":"notifications/{method}","params":{{"_meta":{{"x":1,"{SUBSCRIPTION}":{ID}}},"serial":"s{serial}."}}}}"#
    ))
}

/// What a server answers to the proxy's `initialize`, and each client gets. One `is_other` agrees to something else.
pub fn greeting(serial: usize, version: &str, is_other: bool) -> Marked {
    let tools = if is_other { r#"{"x":1}"# } else { "{}" };
    let capabilities = format!(
        r#"{{{SERVER_ONLY}"tasks":{{"list":{{}}}},{SERVER_ONLY}"tools":{tools}{SERVER_ONLY},"logging":{{}}{SERVER_ONLY}}}"#
    );
    Marked(format!(
        r#"{{"jsonrpc":"2.0","id":{ID},"result":{{"protocolVersion":"{version}","capabilities":{capabilities},"serial":"s{serial}."}}}}"#
    ))
}

/// What all legacy clients of a server are told.
pub fn list_changed(serial: usize) -> Marked {
    Marked(format!(
        r#"{{"method":"notifications/tools/list_changed","params":{{"x":"s{serial}."}}}}"#
    ))
}

/// What those are told that have subscribed to a resource.
pub fn updated(serial: usize, uri: &str) -> Marked {
    Marked(format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"{uri}","x":"s{serial}."}}}}"#
    ))
}

pub const ACKNOWLEDGED: &str = "subscriptions/acknowledged";
pub const CHANGED: &str = "tools/list_changed";
