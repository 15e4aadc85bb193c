//! The demo server itself: takes lines, leaves lines to be written in [`Server::out`]. `now` is a parameter. Must not
//! know descriptors or the clock.

use std::collections::BTreeMap;
use std::fmt::Arguments;
use std::io::Write as _;
use std::time::Instant;

use serde_json::value::RawValue;

use super::message::{
    self, Era, Fault, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, MODERN_VERSION, Object,
    Request, VERSION_KEY, fault,
};
use super::note::{self, Note};
use super::tools::{self, Call, Crash};

/// Newest first: the first is the answer to a client that wants a version we don't know.
const LEGACY_VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

const CAPABILITIES: &str = r#"{"tools":{},"resources":{"subscribe":true}}"#;

/// The same for modern clients, who may listen for other tools. There never are any.
const MODERN_CAPABILITIES: &str =
    r#"{"tools":{"listChanged":true},"resources":{"subscribe":true}}"#;

/// Which server this is, as MCP's `Implementation`.
const SERVER_INFO: &str = concat!(
    r#"{"name":"mcp-tcp-proxy-demo","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}"#
);

/// 2026-07-28, Caching: how long a client may use a list, and who may share it. The lists never change.
const CACHE_HINTS: &str = r#","ttlMs":3600000,"cacheScope":"public""#;

/// The same of what may change at any time.
const NO_CACHE: &str = r#","ttlMs":0,"cacheScope":"public""#;

/// One client's server.
#[derive(Default)]
pub(super) struct Server {
    /// Lines to be written before anything is waited for: responses in any order, and whatever a call has to tell while
    /// it is under way. Only the responses to a batch are gathered elsewhere first.
    pub(super) out: Vec<u8>,
    /// How the process is to end once `out` is written. No message is handled after it is set.
    pub(super) crash: Option<Crash>,
    /// Whether `initialize` was answered. Means nothing to modern requests.
    initialized: bool,
    /// Calls of `sleep` by when they end, with the members of their results. The number tells apart those that end at
    /// the same time.
    sleeps: BTreeMap<(Instant, u64), (Caller, String)>,
    /// The responses that each batch has so far, each with a comma after it, until no call of it sleeps any more.
    batches: BTreeMap<u64, Vec<u8>>,
    note: Note,
    /// The last number given to a sleep or a batch.
    last_number: u64,
}

/// Where the response to a request goes, and in which form.
struct Caller {
    /// JSON.
    id: String,
    era: Era,
    batch: Option<u64>,
    /// Under which the client wants to be told of progress. JSON.
    progress_token: Option<String>,
}

impl Server {
    /// Handles one line, without its line end.
    pub(super) fn handle_line(&mut self, line: &[u8], now: Instant) {
        let line = line.trim_ascii();
        // What is not UTF-8 is not JSON either, like the empty text that takes its place.
        let text = std::str::from_utf8(line).unwrap_or_default();
        // Batches exist in 2025-03-26 alone, but cost little to serve to everyone.
        let array = text.strip_prefix('[');
        match array.and_then(|_| serde_json::from_str::<Vec<&RawValue>>(text).ok()) {
            _ if line.is_empty() || self.crash.is_some() => {}
            None => self.handle_message(text, None, now),
            Some(messages) if messages.is_empty() => {
                let why = "Invalid request: the batch is empty";
                self.refuse("null", None, &fault(INVALID_REQUEST, why));
            }
            Some(messages) => {
                let batch = self.next_number();
                self.batches.insert(batch, Vec::new());
                for message in messages {
                    self.handle_message(message.get(), Some(batch), now);
                }
            }
        }
        // Whatever the line was: it may have cancelled what a batch was waiting for.
        self.finish_batches();
    }

