//! The README's tables of options, which are made from the table of flags.

use std::fmt::Write as _;
use std::fs;

use super::flag::{DefaultText, Flag, Mode, Scope};
use super::keys::is_key;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

/// Set, the test below writes the tables instead of comparing them.
const UPDATE: &str = "MCP_TCP_PROXY_UPDATE_README";

const REGENERATE: &str = "MCP_TCP_PROXY_UPDATE_README=1 cargo test --lib readme";

fn table(mode: Mode) -> String {
    let has_scopes = mode == Mode::Serve;
    let mut table = String::from(if has_scopes {
        "| option | default | scope | meaning |\n| --- | --- | --- | --- |\n"
    } else {
        "| option | default | meaning |\n| --- | --- | --- |\n"
    });
    for flag in mode.flags() {
        let short = flag
            .short
            .map_or_else(String::new, |short| format!("`{short}`, "));
        let default = match flag.default {
            DefaultText::Value(value) => format!("`{value}` "),
            DefaultText::Words(words) => format!("{words} "),
            DefaultText::Unsaid => String::new(),
        };
        let usage = flag.usage().replace('|', r"\|");
        let scope = if has_scopes {
            scope(flag)
        } else {
            String::new()
        };
        let _ = writeln!(
            table,
            "| {short}`{usage}` | {default}| {scope}{} |",
            flag.help
        );
    }
    table
}

/// Whose the option is in a configuration, if it is a key there.
fn scope(flag: &Flag) -> String {
    let scope = match flag.scope {
        _ if !is_key(flag) => "",
        Scope::Proxy => "proxy ",
        Scope::Server => "server ",
        Scope::Both => "both ",
    };
    format!("{scope}| ")
}

/// The README with the text between a mode's marks replaced.
fn with_table(readme: &str, mode: Mode) -> String {
    let name = mode.subcommand().unwrap_or("serve");
    let begin = format!("<!-- options of {name}, made by: {REGENERATE} -->\n");
    let end = format!("<!-- end of options of {name} -->\n");
    let (before, rest) = readme.split_once(&begin).expect("the mark before a table");
    let (_, after) = rest.split_once(&end).expect("the mark after a table");
    format!("{before}{begin}\n{}\n{end}{after}", table(mode))
}

#[test]
fn the_readme_has_the_options_as_they_are() {
    let readme = fs::read_to_string(PATH).unwrap();
    let expected = Mode::ALL
        .into_iter()
        .fold(readme.clone(), |text, mode| with_table(&text, mode));
    if std::env::var_os(UPDATE).is_some() {
        fs::write(PATH, expected).unwrap();
        return;
    }
    assert!(
        readme == expected,
        "README.md's tables of options are out of date; this writes them anew: \
         {REGENERATE}"
    );
}
