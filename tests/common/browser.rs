//! A real browser: Debian's `chromium`, without a window, told what to do by its own protocol (`--remote-debugging-pipe`).

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{TempFolder, eventually, eventually_some};

/// A browser starts slowly where there is much else to do.
const PATIENCE: Duration = Duration::from_mins(2);

/// What the browser tells of the console of a page.
const CONSOLE: [&str; 3] = [
    "Runtime.consoleAPICalled",
    "Runtime.exceptionThrown",
    "Log.entryAdded",
];

/// What ends a message of the protocol.
const END: u8 = 0;

/// A browser with one page.
pub(crate) struct Browser {
    process: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    sent: u64,
    session: Option<Value>,
    console: Vec<String>,
    _profile: TempFolder,
}

impl Browser {
    pub(crate) fn start() -> Self {
        let profile = TempFolder::new();
        let mut process = Command::new("sh")
            .args([
                "-c",
                r#"exec chromium "$@" 3<&0 4>&1 </dev/null >/dev/null"#,
            ])
            .args(["sh", "--headless", "--no-sandbox", "--disable-gpu"])
            .args([
                "--disable-dev-shm-usage",
                "--disable-quic",
                "--no-first-run",
            ])
            .args(["--disable-background-networking", "--hide-scrollbars"])
            .args(["--disable-component-update", "--disable-sync"])
            .arg("--remote-debugging-pipe")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (messages, from) = channel();
        let pipe = BufReader::new(process.stdout.take().unwrap());
        thread::spawn(move || {
            for message in pipe.split(END).map_while(Result::ok) {
                let _ = messages.send(serde_json::from_slice(&message).unwrap());
            }
        });
        let mut browser = Self {
            to: process.stdin.take().unwrap(),
            process,
            from,
            sent: 0,
            session: None,
            console: Vec::new(),
            _profile: profile,
        };
        let page = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let wanted = json!({"targetId": page["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", &wanted);
        browser.session = Some(attached["sessionId"].clone());
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser
    }

    /// Has the browser do something, and returns what came of it.
    #[track_caller]
    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        let mut answer = self.try_call(method, parameters);
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].take()
    }

    /// The same, and returns the whole answer. What the page has to say to its console is noted on the way.
    #[track_caller]
    fn try_call(&mut self, method: &str, parameters: &Value) -> Value {
        self.sent += 1;
        let mut message = json!({"id": self.sent, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = session.clone();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(END);
        self.to.write_all(&bytes).unwrap();
        loop {
            let message = self.from.recv_timeout(PATIENCE);
            let message = message.unwrap_or_else(|error| panic!("{method}: {error}"));
            if message["id"] == self.sent {
                return message;
            }
            if CONSOLE.iter().any(|event| message["method"] == *event) {
                self.console.push(message["params"].to_string());
            }
        }
    }

    /// Opens an address, and waits until all is loaded.
    #[track_caller]
    pub(crate) fn open(&mut self, url: &str) {
        // Where only what follows the number sign is another, nothing would be loaded.
        self.call("Page.navigate", &json!({"url": "about:blank"}));
        self.eventually("location.href === 'about:blank'");
        self.call("Page.navigate", &json!({"url": url}));
        self.eventually("location.href !== 'about:blank' && document.readyState === 'complete'");
    }

    /// The value of an expression. While a page is loaded there is none, or what it is about is not there yet: then it is tried
    /// again.
    #[track_caller]
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let wanted = json!({"expression": expression, "returnByValue": true});
        eventually_some(expression, PATIENCE, || {
            let mut answer = self.try_call("Runtime.evaluate", &wanted);
            let result = answer.get_mut("result")?;
            let is_value = result["exceptionDetails"].is_null();
            is_value.then(|| result["result"]["value"].take())
        })
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub(crate) fn eventually(&mut self, expression: &str) {
        eventually(expression, PATIENCE, || self.value(expression) == true);
    }

    /// Types into what has the focus.
    #[track_caller]
    pub(crate) fn types(&mut self, text: &str) {
        self.call("Input.insertText", &json!({"text": text}));
    }

    /// What was said to the console of the page, and what went wrong there.
    pub(crate) fn console(&self) -> &[String] {
        &self.console
    }

    /// Makes the window so large, in pixels of CSS.
    #[track_caller]
    pub(crate) fn resize(&mut self, width: u32, height: u32) {
        let wanted = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.call("Emulation.setDeviceMetricsOverride", &wanted);
    }

    /// Whether the user likes it dark.
    #[track_caller]
    pub(crate) fn prefers_dark(&mut self, is_dark: bool) {
        let value = if is_dark { "dark" } else { "light" };
        let feature = json!({"name": "prefers-color-scheme", "value": value});
        self.call(
            "Emulation.setEmulatedMedia",
            &json!({"features": [feature]}),
        );
    }

    /// Pages have no scripts from now on.
    #[track_caller]
    pub(crate) fn without_scripts(&mut self) {
        self.call(
            "Emulation.setScriptExecutionDisabled",
            &json!({"value": true}),
        );
    }

    /// What is in the window, as PNG.
    #[track_caller]
    pub(crate) fn picture(&mut self) -> Vec<u8> {
        let answer = self.call("Page.captureScreenshot", &json!({"format": "png"}));
        decoded(answer["data"].as_str().unwrap())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What base64 stands for.
fn decoded(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count) = (0_u32, 0);
    let mut bytes = Vec::new();
    for digit in text.bytes().filter(|byte| *byte != b'=') {
        let value = DIGITS.iter().position(|other| *other == digit).unwrap();
        bits = bits << 6 | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
