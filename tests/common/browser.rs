//! A real browser: Debian's `chromium`, without a window.

use std::process::Command;

use super::TempFolder;

/// What a browser has after some seconds.
pub(crate) struct Page {
    pub(crate) html: String,
    /// What was written to the console, errors among it.
    pub(crate) console: String,
}

/// Opens an address.
pub(crate) fn open(url: &str) -> Page {
    let folder = TempFolder::new();
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu"])
        .args(["--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync"])
        .args(["--virtual-time-budget=5000", "--dump-dom"])
        .args(["--enable-logging=stderr", "--v=0"])
        .arg(format!("--user-data-dir={}", folder.path().display()))
        .arg(url)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let console = said.lines().filter(|line| line.contains("CONSOLE"));
    let console: Vec<&str> = console.collect();
    Page {
        html: String::from_utf8_lossy(&output.stdout).into_owned(),
        console: console.join("\n"),
    }
}
