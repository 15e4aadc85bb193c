//! From words to options: where options end, which words belong together, and what each is read into.
//!
//! The words are cut at the server's command *before* `pico-args` sees them: it looks for options
//! everywhere, and would find `--debug` among the server's own arguments.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use pico_args::Arguments;

use super::flag::{Mode, Options, Set};
use super::keys::Given;
use super::{UsageError, quoted, unknown};

/// The words of a command line, apart but not judged: a word that looks like an option is one, known or not.
#[derive(Default)]
pub(super) struct Words {
    pub(super) options: Vec<OsString>,
    /// What is no option: the server's command, or an address.
    pub(super) rest: Vec<OsString>,
    /// Whether `--` said where the options end.
    pub(super) dashes: bool,
}

impl Words {
    /// Options end at the first word that is not one, or at `--`; the rest is untouched.
    pub(super) fn until_command(args: Vec<OsString>, mode: Mode) -> Self {
        let mut words = Self::default();
        let mut args = args.into_iter().peekable();
        while let Some(option) = args.next_if(|word| word != "--" && looks_like_option(word)) {
            let has_value = value_follows(&option, mode);
            words.options.push(option);
            if has_value {
                words
                    .options
                    .extend(args.next_if(|word| can_be_value(word)));
            }
        }
        words.dashes = args.next_if(|word| word == "--").is_some();
        words.rest = args.collect();
        words
    }

    /// Options may stand anywhere before `--`.
    pub(super) fn anywhere(args: Vec<OsString>, mode: Mode) -> Self {
        let mut words = Self::default();
        let mut left = args;
        while !left.is_empty() {
            let mut next = Self::until_command(left, mode);
            words.options.append(&mut next.options);
            if next.dashes {
                words.dashes = true;
                words.rest.append(&mut next.rest);
                break;
            }
            left = next.rest;
            if !left.is_empty() {
                words.rest.push(left.remove(0));
            }
        }
        words
    }

    /// The options as they stand there, apart from those that later ones take back.
    pub(super) fn given(&self, mode: Mode) -> Result<Given, UsageError> {
        let mut given = Vec::new();
        let mut words = in_two_words(&self.options, mode)?.into_iter();
        while let Some(word) = words.next() {
            let Some(flag) = mode.find(&word) else {
                continue;
            };
            let value = flag.value.and_then(|_| words.next());
            given.push((flag.name, value.and_then(|value| value.into_string().ok())));
        }
        Ok(Given(given))
    }

    /// Reads the options. The last value of each counts, but all of them must be good.
    pub(super) fn read_into<O: Options>(&self, options: &mut O) -> Result<(), UsageError> {
        let mut args = Arguments::from_vec(in_two_words(&self.options, O::MODE)?);
        for flag in O::MODE.flags() {
            match O::set_of(flag) {
                Some(Set::Switch(set)) => {
                    while args.contains(flag.name) {
                        set(options);
                    }
                }
                Some(Set::Value(set)) => {
                    for value in values(&mut args, flag.name)? {
                        set(options, &value).map_err(|cause| is_not(flag.name, &value, &cause))?;
                    }
                }
                Some(Set::Information) | None => {}
            }
        }
        Ok(())
    }
}

/// `-` alone is by custom not an option; it is a name.
pub(super) fn looks_like_option(word: &OsStr) -> bool {
    word.len() > 1 && word.as_bytes().starts_with(b"-")
}

/// A value may be a negative number, so that the complaint is about the number's range. Anything
/// else that starts with a dash is an option, and the value before it was forgotten.
fn can_be_value(word: &OsStr) -> bool {
    !looks_like_option(word) || matches!(word.as_bytes()[1], b'0'..=b'9' | b'.')
}

pub(super) fn value_follows(option: &OsStr, mode: Mode) -> bool {
    mode.find(option).is_some_and(|flag| flag.value.is_some())
}

/// Rewrites `--option=value` as two words, drops a switch that a later one takes back, and refuses what `pico-args`
/// would misread or complain about less clearly. It collects the two spellings one after the other, so that the last
/// word would not win, and strips quotes from one of them only.
fn in_two_words(options: &[OsString], mode: Mode) -> Result<Vec<OsString>, UsageError> {
    let mut words: Vec<OsString> = Vec::with_capacity(options.len());
    let mut rest = options.iter();
    while let Some(word) = rest.next() {
        let (name, attached) = split_at_equals(word);
        let Some(flag) = mode.find(name) else {
            return Err(unknown::option(name, mode));
        };
        match (flag.value, attached) {
            (None, None) => {
                let opposite = flag.opposite();
                words.retain(|word| *word != *opposite);
                words.push(flag.name.into());
            }
            (None, Some(value)) => return Err(takes_no_value(name, value)),
            (Some(_), _) => {
                let value = attached.or_else(|| rest.next().map(OsString::as_os_str));
                let value = checked_value(name, value)?;
                words.extend([flag.name.into(), value.to_owned()]);
            }
        }
    }
    Ok(words)
}

/// `--option=value` apart.
pub(super) fn split_at_equals(word: &OsStr) -> (&OsStr, Option<&OsStr>) {
    let bytes = word.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (
            OsStr::from_bytes(&bytes[..at]),
            Some(OsStr::from_bytes(&bytes[at + 1..])),
        ),
        None => (word, None),
    }
}

fn checked_value<'a>(name: &OsStr, value: Option<&'a OsStr>) -> Result<&'a OsStr, UsageError> {
    let name = name.display();
    match value {
        None => Err(UsageError(format!(
            "{name}: its value is missing (see --help)"
        ))),
        Some(value) if !can_be_value(value) => Err(UsageError(format!(
            "{name}: its value is missing, {} is an option (see --help)",
            quoted(value)
        ))),
        Some(value) if value.to_str().is_none() => Err(UsageError(format!(
            "{name}: {} is not UTF-8 (only the server's command may be anything)",
            quoted(value)
        ))),
        Some(value) => Ok(value),
    }
}

fn takes_no_value(name: &OsStr, value: &OsStr) -> UsageError {
    let (name, value) = (name.display(), quoted(value));
    UsageError(format!(
        "{name}: takes no value, and {value} is one (leave out '=' and the value)"
    ))
}

fn values(args: &mut Arguments, name: &'static str) -> Result<Vec<String>, UsageError> {
    let as_it_is = |value: &str| Ok::<_, Infallible>(value.to_owned());
    args.values_from_fn(name, as_it_is)
        .map_err(|error| UsageError(format!("{name}: {error} (see --help)")))
}

fn is_not(name: &str, value: &str, cause: &str) -> UsageError {
    UsageError(format!(
        "{name}: {} is not {cause}",
        quoted(OsStr::new(value))
    ))
}
