//! A session as its client sees it: two blocking descriptors.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

/// Longer than any message that is sent alone.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// A session. Dropping it closes it, and waits for its process if it has one.
pub(crate) struct Link {
    reader: File,
    /// `None` if it is the same descriptor.
    writer: Option<File>,
    process: Option<Child>,
}

impl Link {
    pub(crate) fn over_tcp(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            reader: OwnedFd::from(stream).into(),
            writer: None,
            process: None,
        })
    }

    /// Starts this program and uses its stdin and stdout.
    pub(crate) fn over_pipes(command: &[String]) -> io::Result<Self> {
        let mut process = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let missing = || io::Error::other("no pipe");
        let stdin = process.stdin.take().ok_or_else(missing)?;
        let stdout = process.stdout.take().ok_or_else(missing)?;
        Ok(Self {
            reader: OwnedFd::from(stdout).into(),
            writer: Some(OwnedFd::from(stdin).into()),
            process: Some(process),
        })
    }

    pub(crate) fn reader(&self) -> &File {
        &self.reader
    }

    pub(crate) fn writer(&self) -> &File {
        self.writer.as_ref().unwrap_or(&self.reader)
    }

    /// Sends a request and reads to the end of its response; returns the length of that. Nothing else may be in flight.
    pub(crate) fn ask(&self, request: &[u8], buffer: &mut [u8]) -> io::Result<usize> {
        self.writer().write_all(request)?;
        let mut length = 0;
        loop {
            let count = read_some(&self.reader, &mut buffer[length..])?;
            length += count;
            if buffer[length - 1] == b'\n' {
                return Ok(length);
            }
        }
    }

    /// Closes the session without waiting for its process; the caller has to do that some time.
    pub(crate) fn close(mut self) -> Option<Child> {
        self.process.take()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(self.writer.take());
            // Fails only if there is no process to wait for.
            let _ = process.wait();
        }
    }
}

/// Reads what is there. The end of the stream is an error.
pub(crate) fn read_some(mut reader: &File, buffer: &mut [u8]) -> io::Result<usize> {
    match reader.read(buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(count),
    }
}
