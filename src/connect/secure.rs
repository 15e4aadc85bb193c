//! The TLS of the link: what it is made with, and its handshake, which is a part of the attempt to connect.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::Connector;
use super::attempt::Failure;
use super::link::Link;
use crate::options::ConnectOptions;
use crate::process::hide_memory;
use crate::protocol::own_messages::ErrorReason;
use crate::transport::address::Address;
use crate::transport::connection::Connection;
use crate::transport::tls::client::{ClientFiles, server_name};
use crate::transport::tls::handshake::HandshakeError;

/// What TLS is made with.
#[derive(Debug)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    /// For whom the certificate at the other end has to be.
    name: ServerName<'static>,
}

impl Tls {
    /// Reads the files, if TLS is wanted.
    pub(crate) fn load(options: &ConnectOptions) -> io::Result<Option<Self>> {
        if !options.wants_tls() {
            return Ok(None);
        }
        let host = match &options.address {
            Address::Tcp { host, .. } => host,
            Address::Unix(_) => return Ok(None),
        };
        let name = server_name(options.tls_name.as_ref().unwrap_or(host));
        let name = name.map_err(io::Error::other)?;
        if options.tls_key.is_some() && !options.traceable {
            hide_memory();
        }
        let config = ClientFiles::of(options).load().map_err(io::Error::other)?;
        Ok(Some(Self { config, name }))
    }

    /// Has a connection that was just made speak TLS.
    pub(crate) fn begin(&self, connection: &mut Connection) -> io::Result<()> {
        connection.connect_tls(Arc::clone(&self.config), self.name.clone())
    }
}

impl Connector {
    /// The address has accepted.
    pub(super) fn begin_handshake(&mut self) {
        let Some(tls) = &self.tls else {
            return;
        };
        let Link::Connecting { io, .. } = &mut self.sides.link else {
            return;
        };
        match tls.begin(io.source_mut()) {
            Ok(()) => self.go_on_with_handshake(),
            Err(error) => self.address_failed(Failure::of(&error)),
        }
    }

    /// An event may have brought the next part of the handshake.
    pub(super) fn go_on_with_handshake(&mut self) {
        let Link::Connecting { io, .. } = &mut self.sides.link else {
            return;
        };
        match io.source_mut().shake() {
            Ok(false) => {}
            Ok(true) => {
                // What came with the end of the handshake is decrypted already.
                io.note_readable();
                io.expect_short_writes();
                self.link_is_up();
            }
            Err(error) => self.address_failed(failure(&error)),
        }
    }
}

fn failure(error: &HandshakeError) -> Failure {
    let words = error.words_for_client();
    if error.is_refusal() {
        Failure {
            words,
            refusal: Some(ErrorReason::AccessDenied),
        }
    } else if error.is_of_other_protocol() {
        Failure {
            words: "that port does not speak TLS (connect without --tls sends everything in clear text)"
                .into(),
            refusal: Some(ErrorReason::Unreachable),
        }
    } else {
        Failure::of(&words)
    }
}
