//! New inputs from old ones: bits flipped, pieces cut out, doubled, spliced and replaced by tokens of JSON.

use crate::split_mix::SplitMix64;

/// What is chosen by.
pub(crate) struct Random(pub(crate) SplitMix64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.0.next() % limit.max(1) as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// What JSON and MCP are made of, and what they must not be.
const TOKENS: [&str; 52] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\n",
    "\r",
    "\r\n",
    " ",
    "\t",
    "\0",
    "\u{feff}",
    "\u{a0}",
    "é",
    "😀",
    "\\u0069",
    "\\u0064",
    "\\ud800",
    "\\ude00",
    "\\\"",
    "\\x",
    "null",
    "true",
    "NaN",
    "Infinity",
    "-Infinity",
    "0",
    "-",
    ".",
    "e",
    "1e400",
    "-0",
    "1.50",
    "9223372036854775808",
    "18446744073709551615",
    "123456789012345678901234567890",
    "\"id\":",
    "\"method\":",
    "\"type\":",
    "\"result\":",
    "\"error\":",
    "\"params\":",
    "\"requestId\":",
    "\"heartbeat\"",
    "\"handshake\"",
    "\"initialize\"",
    "\"notifications/cancelled\"",
    "\"notifications/initialized\"",
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\"}",
];

/// Longer inputs find no more, and are slow.
const MAX_BYTES: usize = 2_000;

/// A few changes to one of `inputs`.
pub(crate) fn mutate(inputs: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let any = |random: &mut Random| inputs.get(random.below(inputs.len())).cloned();
    let mut bytes = any(random).unwrap_or_default();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(16)).min(bytes.len());
        match random.below(8) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 if at < bytes.len() => bytes[at] = random.below(256) as u8,
            3 => drop(bytes.drain(at..end)),
            4 => bytes = [&bytes[..end], &bytes[at..]].concat(),
            5 => {
                let token = random.pick(&TOKENS).bytes();
                drop(bytes.splice(at..end, token));
            }
            6 => {
                let token = random.pick(&TOKENS).bytes();
                drop(bytes.splice(at..at, token));
            }
            7 => {
                let other = any(random).unwrap_or_default();
                let from = random.below(other.len() + 1);
                let len = random.below(other.len() - from + 1);
                drop(bytes.splice(at.., other[from..from + len].iter().copied()));
            }
            _ => bytes.push(random.below(256) as u8),
        }
    }
    bytes.truncate(MAX_BYTES);
    bytes
}
