//! What the connecting side brings to a handshake: whom it trusts, whom it expects, and a certificate if the other side
//! wants one.

use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};

use super::files::{Named, provider};
use crate::options::ConnectOptions;

/// Sessions that can be resumed: there is one server, and each ticket is used once.
const TICKETS: usize = 4;

/// The files of the connecting side.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClientFiles<'a> {
    /// `--tls-ca`; without it, the system's authorities are trusted.
    pub authority: Option<&'a Path>,
    /// `--tls-cert` and `--tls-key`
    pub certificate: Option<(&'a Path, &'a Path)>,
}

impl<'a> ClientFiles<'a> {
    /// Those that the options name.
    pub fn of(options: &'a ConnectOptions) -> Self {
        let certificate = options.tls_cert.as_deref();
        Self {
            authority: options.tls_ca.as_deref(),
            certificate: certificate.zip(options.tls_key.as_deref()),
        }
    }

    /// Reads and checks all of them.
    pub fn load(&self) -> Result<Arc<ClientConfig>, String> {
        let roots = match self.authority {
            Some(path) => Named::unread("--tls-ca", path).authorities()?,
            None => system_roots()?,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let mut config = match self.certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let certificate = Named::unread("--tls-cert", certificate);
                let key = Named::unread("--tls-key", key);
                let chain = certificate.chain()?;
                builder
                    .with_client_auth_cert(chain, key.key()?)
                    .map_err(|error| key.not_for(certificate, &error))?
            }
        };
        config.resumption = Resumption::in_memory_sessions(TICKETS);
        Ok(Arc::new(config))
    }
}

fn system_roots() -> Result<Arc<RootCertStore>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable > 0 {
        return Ok(Arc::new(roots));
    }
    let reason = found
        .errors
        .first()
        .map_or_else(String::new, |error| format!(" ({error})"));
    Err(format!(
        "--tls: this system has no certificates of authorities{reason}; install ca-certificates, or give --tls-ca FILE"
    ))
}

/// Whom a certificate has to be for: a host name, or an address.
pub fn server_name(text: &str) -> Result<ServerName<'static>, String> {
    // A link-local address names its interface after a `%`, which no certificate does.
    let name = text.split_once('%').map_or(text, |(address, _)| address);
    ServerName::try_from(name.to_owned()).map_err(|_| {
        format!("no certificate can be for '{text}'; --tls-name NAME says for whom it is")
    })
}
