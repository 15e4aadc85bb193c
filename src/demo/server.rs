//! The demo server itself: lines in, lines out. `now` is a parameter. Must not know descriptors or the
//! clock.

use std::ops::ControlFlow;
use std::time::Instant;

use serde_json::value::RawValue;

use super::answer::{self, Fault, SERVER_INFO};
use super::json::{is_json, string};
use super::message::{Era, MODERN_VERSIONS, Message, Params, Request, not_modern};
use super::pending::{BatchNumber, Pending, Sleep, add_to_batch};
use super::tools::{self, Call, Crash};

/// Legacy versions, newest first: the first is the answer to a client that wants one we don't know.
const LEGACY_VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

const CAPABILITIES: &str = r#"{"tools":{}}"#;

/// 2026-07-28, Caching: how long a client may use a list, and who may share it. Nothing here ever changes.
const CACHE_HINTS: &str = r#","ttlMs":3600000,"cacheScope":"public""#;

/// One client's server.
#[derive(Default)]
pub(super) struct Server {
    /// Whether `initialize` was answered. Means nothing to modern requests.
    initialized: bool,
    pending: Pending,
}

/// What a request comes to, unless it is a fault.
enum Reply<'a> {
    /// Pieces of the result's members.
    Now(Vec<&'a str>),
    Call(Call<'a>),
}

impl Server {
    /// Handles one line, without its line end, and appends what there is to say to `out`, as lines.
    /// Breaks if the process is to end; `out` then holds what was answered before.
    pub(super) fn handle_line(
        &mut self,
        line: &[u8],
        now: Instant,
        out: &mut Vec<u8>,
    ) -> ControlFlow<Crash> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return ControlFlow::Continue(());
        }
        let start = out.len();
        match std::str::from_utf8(line) {
            Ok(text) if text.starts_with('[') => self.handle_batch(text, now, out)?,
            Ok(text) if text.starts_with('{') => self.handle_single(text, now, out)?,
            _ if is_json(line) => answer::error(out, "null", &not_a_message()),
            _ => answer::error(out, "null", &Fault::parse_error()),
        }
        if out.len() > start {
            out.push(b'\n');
        }
        // Only now, for a cancellation may itself have come in a batch.
        self.pending.finish_batches(out);
        ControlFlow::Continue(())
    }

    /// When [`Server::fire`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.pending.next_deadline()
    }

    /// Answers the calls of `sleep` that are over, as lines appended to `out`.
    pub(super) fn fire(&mut self, now: Instant, out: &mut Vec<u8>) {
        self.pending.fire(now, out);
    }

    fn handle_single(&mut self, text: &str, now: Instant, out: &mut Vec<u8>) -> ControlFlow<Crash> {
        let message = Message::read(text);
        // Reading takes the line to be JSON; whether it is, is only asked where it was not understood.
        if matches!(message, Message::Invalid { id: "null", .. }) && !is_json(text.as_bytes()) {
            answer::error(out, "null", &Fault::parse_error());
            return ControlFlow::Continue(());
        }
        self.handle_message(message, None, now, out)
    }

    /// Batches are of 2025-03-26 alone, but cost little to serve to all.
    fn handle_batch(&mut self, text: &str, now: Instant, out: &mut Vec<u8>) -> ControlFlow<Crash> {
        let Ok(messages) = serde_json::from_str::<Vec<&RawValue>>(text) else {
            answer::error(out, "null", &Fault::parse_error());
            return ControlFlow::Continue(());
        };
        if messages.is_empty() {
            answer::error(
                out,
                "null",
                &Fault::invalid_request("Invalid request: the batch is empty"),
            );
            return ControlFlow::Continue(());
        }
        let batch = self.pending.new_batch();
        let mut answers = Vec::new();
        for message in messages {
            let message = Message::read(message.get());
            let mut flow = ControlFlow::Continue(());
            add_to_batch(&mut answers, |out| {
                flow = self.handle_message(message, Some(batch), now, out);
            });
            flow?;
        }
        self.pending.add_batch(batch, answers);
        ControlFlow::Continue(())
    }

    fn handle_message(
        &mut self,
        message: Message,
        batch: Option<BatchNumber>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> ControlFlow<Crash> {
        match message {
            Message::Request(request) => return self.handle_request(&request, batch, now, out),
            Message::Notification { method, params } if method == "notifications/cancelled" => {
                // What is not under way can't be cancelled, which is fine: answers and cancellations cross.
                if let Some(id) = params.request_id {
                    self.pending.cancel(id);
                }
            }
            Message::Notification { .. } | Message::Response => {}
            Message::Invalid { id, fault } => answer::error(out, id, &fault),
        }
        ControlFlow::Continue(())
    }

    fn handle_request(
        &mut self,
        request: &Request,
        batch: Option<BatchNumber>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> ControlFlow<Crash> {
        let id = request.id.get();
        let served = match &*request.method {
            // A session's first word, whatever metadata it carries: 2026-07-28, Versioning and
            // Compatibility, "Backward Compatibility with Initialization-Based Versions".
            "initialize" => self
                .initialize(&request.params, batch)
                .map(|reply| (Era::Legacy, reply)),
            _ => request
                .params
                .era()
                .and_then(|era| Ok((era, self.dispatch(request, era)?))),
        };
        match served {
            Err(fault) => answer::error(out, id, &fault),
            Ok((era, Reply::Now(members))) => answer::result(out, id, era, &members),
            Ok((_, Reply::Call(Call::Crash(crash)))) => return ControlFlow::Break(crash),
            Ok((era, Reply::Call(Call::Text(json)))) => answer::text(out, id, era, &json),
            Ok((era, Reply::Call(Call::Mistake(json)))) => answer::mistake(out, id, era, &json),
            Ok((era, Reply::Call(Call::Sleep(duration)))) => {
                let sleep = Sleep {
                    id: request.id.to_owned(),
                    era,
                    duration,
                    batch,
                };
                self.pending.add_sleep(sleep, now);
            }
        }
        ControlFlow::Continue(())
    }

    fn initialize(
        &mut self,
        params: &Params,
        batch: Option<BatchNumber>,
    ) -> Result<Reply<'static>, Fault> {
        if batch.is_some() {
            // 2025-03-26, Lifecycle, "Initialization": nothing else may be sent before its answer.
            return Err(Fault::invalid_request(
                "Invalid request: initialize must not be part of a batch",
            ));
        }
        self.initialized = true;
        let requested = params.protocol_version.and_then(string);
        let version = LEGACY_VERSIONS
            .into_iter()
            .find(|version| requested.as_deref() == Some(version))
            .unwrap_or(LEGACY_VERSIONS[0]);
        Ok(Reply::Now(vec![
            r#""protocolVersion":""#,
            version,
            r#"","capabilities":"#,
            CAPABILITIES,
            r#","serverInfo":"#,
            SERVER_INFO,
        ]))
    }

    fn dispatch<'a>(&self, request: &Request<'a>, era: Era) -> Result<Reply<'a>, Fault> {
        let cache_hints = match era {
            Era::Legacy => "",
            Era::Modern => CACHE_HINTS,
        };
        match (&*request.method, era) {
            // Modern MCP has no ping: 2026-07-28, Key Changes, "Major changes", 5.
            ("ping", Era::Legacy) => Ok(Reply::Now(Vec::new())),
            ("server/discover", Era::Legacy) => Err(not_modern()),
            ("server/discover", Era::Modern) => Ok(Reply::Now(vec![
                r#""supportedVersions":"#,
                MODERN_VERSIONS,
                r#","capabilities":"#,
                CAPABILITIES,
                cache_hints,
            ])),
            (method, Era::Legacy) if !self.initialized => Err(Fault::not_initialized(method)),
            ("tools/list", _) if request.params.cursor.is_some() => Err(Fault::invalid_params(
                "cursor is not one of ours: all tools are on the first page",
            )),
            ("tools/list", _) => Ok(Reply::Now(vec![r#""tools":"#, tools::LIST, cache_hints])),
            ("tools/call", _) => tools::call(&request.params).map(Reply::Call),
            (method, _) => Err(Fault::method_not_found(method)),
        }
    }
}

fn not_a_message() -> Fault {
    Fault::invalid_request("Invalid request: the message is not an object")
}

#[cfg(test)]
mod tests {
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
            let mut out = Vec::new();
            let flow = self.server.handle_line(line.as_ref(), self.now, &mut out);
            assert_eq!(flow, ControlFlow::Continue(()));
            String::from_utf8(out).unwrap()
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
            let mut out = Vec::new();
            self.server.fire(self.now, &mut out);
            values(&String::from_utf8(out).unwrap())
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
                "capabilities": {"tools": {}},
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
        assert_eq!(listed["result"]["tools"].as_array().unwrap().len(), 4);
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
            "capabilities": {"tools": {}},
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

    #[test]
    fn batches_are_answered_with_one_array() {
        let mut bench = Bench::initialized();
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        let ping = |id| request(id, "ping", "");
        let batch = format!("[{},{initialized},5,{},{{}}]", ping("1"), ping("\"b\""));
        let answer = bench.one(&batch);
        let ids: Vec<&Value> = answer
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["id"])
            .collect();
        assert_eq!(ids, [&json!(1), &json!(null), &json!("b"), &json!(null)]);
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
        let ids: Vec<&Value> = answer
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["id"])
            .collect();
        assert_eq!(ids, [3, 1, 2]);

        assert!(bench.all(format!("[{},{ping}]", sleep("1"))).is_empty());
        let released = bench.one(cancel);
        assert_eq!(released[0]["id"], 3, "nothing left to wait for");

        assert!(bench.all(format!("[{}]", sleep("1"))).is_empty());
        assert!(bench.all(format!("[{cancel}]")).is_empty());
        assert!(bench.after(5000).is_empty());
        assert!(bench.server.pending.is_empty());
    }

    #[test]
    fn a_crash_leaves_earlier_answers() {
        let mut bench = Bench::initialized();
        let mut out = Vec::new();
        let line = call("1", "crash", r#""exit_code":7"#);
        for line in [
            line.clone(),
            format!("[{},{line}]", request("2", "ping", "")),
        ] {
            let flow = bench
                .server
                .handle_line(line.as_bytes(), bench.now, &mut out);
            assert_eq!(flow, ControlFlow::Break(Crash::Exit(7)));
            assert!(out.is_empty());
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
}
