//! Reading into a buffer that grows.

use std::io::{self, Read};

/// How much is asked for at a time.
const READ_BYTES: usize = 64 * 1024;

/// Reads once, and puts what came at the buffer's end; returns how much that is.
///
/// Into room of its own, as a build without optimisation takes a quarter of a millisecond to make the room in the buffer.
pub(crate) fn read_more(mut from: impl Read, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut some = vec![0; READ_BYTES];
    let got = from.read(&mut some)?;
    buffer.extend_from_slice(&some[..got]);
    Ok(got)
}
