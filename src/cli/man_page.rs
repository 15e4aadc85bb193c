//! The manual page, in roff with the man macros.

use std::fmt::Write as _;

use super::VERSION;
use super::flag::{DefaultText, Flag, Mode};
use super::pages::{SERVE, SUBCOMMANDS, Subcommand};

/// Longer lines are bad style in roff.
const MAX_LINE_BYTES: usize = 78;

pub(super) fn text() -> String {
    let mut page = format!(
        ".TH MCP\\-TCP\\-PROXY 1 \"\" \"{VERSION}\" \"User Commands\"\n\
         .SH NAME\n\
         mcp\\-tcp\\-proxy \\- serve any MCP server over TCP, connect and measure\n"
    );
    push_synopsis(&mut page);
    page.push_str(".SH DESCRIPTION\n");
    push_paragraphs(&mut page, SERVE.about, SERVE.rules);
    page.push_str(".SH OPTIONS\n");
    push_options(&mut page, Mode::Serve);
    for mode in Mode::ALL {
        push_subcommand_with_options(&mut page, mode);
    }
    push_subcommands(&mut page);
    push_exit_codes(&mut page);
    push_examples(&mut page);
    page
}

/// A subcommand that has options of its own.
fn push_subcommand_with_options(page: &mut String, mode: Mode) {
    let Some(name) = mode.subcommand() else {
        return;
    };
    let name = name.to_uppercase();
    let _ = writeln!(page, ".SH {name}");
    push_paragraphs(page, mode.page().about, mode.page().rules);
    let _ = writeln!(page, ".SH OPTIONS OF {name}");
    push_options(page, mode);
}

/// The subcommands that have none.
fn others() -> impl Iterator<Item = &'static Subcommand> {
    let has_mode = |name| Mode::ALL.iter().any(|mode| mode.subcommand() == Some(name));
    SUBCOMMANDS
        .iter()
        .filter(move |other| !has_mode(other.name))
}

fn push_synopsis(page: &mut String) {
    page.push_str(".SH SYNOPSIS\n");
    let modes = Mode::ALL.iter().flat_map(|mode| mode.page().usage);
    let mut lines: Vec<String> = modes.map(|(line, _)| (*line).to_owned()).collect();
    for subcommand in others() {
        lines.push(format!("{} {}", subcommand.name, subcommand.words));
    }
    for (number, line) in lines.iter().enumerate() {
        let line_break = if number > 0 { ".br\n" } else { "" };
        let _ = writeln!(
            page,
            "{line_break}\\fBmcp\\-tcp\\-proxy\\fR {}",
            escaped(line.trim_end())
        );
    }
}

fn push_paragraphs(page: &mut String, about: &str, rules: &[&str]) {
    let paragraphs = [about].into_iter().chain(rules.iter().copied());
    for (number, paragraph) in paragraphs.enumerate() {
        if number > 0 {
            page.push_str(".PP\n");
        }
        push_text(page, paragraph);
    }
}

fn push_options(page: &mut String, mode: Mode) {
    for flag in mode.flags() {
        page.push_str(".TP\n");
        let _ = writeln!(page, "{}", tag(flag));
        push_text(page, flag.help);
        match flag.default {
            DefaultText::Value(value) => push_text(page, &format!("Default: `{value}`.")),
            DefaultText::Words(words) => push_text(page, &format!("Default: {words}.")),
            DefaultText::Unsaid => {}
        }
    }
}

fn tag(flag: &Flag) -> String {
    let short = flag
        .short
        .map_or_else(String::new, |short| format!("\\fB{}\\fR, ", escaped(short)));
    let value = match flag.value {
        Some(value) if flag.choices().is_none() => format!(" \\fI{}\\fR", escaped(value)),
        Some(value) => format!(" {}", escaped(value)),
        None => String::new(),
    };
    format!("{short}\\fB{}\\fR{value}", escaped(flag.name))
}

fn push_subcommands(page: &mut String) {
    page.push_str(".SH OTHER SUBCOMMANDS\n");
    for subcommand in others() {
        let line = format!("{} {}", subcommand.name, subcommand.words);
        let _ = writeln!(page, ".TP\n\\fB{}\\fR", escaped(line.trim_end()));
        push_text(page, &sentence(subcommand.summary));
    }
}

fn push_exit_codes(page: &mut String) {
    page.push_str(".SH EXIT STATUS\n");
    for mode in Mode::ALL {
        let _ = writeln!(page, ".SS {}", mode.subcommand().unwrap_or("Serving"));
        for (code, meaning) in mode.page().exit {
            let _ = writeln!(page, ".TP\n\\fB{code}\\fR");
            push_text(page, &sentence(meaning));
        }
    }
}

fn push_examples(page: &mut String) {
    page.push_str(".SH EXAMPLES\n");
    let examples = Mode::ALL.iter().flat_map(|mode| mode.page().examples);
    for (line, what) in examples {
        let _ = writeln!(page, ".TP\n\\fBmcp\\-tcp\\-proxy {}\\fR", escaped(line));
        push_text(page, what);
    }
}

/// A fragment as a sentence.
fn sentence(text: &str) -> String {
    let first = text.chars().take(1).flat_map(char::to_uppercase);
    first.chain(text.chars().skip(1)).chain(['.']).collect()
}

/// Appends text, each sentence on a line of its own, literals in bold.
fn push_text(page: &mut String, text: &str) {
    for line in text.replace(". ", ".\n").lines() {
        let mut line_out = String::new();
        for (number, part) in line.split('`').enumerate() {
            if number % 2 == 1 {
                let _ = write!(line_out, "\\fB{}\\fR", escaped(part));
            } else {
                line_out.push_str(&escaped(part));
            }
        }
        push_folded(page, &line_out);
    }
}

/// Breaks a long line, which the formatter joins again, and keeps every piece from being taken for a request.
fn push_folded(page: &mut String, line: &str) {
    let mut piece = String::new();
    for word in line.split(' ') {
        if !piece.is_empty() && piece.len() + 1 + word.len() > MAX_LINE_BYTES {
            push_line(page, &piece);
            piece.clear();
        }
        if !piece.is_empty() {
            piece.push(' ');
        }
        piece.push_str(word);
    }
    push_line(page, &piece);
}

fn push_line(page: &mut String, line: &str) {
    let guard = if line.starts_with(['.', '\'']) {
        "\\&"
    } else {
        ""
    };
    let _ = writeln!(page, "{guard}{line}");
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_page_has_every_option_and_subcommand() {
        let page = text();
        for mode in Mode::ALL {
            for flag in mode.flags() {
                let tag = format!(".TP\n{}\n", tag(flag));
                assert!(page.contains(&tag), "{tag}");
            }
        }
        for subcommand in SUBCOMMANDS {
            let name = escaped(subcommand.name);
            assert!(page.contains(&name), "{name}");
        }
    }

    #[test]
    fn no_line_of_text_is_taken_for_a_request() {
        let requests = [".TH", ".SH", ".SS", ".TP", ".PP", ".br"];
        for line in text().lines() {
            assert!(line.is_ascii() && !line.is_empty(), "{line}");
            let is_request = requests.iter().any(|request| line.starts_with(request));
            assert!(is_request || !line.starts_with(['.', '\'']), "{line}");
        }
        let mut page = String::new();
        push_text(&mut page, r".a `b-\`. 'c");
        assert_eq!(page, "\\&.a \\fBb\\-\\e\\fR.\n\\&'c\n");
    }
}
