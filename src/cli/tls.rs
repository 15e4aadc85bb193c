//! Which options go with which, above all those of TLS.

use super::UsageError;
use crate::options::{ConnectOptions, ServeOptions};
use crate::transport::address::Address;

/// One option, and whether it was given.
type Given = (&'static str, bool);

pub(super) fn check_serve(options: &ServeOptions) -> Result<(), UsageError> {
    let certificate = ("--tls-cert", options.tls_cert.is_some());
    let key = ("--tls-key", options.tls_key.is_some());
    let authority = ("--tls-client-ca", options.tls_client_ca.is_some());
    let revocations = ("--tls-crl", options.tls_crl.is_some());
    needs(certificate, key)?;
    needs(key, certificate)?;
    needs(authority, certificate)?;
    needs(revocations, authority)
}

pub(super) fn check_connect(options: &ConnectOptions) -> Result<(), UsageError> {
    check_client(options)?;
    if options.wants_tls() && matches!(options.address, Address::Unix(_)) {
        return Err(UsageError(
            "--tls: a unix socket takes no TLS (leave it out; its bytes do not leave this machine)"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Whatever the address is.
pub(super) fn check_client(options: &ConnectOptions) -> Result<(), UsageError> {
    let tls = ("--tls (or --tls-ca)", options.wants_tls());
    let certificate = ("--tls-cert", options.tls_cert.is_some());
    let key = ("--tls-key", options.tls_key.is_some());
    needs(certificate, key)?;
    needs(key, certificate)?;
    needs(certificate, tls)?;
    needs(("--tls-name", options.tls_name.is_some()), tls)
}

pub(super) fn needs(
    (option, is_given): Given,
    (other, is_other_given): Given,
) -> Result<(), UsageError> {
    if is_given && !is_other_given {
        return Err(UsageError(format!("{option}: needs {other}")));
    }
    Ok(())
}
