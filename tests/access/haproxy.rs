//! The balancer `haproxy` itself before the proxy: `send-proxy` and `send-proxy-v2`, and its health checks.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::common::{Client, DEADLINE, Proxy, TempFolder, eventually, servers};
use crate::tokens::{TOKEN, anns, handshake};

/// A balancer that is ended with the test.
struct Balancer {
    child: Child,
    address: SocketAddr,
    _folder: TempFolder,
}

impl Balancer {
    fn start(proxy: &Proxy, options: &str) -> Self {
        // Another process may take it meanwhile, which is unlikely.
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let folder = TempFolder::new();
        let path = folder.path().join("haproxy.cfg");
        let configuration = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n\
             listen mcp\n bind {address}\n server one {} {options}\n",
            proxy.address()
        );
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
            _folder: folder,
        };
        eventually("HAProxy to listen", DEADLINE, || {
            TcpStream::connect(address).is_ok()
        });
        balancer
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs haproxy: cargo test --test access haproxy -- --ignored"]
fn clients_of_a_real_balancer_are_known_by_their_own_addresses() {
    let tokens = anns();
    for version in ["send-proxy", "send-proxy-v2"] {
        let path = tokens.path();
        let options = [
            "--proxy-protocol",
            "127.0.0.1",
            "--token-file",
            &path,
            "--debug",
        ];
        let proxy = Proxy::start(&options, &servers::echo());
        let checks = format!("{version} check check-send-proxy inter 100ms");
        let balancer = Balancer::start(&proxy, &checks);
        // Of the checks no server is started, and nothing is refused.
        proxy.wait_for_logs("a health check of 127.0.0.1", 5);
        assert!(proxy.servers().is_empty());
        let mut client = Client::connect(balancer.address);
        let own = client.local_address();
        client.send_line(&handshake(TOKEN));
        assert!(client.request("ping", &json!({}))["result"].is_object());
        proxy.wait_for_log(&format!("{own}] let in as token:ann"));
        let mut stranger = Client::connect(balancer.address);
        let address = stranger.local_address();
        stranger.send_line("x");
        stranger.recv_error(401, "unauthorized");
        proxy.wait_for_log(&format!(
            "entrance: refused {address}: unauthorized, no token"
        ));
    }
}
