//! Which of the containers around a place are objects, at one bit a level.

/// Remembers which of the open containers are objects.
pub(crate) trait Nesting {
    /// A container begins. Returns whether there is room for it.
    fn open(&mut self, is_object: bool) -> bool;

    /// The innermost container has ended.
    fn close(&mut self);

    /// Whether no container is open.
    fn is_empty(&self) -> bool;

    /// Whether the innermost open container is an object.
    fn is_in_object(&self) -> bool;
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
    fn open(&mut self, is_object: bool) -> bool {
        let has_room = self.levels >> (u64::BITS - 1) == 0;
        self.levels = self.levels << 1 | u64::from(is_object);
        has_room
    }

    #[inline(always)]
    fn close(&mut self) {
        self.levels >>= 1;
    }

    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.levels == 1
    }

    #[inline(always)]
    fn is_in_object(&self) -> bool {
        self.levels & 1 == 1
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
    fn open(&mut self, is_object: bool) -> bool {
        if self.depth > 0 && self.depth.is_multiple_of(u64::BITS as usize) {
            self.outer.push(self.top);
        }
        self.depth += 1;
        self.top = self.top << 1 | u64::from(is_object);
        true
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.top >>= 1;
        if self.depth.is_multiple_of(u64::BITS as usize) {
            self.top = self.outer.pop().unwrap_or_default();
        }
    }

    fn is_empty(&self) -> bool {
        self.depth == 0
    }

    fn is_in_object(&self) -> bool {
        self.top & 1 == 1
    }
}
