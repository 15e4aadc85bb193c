//! What a program is going to write, and writes in pieces.

use crate::rng::Rng;
use crate::transport::Inflow;

#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    head: usize,
}

impl Outgoing {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The last line is to have no line end.
    pub fn drop_line_end(&mut self) {
        self.bytes.pop();
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// How much is kept, in bytes: what was written goes with the rest.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether everything was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether some of it was written, but not all.
    pub fn is_part_written(&self) -> bool {
        self.head > 0
    }

    /// Writes all of it or a part, as far as there is room.
    pub fn write_to(&mut self, input: &mut Inflow, rng: &mut Rng) {
        let waiting = self.bytes.len() - self.head;
        if waiting == 0 {
            return;
        }
        let most = if rng.percent(40) {
            rng.between(1, waiting)
        } else {
            waiting
        };
        self.head += input.write(&self.bytes[self.head..self.head + most]);
        if self.head == self.bytes.len() {
            self.clear();
        }
    }
}
