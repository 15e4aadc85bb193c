//! What the serving side brings to a handshake: its certificate and key, and whom it takes for a client.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertRevocationListError, ServerConfig};
use serde::{Deserialize, Serialize};

use super::files::{Named, provider};
use super::identity;
use crate::options::ServeOptions;

/// The files of the serving side.
#[derive(Debug, Clone)]
pub struct ServerFiles {
    /// `--tls-cert`
    pub certificate: PathBuf,
    /// `--tls-key`
    pub key: PathBuf,
    /// `--tls-client-ca`
    pub client_authority: Option<PathBuf>,
    /// `--tls-crl`
    pub revocations: Option<PathBuf>,
}

/// What is in them, as a text.
#[derive(Clone, Serialize, Deserialize)]
pub struct ServerTexts {
    certificate: String,
    key: String,
    client_authority: Option<String>,
    revocations: Option<String>,
}

/// One of them is a secret.
impl fmt::Debug for ServerTexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("certificates and a key")
    }
}

/// What comes of them.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// What it was made of.
    pub texts: Arc<ServerTexts>,
    /// What sessions are made with.
    pub config: Arc<ServerConfig>,
    /// Judges the certificates of clients, if they need any.
    clients: Option<Arc<dyn ClientCertVerifier>>,
    /// When the certificate ends, in seconds since 1970.
    pub not_after: Option<i64>,
}

impl ServerTls {
    /// Whether a client that has shown these certificates, its own first, would still be let in.
    pub fn would_take(&self, certificates: &[CertificateDer<'static>]) -> bool {
        let Some(clients) = &self.clients else {
            return true;
        };
        let judged = certificates
            .split_first()
            .map(|(own, others)| clients.verify_client_cert(own, others, UnixTime::now()));
        judged.is_some_and(|verdict| verdict.is_ok())
    }
}

impl ServerFiles {
    /// Those that the options name, if TLS is to be spoken.
    pub fn of(options: &ServeOptions) -> Option<Self> {
        Some(Self {
            certificate: options.tls_cert.clone()?,
            key: options.tls_key.clone()?,
            client_authority: options.tls_client_ca.clone(),
            revocations: options.tls_crl.clone(),
        })
    }

    /// Reads and checks all of them. Sessions can be resumed only with what the same load has brought: the tickets of an
    /// earlier one, which may be those of a client that has been revoked since, are good for nothing.
    pub fn load(&self) -> Result<ServerTls, String> {
        self.make(Arc::new(self.read()?))
    }

    fn certificate(&self) -> Named<'_> {
        Named::unread("--tls-cert", &self.certificate)
    }

    fn key(&self) -> Named<'_> {
        Named::unread("--tls-key", &self.key)
    }

    fn read(&self) -> Result<ServerTexts, String> {
        let others = [
            ("--tls-client-ca", &self.client_authority),
            ("--tls-crl", &self.revocations),
        ];
        let [client_authority, revocations] = others.map(|(option, path)| {
            let path = path.as_ref();
            path.map(|path| Named::unread(option, path).read_text())
                .transpose()
        });
        Ok(ServerTexts {
            certificate: self.certificate().read_text()?,
            key: self.key().read_secret()?,
            client_authority: client_authority?,
            revocations: revocations?,
        })
    }

    /// The same as [`Self::load`], of what was read before.
    pub fn make(&self, texts: Arc<ServerTexts>) -> Result<ServerTls, String> {
        let certificate = Named {
            text: Some(&texts.certificate),
            ..self.certificate()
        };
        let key = Named {
            text: Some(&texts.key),
            ..self.key()
        };
        let chain = certificate.chain()?;
        let private = key.key()?;
        let not_after = chain.first().and_then(|own| identity::not_after(own));
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let clients = self.verifier(&texts)?;
        let builder = match &clients {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, private)
            .map_err(|error| key.not_for(certificate, &error))?;
        config.ticketer =
            rustls::crypto::ring::Ticketer::new().map_err(|error| error.to_string())?;
        // Tickets do it, and are kept by the client.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        let config = Arc::new(config);
        Ok(ServerTls {
            texts,
            config,
            clients,
            not_after,
        })
    }

    fn verifier(&self, texts: &ServerTexts) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
        let Some(path) = &self.client_authority else {
            return Ok(None);
        };
        let authority = Named {
            option: "--tls-client-ca",
            path,
            text: texts.client_authority.as_deref(),
        };
        let mut builder =
            WebPkiClientVerifier::builder_with_provider(authority.authorities()?, provider());
        let revocations = self.revocations.as_ref().map(|path| Named {
            option: "--tls-crl",
            path,
            text: texts.revocations.as_deref(),
        });
        if let Some(revocations) = revocations {
            builder = builder.with_crls(revocations.revocations()?);
        }
        builder.build().map(Some).map_err(|error| match error {
            VerifierBuilderError::InvalidCrl(error) => {
                let list = revocations.unwrap_or(authority);
                list.error(revocation_words(&error))
            }
            error => authority.error(error),
        })
    }
}

fn revocation_words(error: &CertRevocationListError) -> String {
    format!("a list of revocations is not valid: {error:?}")
}

impl Named<'_> {
    /// What is wrong with this key and that certificate.
    pub(super) fn not_for(self, certificate: Named<'_>, error: &rustls::Error) -> String {
        match error {
            rustls::Error::InconsistentKeys(_) => self.error(format!(
                "the key does not belong to the certificate in {} (the first one in it has to be the key's)",
                certificate.path.display()
            )),
            rustls::Error::InvalidCertificate(_) => certificate.error(error),
            error => self.error(error),
        }
    }
}
