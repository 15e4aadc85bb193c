//! `mcp-tcp-proxy status`: asks a running proxy how it is, and says so on a terminal.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;

use crate::status::human::{bytes, seconds, span};
use crate::transport::address::Address;

/// How long the proxy may take to say anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// An answer is not read beyond this, in bytes: a thousand sessions take a third of it.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;

/// Sessions that are asked for.
const SESSIONS: usize = 1000;

/// How the proxy is.
#[derive(Debug)]
pub struct Answer {
    /// Whether a new session would be served.
    pub is_ready: bool,
    /// What there is to be told, in lines.
    pub text: String,
}

/// Asks the proxy at this address. An error says why there is no answer.
pub fn ask(address: &Address) -> Result<Answer, String> {
    let failed = |error: &dyn std::fmt::Display| format!("no answer from {address}: {error}");
    let (status, ready) = get(address, "/readyz").map_err(|error| failed(&error))?;
    let is_ready = match status {
        200 => true,
        503 => false,
        other => return Err(failed(&format_args!("{other} {}", ready.trim()))),
    };
    let target = format!("/status.json?limit={SESSIONS}");
    let (status, json) = get(address, &target).map_err(|error| failed(&error))?;
    let text = match (status, serde_json::from_str(&json)) {
        (200, Ok(value)) => table(&value),
        // From another machine there is no more to be seen.
        _ => ready,
    };
    Ok(Answer { is_ready, text })
}

/// The status and the body of what a proxy answers to this request.
fn get(address: &Address, target: &str) -> io::Result<(u16, String)> {
    let mut answer = String::new();
    match address {
        Address::Tcp { host, port } => {
            let stream = connect(host, *port)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            // Its address is a name that it always answers to.
            let host = stream.peer_addr()?.to_string();
            exchange(stream, &host, target, &mut answer)?;
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            exchange(stream, "localhost", target, &mut answer)?;
        }
    }
    let status = answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok());
    match (status, answer.split_once("\r\n\r\n")) {
        (Some(status), Some((_, body))) => Ok((status, body.to_owned())),
        _ => Err(io::Error::other("what answers is not a proxy's --status")),
    }
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn exchange(
    mut stream: impl Read + Write,
    host: &str,
    target: &str,
    answer: &mut String,
) -> io::Result<()> {
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    stream.take(MAX_ANSWER_BYTES).read_to_string(answer)?;
    Ok(())
}

/// All of it, for a terminal.
fn table(status: &Value) -> String {
    let mut text = String::new();
    let proxy = &status["proxy"];
    let _ = writeln!(
        text,
        "mcp-tcp-proxy {} pid {} on {}: {}, up {}",
        word(&proxy["version"]),
        proxy["pid"],
        word(&proxy["addresses"]),
        word(&proxy["state"]),
        time(&proxy["age"])
    );
    for reason in items(&proxy["reasons"]) {
        let _ = writeln!(text, "not ready: {}", word(&reason["words"]));
    }
    let _ = writeln!(
        text,
        "{} of {} sessions, {} of {} buffer memory, longest iteration {}\n",
        proxy["sessions"],
        proxy["max_sessions"],
        size(&proxy["buffer_bytes"]),
        size(&proxy["buffer_limit_bytes"]),
        seconds(proxy["longest_iteration"].as_f64().unwrap_or(0.0))
    );
    let all = items(&status["servers"]);
    push_columns(&mut text, &servers(&all));
    for server in &all {
        let failure = &server["swaps"]["failure"];
        if !failure.is_null() {
            let (name, failure) = (word(&server["name"]), word(failure));
            let _ = writeln!(text, "{name}: the new server is not used: {failure}");
        }
    }
    let sessions = items(&status["sessions"]);
    if !sessions.is_empty() {
        text.push('\n');
        push_columns(&mut text, &session_rows(&sessions));
    }
    if !status["next"].is_null() {
        let _ = writeln!(text, "… and more (/status.json?after={})", status["next"]);
    }
    text
}

