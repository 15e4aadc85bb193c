//! The token file: who may come in, and to which servers.
//!
//! ```text
//!   # NAME  TOKEN                       [SERVER,…]
//!   ann     mtp_5TtUXIJhBE…                           # in clear text; the log warns
//!   ci      sha256:9f86d081884c7d65…    weather,files
//!   ci      sha256:60303ae22b998861…                  # a second one, while the first is replaced
//!   laptop  certificate                 files         # limits a client certificate
//! ```
//!
//! Only digests are kept. A token that a client shows is compared with every entry, each in constant time: neither how long
//! that takes nor where it ends tells how much of a guess was right. Nothing here is in any `Debug` output but names.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::identity::{Identity, Name};

/// The shortest token in clear text, in characters: shorter ones can be guessed.
const MIN_TOKEN_CHARS: usize = 16;

/// Random bytes of a fresh token: as many as nobody guesses, in whatever time.
pub const FRESH_BYTES: usize = 32;

/// What a fresh token begins with, so that scanners for leaked secrets know it.
const FRESH_PREFIX: &str = "mtp_";

/// What the digest of a token begins with in the file.
const DIGEST_PREFIX: &str = "sha256:";

/// In the place of a token: the line is about a certificate.
const CERTIFICATE: &str = "certificate";

/// What a server without a name is called.
pub const DEFAULT_SERVER: &str = "default";

type Hash = [u8; 32];

/// What a token file says.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    entries: Vec<Entry>,
    certificates: BTreeMap<Name, Servers>,
    /// How many stand in the file as they are.
    in_clear_text: usize,
}

/// One token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    name: Name,
    hash: Hash,
    servers: Servers,
    /// The line of the file, from 1.
    line: usize,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({})", self.name)
    }
}

/// The servers that an identity may use; all, if none are named.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Servers(Box<[Name]>);

impl Servers {
    /// Whether it may use this one.
    pub fn allows(&self, server: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|name| name.as_str() == server)
    }
}

impl Tokens {
    /// Reads the text of a file. The error says which line is wrong, and quotes nothing of it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Self::default();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            tokens
                .add_line(line, number)
                .map_err(|error| format!("line {number}: {error}"))?;
        }
        Ok(tokens)
    }

    fn add_line(&mut self, line: &str, number: usize) -> Result<(), String> {
        let words = line.split_whitespace();
        let words: Vec<&str> = words.take_while(|word| !word.starts_with('#')).collect();
        let (name, token, servers) = match words[..] {
            [] => return Ok(()),
            [name, token] => (name, token, Servers::default()),
            [name, token, servers] => (name, token, read_servers(servers)?),
            _ => return Err("is not NAME TOKEN [SERVER,…]".to_owned()),
        };
        let name =
            Name::new(name).ok_or("the name is not one (1 to 64 of letters, digits and ._@:-)")?;
        if token == CERTIFICATE {
            return match self.certificates.insert(name, servers) {
                None => Ok(()),
                Some(_) => Err("there is a line for this certificate already".to_owned()),
            };
        }
        let (hash, is_clear) = read_token(token)?;
        if let Some(other) = self.entries.iter().find(|entry| entry.hash == hash) {
            return Err(format!("the token is that of line {}", other.line));
        }
        self.in_clear_text += usize::from(is_clear);
        self.entries.push(Entry {
            name,
            hash,
            servers,
            line: number,
        });
        Ok(())
    }

    /// Whose token this is, and what it is good for.
    pub fn find(&self, token: &str) -> Option<(&Name, &Servers)> {
        let hash = hash_of(token);
        let mut found = u64::MAX;
        for (index, entry) in (0_u64..).zip(&self.entries) {
            found.conditional_assign(&index, entry.hash.ct_eq(&hash));
        }
        let entry = self.entries.get(usize::try_from(found).ok()?)?;
        Some((&entry.name, &entry.servers))
    }

    /// The servers of a certificate of this name: all, if no line limits it.
    pub fn allows_certificate(&self, name: &Name, server: &str) -> bool {
        let servers = self.certificates.get(name);
        servers.is_none_or(|servers| servers.allows(server))
    }

    /// Whether a client has to show a token. A file that is only about certificates asks for none.
    pub fn are_asked_for(&self) -> bool {
        !self.entries.is_empty() || self.certificates.is_empty()
    }

    /// Whether somebody who came in as this still could, to this server.
    pub fn are_still_good_for(&self, identity: &Identity, server: &str) -> bool {
        let mut entries = self.entries.iter();
        let token = identity.token.as_ref().is_none_or(|name| {
            entries.any(|entry| entry.name == *name && entry.servers.allows(server))
        });
        let certificate = identity.certificate.as_ref();
        token && certificate.is_none_or(|name| self.allows_certificate(name, server))
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many certificates have a line.
    pub fn certificates(&self) -> usize {
        self.certificates.len()
    }

    /// How many tokens stand in the file as they are.
    pub fn in_clear_text(&self) -> usize {
        self.in_clear_text
    }

    /// The servers that lines name, other than these.
    pub fn other_servers(&self, servers: &[&str]) -> Vec<&Name> {
        let of_tokens = self.entries.iter().map(|entry| &entry.servers);
        let all = of_tokens.chain(self.certificates.values());
        let names = all.flat_map(|servers| servers.0.iter());
        let mut names: Vec<&Name> = names
            .filter(|name| !servers.contains(&name.as_str()))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn read_servers(list: &str) -> Result<Servers, String> {
    let names = list.split(',').map(Name::new);
    let names: Option<Box<[Name]>> = names.collect();
    names
        .map(Servers)
        .ok_or_else(|| "a server's name is not one (1 to 64 of letters, digits and ._@:-)".into())
}

/// The hash of a token, and whether it stands there in clear text.
fn read_token(token: &str) -> Result<(Hash, bool), String> {
    if let Some(hex) = token.strip_prefix(DIGEST_PREFIX) {
        let hash = read_hex(hex).ok_or("after sha256: there have to be 64 hexadecimal digits")?;
        return Ok((hash, false));
    }
    if token.chars().count() < MIN_TOKEN_CHARS {
        return Err(format!(
            "the token is too short: at least {MIN_TOKEN_CHARS} characters, better a fresh one (mcp-tcp-proxy token NAME)"
        ));
    }
    Ok((hash_of(token), true))
}

fn read_hex(hex: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    let digits: Option<Vec<u32>> = hex.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() == 2 * hash.len())?;
    for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
        *byte = (pair[0] << 4 | pair[1]) as u8;
    }
    Some(hash)
}

