//! What to say about an option that there is not: whose it is, or which one was meant.

use std::ffi::OsStr;

use super::flag::Mode;
use super::{UsageError, printable};

pub(super) fn option(name: &OsStr, mode: Mode) -> UsageError {
    let shown = printable(name);
    let subcommand = mode.subcommand().unwrap_or_default();
    if mode != Mode::Serve && Mode::Serve.find(name).is_some() {
        return UsageError(format!(
            "{shown}: no such option of {subcommand}; it belongs to the serving side (see mcp-tcp-proxy {subcommand} --help)"
        ));
    }
    if mode == Mode::Serve
        && let Some(flag) = Mode::Connect.find(name)
    {
        let usage = flag.usage();
        return UsageError(format!(
            "{shown}: no such option of the serving side; it belongs to connect (mcp-tcp-proxy connect {usage} \
             HOST:PORT)"
        ));
    }
    if mode == Mode::Serve
        && let Some(flag) = Mode::Bench.find(name)
    {
        let usage = flag.usage();
        return UsageError(format!(
            "{shown}: no such option of the serving side; it belongs to bench (mcp-tcp-proxy bench {usage} TARGET)"
        ));
    }
    let meant = nearest(&shown, mode.flags().map(|flag| flag.name));
    let hint = meant.map_or_else(String::new, |meant| format!(", did you mean {meant}?"));
    UsageError(match mode {
        Mode::Serve => format!(
            "{shown}: no such option{hint} (see --help; options of the server go after its command, and a command \
             that starts with '-' after '--')"
        ),
        Mode::Connect | Mode::Bench => {
            format!("{shown}: no such option{hint} (see mcp-tcp-proxy {subcommand} --help)")
        }
    })
}

/// The one of `known` that was probably meant, if one is close: a third of its letters may be wrong, or it was cut.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let letters = |name: &str| name.trim_start_matches('-').to_owned();
    let word = letters(word);
    let close = known.filter_map(|name| {
        let name_letters = letters(name);
        let cut = word.len() >= 3 && name_letters.starts_with(&word);
        let wrong = distance(&word, &name_letters);
        (cut || wrong <= name_letters.len() / 3).then_some((wrong, name))
    });
    close.min_by_key(|(wrong, _)| *wrong).map(|(_, name)| name)
}

/// How many letters have to be inserted, deleted, replaced or exchanged with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("port", "prot", 1),
            ("port", "port", 0),
            ("post", "port", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn a_close_one_is_named_and_a_far_one_is_not() {
        let nearest = |word| nearest(word, Mode::Serve.flags().map(|flag| flag.name));
        for (word, meant) in [
            ("--prot", "--port"),
            ("-port", "--port"),
            ("--por", "--port"),
            ("--heartbeat", "--heartbeat-interval"),
            ("--hearbeat-intervall", "--heartbeat-interval"),
            ("--max-session", "--max-sessions"),
            ("--noautorestart", "--no-auto-restart"),
            ("--idle_timeout", "--idle-timeout"),
        ] {
            assert_eq!(nearest(word), Some(meant), "{word}");
        }
        for word in ["--bogus", "-p", "-x", "--", "--verbose", "\u{fffd}"] {
            assert_eq!(nearest(word), None, "{word}");
        }
    }
}
