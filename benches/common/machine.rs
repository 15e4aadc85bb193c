//! Where and when figures were measured.

use std::fs;
use std::process::Command;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The facts with their names.
pub(crate) fn facts(cores: usize) -> Vec<(String, String)> {
    let fact = |name: &str, value: String| (name.to_owned(), value);
    let now = OffsetDateTime::now_utc().truncate_to_second();
    vec![
        fact("date", now.format(&Rfc3339).unwrap_or_default()),
        fact("processor", format!("{}, {cores} cores", processor())),
        fact(
            "kernel",
            format!("Linux {}", first_line("/proc/sys/kernel/osrelease")),
        ),
        fact("mcp-tcp-proxy", env!("CARGO_PKG_VERSION").to_owned()),
    ]
}

/// Facts, one per line.
pub(crate) fn list(facts: &[(String, String)]) -> String {
    let names = facts.iter().map(|(name, _)| name.chars().count());
    let width = names.max().unwrap_or(0);
    let line = |(name, value): &(String, String)| format!("{name:<width$}  {value}\n");
    facts.iter().map(line).collect()
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim().to_owned())
    });
    model.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("?").to_owned()
}

/// The first line of a program's output that contains `word`.
pub(crate) fn version(program: &str, arguments: &[&str], word: &str) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| line.contains(word))?;
    Some(line.trim().to_owned())
}

/// Whether a program of this name is on the path.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
