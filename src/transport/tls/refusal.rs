//! What is said of a certificate that was refused, and to whom: by us, or by the other side.

use std::fmt::Write;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

/// Whether a certificate was refused, on either side. To try again changes nothing about that.
pub fn is_refusal(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(_) | Error::NoCertificatesPresented => true,
        Error::AlertReceived(alert) => alert_words(*alert).is_some(),
        _ => false,
    }
}

/// What `connect` says of an error: of the server's certificate, or of what the server says of ours.
pub fn words_for_client(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => server_words(error),
        Error::AlertReceived(alert) => alert_words(*alert).map_or_else(
            || format!("TLS: the other side ended it ({alert:?})"),
            str::to_owned,
        ),
        error => format!("TLS: {error}"),
    }
}

fn server_words(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is not of an authority that is trusted (--tls-ca FILE names one)"
                .into()
        }
        CertificateError::Expired => "its certificate has expired".into(),
        CertificateError::ExpiredContext { time, not_after } => {
            format!("its certificate expired {}", ago(*not_after, *time))
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet (is the clock of this machine right?)".into()
        }
        CertificateError::NotValidForName => {
            "its certificate is for another name (--tls-name)".into()
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => name_words(&expected.to_str(), presented),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not for servers (extendedKeyUsage lacks serverAuth)".into()
        }
        error if is_authority_as_server(error) => {
            "its certificate is an authority's and not a server's: \
             make it with `openssl req -x509 …` and add -addext basicConstraints=critical,CA:FALSE"
                .into()
        }
        error => format!("its certificate is not good: {error}"),
    }
}

/// For whom the certificate is, as far as that fits on a line.
fn name_words(expected: &str, presented: &[String]) -> String {
    const SHOWN: usize = 4;
    let mut words = format!("its certificate is not for {expected}");
    if !presented.is_empty() {
        let shown: Vec<&str> = presented
            .iter()
            .take(SHOWN)
            .map(|name| bare(name))
            .collect();
        let shown = shown.join(", ");
        let dots = if presented.len() > SHOWN { ", …" } else { "" };
        let _ = write!(words, " but for {shown}{dots}");
    }
    words + " (--tls-name says whom to expect)"
}

/// A name as it is written, of one with its kind around it: `DnsName("a.example")`.
fn bare(name: &str) -> &str {
    name.split('"').nth(1).unwrap_or(name)
}

/// An authority's certificate in a server's place, as the usual command for a self-signed one makes it.
fn is_authority_as_server(error: &CertificateError) -> bool {
    matches!(error, CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity"))
}

fn ago(then: UnixTime, now: UnixTime) -> String {
    let hours = now.as_secs().saturating_sub(then.as_secs()) / 3600;
    match hours {
        0 => "within the last hour".into(),
        1..48 => format!("{hours} h ago"),
        _ => format!("{} days ago", hours / 24),
    }
}

/// What the other side says of our certificate, if it says something of it.
fn alert_words(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::CertificateRequired => {
            "the other side wants a certificate (--tls-cert FILE --tls-key FILE)"
        }
        AlertDescription::CertificateExpired => {
            "the other side says that our certificate has expired"
        }
        AlertDescription::CertificateRevoked => {
            "the other side says that our certificate is revoked"
        }
        AlertDescription::UnknownCA => {
            "the other side does not trust the authority of our certificate"
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => "the other side refuses our certificate",
        _ => return None,
    })
}

/// What the log of the serving side says of a client's handshake. Nothing that the client sent stands in it.
pub fn words_for_server(error: &Error) -> String {
    match error {
        Error::NoCertificatesPresented => "it has no certificate".into(),
        Error::InvalidCertificate(CertificateError::Revoked) => "its certificate is revoked".into(),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate is not of the authority in --tls-client-ca".into()
        }
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "its certificate has expired".into(),
        Error::InvalidCertificate(CertificateError::UnknownRevocationStatus) => {
            "--tls-crl has no list of the authority of its certificate".into()
        }
        Error::InvalidCertificate(_) => "its certificate is not good".into(),
        Error::AlertReceived(AlertDescription::UnknownCA) => {
            "it does not trust the authority of our certificate".into()
        }
        Error::AlertReceived(alert) => format!("it does not like our side of TLS ({alert:?})"),
        Error::PeerIncompatible(_) => "it has no version or cipher of TLS in common with us".into(),
        _ => "what it sent is not valid TLS".into(),
    }
}
