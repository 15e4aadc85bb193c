use super::pki::params;
use super::*;

fn error(pki: &Pki, certificate: &str, key: &str) -> String {
    let error = pki.load_server(certificate, key, None, None).unwrap_err();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn a_key_that_does_not_belong_to_the_certificate_is_refused() {
    let pki = Pki::new();
    pki.issue("other", &params("", &["localhost"]));
    let error = error(&pki, "server", "other");
    assert!(error.starts_with("--tls-key "), "{error}");
    assert!(error.contains("the key does not belong to the certificate in "));
}

#[test]
fn errors_name_the_option_the_file_and_what_is_wrong_with_it() {
    let pki = Pki::new();
    let error_of = |certificate: &str, key: &str| error(&pki, certificate, key);
    assert!(error_of("missing", "server").contains("No such file"));
    assert!(error_of("server", "missing").starts_with("--tls-key: cannot read "));
    pki.write("empty.pem", "nothing");
    pki.write("empty.key", "nothing");
    let error = error_of("empty", "server");
    assert!(error.starts_with("--tls-cert ") && error.contains("BEGIN CERTIFICATE"));
    assert!(error_of("server", "empty").contains("BEGIN PRIVATE KEY"));
    pki.write(
        "locked.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    assert!(error_of("server", "locked").contains("openssl pkey"));
    pki.write(
        "bad.pem",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    );
    assert!(error_of("bad", "server").starts_with("--tls-cert "));
    let no_authority = pki.load_server("server", "server", Some("empty.pem"), None);
    assert!(no_authority.unwrap_err().starts_with("--tls-client-ca "));
    let no_list = pki.load_server("server", "server", Some("ca.pem"), Some("ca.pem"));
    let error = no_list.unwrap_err();
    assert!(error.starts_with("--tls-crl ") && error.contains("BEGIN X509 CRL"));
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let pki = Pki::new();
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(pki.path("server.key"), mode).unwrap();
    let error = error(&pki, "server", "server");
    assert!(error.contains("chmod 640"), "{error}");
}
