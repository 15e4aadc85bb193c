//! Objects and arrays of which only the end is wanted: skipped in one loop, however deep they are.

use super::nesting::{Deep, Nesting, Shallow};
use super::{Malformed, Reader};

/// What follows an object or an array, and what was in it.
pub(super) struct ContainerEnd<'a> {
    pub(super) rest: &'a [u8],
    pub(super) is_ascii: bool,
}

/// Skips an object or an array with all that is in it. One that turns out to be deep is read once more.
pub(super) fn container_end(text: &[u8]) -> Option<ContainerEnd<'_>> {
    let mut reader = Reader::new(text);
    match reader.skip_container(&mut Shallow::default()) {
        Ok(()) => {}
        Err(Failed::Malformed) => return None,
        Err(Failed::TooDeep) => {
            reader = Reader::new(text);
            reader.skip_container(&mut Deep::default()).ok()?;
        }
    }
    Some(ContainerEnd {
        rest: reader.rest,
        is_ascii: reader.is_ascii,
    })
}

/// Why a container could not be skipped.
enum Failed {
    Malformed,
    /// What remembers the nesting has no room for more.
    TooDeep,
}

impl From<Malformed> for Failed {
    #[inline(always)]
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

impl Reader<'_> {
    #[inline(always)]
    fn skip_container(&mut self, nesting: &mut impl Nesting) -> Result<(), Failed> {
        let mut first = self.peek();
        loop {
            match first {
                b'{' => {
                    self.pass();
                    if !nesting.open(true) {
                        return Err(Failed::TooDeep);
                    }
                    match self.peek() {
                        b'"' => {
                            first = self.skip_key()?;
                            continue;
                        }
                        b'}' => self.pass(),
                        _ => return Err(Failed::Malformed),
                    }
                    nesting.close();
                }
                b'[' => {
                    self.pass();
                    if !nesting.open(false) {
                        return Err(Failed::TooDeep);
                    }
                    first = self.peek();
                    if first != b']' {
                        continue;
                    }
                    self.pass();
                    nesting.close();
                }
                _ => {
                    self.skip_scalar(first)?;
                }
            }
            match self.next_value(nesting)? {
                Some(next) => first = next,
                None => return Ok(()),
            }
        }
    }

    /// After a value: closes what ends there. Returns the first byte of the next value, or `None` if all is closed.
    #[inline(always)]
    fn next_value(&mut self, nesting: &mut impl Nesting) -> Result<Option<u8>, Malformed> {
        while !nesting.is_empty() {
            if nesting.is_in_object() {
                if !self.is_last_member()? {
                    return self.skip_key().map(Some);
                }
            } else if !self.is_last(b']')? {
                return Ok(Some(self.peek()));
            }
            nesting.close();
        }
        Ok(None)
    }
}
