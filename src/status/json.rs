//! The facts as JSON, in pieces: what is known of all, then one session after the other.

use std::fmt::Write as _;
use std::time::Duration;

use super::facts::{Facts, ProxyFacts, Reason, ServerFacts, SessionFacts};
use super::history::{History, Point};
use crate::protocol::own_messages::JsonString;
use crate::session::report::Traffic;
use crate::util::histogram::Histogram;

/// All but the sessions, which follow.
pub fn beginning(facts: &Facts<'_>, has_history: bool) -> String {
    let mut text = String::from(r#"{"proxy":"#);
    push_proxy(&mut text, &facts.proxy, has_history);
    text.push_str(r#","servers":["#);
    for (place, server) in facts.servers.iter().enumerate() {
        push_comma(&mut text, place == 0);
        push_server(&mut text, server, has_history);
    }
    text.push_str(r#"],"sessions":["#);
    text
}

/// A session. The first one follows the beginning.
pub fn push_session(text: &mut String, facts: &SessionFacts<'_>, is_first: bool) {
    push_comma(text, is_first);
    let session = &facts.session;
    let _ = write!(
        text,
        r#"{{"session":{},"client":"{}","name":{},"server":{},"pid":{},"age":{},"idle":{},"#,
        session.number,
        session.client,
        Maybe(facts.name),
        JsonString(facts.server),
        session
            .pid
            .map_or_else(|| "null".to_owned(), |pid| pid.to_string()),
        Seconds(session.age),
        Seconds(session.idle)
    );
    push_traffic(text, "to_server", session.to_server);
    text.push(',');
    push_traffic(text, "to_client", session.to_client);
    let _ = write!(
        text,
        r#","in_flight":{},"restarts":{},"state":"{}""#,
        session.in_flight, session.restarts, session.state
    );
    if let Some(kept_for) = facts.kept_for {
        let _ = write!(text, r#","kept_for":{}"#, Seconds(kept_for));
    }
    text.push('}');
}

/// What follows the last session. `next` is where the next window begins.
pub fn end(next: Option<usize>) -> String {
    match next {
        Some(next) => format!("],\"next\":{next}}}\n"),
        None => "],\"next\":null}\n".to_owned(),
    }
}

fn push_proxy(text: &mut String, proxy: &ProxyFacts<'_>, has_history: bool) {
    let _ = write!(
        text,
        r#"{{"version":"{}","pid":{},"started":{},"age":{},"addresses":{},"state":"{}","reasons":"#,
        env!("CARGO_PKG_VERSION"),
        proxy.pid,
        Seconds(proxy.started),
        Seconds(proxy.age),
        JsonString(proxy.addresses),
        proxy.state
    );
    push_reasons(text, proxy.reasons.iter());
    let _ = write!(
        text,
        r#","sessions":{},"max_sessions":{},"entrance_connections":{},"refused":"#,
        proxy.sessions, proxy.max_sessions, proxy.visitors
    );
    push_counts(text, proxy.refused.iter().copied());
    text.push_str(r#","resumes":"#);
    push_counts(text, proxy.resumes.iter().copied());
    text.push_str(r#","upgrades":"#);
    push_counts(text, proxy.upgrades.iter().copied());
    let _ = write!(
        text,
        r#","buffer_bytes":{},"buffer_limit_bytes":{},"longest_iteration":{},"log_lines_lost":{},"open_fds":{},"resident_bytes":{}"#,
        proxy.buffer_bytes,
        proxy.buffer_limit_bytes,
        proxy.longest_iteration.as_secs_f64(),
        proxy.log_lines_lost,
        proxy.process.open_fds.unwrap_or(0),
        proxy.process.resident_bytes.unwrap_or(0)
    );
    if has_history {
        push_history(text, proxy.history);
    }
    text.push('}');
}

fn push_server(text: &mut String, server: &ServerFacts<'_>, has_history: bool) {
    let _ = write!(
        text,
        r#"{{"name":{},"command":{},"ready":{},"reasons":"#,
        JsonString(server.name),
        JsonString(server.command),
        server.trouble.is_none()
    );
    push_reasons(text, server.trouble.iter());
    let _ = write!(
        text,
        r#","sessions":{},"waiting":{},"hibernating":{},"detached":{},"in_flight":{},"processes":{},"spares":{},"opened":{},"closed":"#,
        server.sessions,
        server.waiting,
        server.gauges.hibernating,
        server.gauges.detached,
        server.gauges.in_flight,
        server.processes,
        server.spares,
        server.opened
    );
    push_counts(text, server.closed.iter().copied());
    text.push(',');
    push_traffic(text, "to_server", server.counts.to_upstream);
    text.push(',');
    push_traffic(text, "to_client", server.counts.to_client);
    text.push_str(r#","errors":"#);
    push_counts(text, server.errors.iter());
    let _ = write!(
        text,
        r#","starts":{},"restarts":{},"exits":"#,
        server.starts, server.counts.restarts
    );
    push_counts(text, server.exits.iter().copied());
    push_shared(text, server);
    let swaps = server.swaps;
    let _ = write!(
        text,
        r#","swaps":{{"left":{},"succeeded":{},"failed":{},"failure":{}}}"#,
        swaps.left,
        swaps.succeeded,
        swaps.failed,
        Maybe(swaps.failure)
    );
    push_times(text, "response_seconds", &server.counts.responses);
    push_times(text, "start_seconds", server.start_times);
    if has_history {
        push_history(text, server.history);
    }
    text.push('}');
}

fn push_history(text: &mut String, history: &History) {
    text.push_str(r#","history":{"interval":2"#);
    let points = || history.points();
    push_series(text, "messages", points().map(|point| point.messages));
    push_series(text, "median", points().map(|point: &Point| point.median));
    push_series(text, "p99", points().map(|point: &Point| point.p99));
    text.push('}');
}

fn push_shared(text: &mut String, server: &ServerFacts<'_>) {
    text.push_str(r#","shared":["#);
    for (place, process) in server.shared.iter().enumerate() {
        push_comma(text, place == 0);
        let _ = write!(
            text,
            r#"{{"process":{},"pid":{},"sessions":{},"in_flight":{},"kind":"{}","silent":{}}}"#,
            process.place,
            process.pid,
            process.sessions,
            process.in_flight,
            process.kind.name(),
            process.is_silent
        );
    }
    text.push_str(r#"],"dropped":"#);
    push_counts(text, server.dropped.iter().copied());
}

fn push_comma(text: &mut String, is_first: bool) {
    if !is_first {
        text.push(',');
    }
}

fn push_reasons<'a>(text: &mut String, reasons: impl Iterator<Item = &'a Reason>) {
    text.push('[');
    for (place, reason) in reasons.enumerate() {
        push_comma(text, place == 0);
        let words = JsonString(&reason.words);
        let _ = write!(text, r#"{{"reason":"{}","words":{words}}}"#, reason.name);
    }
    text.push(']');
}

/// Those that are not zero.
fn push_counts<N: std::fmt::Display>(text: &mut String, counts: impl Iterator<Item = (N, u64)>) {
    text.push('{');
    let counts = counts.filter(|(_, count)| *count > 0);
    for (place, (name, count)) in counts.enumerate() {
        push_comma(text, place == 0);
        let _ = write!(text, r#""{name}":{count}"#);
    }
    text.push('}');
}

fn push_traffic(text: &mut String, name: &str, traffic: Traffic) {
    let (messages, bytes) = (traffic.messages(), traffic.bytes());
    let _ = write!(
        text,
        r#""{name}":{{"messages":{messages},"bytes":{bytes}}}"#
    );
}

fn push_times(text: &mut String, name: &str, times: &Histogram) {
    let _ = write!(
        text,
        r#","{name}":{{"count":{},"median":{},"p99":{}}}"#,
        times.count(),
        times.quantile(0.5),
        times.quantile(0.99)
    );
}

fn push_series<N: std::fmt::Display>(
    text: &mut String,
    name: &str,
    values: impl Iterator<Item = N>,
) {
    let _ = write!(text, r#","{name}":["#);
    for (place, value) in values.enumerate() {
        push_comma(text, place == 0);
        let _ = write!(text, "{value}");
    }
    text.push(']');
}

/// A text or null.
struct Maybe<'a>(Option<&'a str>);

impl std::fmt::Display for Maybe<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(text) => JsonString(text).fmt(f),
            None => f.write_str("null"),
        }
    }
}

/// Decimal seconds to the millisecond.
struct Seconds(Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0.as_secs(), self.0.subsec_millis())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::Value;

    use super::*;
    use crate::session::status::SessionStatus;
    use crate::status::facts::tests::{Kept, facts};
    use crate::util::client_address::ClientAddress;

    pub(crate) fn session(name: Option<&str>) -> SessionFacts<'_> {
        let mut to_client = Traffic::default();
        to_client.count(4);
        SessionFacts {
            session: SessionStatus {
                number: 7,
                client: ClientAddress::Unix { uid: 1, pid: 2 },
                pid: None,
                age: Duration::from_millis(61_500),
                idle: Duration::ZERO,
                to_server: Traffic::default(),
                to_client,
                in_flight: 3,
                restarts: 1,
                state: "serving",
            },
            name,
            server: "default",
            kept_for: Some(Duration::from_millis(9_500)),
        }
    }

    #[test]
    fn it_is_json_with_any_number_of_sessions() {
        let mut kept = Kept::default();
        kept.history.note(&kept.counts);
        let mut facts = facts(&["default", "a\"b\n"], &kept);
        facts.proxy.reasons.push(Reason {
            name: "shutdown",
            words: "the \"end\"".to_owned(),
        });
        for count in 0..3 {
            let mut text = beginning(&facts, count == 1);
            for place in 0..count {
                push_session(&mut text, &session(Some("ann")), place == 0);
            }
            text.push_str(&end((count > 0).then_some(9)));
            let read: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
                panic!("{error}: {text}");
            });
            assert_eq!(read["sessions"].as_array().unwrap().len(), count);
            assert_eq!(read["servers"][1]["name"], "a\"b\n");
            assert_eq!(read["proxy"]["reasons"][0]["words"], "the \"end\"");
            assert_eq!(read["next"].is_null(), count == 0);
            let server = &read["servers"][0];
            assert_eq!(
                (
                    &server["shared"][0]["sessions"],
                    &server["dropped"]["server_log"]
                ),
                (&4.into(), &3.into())
            );
            let swaps = &read["servers"][0]["swaps"];
            assert_eq!(
                (&swaps["left"], &swaps["succeeded"]),
                (&1.into(), &2.into())
            );
            assert_eq!(swaps["failure"], "it has \"ended\"");
            let history = &read["servers"][0]["history"]["messages"];
            assert_eq!(history.is_null(), count != 1);
            assert_eq!(read["proxy"]["history"]["messages"], *history);
            if count > 0 {
                let session = &read["sessions"][0];
                assert_eq!(session["age"], 61.5);
                assert_eq!(session["kept_for"], 9.5);
                assert_eq!(session["to_client"]["bytes"], 5);
                assert_eq!(
                    (&session["name"], &session["pid"]),
                    (&"ann".into(), &Value::Null)
                );
            }
        }
    }
}