fn hash_of(token: &str) -> Hash {
    Sha256::digest(token.as_bytes()).into()
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
}

/// A token that nobody else has.
pub struct Fresh {
    /// What the client shows.
    pub token: String,
    /// The line for the token file.
    pub line: String,
}

impl Fresh {
    /// Makes one of random bytes.
    pub fn new(name: &Name, random: [u8; FRESH_BYTES]) -> Self {
        let mut token = FRESH_PREFIX.to_owned();
        push_hex(&mut token, &random);
        let mut line = format!("{name} {DIGEST_PREFIX}");
        push_hex(&mut line, &hash_of(&token));
        Self { token, line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: &str = "mtp_0123456789abcdef";

    /// The digest of `mtp_for_ci_only_x`.
    fn ci_line() -> String {
        let mut line = "ci sha256:".to_owned();
        push_hex(&mut line, &hash_of("mtp_for_ci_only_x"));
        line
    }

    fn name_of<'a>(tokens: &'a Tokens, token: &str) -> Option<&'a str> {
        tokens.find(token).map(|(name, _)| name.as_str())
    }

    fn identity(token: Option<&str>, certificate: Option<&str>) -> Identity {
        Identity {
            token: token.and_then(Name::new),
            certificate: certificate.and_then(Name::new),
        }
    }

    #[test]
    fn a_token_has_a_name_whether_it_is_written_out_or_as_a_digest() {
        let text = format!(
            "# who\n\n  ann\t{ANN} # hers\n{}\r\nann another-one-of-hers default\n",
            ci_line()
        );
        let tokens = Tokens::parse(&text).unwrap();
        assert_eq!(name_of(&tokens, ANN), Some("ann"));
        assert_eq!(name_of(&tokens, "another-one-of-hers"), Some("ann"));
        assert_eq!(name_of(&tokens, "mtp_for_ci_only_x"), Some("ci"));
        for wrong in [
            "",
            "mtp_0123456789abcde",
            "mtp_0123456789abcdef ",
            "ann",
            "certificate",
        ] {
            assert_eq!(name_of(&tokens, wrong), None, "{wrong}");
        }
        let digest = ci_line().split_once(' ').unwrap().1.to_owned();
        assert_eq!(name_of(&tokens, &digest), None, "the digest is no token");
        assert_eq!((tokens.len(), tokens.in_clear_text()), (3, 2));
        assert!(tokens.are_asked_for());
    }

