//! A server whose answers a test makes up.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use serde_json::Value;

/// What is answered to a request: these bytes, or the end of the connection.
pub(crate) type Answer = Option<String>;

/// Starts a server on a port of its own, which is returned as a target. It answers `server/discover` as legacy servers do,
/// `initialize` as it should, and the rest as told: `answer` is given each request, and its number over all connections.
/// It runs as long as the test does.
pub(crate) fn start(answer: impl FnMut(u64, &Value) -> Answer + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(std::sync::Mutex::new((0, answer)));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            thread::spawn(move || {
                serve(&stream, |request| {
                    let (number, answer) = &mut *answer.lock().unwrap();
                    *number += 1;
                    answer(*number, request)
                });
            });
        }
    });
    target
}

fn serve(stream: &TcpStream, mut answer: impl FnMut(&Value) -> Answer) {
    let mut output = stream.try_clone().unwrap();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let Ok(request) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        let id = &request["id"];
        let text = match request["method"].as_str() {
            _ if id.is_null() => continue,
            Some("server/discover") => Some(failure(id, -32601)),
            Some("initialize") => Some(good(id)),
            _ => answer(&request),
        };
        let Some(text) = text else {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        };
        // The client may have gone.
        if output.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

/// A response.
pub(crate) fn good(id: &Value) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}\n")
}

/// An error.
pub(crate) fn failure(id: &Value, code: i32) -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":{code},\"message\":\"no\"}}}}\n"
    )
}
