//! Numbers with what they count.

use std::fmt::{self, Display};

/// "1 server", "2 servers".
#[derive(Debug, Clone, Copy)]
pub struct Counted<N>(pub N, pub &'static str);

impl<N: Display> Display for Counted<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, what) = self;
        let count = count.to_string();
        let s = if count == "1" { "" } else { "s" };
        write!(f, "{count} {what}{s}")
    }
}

/// "is" or "are", after what is counted.
pub fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!(Counted(0, "server").to_string(), "0 servers");
        assert_eq!(Counted(1_u64, "server").to_string(), "1 server");
        assert_eq!(Counted(11, "server").to_string(), "11 servers");
        assert_eq!((are(0), are(1), are(2)), ("are", "is", "are"));
    }
}
