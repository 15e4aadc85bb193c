//! What is left out of a state because it is as it is at first. That goes for most of what there is of most sessions, and
//! thousands of them are written down, and read, while all stand still.
//!
//! A field is marked `#[serde(default, skip_serializing_if = "is_default")]`, so one that is new has its default in the
//! states of older programs.

/// Whether a value is the default of its type.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
