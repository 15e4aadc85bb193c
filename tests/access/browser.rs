//! A web page that a user of this machine has open can make the browser send what it likes to any port. It reaches no server.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::browser::Browser;
use crate::common::{DEADLINE, Proxy, TempFolder, eventually, servers};

/// It has an equals sign in it, as a form puts one between a field's name and its value.
const REQUEST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"="}}"#;

/// A page that sends a request to this address, with a form whose body is a line of JSON and with `fetch`.
fn page(target: SocketAddr) -> String {
    let quoted = REQUEST.replace('"', "&quot;");
    let (name, value) = quoted.split_once('=').unwrap();
    format!(
        r#"<!doctype html><iframe name="frame"></iframe>
<form method="post" action="http://{target}/" enctype="text/plain" target="frame">
<input name="{name}" value="{value}"></form>
<script>
document.forms[0].submit();
fetch("http://{target}/", {{ method: "POST", mode: "no-cors", body: `\n{REQUEST}\n` }})
  .then(() => "answered", () => "failed")
  .then(word => document.title = word);
</script>"#
    )
}

/// Serves this page to whoever asks; once it is over, the next connection ends it.
fn serve(listener: &TcpListener, page: &str, is_over: &AtomicBool) {
    for stream in listener.incoming() {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let mut stream = stream.unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        // A browser also opens connections on which it asks nothing.
        if stream.read(&mut [0; 8192]).is_ok_and(|count| count > 0) {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                page.len()
            );
            let _ = stream.write_all(format!("{head}{page}").as_bytes());
        }
    }
}

#[test]
#[ignore = "needs chromium: cargo test --test access browser -- --ignored"]
fn a_web_page_reaches_no_server() {
    let folder = TempFolder::new();
    let path = folder.path().join("read");
    let server = servers::sh(&format!("cat > {}", path.display()));
    let proxy = Proxy::start(&[], &server);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let is_over = AtomicBool::new(false);
    let page = page(proxy.address());
    thread::scope(|scope| {
        scope.spawn(|| serve(&listener, &page, &is_over));
        let mut browser = Browser::start();
        browser.open(&format!("http://{address}/"));
        browser.eventually("document.title !== ''");
        is_over.store(true, Ordering::Relaxed);
        TcpStream::connect(address).unwrap();
    });
    // What the browser was told is a 400, for the form and for the fetch.
    proxy.wait_for_logs("the client speaks HTTP", 2);
    eventually("the end of the sessions", DEADLINE, || {
        proxy.servers().is_empty()
    });
    let read = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(read, "", "a server has read what the page has sent");
}
