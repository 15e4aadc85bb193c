//! TLS with the tools that people have.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use crate::common::pki::Pki;
use crate::common::servers::mirror;

use super::tls::start;

/// A tool that sends its stdin, and prints what comes.
struct Tool {
    child: Child,
}

impl Tool {
    /// `None` if it is not installed, with a note.
    fn start(program: &str, arguments: &[&str]) -> Option<Self> {
        let mut command = Command::new(program);
        command.args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        match command.stderr(Stdio::null()).spawn() {
            Ok(child) => Some(Self { child }),
            Err(error) => {
                eprintln!("skipped: {program}: {error}");
                None
            }
        }
    }

    /// A line goes there and comes back.
    fn assert_carries_a_line(mut self) {
        let mut input = self.child.stdin.take().unwrap();
        let line = "{\"method\":\"m\"}\n";
        input.write_all(line.as_bytes()).unwrap();
        let mut output = BufReader::new(self.child.stdout.take().unwrap());
        let mut got = String::new();
        output.read_line(&mut got).unwrap();
        assert_eq!(got, line);
        drop(input);
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn openssl() {
    let pki = Pki::new();
    let proxy = start(&pki, &[], &mirror());
    let address = proxy.address().to_string();
    let ca = pki.path("ca.pem");
    for version in ["-tls1_2", "-tls1_3"] {
        let arguments = [
            "s_client",
            "-quiet",
            "-verify_return_error",
            "-verify_hostname",
            "localhost",
            "-CAfile",
            &ca,
            "-connect",
            &address,
            version,
        ];
        let Some(tool) = Tool::start("openssl", &arguments) else {
            return;
        };
        tool.assert_carries_a_line();
    }
}

#[test]
fn ncat() {
    let pki = Pki::new();
    let proxy = start(&pki, &[], &mirror());
    let port = proxy.address().port().to_string();
    let ca = pki.path("ca.pem");
    let arguments = ["--ssl-verify", "--ssl-trustfile", &ca, "localhost", &port];
    if let Some(tool) = Tool::start("ncat", &arguments) {
        tool.assert_carries_a_line();
    }
}
