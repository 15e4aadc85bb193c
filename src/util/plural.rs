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

/// "10,485,760".
#[derive(Debug, Clone, Copy)]
pub struct Grouped(pub u64);

impl Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
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
    fn digits_are_grouped_by_three() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (10_485_760, "10,485,760"),
        ] {
            assert_eq!(Grouped(number).to_string(), text);
        }
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(Counted(0, "server").to_string(), "0 servers");
        assert_eq!(Counted(1_u64, "server").to_string(), "1 server");
        assert_eq!(Counted(11, "server").to_string(), "11 servers");
        assert_eq!((are(0), are(1), are(2)), ("are", "is", "are"));
    }
}
