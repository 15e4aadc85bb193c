//! As whom limits count a client.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::util::client_address::Origin;

/// Whoever a client is for the limits: sessions of one identity take turns, and have their limits together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Identity {
    /// It has shown a token or a certificate of this name.
    Name(Arc<str>),
    /// It has not: all that come from there are one.
    Origin(Origin),
}

impl Identity {
    /// The identity of a client that comes from there, and has shown this name if it has shown any.
    pub fn new(origin: Origin, name: Option<&str>) -> Self {
        name.map_or(Self::Origin(origin), |name| Self::Name(name.into()))
    }
}

impl From<Origin> for Identity {
    fn from(origin: Origin) -> Self {
        Self::Origin(origin)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Origin(origin) => origin.fmt(f),
        }
    }
}
