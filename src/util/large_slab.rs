//! Slabs that may become large.
//!
//! A vector that grows from nothing leaves behind what it was in before, again and again, until it has pages of its own: then
//! it grows by having more pages mapped (mremap(2)). What it was in before can be used again, but is seldom given back.
//! Pages that nothing was ever written to cost nothing, so such a slab has its own from the beginning.

use slab::Slab;

/// What is as large as this has pages of its own (mallopt(3), `M_MMAP_THRESHOLD`).
const PAGES_BYTES: usize = 128 * 1024;

/// An empty slab for elements of which there may be thousands.
pub fn new<T>() -> Slab<T> {
    Slab::with_capacity(PAGES_BYTES / size_of::<T>() + 1)
}
