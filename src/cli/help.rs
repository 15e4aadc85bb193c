//! What `--help` prints.

use std::fmt::Write as _;

use super::flag::{DefaultText, Flag, Mode};
use super::pages::SUBCOMMANDS;

/// In columns.
const WIDTH: usize = 100;

/// Where the text about an option begins.
const TEXT_COLUMN: usize = 29;

pub(super) fn text(mode: Mode) -> String {
    let page = mode.page();
    let mut text = String::new();
    push_wrapped(&mut text, 0, page.about);
    text.push_str("\nUsage:\n");
    push_usage(&mut text, mode);
    for rule in page.rules {
        text.push('\n');
        push_wrapped(&mut text, 0, rule);
    }
    text.push_str("\nOptions:\n");
    for flag in mode.flags() {
        push_option(&mut text, flag);
    }
    text.push_str("\nExamples:\n");
    for (line, _) in page.examples {
        let _ = writeln!(text, "  mcp-tcp-proxy {line}");
    }
    text.push('\n');
    let codes: Vec<String> = page
        .exit
        .iter()
        .map(|(code, meaning)| format!("{code} {meaning}"))
        .collect();
    push_wrapped(&mut text, 0, &format!("Exit codes: {}", codes.join("; ")));
    text
}

fn push_usage(text: &mut String, mode: Mode) {
    let usage = mode.page().usage.iter();
    let mut lines: Vec<(String, &str)> = usage
        .map(|(line, what)| ((*line).to_owned(), *what))
        .collect();
    if mode == Mode::Serve {
        lines.extend(SUBCOMMANDS.iter().map(|subcommand| {
            let line = format!("{} {}", subcommand.name, subcommand.words);
            (line.trim_end().to_owned(), subcommand.summary)
        }));
    }
    let width = lines.iter().map(|(line, _)| line.len()).max().unwrap_or(0);
    for (line, what) in lines {
        let _ = writeln!(text, "  mcp-tcp-proxy {line:width$}  {what}");
    }
}

fn push_option(text: &mut String, flag: &Flag) {
    let short = flag
        .short
        .map_or_else(String::new, |short| format!("{short}, "));
    let name = format!("  {short}{}", flag.usage());
    let mut about = String::new();
    push_wrapped(
        &mut about,
        TEXT_COLUMN,
        &format!("{}{}", flag.help, in_brackets(flag)),
    );
    if name.len() + 2 > TEXT_COLUMN {
        let _ = writeln!(text, "{name}\n{}", about.trim_end());
    } else {
        let _ = writeln!(text, "{name:TEXT_COLUMN$}{}", about.trim());
    }
}

/// Default and example, in one piece for the line breaks.
fn in_brackets(flag: &Flag) -> String {
    let mut parts = Vec::new();
    match flag.default {
        DefaultText::Value(value) => parts.push(format!("default: {value}")),
        DefaultText::Words(words) => parts.push(format!("default: {words}")),
        DefaultText::Unsaid => {}
    }
    if let Some(example) = flag.example {
        parts.push(format!("example: {} {example}", flag.name));
    }
    if parts.is_empty() {
        return String::new();
    }
    format!(" [{}]", parts.join("; "))
        .replace(' ', NO_BREAK)
        .replacen(NO_BREAK, " ", 1)
}

/// Stands for a space at which no line is broken.
const NO_BREAK: &str = "\u{a0}";

/// Appends `text` in lines that start at a column.
fn push_wrapped(to: &mut String, column: usize, text: &str) {
    let mut line = String::new();
    for word in with_whole_literals(text).split(' ') {
        let is_full = column + line.chars().count() + 1 + word.chars().count() > WIDTH;
        if is_full && !line.is_empty() {
            let _ = writeln!(to, "{:column$}{line}", "");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(to, "{:column$}{}", "", line);
    if to.contains(NO_BREAK) {
        *to = to.replace(NO_BREAK, " ");
    }
}

/// A text in which no line is broken inside backticks.
fn with_whole_literals(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let whole = parts.map(|(number, part)| match number % 2 {
        1 => part.replace(' ', NO_BREAK),
        _ => part.to_owned(),
    });
    whole.collect()
}

/// A text without its backticks.
pub(super) fn plain(text: &str) -> String {
    text.replace('`', "")
}
