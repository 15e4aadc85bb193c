//! TLS connections are not passed on: clients that can come back do, and others have time for their responses.

use std::fs;

use serde_json::json;

use crate::common::connect::IN_HASTE;
use crate::common::pki::{Pki, params};
use crate::common::tls::{TlsClient, VERSIONS};
use crate::common::{Connect, Proxy, Scratch, servers};
use crate::{generation, upgrade};

#[test]
fn clients_over_tls_come_back_and_the_keys_are_those_that_were_in_force() {
    let (pki, scratch) = (Pki::new(), Scratch::new());
    pki.issue("proxy", &params("", &["localhost"]));
    let proxy = pki.serve("proxy");
    let options: Vec<&str> = proxy.iter().map(String::as_str).collect();
    let proxy = Proxy::start(&options, &servers::scripted(&scratch));
    let ca = pki.path("ca.pem");
    let options: Vec<&str> = IN_HASTE.iter().copied().chain(["--tls-ca", &ca]).collect();
    let address = format!("localhost:{}", proxy.address().port());
    let mut connect = Connect::start_to(&options, &address);
    let pid = |connect: &mut Connect, id: u64| {
        connect.request(id, "pid", &json!({}))["result"]["pid"].clone()
    };
    let before = pid(&mut connect, 1);
    // Whoever can't come back is served to the end.
    let mut plain = TlsClient::connect(proxy.address(), &pki.client(None, &VERSIONS));
    plain.request("pid", &json!({}));
    for file in ["proxy.pem", "proxy.key"] {
        fs::write(pki.path(file), "nothing").unwrap();
    }
    for round in 1..=2 {
        upgrade(&proxy);
        assert_eq!(generation(&proxy), round);
        assert_eq!(pid(&mut connect, 1 + round), before);
    }
    plain.read_to_end();
    proxy.wait_for_logs("and can't go on with TLS", 2);
    proxy.wait_for_logs("resumed by", 2);
    let mut new = Connect::start_to(&options, &address);
    assert_ne!(pid(&mut new, 1), before);
}
