//! Which of the servers that are served: a server of the configuration, as opposed to the processes that it has.

use serde::{Deserialize, Serialize};

/// Names a service: a server with its command and its options. It is used again after the service is gone.
#[derive(
    Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ServiceKey(pub usize);

impl ServiceKey {
    /// The only one, where there are not several.
    pub const ONLY: Self = Self(0);
}