    #[test]
    fn servers_are_listed_for_tokens_and_certificates() {
        let text = format!("ann {ANN} weather,default\nlaptop certificate files\n");
        let tokens = Tokens::parse(&text).unwrap();
        let (_, servers) = tokens.find(ANN).unwrap();
        assert!(servers.allows("weather") && servers.allows("default") && !servers.allows("files"));
        assert!(Servers::default().allows("files"));
        let (laptop, other) = (Name::new("laptop").unwrap(), Name::new("other").unwrap());
        assert!(tokens.allows_certificate(&laptop, "files"));
        assert!(!tokens.allows_certificate(&laptop, "default"));
        assert!(
            tokens.allows_certificate(&other, "default"),
            "is not limited"
        );
        let names = tokens.other_servers(&["default"]);
        let names: Vec<&str> = names.into_iter().map(Name::as_str).collect();
        assert_eq!(names, ["files", "weather"]);
        assert!(!Tokens::parse("laptop certificate").unwrap().are_asked_for());
        assert!(Tokens::parse("").unwrap().are_asked_for(), "of nobody");
    }

    #[test]
    fn whoever_came_in_may_stay_while_the_name_is_good() {
        let ann = |lines: &str, identity: &Identity| {
            let tokens = Tokens::parse(lines).unwrap();
            tokens.are_still_good_for(identity, DEFAULT_SERVER)
        };
        let token = identity(Some("ann"), None);
        assert!(ann("ann another-one-of-hers", &token));
        assert!(!ann("ben another-one-of-his_", &token));
        assert!(!ann("ann another-one-of-hers weather", &token));
        let both = identity(Some("ann"), Some("laptop"));
        assert!(ann("ann another-one-of-hers", &both));
        assert!(!ann(
            "ann another-one-of-hers\nlaptop certificate weather",
            &both
        ));
        assert!(ann("", &identity(None, Some("laptop"))));
    }

    #[test]
    fn a_line_that_makes_no_sense_is_named_and_not_quoted() {
        let repeated = format!("ann {ANN}\nben {ANN}");
        for (text, error) in [
            ("ann", "line 1: is not NAME TOKEN [SERVER,…]"),
            (
                "\nann 0123456789abcdef a b",
                "line 2: is not NAME TOKEN [SERVER,…]",
            ),
            ("ann short-secret", "line 1: the token is too short"),
            ("ann sha256:12", "line 1: after sha256: there have to be"),
            ("an/n 0123456789abcdef", "line 1: the name is not one"),
            ("ann 0123456789abcdef a,,b", "line 1: a server's name"),
            ("a certificate\na certificate", "line 2: there is a line"),
            (&repeated, "line 2: the token is that of line 1"),
        ] {
            let found = Tokens::parse(text).unwrap_err();
            assert!(found.starts_with(error), "{found}");
            assert!(
                !found.contains("short-secret") && !found.contains("0123"),
                "{found}"
            );
        }
    }

    #[test]
    fn nothing_of_a_token_is_in_any_debug_output() {
        let tokens = Tokens::parse(&format!("ann {ANN}\n{}", ci_line())).unwrap();
        let debug = format!("{tokens:?}");
        let mut hash = String::new();
        push_hex(&mut hash, &hash_of("mtp_for_ci_only_x"));
        assert!(debug.contains("ann"), "{debug}");
        for secret in [ANN, "mtp_", &hash, &format!("{:?}", hash_of(ANN))] {
            assert!(!debug.contains(secret), "{debug}");
        }
    }

    #[test]
    fn a_fresh_token_is_good_under_its_line() {
        let name = Name::new("ci@build").unwrap();
        let [fresh, other] = [7, 8].map(|byte| Fresh::new(&name, [byte; FRESH_BYTES]));
        assert!(fresh.token.starts_with("mtp_") && fresh.token.len() == 68);
        assert_ne!(fresh.token, other.token);
        assert!(!fresh.line.contains(&fresh.token));
        let tokens = Tokens::parse(&format!("{}\n{}\n", fresh.line, other.line)).unwrap();
        assert_eq!(name_of(&tokens, &fresh.token), Some("ci@build"));
        assert_eq!(tokens.in_clear_text(), 0);
    }

    #[test]
    fn the_digest_is_that_of_sha256sum() {
        let text = "x sha256:9F86D081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(name_of(&Tokens::parse(text).unwrap(), "test"), Some("x"));
    }
}
