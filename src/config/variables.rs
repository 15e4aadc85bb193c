//! Variables in texts: `${NAME}`, `${env:NAME}` and `${NAME:-default}`, as host applications write them.

/// What became of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expanded {
    Text(String),
    /// It names a variable that there is not: right, but not here and now.
    Undefined(String),
    /// It makes no sense. The words complete the sentence "`${…}` …".
    Wrong(String),
}

/// Puts in variables. `$${` stands for `${`.
pub(super) fn expand(text: &str, variable: impl Fn(&str) -> Option<String>) -> Expanded {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            expanded.push_str(&rest[..at - 1]);
            expanded.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        expanded.push_str(&rest[..at]);
        let Some((inside, after)) = rest[at + 2..].split_once('}') else {
            return Expanded::Wrong(
                "`${` has no `}` (write $${ for a `${` that is meant as it is)".to_owned(),
            );
        };
        match read(inside) {
            Ok((name, default)) => {
                let set = variable(name);
                let value = match default {
                    Some(default) => Some(
                        set.filter(|value| !value.is_empty())
                            .unwrap_or(default.to_owned()),
                    ),
                    None => set,
                };
                let Some(value) = value else {
                    return Expanded::Undefined(name.to_owned());
                };
                expanded.push_str(&value);
            }
            Err(words) => return Expanded::Wrong(format!("`${{{inside}}}` {words}")),
        }
        rest = after;
    }
    expanded.push_str(rest);
    Expanded::Text(expanded)
}

/// The name of a variable, and what stands for it if it is not set.
fn read(inside: &str) -> Result<(&str, Option<&str>), &'static str> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let name = name.strip_prefix("env:").unwrap_or(name);
    if is_name(name) && !is_of_host(name) {
        return Ok((name, default));
    }
    Err(match name {
        "userHome" => "is the host application's (write ${HOME})",
        _ if name.starts_with("workspaceFolder") || name.starts_with("workspaceRoot") => {
            "is the host application's (write the path of the folder)"
        }
        _ if name.starts_with("input:") => {
            "asks the user, and here is none (write ${NAME} and set that variable for the proxy, or use envFile)"
        }
        _ if name.starts_with("command:") || name.starts_with("config:") => {
            "is the host application's (write the value)"
        }
        _ => {
            "is not a variable (${NAME}, ${env:NAME} or ${NAME:-default}; $${ for a `${` that is meant as it is)"
        }
    })
}

/// What Visual Studio Code puts in, and no environment has.
fn is_of_host(name: &str) -> bool {
    name == "userHome" || name.starts_with("workspaceFolder") || name.starts_with("workspaceRoot")
}

fn is_name(name: &str) -> bool {
    let begins = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    let goes_on = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.as_bytes().first().is_some_and(begins) && name.bytes().all(goes_on)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Expanded {
        expand(text, |name| match name {
            "HOME" => Some("/home/ann".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn variables_are_put_in() {
        for (text, expected) in [
            ("", ""),
            ("a$b$", "a$b$"),
            ("$HOME {HOME}", "$HOME {HOME}"),
            ("${HOME}/x", "/home/ann/x"),
            ("${env:HOME}${HOME}", "/home/ann/home/ann"),
            ("${NONE:-a b}", "a b"),
            ("${NONE:-}", ""),
            ("${env:NONE:-x}", "x"),
            ("${EMPTY:-x}", "x"),
            ("[${EMPTY}]", "[]"),
            ("${HOME:-x}", "/home/ann"),
            ("$${HOME}", "${HOME}"),
            ("a$${b}$${", "a${b}${"),
            ("$${HOME}${HOME}", "${HOME}/home/ann"),
            ("ä${HOME}ö", "ä/home/annö"),
        ] {
            assert_eq!(
                expanded(text),
                Expanded::Text(expected.to_owned()),
                "{text}"
            );
        }
        let undefined = Expanded::Undefined("NONE".to_owned());
        assert_eq!(expanded("x${NONE}"), undefined);
        assert_eq!(expanded("x${env:NONE}"), undefined);
    }

    #[test]
    fn what_is_the_hosts_is_named_with_what_to_write() {
        for (text, way_out) in [
            ("${input:key}", "write ${NAME}"),
            ("${workspaceFolder}/x", "the path of the folder"),
            ("${workspaceFolder:root}", "the path of the folder"),
            ("${userHome}", "${HOME}"),
            ("${config:x}", "write the value"),
            ("${}", "is not a variable"),
            ("${a b}", "is not a variable"),
            ("${1}", "is not a variable"),
            ("${HOME", "has no `}`"),
        ] {
            let Expanded::Wrong(words) = expanded(text) else {
                panic!("{text}");
            };
            assert!(words.contains(way_out), "{words}");
        }
    }
}
