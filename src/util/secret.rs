//! A text that is in no log and no `Debug` output.

use std::fmt;
use std::rc::Rc;

/// A text that nobody is shown by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Rc<str>);

impl Secret {
    /// Keeps a text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text, for whom it is meant.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_has_nothing_of_it() {
        let secret = Secret::new("mtp_0123456789abcdef");
        assert_eq!(secret.reveal(), "mtp_0123456789abcdef");
        assert_eq!(format!("{:?}", Some(secret)), "Some(Secret(…))");
    }
}
