//! The balancer `haproxy` itself before two proxies: one is drained and stopped, and when it is back, the other one is killed.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::common::{Client, Connect, DEADLINE, Proxy, TempFolder, eventually, eventually_some};
use crate::{get, json, status_address};

/// Answers each request at once.
fn server() -> Vec<String> {
    let answer = r#"s/.*"id": *\([0-9]*\).*/{"jsonrpc":"2.0","id":\1,"result":{}}/"#;
    ["sed", "-u", answer].map(str::to_owned).to_vec()
}

fn start(port: u16) -> (Proxy, SocketAddr) {
    let port = port.to_string();
    let options = ["--port", &port, "--status", "127.0.0.1:0", "--drain-delay"];
    let options = [&options[..], &["86400", "--proxy-protocol", "127.0.0.1"]].concat();
    let proxy = Proxy::start(&options, &server());
    let asked = status_address(&proxy);
    (proxy, asked)
}

/// A balancer that is ended with the test.
struct Balancer {
    child: Child,
    address: SocketAddr,
    folder: TempFolder,
}

impl Balancer {
    fn start(proxies: &[(SocketAddr, SocketAddr)]) -> Self {
        // Another process may take it meanwhile, which is unlikely.
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let folder = TempFolder::new();
        let mut configuration = format!(
            "global\n maxconn 2000\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n\
             listen mcp\n bind {address}\n balance leastconn\n option redispatch\n option httpchk GET /readyz\n"
        );
        for (name, (proxy, asked)) in ["a", "b"].into_iter().zip(proxies) {
            let port = asked.port();
            let _ = writeln!(
                configuration,
                " server {name} {proxy} send-proxy-v2 check port {port} inter 100ms"
            );
        }
        let path = folder.path().join("haproxy.cfg");
        fs::write(&path, configuration).unwrap();
        let child = Command::new("haproxy")
            .arg("-f")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let balancer = Self {
            child,
            address,
            folder,
        };
        eventually("HAProxy to listen", DEADLINE, || {
            TcpStream::connect(address).is_ok()
        });
        balancer
    }

    /// Waits until new sessions, several in a row, are served by this proxy alone.
    #[track_caller]
    fn wait_for_only(&self, asked: SocketAddr) {
        let opened = || {
            json(asked, "/status.json")["servers"][0]["opened"]
                .as_u64()
                .unwrap()
        };
        eventually("new sessions to be one proxy's alone", DEADLINE, || {
            let before = opened();
            (0..4).all(|_| self.try_session()) && opened() == before + 4
        });
    }

    /// A session in which a request was answered.
    #[track_caller]
    fn session(&self) -> Client {
        let mut client = Client::connect(self.address);
        client.send_raw(REQUEST);
        client.recv_line();
        client
    }

    /// Whether a new session is served.
    fn try_session(&self) -> bool {
        let mut client = Client::connect(self.address);
        client.send_raw(REQUEST);
        client.try_recv(DEADLINE).is_ok()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = &self.folder;
    }
}

const REQUEST: &[u8] = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\"}\n";

/// Has an application ask until it is answered: what was under way to a proxy that ended is answered with an error.
#[track_caller]
fn ask(connect: &mut Connect, id: &mut u64) {
    eventually_some("an answer", 2 * DEADLINE, || {
        *id += 1;
        connect.send_request(*id, "x", &Value::Null);
        let answer = connect.recv_json_within_long();
        answer.get("result").map(drop)
    });
}

trait Patient {
    fn recv_json_within_long(&mut self) -> Value;
}

impl Patient for Connect {
    /// The next line that is a response: notices are not.
    fn recv_json_within_long(&mut self) -> Value {
        loop {
            let line = self.recv_json_within(3 * DEADLINE);
            if line.get("id").is_some() {
                return line;
            }
        }
    }
}

#[test]
#[ignore = "needs haproxy"]
fn haproxy_has_no_complaint_about_the_example() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/haproxy.cfg");
    let output = Command::new("haproxy")
        .args(["-c", "-f"])
        .arg(example)
        .output()
        .unwrap();
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{told}");
    let is_complaint = |line: &&str| line.contains("WARNING") || line.contains("ALERT");
    assert_eq!(told.lines().find(is_complaint), None, "{told}");
}

#[test]
#[ignore = "needs haproxy"]
fn new_sessions_go_on_whichever_proxy_goes() {
    let (mut a, asked_a) = start(0);
    let (mut b, asked_b) = start(0);
    let port_of_a = a.address().port();
    let balancer = Balancer::start(&[(a.address(), asked_a), (b.address(), asked_b)]);
    eventually("both proxies to be in use", DEADLINE, || {
        balancer.try_session()
            && [asked_a, asked_b]
                .iter()
                .all(|asked| json(*asked, "/status.json")["servers"][0]["opened"] != 0)
    });
    // Who says nothing would have to make room: for the proxies they all are of one origin.
    let clients: Vec<Client> = (0..200).map(|_| balancer.session()).collect();
    let mut applications: Vec<(Connect, u64)> = (0..4)
        .map(|_| (Connect::start(&[], balancer.address), 0))
        .collect();
    for (application, id) in &mut applications {
        ask(application, id);
    }

    a.signal(Signal::SIGTERM);
    eventually("the first to be drained", DEADLINE, || {
        get(asked_a, "/readyz").status == 503
    });
    balancer.wait_for_only(asked_b);
    a.signal_until_exit(Signal::SIGTERM, 3 * DEADLINE);
    assert!(balancer.try_session());
    for (application, id) in &mut applications {
        ask(application, id);
    }

    let (a, asked) = start_again(port_of_a, asked_a);
    eventually("the first to be back in use", DEADLINE, || {
        balancer.try_session() && json(asked, "/status.json")["servers"][0]["opened"] != 0
    });
    b.signal(Signal::SIGKILL);
    b.wait_exit(DEADLINE);
    balancer.wait_for_only(asked);
    for (application, id) in &mut applications {
        ask(application, id);
    }
    drop((a, clients));
}

/// Starts a proxy where another one was.
fn start_again(port: u16, asked: SocketAddr) -> (Proxy, SocketAddr) {
    let (port, asked) = (port.to_string(), asked.to_string());
    let options = ["--port", &port, "--status", &asked, "--proxy-protocol"];
    let options = [&options[..], &["127.0.0.1"]].concat();
    let proxy = Proxy::start(&options, &server());
    let asked = status_address(&proxy);
    (proxy, asked)
}
