//! The page, in a real browser.

use std::fs;
use std::net::SocketAddr;

use serde_json::Value;

use crate::common::browser::Browser;
use crate::common::{Client, DEADLINE, Proxy, TempFolder, eventually, servers};
use crate::{get, json, start, status_address};

/// A proxy with this many sessions, whose page is open.
fn with_sessions(count: usize) -> (Proxy, Vec<Client>, SocketAddr) {
    let (proxy, asked) = start(&["--spawn", "lazy"], &servers::mirror());
    let clients: Vec<Client> = (0..count).map(|_| proxy.connect()).collect();
    eventually("all sessions", DEADLINE, || {
        json(asked, "/status.json")["proxy"]["sessions"] == count
    });
    (proxy, clients, asked)
}

/// Waits until there are so many rows of sessions.
#[track_caller]
fn wait_for_rows(browser: &mut Browser, count: usize) {
    browser.eventually(&format!(
        "document.querySelectorAll('#sessions tbody tr').length === {count}"
    ));
}

/// Waits until the page has drawn itself with so many sessions.
#[track_caller]
fn wait_for_shown(browser: &mut Browser, text: &str) {
    browser.eventually(&format!(
        "document.getElementById('shown').textContent === '{text}'"
    ));
    browser.eventually("document.readyState === 'complete'");
}

/// Whether whoever looks sees what has this id.
fn is_visible(browser: &mut Browser, id: &str) -> bool {
    browser.value(&format!(
        "document.getElementById('{id}').checkVisibility()"
    )) == true
}

/// What stands in a column of the sessions, from top to bottom.
fn column(browser: &mut Browser, name: &str) -> Vec<String> {
    let cells = format!("document.querySelectorAll('#sessions td[data-name=\"{name}\"]')");
    let texts = browser.value(&format!("[...{cells}].map((cell) => cell.textContent)"));
    serde_json::from_value(texts).unwrap()
}

#[test]
#[ignore = "needs chromium"]
fn a_browser_shows_two_hundred_sessions_filters_and_sorts_them() {
    let (_proxy, clients, asked) = with_sessions(200);
    let one = clients[17].local_address().to_string();
    let mut browser = Browser::start();
    browser.open(&format!("http://{asked}/"));
    wait_for_shown(&mut browser, "200 shown, 200 open");
    wait_for_rows(&mut browser, 200);

    browser.value("document.getElementById('filter').focus()");
    browser.types(&one);
    assert_eq!(column(&mut browser, "client"), [one.as_str()]);
    // What was chosen is still so once it was loaded anew.
    let address = browser.value("location.href");
    browser.open(address.as_str().unwrap());
    wait_for_shown(&mut browser, "1 shown, 200 open");
    assert_eq!(column(&mut browser, "client"), [one.as_str()]);

    browser.open(&format!("http://{asked}/#sort=session&descending=1"));
    wait_for_shown(&mut browser, "200 shown, 200 open");
    assert_eq!(column(&mut browser, "session")[0], "200");
    // By a number, and the other way round.
    for first in ["1", "200"] {
        browser.value("document.querySelector('#sessions th button').click()");
        let numbers = column(&mut browser, "session");
        assert_eq!((numbers.len(), numbers[0].as_str()), (200, first));
    }
    browser.value("document.querySelectorAll('#sessions th button')[1].click()");
    assert!(column(&mut browser, "client").is_sorted());
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
#[ignore = "needs chromium"]
fn without_javascript_the_page_is_whole_and_is_loaded_anew() {
    let (proxy, _clients, asked) = with_sessions(200);
    assert_eq!(
        get(asked, "/")
            .body
            .matches("data-name=\"session\"")
            .count(),
        200
    );
    let mut browser = Browser::start();
    browser.without_scripts();
    browser.open(&format!("http://{asked}/"));
    wait_for_rows(&mut browser, 200);
    assert!(!is_visible(&mut browser, "filter"));
    let _another = proxy.connect();
    browser.eventually("document.getElementById('t-sessions').textContent.startsWith('201 ')");
    assert!(is_visible(&mut browser, "next"));
    let next = browser.value("document.getElementById('next').href");
    browser.open(next.as_str().unwrap());
    wait_for_rows(&mut browser, 1);
    assert_eq!(browser.console(), [""; 0]);
}

/// Whatever is not within the width of the window, or has more in it than it shows.
const CUT: &str = "[...document.body.querySelectorAll('*')].filter((it) => {
  const { left, right } = it.getBoundingClientRect();
  return left < 0 || right > innerWidth || (it.clientWidth > 0 && it.scrollWidth > it.clientWidth);
}).map((it) => it.outerHTML.slice(0, 200))";

/// Cells that nobody can read: they have something to say, and no place.
const UNSEEN: &str = "[...document.querySelectorAll('td')].filter((it) => {
  const { width, height } = it.getBoundingClientRect();
  return it.textContent && (width < 20 || height < 10);
}).length";

#[test]
#[ignore = "needs chromium"]
fn on_a_narrow_screen_nothing_is_cut() {
    let folder = TempFolder::new();
    let path = folder.path().join("config.json");
    let long = "a".repeat(64);
    let program = folder
        .path()
        .join("program-of-a-name-without-a-place-to-break-it".repeat(3));
    let text = format!(
        r#"{{"listen": ["127.0.0.1:0"], "mcpServers": {{
            "{long}": {{"command": "cat", "default": true}},
            "other": {{"command": "{}"}}
        }}}}"#,
        program.display()
    );
    fs::write(&path, text).unwrap();
    let config = path.display().to_string();
    let options = ["--config", &config, "--status", "127.0.0.1:0"];
    let proxy = Proxy::start_with_config(&options, |_| {});
    let asked = status_address(&proxy);
    let mut clients: Vec<Client> = (0..3).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        client.send_line("[1]");
        client.recv_line();
    }
    let mut browser = Browser::start();
    for width in [400, 320, 1200] {
        browser.resize(width, 800);
        browser.open(&format!("http://{asked}/"));
        wait_for_shown(&mut browser, "3 shown, 3 open");
        if width < 500 {
            let scrolled = "document.scrollingElement.scrollWidth";
            assert_eq!(browser.value(scrolled), width);
            assert_eq!(browser.value(CUT), Value::Array(Vec::new()), "at {width}");
            // There are no heads of columns: each cell has its name in front.
            let label = "getComputedStyle(document.querySelector('td'), '::before').content";
            assert_ne!(browser.value(label), "none");
            let sort = "[...document.querySelectorAll('#sessions th button')].every((it) => it.checkVisibility())";
            assert_eq!(browser.value(sort), true);
        } else {
            // A table that is wider than the window is moved alone.
            assert_eq!(
                browser.value("document.scrollingElement.scrollWidth"),
                width
            );
        }
        assert_eq!(browser.value(UNSEEN), 0, "at {width}");
    }
    assert_eq!(browser.console(), [""; 0]);
}
