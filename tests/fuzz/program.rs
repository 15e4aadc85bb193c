//! Bytes as a program: each target takes its choices from the front of its input.

/// What is left of an input. Every sequence of bytes is a program, and one that is used up says 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program<'a>(pub(crate) &'a [u8]);

impl<'a> Program<'a> {
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number of any magnitude below 2^`max_bits`: small ones are as likely as large ones.
    pub(crate) fn number(&mut self, max_bits: u32) -> u64 {
        let bits = u32::from(self.byte()) % (max_bits + 1);
        let [a, b] = [self.byte(), self.byte()].map(u64::from);
        let digits = (a << 8 | b) << 48;
        (digits | 1 << 47).checked_shr(64 - bits).unwrap_or(0)
    }

    /// A length byte, and so many bytes.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }
}
