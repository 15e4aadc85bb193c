//! An authority of a test's own, and what it has signed, in files.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use super::Scratch;

/// The authority, with its certificate in `ca.pem`, and that of a server for localhost and 127.0.0.1 in `server.pem` and
/// `server.key`.
pub(crate) struct Pki {
    pub(crate) scratch: Scratch,
    authority: Issuer<'static, KeyPair>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new();
        let mut params = params("tests", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        scratch.write("ca.pem", &params.self_signed(&key).unwrap().pem());
        let pki = Self {
            scratch,
            authority: Issuer::new(params, key),
        };
        pki.issue("server", &self::params("", &["localhost", "127.0.0.1"]));
        pki
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.scratch.file(name).to_str().unwrap().to_owned()
    }

    /// Writes `NAME.pem` and `NAME.key`.
    pub(crate) fn issue(&self, name: &str, params: &CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        self.write(name, &certificate.pem(), &key);
    }

    /// The same, signed by itself.
    pub(crate) fn self_sign(&self, name: &str, params: &CertificateParams) {
        let key = KeyPair::generate().unwrap();
        self.write(name, &params.self_signed(&key).unwrap().pem(), &key);
    }

    fn write(&self, name: &str, pem: &str, key: &KeyPair) {
        self.scratch.write(&format!("{name}.pem"), pem);
        let file = format!("{name}.key");
        self.scratch.write(&file, &key.serialize_pem());
        fs::set_permissions(self.path(&file), Permissions::from_mode(0o600)).unwrap();
    }

    /// Writes `crl.pem`, which revokes these.
    pub(crate) fn revoke(&self, serials: &[u64]) {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.authority).unwrap();
        self.scratch.write("crl.pem", &list.pem().unwrap());
    }

    /// A client that trusts the authority, and shows this certificate.
    pub(crate) fn client(
        &self,
        certificate: Option<&str>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.path("ca.pem")).unwrap();
        roots.add(ca).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let Some(name) = certificate else {
            return Arc::new(builder.with_no_client_auth());
        };
        let chain = CertificateDer::from_pem_file(self.path(&format!("{name}.pem"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
        Arc::new(builder.with_client_auth_cert(vec![chain], key).unwrap())
    }

    /// Options of a proxy with this certificate.
    pub(crate) fn serve(&self, name: &str) -> Vec<String> {
        let file = |end: &str| self.path(&format!("{name}.{end}"));
        ["--tls-cert", &file("pem"), "--tls-key", &file("key")]
            .map(str::to_owned)
            .to_vec()
    }
}

/// What a certificate is for.
pub(crate) fn params(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name = DistinguishedName::new();
    if !name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params
}

/// The same with a serial number, by which it can be revoked.
pub(crate) fn numbered(name: &str, serial: u64) -> CertificateParams {
    let mut params = params(name, &[]);
    params.serial_number = Some(serial.into());
    params
}
