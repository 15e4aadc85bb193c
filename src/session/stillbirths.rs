//! When a server is not going to live: it ends right after its start, without a word, in the same way again and again.
//! Policy only: nothing here starts or ends anything.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::report::Exit;

/// A server that ends within this time has not got through its start: most servers take no longer for that.
const AT_ONCE: Duration = Duration::from_secs(1);

/// After so many of them in a row it is not chance. With the cooldown between them they take about six seconds.
pub(super) const MAX_STILLBIRTHS: u32 = 3;

/// How often in a row a session's server ended at once.
#[derive(Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Stillbirths {
    /// With this exit code.
    code: i32,
    count: u32,
}

impl Stillbirths {
    /// One has lived to be asked something, however it ended.
    pub(super) fn interrupted(&mut self) {
        self.count = 0;
    }

    /// A server ended like this, after it had lived for this long. Returns whether the next one would do the same.
    pub(super) fn ended(&mut self, exit: Exit, lived: Duration, has_spoken: bool) -> bool {
        let code = match exit {
            Exit::Code(code) if lived < AT_ONCE && !has_spoken => code,
            _ => {
                self.count = 0;
                return false;
            }
        };
        if self.code != code {
            self.count = 0;
        }
        self.code = code;
        self.count += 1;
        self.count >= MAX_STILLBIRTHS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[test]
    fn three_in_a_row_are_enough() {
        let mut stillbirths = Stillbirths::default();
        let mut ended = || stillbirths.ended(Exit::Code(3), SOON, false);
        assert!(!ended() && !ended() && ended());
    }

    #[test]
    fn one_of_another_kind_begins_the_row_anew() {
        for (exit, lived, has_spoken) in [
            (Exit::Code(4), SOON, false),
            (Exit::Signal(9), SOON, false),
            (Exit::Unknown, SOON, false),
            (Exit::Code(3), AT_ONCE, false),
            (Exit::Code(3), SOON, true),
        ] {
            let mut stillbirths = Stillbirths::default();
            let mut ended = || stillbirths.ended(Exit::Code(3), SOON, false);
            assert!(!ended() && !ended());
            assert!(!stillbirths.ended(exit, lived, has_spoken));
            let mut ended = || stillbirths.ended(Exit::Code(3), SOON, false);
            assert!(!ended() && !ended() && ended(), "{exit:?}");
        }
    }
}