fn servers(servers: &[Value]) -> Vec<Vec<String>> {
    let names =
        "SERVER READY SESSIONS WAITING IN-FLIGHT PROCESSES SPARES STARTS RESTARTS MEDIAN 99%";
    let mut rows = vec![heading(names)];
    for server in servers {
        let times = &server["response_seconds"];
        let reasons = items(&server["reasons"]);
        let ready = reasons.first().map_or_else(
            || "yes".to_owned(),
            |reason| format!("no ({})", word(&reason["reason"])),
        );
        let numbers = [
            "sessions",
            "waiting",
            "in_flight",
            "processes",
            "spares",
            "starts",
            "restarts",
        ];
        let mut row = vec![word(&server["name"]), ready];
        row.extend(numbers.iter().map(|name| server[name].to_string()));
        for name in ["median", "p99"] {
            row.push(seconds(times[name].as_f64().unwrap_or(0.0)));
        }
        rows.push(row);
    }
    rows
}

fn session_rows(sessions: &[Value]) -> Vec<Vec<String>> {
    let names = "SESSION CLIENT NAME SERVER PID AGE IDLE MESSAGES→ ←MESSAGES BYTES→ ←BYTES IN-FLIGHT RESTARTS STATE";
    let mut rows = vec![heading(names)];
    for session in sessions {
        rows.push(vec![
            session["session"].to_string(),
            word(&session["client"]),
            word(&session["name"]),
            word(&session["server"]),
            word(&session["pid"]),
            time(&session["age"]),
            time(&session["idle"]),
            session["to_server"]["messages"].to_string(),
            session["to_client"]["messages"].to_string(),
            size(&session["to_server"]["bytes"]),
            size(&session["to_client"]["bytes"]),
            session["in_flight"].to_string(),
            session["restarts"].to_string(),
            word(&session["state"]),
        ]);
    }
    rows
}

fn heading(names: &str) -> Vec<String> {
    names.split(' ').map(str::to_owned).collect()
}

fn items(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// A text as it may stand on a terminal; a dash if there is none.
fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => crate::logger::one_line(text),
        other => other.to_string(),
    }
}

fn time(value: &Value) -> String {
    let time = value.as_f64().unwrap_or(0.0);
    span(Duration::try_from_secs_f64(time).unwrap_or_default())
}

fn size(value: &Value) -> String {
    bytes(value.as_u64().unwrap_or(0))
}

/// Rows with their columns below each other.
fn push_columns(text: &mut String, rows: &[Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_table() {
        let status = serde_json::json!({
            "proxy": {"version": "1", "pid": 7, "addresses": "a:1", "state": "serving", "age": 61.5,
                "reasons": [{"reason": "x", "words": "no \u{1b}[2J room"}], "sessions": 1, "max_sessions": 2,
                "buffer_bytes": 1500, "buffer_limit_bytes": 2000, "longest_iteration": 0.002},
            "servers": [{"name": "default", "reasons": [], "sessions": 1, "waiting": 0, "in_flight": 3,
                "processes": 1, "spares": 0, "starts": 1, "restarts": 0,
                "swaps": {"left": 0, "succeeded": 0, "failed": 1, "failure": "it ended"},
                "response_seconds": {"median": 0.005, "p99": 0.0}}],
            "sessions": [{"session": 1, "client": "127.0.0.1:1", "name": null, "server": "default", "pid": 9,
                "age": 0.5, "idle": 0.25, "to_server": {"messages": 2, "bytes": 2000},
                "to_client": {"messages": 1, "bytes": 9}, "in_flight": 3, "restarts": 0, "state": "serving"}],
            "next": 5,
        });
        let text = table(&status);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "mcp-tcp-proxy 1 pid 7 on a:1: serving, up 1 min 1 s"
        );
        assert_eq!(lines[1], r"not ready: no \u{1b}[2J room");
        assert_eq!(
            lines[2],
            "1 of 2 sessions, 1.5 kB of 2.0 kB buffer memory, longest iteration 2 ms"
        );
        assert!(lines[4].starts_with("SERVER   READY  SESSIONS"), "{text}");
        assert!(lines[5].starts_with("default  yes    1"), "{text}");
        assert_eq!(lines[6], "default: the new server is not used: it ended");
        assert!(
            lines[9].contains("127.0.0.1:1  -     default  9    500 ms  250 ms"),
            "{text}"
        );
        assert_eq!(lines[10], "… and more (/status.json?after=5)");
    }
}
