//! Who a client is, as a token or a certificate says.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// The longest name, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// The name of a client or of a server: 1 to 64 of `[A-Za-z0-9._@:-]`, so that it can stand anywhere: in the log, in an
/// environment variable, between commas.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Name(Box<str>);

impl Name {
    /// Takes a text that is a name.
    pub fn new(text: &str) -> Option<Self> {
        let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"._@:-".contains(&byte);
        let is_name = (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(may_stand);
        is_name.then(|| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).ok_or_else(|| D::Error::custom("not a name"))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a client has shown. It has at least one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The name of its token.
    pub token: Option<Name>,
    /// The name in its certificate.
    pub certificate: Option<Name>,
}

impl Identity {
    /// The client's name: the token's, if there is one.
    pub fn client(&self) -> Option<&Name> {
        self.token.as_ref().or(self.certificate.as_ref())
    }
}

/// `token:NAME`, `cert:NAME`, or both.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.token, &self.certificate) {
            (Some(token), Some(certificate)) => write!(f, "token:{token}, cert:{certificate}"),
            (Some(token), None) => write!(f, "token:{token}"),
            (None, Some(certificate)) => write!(f, "cert:{certificate}"),
            (None, None) => f.write_str("nobody"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_can_stand_anywhere() {
        let longest = "x".repeat(64);
        for good in ["a", "ci@build-7.example:x_Y", &longest] {
            assert_eq!(Name::new(good).unwrap().to_string(), good);
        }
        let too_long = "x".repeat(65);
        for bad in ["", "a b", "a,b", "ä", "a\n", "a/b", &too_long] {
            assert_eq!(Name::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_name_of_the_token_is_the_clients() {
        let name = |text| Name::new(text);
        let both = Identity {
            token: name("ann"),
            certificate: name("laptop"),
        };
        assert_eq!(both.client(), name("ann").as_ref());
        assert_eq!(both.to_string(), "token:ann, cert:laptop");
        let certificate = Identity {
            token: None,
            ..both
        };
        assert_eq!(certificate.client(), name("laptop").as_ref());
        assert_eq!(certificate.to_string(), "cert:laptop");
    }
}
