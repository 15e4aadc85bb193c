//! Certificates, keys and revocations, from files in PEM (RFC 7468). Errors name the option and the file, and say what to
//! do, in one line.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::secret_file;

/// Where all cryptography comes from.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A file that an option names.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// The option.
    pub option: &'static str,
    /// The file.
    pub path: &'a Path,
    /// What is in it, if it was read before.
    pub text: Option<&'a str>,
}

impl<'a> Named<'a> {
    /// This file, which is to be read.
    pub(super) fn unread(option: &'static str, path: &'a Path) -> Self {
        Self {
            option,
            path,
            text: None,
        }
    }

    /// What is wrong with it.
    pub(super) fn error(self, reason: impl std::fmt::Display) -> String {
        format!("{} {}: {reason}", self.option, self.path.display())
    }

    /// A certificate, and those between it and its authority, in this order.
    pub(super) fn chain(self) -> Result<Vec<CertificateDer<'static>>, String> {
        self.all(&self.read()?, "certificate", "CERTIFICATE")
    }

    /// The certificates of authorities.
    pub(super) fn authorities(self) -> Result<Arc<RootCertStore>, String> {
        let mut roots = RootCertStore::empty();
        for certificate in self.chain()? {
            roots.add(certificate).map_err(|error| {
                self.error(format!("a certificate is not an authority's: {error}"))
            })?;
        }
        Ok(Arc::new(roots))
    }

    /// Revocations of certificates, one list for each authority.
    pub(super) fn revocations(self) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
        self.all(&self.read()?, "list of revocations", "X509 CRL")
    }

    fn read(self) -> Result<Vec<u8>, String> {
        match self.text {
            Some(text) => Ok(text.as_bytes().to_vec()),
            None => fs::read(self.path).map_err(|error| self.error(error)),
        }
    }

    /// What is in it as a text. All that counts in it is ASCII.
    pub(super) fn read_text(self) -> Result<String, String> {
        let bytes = self.read()?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// The same of a file that others must not be able to read.
    pub(super) fn read_secret(self) -> Result<String, String> {
        secret_file::read(self.path).map_err(|error| format!("{}: {error}", self.option))
    }

    /// A private key, which others must not be able to read.
    pub(super) fn key(self) -> Result<PrivateKeyDer<'static>, String> {
        let text = match self.text {
            Some(text) => text.to_owned(),
            None => self.read_secret()?,
        };
        match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
            Ok(key) => Ok(key),
            Err(_) if text.contains("ENCRYPTED") => Err(self.error(
                "the key is encrypted; `openssl pkey` decrypts it (it asks for the pass phrase)",
            )),
            Err(pem::Error::NoItemsFound) => {
                Err(self.error("there is no private key in PEM (-----BEGIN PRIVATE KEY-----)"))
            }
            Err(error) => Err(self.error(error)),
        }
    }

    fn all<T: PemObject>(self, bytes: &[u8], what: &str, label: &str) -> Result<Vec<T>, String> {
        let found: Result<Vec<T>, _> = T::pem_slice_iter(bytes).collect();
        match found {
            Ok(found) if found.is_empty() => Err(self.error(format!(
                "there is no {what} in PEM (-----BEGIN {label}-----)"
            ))),
            Ok(found) => Ok(found),
            Err(error) => Err(self.error(error)),
        }
    }
}
