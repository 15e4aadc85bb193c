//! Shell completions, made from the table of options.

mod bash;
mod fish;
mod zsh;

use std::ffi::OsStr;

use super::flag::{Flag, Mode};

/// The completions of a shell, or `None` if it is not known here.
pub(super) fn text(shell: &OsStr) -> Option<String> {
    match shell.to_str()? {
        "bash" => Some(bash::text()),
        "zsh" => Some(zsh::text()),
        "fish" => Some(fish::text()),
        _ => None,
    }
}

/// What a shell can offer as the value of an option.
enum Values {
    These(Vec<&'static str>),
    Hosts,
    Files,
    Anything,
}

fn values_of(flag: &Flag) -> Values {
    match flag.value {
        Some("HOST") => Values::Hosts,
        Some("FILE" | "DIR" | "PATH") => Values::Files,
        _ => flag.choices().map_or(Values::Anything, Values::These),
    }
}

/// All spellings of a mode's options.
fn names(mode: Mode) -> Vec<&'static str> {
    let spellings = |flag: &'static Flag| flag.short.into_iter().chain([flag.name]);
    mode.flags().flat_map(spellings).collect()
}

/// The options of a mode that take a value, from which the next word is known not to be a command.
fn names_with_value(mode: Mode) -> Vec<&'static str> {
    let flags = mode.flags().filter(|flag| flag.value.is_some());
    flags.map(|flag| flag.name).collect()
}

/// Fills in `@NAME@` marks.
fn filled(template: &str, marks: &[(&str, String)]) -> String {
    let fill = |text: String, (mark, filling): &(&str, String)| {
        text.replace(&format!("@{mark}@"), filling)
    };
    marks.iter().fold(template.to_owned(), fill)
}

#[cfg(test)]
mod tests;
