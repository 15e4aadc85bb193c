//! What matters of a JSON array of messages.

use super::{Envelope, Method};
use crate::protocol::json::{Malformed, Reader};

/// What matters of a JSON array.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    /// The messages with an id, and the notifications that mean something to a proxy, in order: the first
    /// [`MAX_BATCH`] of them.
    pub envelopes: Vec<Envelope<'a>>,
    /// How many items the array has.
    pub len: usize,
    /// Whether there are more than [`MAX_BATCH`] that matter.
    pub is_cut: bool,
}

/// Up to this many messages of a batch are examined. An envelope takes more memory than the smallest message, so there
/// has to be a limit; this is beyond what can be in flight both ways.
pub const MAX_BATCH: usize = 4096;

impl<'a> Batch<'a> {
    /// Reads an array into an empty batch.
    pub(super) fn read(&mut self, reader: &mut Reader<'a>) -> Result<(), Malformed> {
        reader.array(|reader| {
            self.len += 1;
            if reader.peek() == b'{' {
                self.read_item(reader)?;
            } else {
                reader.value()?;
            }
            Ok(())
        })
    }

    #[inline(never)]
    fn read_item(&mut self, reader: &mut Reader<'a>) -> Result<(), Malformed> {
        let mut envelope = Envelope::default();
        // A copy, of which nobody else has the address, stays in registers.
        let mut here = *reader;
        let read = envelope.read(&mut here);
        *reader = here;
        self.add(envelope);
        read
    }

    fn add(&mut self, envelope: Envelope<'a>) {
        let is_plain = envelope.method.is_none_or(Method::needs_id);
        if envelope.id.is_none() && is_plain {
            return;
        }
        if self.envelopes.len() < MAX_BATCH {
            self.envelopes.push(envelope);
        } else {
            self.is_cut = true;
        }
    }
}
