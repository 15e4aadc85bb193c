//! Who a client is, by its certificate.

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The longest name, in bytes.
const NAME_BYTES: usize = 64;

/// The name of whom a certificate is for: its common name, else its first DNS name. An error says what is wrong with it, and
/// does not quote it.
pub fn name(certificate: &[u8]) -> Result<String, &'static str> {
    let (_, certificate) = X509Certificate::from_der(certificate)
        .map_err(|_| "its certificate can't be read for a name")?;
    let name = common_name(&certificate)
        .or_else(|| dns_name(&certificate))
        .ok_or("its certificate has neither a common name nor a DNS name")?;
    if is_name(name) {
        Ok(name.to_owned())
    } else {
        Err("the name in its certificate is not 1 to 64 of A-Z, a-z, 0-9 and ._@:-")
    }
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

/// Whether this can be the name of a client.
pub fn is_name(name: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"._@:-".contains(&byte);
    (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(is_fit)
}
