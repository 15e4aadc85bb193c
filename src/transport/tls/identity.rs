//! What certificates say: whom they are for, and until when.

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The name of whom a certificate is for: its common name, else its first DNS name. It may be anything.
pub fn name(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = common_name(&certificate).or_else(|| dns_name(&certificate));
    name.map(str::to_owned)
}

/// When a certificate ends, in seconds since 1970.
pub fn not_after(certificate: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

fn common_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    let name = certificate.subject().iter_common_name().next()?;
    // What is no text is no name.
    Some(name.as_str().unwrap_or("\0")).filter(|name| !name.is_empty())
}

fn dns_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    let names = certificate.subject_alternative_name().ok()??;
    names
        .value
        .general_names
        .iter()
        .find_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
}
