//! Clients with certificates.

use nix::sys::signal::Signal;
use rcgen::date_time_ymd;

use super::tls::start;
use crate::common::Proxy;
use crate::common::pki::{Pki, numbered, params};
use crate::common::servers::mirror;
use crate::common::tls::{TlsClient, VERSIONS};

fn start_for_certificates(pki: &Pki) -> Proxy {
    pki.revoke(&[7]);
    let (ca, crl) = (pki.path("ca.pem"), pki.path("crl.pem"));
    start(pki, &["--tls-client-ca", &ca, "--tls-crl", &crl], &mirror())
}

/// Whether a client with this certificate gets in, with each version.
#[track_caller]
fn assert_refused(proxy: &Proxy, pki: &Pki, name: Option<&str>) {
    for version in VERSIONS {
        let config = pki.client(name, &[version]);
        let Ok(mut client) = TlsClient::try_connect(proxy.address(), &config) else {
            continue;
        };
        client.send_line("{}");
        client.try_recv().unwrap_err();
    }
}

#[test]
fn clients_need_a_certificate_of_the_authority_that_is_not_revoked() {
    let pki = Pki::new();
    pki.issue("good", &numbered("agent-7", 6));
    pki.issue("revoked", &numbered("agent-8", 7));
    pki.self_sign("stranger", &params("agent-7", &[]));
    let mut old = params("agent-7", &[]);
    old.not_before = date_time_ymd(2020, 1, 1);
    old.not_after = date_time_ymd(2021, 1, 1);
    pki.issue("old", &old);
    let proxy = start_for_certificates(&pki);
    for name in [None, Some("revoked"), Some("stranger"), Some("old")] {
        assert_refused(&proxy, &pki, name);
    }
    proxy.wait_for_logs(": TLS handshake failed", 8);
    assert!(!proxy.log().iter().any(|line| line.contains("opened")));
    for version in VERSIONS {
        let config = pki.client(Some("good"), &[version]);
        let mut client = TlsClient::connect(proxy.address(), &config);
        client.send_line("{}");
        assert_eq!(client.recv_line(), "{}");
    }
    proxy.wait_for_logs("let in as cert:agent-7", 2);
}

#[test]
fn a_name_that_can_not_be_used_is_refused() {
    let pki = Pki::new();
    pki.issue("odd", &params("two words", &["a.example"]));
    pki.issue("dns", &params("", &["a.example"]));
    let proxy = start_for_certificates(&pki);
    let config = pki.client(Some("odd"), &VERSIONS);
    let mut client = TlsClient::connect(proxy.address(), &config);
    assert_eq!(client.recv_json()["error"]["code"], 403);
    assert_eq!(client.read_to_end(), [""; 0]);
    let config = pki.client(Some("dns"), &VERSIONS);
    let mut client = TlsClient::connect(proxy.address(), &config);
    client.send_line("{}");
    assert_eq!(client.recv_line(), "{}");
    proxy.wait_for_log("let in as cert:a.example");
}

#[test]
fn a_certificate_that_is_revoked_while_the_proxy_runs_is_good_for_nothing_more() {
    let pki = Pki::new();
    pki.issue("client", &numbered("agent", 9));
    pki.issue("other", &numbered("other", 10));
    let proxy = start_for_certificates(&pki);
    let config = pki.client(Some("other"), &VERSIONS);
    let mut other = TlsClient::connect(proxy.address(), &config);
    other.send_line("{}");
    assert_eq!(other.recv_line(), "{}");
    let config = pki.client(Some("client"), &VERSIONS);
    let mut open = TlsClient::connect(proxy.address(), &config);
    open.send_line("{}");
    assert_eq!(open.recv_line(), "{}");
    pki.revoke(&[7, 9]);
    proxy.signal(Signal::SIGHUP);
    proxy.wait_for_log("SIGHUP: the files were read again");
    assert_eq!(open.recv_json()["error"]["code"], 401);
    assert_eq!(open.read_to_end(), [""; 0]);
    other.send_line("{}");
    assert_eq!(other.recv_line(), "{}");
    // Neither with a certificate nor with the ticket from before.
    let mut client = TlsClient::connect(proxy.address(), &config);
    client.try_recv().unwrap_err();
    assert_refused(&proxy, &pki, Some("client"));
}
