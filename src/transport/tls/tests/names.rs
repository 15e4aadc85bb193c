use rcgen::SanType;

use super::pki::params;
use super::*;
use crate::transport::tls::client::server_name;
use crate::transport::tls::identity::name;

#[test]
fn a_client_is_called_by_its_common_name_or_its_first_dns_name() {
    let pki = Pki::new();
    let of = |common: &str, dns: &[&str]| name(&pki.issue("x", &params(common, dns)));
    assert_eq!(of("agent-7", &["a.example"]).unwrap(), "agent-7");
    assert_eq!(of("", &["a.example", "b.example"]).unwrap(), "a.example");
    let mut with_address = params("", &[]);
    with_address.subject_alt_names = vec![
        SanType::IpAddress([127, 0, 0, 1].into()),
        SanType::DnsName("c.example".try_into().unwrap()),
    ];
    assert_eq!(name(&pki.issue("x", &with_address)).unwrap(), "c.example");
    assert!(of("", &[]).is_none());
    assert_eq!(of("two words", &["a.example"]).unwrap(), "two words");
    assert!(name(b"no certificate").is_none());
}

#[test]
fn servers_are_called_by_names_and_addresses() {
    for good in ["localhost", "a.example", "127.0.0.1", "::1", "fe80::1%eth0"] {
        server_name(good).unwrap();
    }
    let error = server_name("not a name").unwrap_err();
    assert!(error.contains("--tls-name"), "{error}");
}