    /// When [`Server::fire`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.sleeps.first_key_value().map(|(&(end, _), _)| end)
    }

    /// Answers the calls of `sleep` that are over.
    pub(super) fn fire(&mut self, now: Instant) {
        while self.next_deadline().is_some_and(|end| end <= now) {
            if let Some((_, (caller, content))) = self.sleeps.pop_first() {
                self.report_progress(&caller, 1);
                self.respond(&caller, format_args!("{content}"));
            }
        }
        self.finish_batches();
    }

    fn handle_message(&mut self, json: &str, batch: Option<u64>, now: Instant) {
        if self.crash.is_some() {
            return;
        }
        let request = match message::read(json) {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err((id, fault)) => return self.refuse(id, batch, &fault),
        };
        if let Some(id) = request.id {
            let served = message::era(&request).and_then(|era| {
                let id = id.to_owned();
                let meta = request.params.object("_meta").unwrap_or_default();
                let token = meta.given("progressToken");
                let caller = Caller {
                    id,
                    era,
                    batch,
                    progress_token: token.map(|token| token.get().to_owned()),
                };
                self.serve(&request, caller, now)
            });
            served.unwrap_or_else(|fault| self.refuse(id, batch, &fault));
        } else if request.method == "notifications/cancelled"
            && let Some(id) = request.params.given("requestId")
        {
            // Responses and cancellations may cross, so an unknown id is fine.
            self.sleeps
                .retain(|_, (caller, _)| !message::same_value(&caller.id, id.get()));
            self.note.cancel(id.get());
        }
    }

    fn serve(&mut self, request: &Request, caller: Caller, now: Instant) -> Result<(), Fault> {
        match (&*request.method, caller.era) {
            ("initialize", _) if caller.batch.is_some() => {
                // 2025-03-26, Lifecycle, "Initialization": nothing else may be sent before its response.
                let why = "Invalid request: initialize must not be part of a batch";
                return Err(fault(INVALID_REQUEST, why));
            }
            ("initialize", _) => self.initialize(&caller, &request.params),
            // Modern MCP has no ping: 2026-07-28, Key Changes, "Major changes", 5.
            ("ping", Era::Legacy) => self.respond(&caller, format_args!("")),
            ("server/discover", Era::Legacy) => return Err(message::missing_meta(VERSION_KEY)),
            ("server/discover", Era::Modern) => self.respond(&caller, format_args!(
                r#""supportedVersions":["{MODERN_VERSION}"],"capabilities":{MODERN_CAPABILITIES}{CACHE_HINTS}"#
            )),
            // It is answered when the subscription ends, and the client ends it by a cancellation.
            ("subscriptions/listen", Era::Modern) => self.acknowledge(&caller.id, &request.params),
            (method, Era::Legacy) if !self.initialized => {
                // The specification has no code of its own for this, and forbids -32002, which many servers use. The
                // Java SDK sends this one, the Python SDK -32602.
                let why = format!("Server not initialized: send initialize before {method}");
                return Err(fault(INVALID_REQUEST, why));
            }
            ("tools/list", _) if request.params.given("cursor").is_some() => {
                let why = "cursor is not one of ours: all tools are on the first page";
                return Err(fault(INVALID_PARAMS, why));
            }
            ("tools/list", era) => {
                let hints = if era == Era::Modern { CACHE_HINTS } else { "" };
                self.respond(&caller, format_args!(r#""tools":{}{hints}"#, *tools::LIST));
            }
            ("tools/call", _) => match tools::call(&request.params)? {
                Call::Done(content) => self.respond(&caller, format_args!("{content}")),
                Call::Note(text, content) => {
                    self.note.write(&text, &mut self.out);
                    self.respond(&caller, format_args!("{content}"));
                }
                Call::Sleep(duration, content) => {
                    self.report_progress(&caller, 0);
                    let key = (now + duration, self.next_number());
                    self.sleeps.insert(key, (caller, content));
                }
                Call::Crash(crash) => {
                    self.crash = Some(crash);
                    // None of them will be complete.
                    self.batches.clear();
                }
            },
            (name, _) if name.starts_with("resources/") => {
                let members = self.serve_resource(name, &request.params, caller.era)?;
                self.respond(&caller, format_args!("{members}"));
            }
            (name, _) => return Err(fault(METHOD_NOT_FOUND, format!("Method not found: {name}"))),
        }
        Ok(())
    }

    /// Returns the members of the result.
    fn serve_resource(&mut self, method: &str, params: &Object, era: Era) -> Result<String, Fault> {
        let hints = |hints| if era == Era::Modern { hints } else { "" };
        match (method, era) {
            ("resources/list", _) => {
                let (list, hints) = (note::LIST, hints(CACHE_HINTS));
                Ok(format!(r#""resources":{list}{hints}"#))
            }
            ("resources/read", _) => Ok(self.note.read(params)? + hints(NO_CACHE)),
            ("resources/subscribe" | "resources/unsubscribe", Era::Legacy) => {
                let wants = method == "resources/subscribe";
                self.note.subscribe(params, wants)?;
                Ok(String::new())
            }
            _ => Err(fault(
                METHOD_NOT_FOUND,
                format!("Method not found: {method}"),
            )),
        }
    }

    /// 2026-07-28, Subscriptions: says which of the wanted notifications there may be.
    fn acknowledge(&mut self, id: &str, params: &Object) {
        let wanted = params.object("notifications").unwrap_or_default();
        let name = "toolsListChanged";
        let is_wanted = wanted.given(name).is_some_and(|json| json.get() == "true");
        let mut granted = Vec::new();
        if is_wanted {
            granted.push(format!(r#""{name}":true"#));
        }
        if self.note.listen(id, &wanted) {
            let uri = note::URI;
            granted.push(format!(r#""resourceSubscriptions":["{uri}"]"#));
        }
        let granted = granted.join(",");
        let _ = writeln!(
            self.out,
            r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}},"notifications":{{{granted}}}}}}}"#
        );
    }

    /// Says how much is done of one, if the client wants to know.
    fn report_progress(&mut self, caller: &Caller, done: u8) {
        if let Some(token) = &caller.progress_token {
            let _ = writeln!(
                self.out,
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{done},"total":1}}}}"#
            );
        }
    }

    fn initialize(&mut self, caller: &Caller, params: &Object) {
        self.initialized = true;
        let requested = params.string("protocolVersion").unwrap_or_default();
        let known = LEGACY_VERSIONS.iter().find(|known| **known == requested);
        let version = known.unwrap_or(&LEGACY_VERSIONS[0]);
        self.respond(caller, format_args!(
            r#""protocolVersion":"{version}","capabilities":{CAPABILITIES},"serverInfo":{SERVER_INFO}"#
        ));
    }

    /// `members` are those of the result. Modern results have two more: 2026-07-28, Overview, "`ResultType`" and
    /// "Per-response protocol fields".
    fn respond(&mut self, caller: &Caller, members: Arguments) {
        let Caller { id, era, batch, .. } = caller;
        match era {
            Era::Legacy => self.write(id, *batch, format_args!(r#""result":{{{members}}}"#)),
            Era::Modern => self.write(id, *batch, format_args!(
                r#""result":{{"resultType":"complete","_meta":{{"io.modelcontextprotocol/serverInfo":{SERVER_INFO}}},{members}}}"#
            )),
        }
    }

    fn refuse(&mut self, id: &str, batch: Option<u64>, fault: &Fault) {
        self.write(id, batch, format_args!(r#""error":{fault}"#));
    }

    fn write(&mut self, id: &str, batch: Option<u64>, outcome: Arguments) {
        let out = batch.and_then(|batch| self.batches.get_mut(&batch));
        let (out, end) = out.map_or((&mut self.out, "\n"), |responses| (responses, ","));
        // A `Vec` takes everything.
        let _ = write!(out, r#"{{"jsonrpc":"2.0","id":{id},{outcome}}}{end}"#);
    }

    /// Answers the batches of which no call sleeps any more. JSON-RPC 2.0, section 6: one array with all responses, in
    /// any order; nothing at all if there are none.
    fn finish_batches(&mut self) {
        self.batches.retain(|&batch, responses| {
            let mut callers = self.sleeps.values().map(|(caller, _)| caller);
            let sleeping = callers.any(|caller| caller.batch == Some(batch));
            if !sleeping && responses.pop().is_some() {
                self.out.push(b'[');
                self.out.append(responses);
                self.out.extend_from_slice(b"]\n");
            }
            sleeping
        });
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

#[cfg(test)]
mod tests {
    use std::mem;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    const META: &str = concat!(
        r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
        r#""io.modelcontextprotocol/clientCapabilities":{}}"#
    );

    /// A server with a clock of its own, which stands until it is moved.
    struct Bench {
        server: Server,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let server = Server::default();
            let now = Instant::now();
            Self { server, now }
        }

        fn initialized() -> Self {
            let mut bench = Self::new();
            bench.one(r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#);
            bench
        }

        fn raw(&mut self, line: impl AsRef<[u8]>) -> String {
            self.server.handle_line(line.as_ref(), self.now);
            assert_eq!(self.server.crash, None);
            self.written()
        }

        fn all(&mut self, line: impl AsRef<[u8]>) -> Vec<Value> {
            values(&self.raw(line))
        }

        fn one(&mut self, line: impl AsRef<[u8]>) -> Value {
            let mut answers = self.all(line);
            assert_eq!(answers.len(), 1, "{answers:?}");
            answers.remove(0)
        }

        fn code(&mut self, line: impl AsRef<[u8]>) -> i64 {
            self.one(line)["error"]["code"].as_i64().unwrap()
        }

        fn after(&mut self, millis: u64) -> Vec<Value> {
            self.now += Duration::from_millis(millis);
            self.server.fire(self.now);
            values(&self.written())
        }

        fn written(&mut self) -> String {
            String::from_utf8(mem::take(&mut self.server.out)).unwrap()
        }
    }

    fn values(lines: &str) -> Vec<Value> {
        assert!(lines.is_empty() || lines.ends_with('\n'));
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn request(id: &str, method: &str, params: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{params}}}}}"#)
    }

    fn call(id: &str, tool: &str, arguments: &str) -> String {
        let params = format!(r#""name":"{tool}","arguments":{{{arguments}}}"#);
        request(id, "tools/call", &params)
    }

    #[test]
    fn initialize_echoes_a_version_that_is_known() {
        for (requested, answered) in [
            ("2024-11-05", "2024-11-05"),
            ("2025-03-26", "2025-03-26"),
            ("2025-06-18", "2025-06-18"),
            ("2025-11-25", "2025-11-25"),
            ("2026-07-28", "2025-11-25"),
            ("1.0", "2025-11-25"),
        ] {
            let params = format!(r#""protocolVersion":"{requested}","capabilities":{{}}"#);
            let answer = Bench::new().one(request("1", "initialize", &params));
            let expected = json!({
                "protocolVersion": answered,
                "capabilities": {"tools": {}, "resources": {"subscribe": true}},
                "serverInfo": {"name": "mcp-tcp-proxy-demo", "version": env!("CARGO_PKG_VERSION")},
            });
            assert_eq!(answer["result"], expected);
        }
    }

    #[test]
    fn a_legacy_session_opens_with_initialize() {
        let mut bench = Bench::new();
        assert_eq!(bench.one(request("1", "ping", ""))["result"], json!({}));
        let refused = bench.one(request("2", "tools/list", ""));
        assert_eq!(refused["error"]["code"], -32600);
        assert!(
            refused["error"]["message"]
                .as_str()
                .unwrap()
                .contains("not initialized")
        );
        assert_eq!(bench.code(call("3", "echo", r#""text":"a""#)), -32600);
        assert!(
            bench
                .all(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
                .is_empty()
        );
        assert_eq!(bench.code(request("4", "tools/list", "")), -32600);

        bench.one(request("5", "initialize", ""));
        let listed = bench.one(request("6", "tools/list", ""));
        assert_eq!(listed["result"]["tools"].as_array().unwrap().len(), 5);
        assert_eq!(listed["result"].as_object().unwrap().len(), 1);
    }

    #[test]
    fn modern_requests_need_no_session() {
        let mut bench = Bench::new();
        let discovered = bench.one(request("\"d\"", "server/discover", META));
        let server_info = json!({"io.modelcontextprotocol/serverInfo":
            {"name": "mcp-tcp-proxy-demo", "version": env!("CARGO_PKG_VERSION")}});
        let expected = json!({
            "resultType": "complete",
            "_meta": server_info,
            "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {"listChanged": true}, "resources": {"subscribe": true}},
            "ttlMs": 3_600_000,
            "cacheScope": "public",
        });
        assert_eq!(discovered["result"], expected);

        let listed = bench.one(request("1", "tools/list", META));
        assert_eq!(listed["result"]["cacheScope"], "public");
        assert_eq!(listed["result"]["resultType"], "complete");

        let params = format!(r#"{META},"name":"add","arguments":{{"a":2,"b":3}}"#);
        let added = bench.one(request("2", "tools/call", &params));
        let content = json!([{"type": "text", "text": "5"}]);
        let expected = json!({"resultType": "complete", "_meta": server_info, "content": content});
        assert_eq!(added["result"], expected);

        assert_eq!(bench.code(request("3", "ping", META)), -32601);
        assert_eq!(
            bench.code(request("4", "tools/list", "")),
            -32600,
            "still no legacy session"
        );
    }

    #[test]
    fn a_subscription_is_acknowledged_and_stays_open() {
        let mut bench = Bench::new();
        for (wanted, granted) in [
            (
                r#"{"toolsListChanged":true}"#,
                json!({"toolsListChanged": true}),
            ),
            (r#"{"promptsListChanged":true}"#, json!({})),
            (
                r#"{"resourceSubscriptions":["x","demo://note"]}"#,
                json!({"resourceSubscriptions": ["demo://note"]}),
            ),
        ] {
            let params = format!(r#"{META},"notifications":{wanted}"#);
            let answer = bench.one(request("\"l\"", "subscriptions/listen", &params));
            let expected = json!({
                "_meta": {"io.modelcontextprotocol/subscriptionId": "l"},
                "notifications": granted,
            });
            assert_eq!(answer["method"], "notifications/subscriptions/acknowledged");
            assert_eq!(answer["params"], expected);
        }
        assert_eq!(bench.code(request("1", "subscriptions/listen", "")), -32600);
    }

    #[test]
    fn whoever_listens_to_the_note_hears_of_it() {
        let mut bench = Bench::new();
        let wanted = r#""notifications":{"resourceSubscriptions":["demo://note"]}"#;
        for id in ["\"l\"", "7"] {
            bench.one(request(
                id,
                "subscriptions/listen",
                &format!("{META},{wanted}"),
            ));
        }
        let write = |text| {
            let params = format!(r#"{META},"name":"note","arguments":{{"text":{text}}}"#);
            request("1", "tools/call", &params)
        };
        let told = bench.all(write(r#""\u00e9""#));
        let ids = [&json!("l"), &json!(7)];
        for (told, id) in told.iter().zip(ids) {
            assert_eq!(told["method"], "notifications/resources/updated");
            assert_eq!(told["params"]["uri"], "demo://note");
            let subscription = &told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"];
            assert_eq!(subscription, id);
        }
        assert_eq!(told[2]["result"]["content"][0]["text"], "noted");
        let read = bench.one(request(
            "2",
            "resources/read",
            &format!("{META},\"uri\":\"demo://note\""),
        ));
        assert_eq!(read["result"]["contents"][0]["text"], "é");

        bench.all(
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"l"}}"#,
        );
        assert_eq!(bench.all(write(r#""b""#)).len(), 2);
        assert_eq!(
            bench.code(request("3", "resources/subscribe", META)),
            -32601
        );
    }

    #[test]
    fn a_legacy_client_subscribes_to_the_note() {
        let mut bench = Bench::initialized();
        let note = r#""uri":"demo://note""#;
        assert_eq!(bench.all(call("1", "note", r#""text":"a""#)).len(), 1);
        let subscribed = bench.one(request("2", "resources/subscribe", note));
        assert_eq!(subscribed["result"], json!({}));
        let told = bench.all(call("3", "note", r#""text":"b""#));
        assert_eq!(told[0]["params"], json!({"uri": "demo://note"}));
        bench.one(request("4", "resources/unsubscribe", note));
        assert_eq!(bench.all(call("5", "note", r#""text":"c""#)).len(), 1);
        assert_eq!(
            bench.code(request("6", "resources/read", r#""uri":"x""#)),
            -32602
        );
        let listed = bench.one(request("7", "resources/list", ""));
        assert_eq!(listed["result"]["resources"][0]["uri"], "demo://note");
    }

    #[test]
    fn whoever_wants_to_know_is_told_of_progress() {
        let mut bench = Bench::new();
        let meta = META.replace("{\"", "{\"progressToken\":\"t\",\"");
        let params = format!(r#"{meta},"name":"sleep","arguments":{{"seconds":1}}"#);
        let begun = bench.one(request("1", "tools/call", &params));
        assert_eq!(
            begun["params"],
            json!({"progressToken": "t", "progress": 0, "total": 1})
        );
        let over = bench.after(1000);
        assert_eq!(over[0]["params"]["progress"], 1);
        assert_eq!(over[1]["id"], 1);
    }

    #[test]
    fn modern_metadata_is_checked() {
        let mut bench = Bench::initialized();
        let unsupported = META.replace("2026-07-28", "1900-01-01");
        let error = &bench.one(request("1", "server/discover", &unsupported))["error"];
        assert_eq!(error["code"], -32022);
        let data = json!({"supported": ["2026-07-28"], "requested": "1900-01-01"});
        assert_eq!(error["data"], data);

        for meta in [
            r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#,
            r#""_meta":{"io.modelcontextprotocol/clientCapabilities":{}}"#,
            &META.replace("{}", "5"),
            &META.replace("\"2026-07-28\"", "20260728"),
        ] {
            assert_eq!(
                bench.code(request("2", "tools/list", meta)),
                -32602,
                "{meta}"
            );
        }
        assert_eq!(bench.code(request("3", "server/discover", "")), -32602);
        let legacy = bench.one(request("4", "tools/list", r#""_meta":{"progressToken":1}"#));
        assert!(legacy["result"].is_object());
    }

    #[test]
    fn ids_come_back_as_they_were_written() {
        let mut bench = Bench::new();
        for id in [
            "1.50",
            "-0",
            "12345678901234567890123",
            "null",
            r#""\u00e9""#,
            "[ 1]",
            "{}",
        ] {
            let answer = bench.raw(request(id, "ping", ""));
            assert_eq!(
                answer,
                format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}\n")
            );
        }
    }

    #[test]
    fn echo_takes_large_texts() {
        let mut bench = Bench::initialized();
        let text = "é\\n".repeat(3_000_000);
        let answer = bench.raw(call("1", "echo", &format!(r#""text":"{text}""#)));
        assert!(answer.contains(&text));
    }

    #[test]
    fn sleeps_overlap_and_block_nobody() {
        let mut bench = Bench::initialized();
        assert!(bench.all(call("1", "sleep", r#""seconds":2"#)).is_empty());
        assert!(bench.all(call("2", "sleep", r#""seconds":1"#)).is_empty());
        let one_second = bench.now + Duration::from_secs(1);
        assert_eq!(bench.server.next_deadline(), Some(one_second));
        assert_eq!(bench.one(request("3", "ping", ""))["id"], 3);
        assert!(bench.after(999).is_empty());
        let slept = bench.after(1);
        assert_eq!(slept[0]["id"], 2);
        assert_eq!(slept[0]["result"]["content"][0]["text"], "slept for 1 s");
        assert_eq!(bench.after(1000)[0]["id"], 1);
        assert_eq!(bench.server.next_deadline(), None);
    }

    #[test]
    fn cancelled_sleeps_are_never_answered() {
        let mut bench = Bench::initialized();
        let cancel = |id: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#
            )
        };
        bench.all(call("1.50", "sleep", r#""seconds":1"#));
        bench.all(call("2", "sleep", r#""seconds":1"#));
        for id in ["1.5", "7", "null"] {
            assert!(bench.all(cancel(id)).is_empty());
        }
        let slept = bench.after(1000);
        assert_eq!(slept.len(), 1);
        assert_eq!(slept[0]["id"], 2);
    }

    fn ids(answers: &Value) -> Vec<&Value> {
        let answers = answers.as_array().unwrap();
        answers.iter().map(|one| &one["id"]).collect()
    }

    #[test]
    fn batches_are_answered_with_one_array() {
        let mut bench = Bench::initialized();
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        let ping = |id| request(id, "ping", "");
        let batch = format!("[{},{initialized},5,{},{{}}]", ping("1"), ping("\"b\""));
        let answer = bench.one(&batch);
        assert_eq!(
            ids(&answer),
            [&json!(1), &json!(null), &json!("b"), &json!(null)]
        );
        assert_eq!(answer[1]["error"]["code"], -32600);

        assert!(bench.all(format!("[{initialized}]")).is_empty());
        assert_eq!(bench.code("[]"), -32600);
        assert_eq!(bench.code("[1,]"), -32700);
        let refused = bench.one(format!("[{}]", request("1", "initialize", "")));
        assert_eq!(refused[0]["error"]["code"], -32600);
    }

    #[test]
    fn batches_wait_for_their_sleeps() {
        let mut bench = Bench::initialized();
        let cancel =
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
        let sleep = |id| call(id, "sleep", r#""seconds":1"#);
        let ping = request("3", "ping", "");

        assert!(
            bench
                .all(format!("[{},{ping},{}]", sleep("1"), sleep("2")))
                .is_empty()
        );
        let answer = &bench.after(1000)[0];
        assert_eq!(ids(answer), [3, 1, 2]);

        assert!(bench.all(format!("[{},{ping}]", sleep("1"))).is_empty());
        let released = bench.one(cancel);
        assert_eq!(released[0]["id"], 3, "nothing left to wait for");

        assert!(bench.all(format!("[{}]", sleep("1"))).is_empty());
        assert!(bench.all(format!("[{cancel}]")).is_empty());
        assert!(bench.after(5000).is_empty());
        assert!(bench.server.batches.is_empty());
        assert_eq!(bench.server.next_deadline(), None);
    }

    #[test]
    fn a_crash_leaves_earlier_answers() {
        let mut bench = Bench::initialized();
        let line = call("1", "crash", r#""exit_code":7"#);
        for line in [
            line.clone(),
            format!("[{},{line}]", request("2", "ping", "")),
        ] {
            bench.server.handle_line(line.as_bytes(), bench.now);
            // Lines that were read with it are too late.
            for line in ["[]", "5", &request("3", "ping", "")] {
                bench.server.handle_line(line.as_bytes(), bench.now);
            }
            assert_eq!(bench.server.crash.take(), Some(Crash::Exit(7)));
            assert!(bench.server.out.is_empty());
        }
    }

    #[test]
    fn bad_input_gets_the_right_error() {
        let mut bench = Bench::initialized();
        for line in ["", " \t\r"] {
            assert!(bench.all(line).is_empty());
        }
        for line in [
            "{",
            "nonsense",
            "{\"id\":1}}",
            "{\"id\":1 \"method\":\"ping\"}",
            "NaN",
        ] {
            let answer = bench.one(line);
            assert_eq!(answer["error"]["code"], -32700, "{line}");
            assert_eq!(answer["id"], Value::Null);
        }
        assert_eq!(bench.code(b"{\"id\":1,\"method\":\"\xff\"}"), -32700);
        for line in ["5", "null", "\"a\"", "{}", r#"{"type":"heartbeat"}"#] {
            assert_eq!(bench.code(line), -32600, "{line}");
        }
        for line in [
            r#"{"jsonrpc":"2.0","id":9}"#,
            r#"{"jsonrpc":"2.0","id":9,"method":5}"#,
            r#"{"jsonrpc":"1.0","id":9,"method":"ping"}"#,
            r#"{"id":9,"method":"ping"}"#,
        ] {
            let answer = bench.one(line);
            assert_eq!(answer["error"]["code"], -32600, "{line}");
            assert_eq!(answer["id"], 9);
        }
        assert_eq!(bench.code(request("1", "no/such", "")), -32601);
        assert_eq!(bench.code(call("1", "no_such", "")), -32602);
        assert_eq!(
            bench.code(request("1", "tools/list", r#""cursor":"x""#)),
            -32602
        );
        assert_eq!(
            bench.code(r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#),
            -32602
        );
        let mistaken = bench.one(call("1", "add", r#""a":"x","b":1"#));
        assert_eq!(mistaken["result"]["isError"], true);
    }

    #[test]
    fn notifications_and_responses_are_never_answered() {
        let mut bench = Bench::initialized();
        for line in [
            r#"{"jsonrpc":"2.0","method":"no/such"}"#,
            r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"crash"}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":[1]}"#,
            r#"{"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#,
        ] {
            assert!(bench.all(line).is_empty(), "{line}");
        }
    }

    #[test]
    fn sleeps_that_end_together_are_all_answered_in_order() {
        let mut bench = Bench::initialized();
        for id in ["3", "1", "2"] {
            bench.raw(call(id, "sleep", r#""seconds":0"#));
        }
        assert_eq!(bench.server.next_deadline(), Some(bench.now));
        let ids: Vec<Value> = bench
            .after(0)
            .iter()
            .map(|slept| slept["id"].clone())
            .collect();
        assert_eq!(ids, [3, 1, 2]);
        assert_eq!(bench.server.next_deadline(), None);
    }

    #[test]
    fn modern_calls_sleep_and_are_cancelled_too() {
        let mut bench = Bench::new();
        let sleep = |id| {
            let params = format!(r#"{META},"name":"sleep","arguments":{{"seconds":0.5}}"#);
            request(id, "tools/call", &params)
        };
        bench.raw(sleep("\"a\""));
        bench.raw(sleep("\"b\""));
        bench.raw(format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{{META},"requestId":"a"}}}}"#
        ));
        let slept = bench.after(500);
        assert_eq!(slept.len(), 1);
        assert_eq!(slept[0]["id"], "b");
        assert_eq!(slept[0]["result"]["resultType"], "complete");
        assert_eq!(slept[0]["result"]["content"][0]["text"], "slept for 0.5 s");
    }

    #[test]
    fn what_a_tree_of_values_would_not_take_is_served() {
        let mut bench = Bench::initialized();
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        for odd in [&deep, r#""\ud800""#, "1e999"] {
            let params = format!(r#""name":"add","arguments":{{"a":2,"b":3,"odd":{odd}}}"#);
            let added = bench.one(request("1", "tools/call", &params));
            assert_eq!(added["result"]["content"][0]["text"], "5", "{odd}");
        }
        let echoed = bench.raw(call("1", "echo", r#""text":"\ud800""#));
        assert!(echoed.contains(r#""text":"\ud800""#), "{echoed}");
    }
}
