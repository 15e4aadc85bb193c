//! Which of the containers around a place are objects, at one bit a level.

/// Takes the place of a closing bracket where no container is open.
pub(crate) const NOTHING_OPEN: u8 = 0;

/// Remembers which of the open containers are objects.
pub(crate) trait Nesting {
    /// A container begins in the one that `close` closes. Returns whether there is room for it.
    fn open(&mut self, close: u8) -> bool;

    /// The innermost container has ended. Returns what closes the one around it.
    fn close(&mut self) -> u8;
}

/// As deep as messages usually are. It stays in a register.
pub(crate) struct Shallow {
    /// One bit a level, the innermost lowest, and above them one that says where they begin.
    levels: u64,
}

impl Default for Shallow {
    fn default() -> Self {
        Self { levels: 1 }
    }
}

impl Nesting for Shallow {
    #[inline(always)]
    fn open(&mut self, close: u8) -> bool {
        let has_room = self.levels >> (u64::BITS - 1) == 0;
        self.levels = self.levels << 1 | u64::from(close == b'}');
        has_room
    }

    #[inline(always)]
    fn close(&mut self) -> u8 {
        let in_object = self.levels & 1 == 1;
        self.levels >>= 1;
        if self.levels == 1 {
            NOTHING_OPEN
        } else {
            closing_of(in_object)
        }
    }
}

/// As deep as memory allows.
#[derive(Default)]
pub(crate) struct Deep {
    depth: usize,
    /// The innermost 64 levels or fewer, the innermost in the lowest bit.
    top: u64,
    /// Full words of the levels further out.
    outer: Vec<u64>,
}

impl Nesting for Deep {
    fn open(&mut self, close: u8) -> bool {
        if self.depth > 0 && self.depth.is_multiple_of(u64::BITS as usize) {
            self.outer.push(self.top);
        }
        self.depth += 1;
        self.top = self.top << 1 | u64::from(close == b'}');
        true
    }

    fn close(&mut self) -> u8 {
        let in_object = self.top & 1 == 1;
        self.depth -= 1;
        self.top >>= 1;
        if self.depth == 0 {
            return NOTHING_OPEN;
        }
        if self.depth.is_multiple_of(u64::BITS as usize) {
            self.top = self.outer.pop().unwrap_or_default();
        }
        closing_of(in_object)
    }
}

#[inline(always)]
fn closing_of(in_object: bool) -> u8 {
    if in_object { b'}' } else { b']' }
}
