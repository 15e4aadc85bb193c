//! An authority and certificates, in files.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::transport::tls::client::ClientFiles;
use crate::transport::tls::server::ServerFiles;

/// A folder of certificates, removed in the end.
pub(super) struct Pki {
    folder: PathBuf,
    authority: Issuer<'static, KeyPair>,
    authority_certificate: CertificateDer<'static>,
}

/// What a certificate is for.
pub(super) fn params(name: &str, dns: &[&str]) -> CertificateParams {
    let dns: Vec<String> = dns.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(dns).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if !name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params
}

impl Pki {
    /// With `ca.pem`, and `server.pem` for localhost with `server.key`.
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = format!("mcp-tcp-proxy-pki-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir_all(&folder).unwrap();
        let mut params = params("authority", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let pki = Self {
            folder,
            authority: Issuer::new(params, key),
            authority_certificate: certificate.der().clone(),
        };
        pki.write("ca.pem", &certificate.pem());
        pki.issue("server", &self::params("", &["localhost"]));
        pki
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), Permissions::from_mode(0o600)).unwrap();
    }

    /// Writes `NAME.pem` and `NAME.key`.
    pub(super) fn issue(&self, name: &str, params: &CertificateParams) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
        certificate.der().clone()
    }

    /// Writes `NAME.pem` and `NAME.key`, signed by themselves.
    pub(super) fn self_sign(&self, name: &str, params: &CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    /// Writes `crl.pem`, which revokes these.
    pub(super) fn revoke(&self, serials: &[u64]) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.authority).unwrap();
        self.write("crl.pem", &list.pem().unwrap());
    }

    pub(super) fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority_certificate.clone()).unwrap();
        Arc::new(roots)
    }

    /// Of `server.pem`, for clients without certificates.
    pub(super) fn server_config(&self) -> Arc<ServerConfig> {
        self.load_server("server", "server", None, None).unwrap()
    }

    pub(super) fn load_server(
        &self,
        certificate: &str,
        key: &str,
        client_authority: Option<&str>,
        revocations: Option<&str>,
    ) -> Result<Arc<ServerConfig>, String> {
        let files = ServerFiles {
            certificate: self.path(&format!("{certificate}.pem")),
            key: self.path(&format!("{key}.key")),
            client_authority: client_authority.map(|name| self.path(name)),
            revocations: revocations.map(|name| self.path(name)),
        };
        Ok(files.load()?.config)
    }

    /// Of a client that trusts `ca.pem`, and has this certificate.
    pub(super) fn client_config(&self, certificate: Option<&str>) -> Arc<ClientConfig> {
        let ca = self.path("ca.pem");
        let paths = certificate.map(|name| {
            let file = |end: &str| self.path(&format!("{name}.{end}"));
            (file("pem"), file("key"))
        });
        let files = ClientFiles {
            authority: Some(&ca),
            certificate: paths.as_ref().map(|(pem, key)| (&**pem, &**key)),
        };
        files.load().unwrap()
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
