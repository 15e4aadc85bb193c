//! The options that stand at one level of a configuration: for all, or at one server. Values are checked where they stand.

use std::collections::BTreeMap;

use super::Reader;
use super::json::Json;
use super::problems::{Place, Problems};
use super::variables::{Expanded, expand};
use crate::cli::keys::{Key, Kind, Values};
use crate::options::{ServeOptions, ServerOptions, Value, Variable};

/// The key of variables, which are an object.
pub(super) const ENV: &str = "env";

/// Keys of which the texts may name variables.
const EXPANDED: [&str; 2] = ["cwd", "envFile"];

/// One level.
#[derive(Debug, Default)]
pub(super) struct Levels {
    values: BTreeMap<String, Values>,
    pub(super) env: Vec<Variable>,
    /// Why no server can be started with this.
    pub(super) fault: Option<String>,
}

impl Levels {
    pub(super) fn values(&self, key: &Key) -> Option<&Values> {
        self.values.get(key.name())
    }

    /// Reads a key if it is that of an option. Returns whether it is.
    pub(super) fn read(
        &mut self,
        reader: &Reader<'_>,
        keys: &[Key],
        name: &str,
        value: &Json,
        place: &Place,
        problems: &mut Problems,
    ) -> bool {
        if name == ENV {
            self.read_env(reader, value, place, problems);
            return true;
        }
        let Some(key) = keys.iter().find(|key| key.name() == name) else {
            return false;
        };
        let Some(texts) = texts(key.kind(), value, place, problems) else {
            return true;
        };
        let mut values = Values::new();
        for (text, place) in texts {
            let expanded = if EXPANDED.contains(&name) {
                self.expand(reader, &text, &place, problems)
            } else {
                Some(text)
            };
            let Some(text) = expanded else {
                continue;
            };
            let text = located(reader, key, text);
            if let Err(words) = check(key, &text) {
                problems.error(&place, &words);
            }
            values.push(text);
        }
        self.values.insert(name.to_owned(), values);
        true
    }

    /// Puts in variables. A variable that there is not is a fault.
    pub(super) fn expand(
        &mut self,
        reader: &Reader<'_>,
        text: &str,
        place: &Place,
        problems: &mut Problems,
    ) -> Option<String> {
        if text.contains('\0') {
            problems.error(place, "it has a NUL in it, which no program can be told");
            return None;
        }
        match expand(text, reader.variable) {
            Expanded::Text(text) => return Some(text),
            Expanded::Wrong(words) => problems.error(place, &words),
            Expanded::Undefined(name) => {
                self.fault.get_or_insert_with(|| {
                    format!(
                        "{place}: the proxy has no variable {name} (set it for the proxy, or write ${{{name}:-default}})"
                    )
                });
            }
        }
        None
    }

    fn read_env(
        &mut self,
        reader: &Reader<'_>,
        value: &Json,
        place: &Place,
        problems: &mut Problems,
    ) {
        for (name, value) in problems.object(place, value) {
            let place = place.key(name);
            if name.is_empty() || name.contains(['=', '\0']) {
                problems.error(&place, "it is not the name of a variable");
            }
            let value = match value {
                Json::Text(text) => match self.expand(reader, text, &place, problems) {
                    Some(text) => Value::Given(text.into()),
                    None => continue,
                },
                Json::Number(text) => Value::Given(text.into()),
                Json::Bool(value) => Value::Given(value.to_string().into()),
                Json::Null => Value::Removed,
                Json::List(_) | Json::Object(_) => {
                    let wanted =
                        "a string, a number, true or false, or null (servers do not get it)";
                    problems.wrong_kind(&place, value, wanted);
                    continue;
                }
            };
            let name = name.into();
            self.env.push(Variable { name, value });
        }
    }
}

/// The values as texts, with their places.
fn texts(
    kind: Kind,
    value: &Json,
    place: &Place,
    problems: &mut Problems,
) -> Option<Vec<(String, Place)>> {
    let one = |text: String| Some(vec![(text, place.clone())]);
    match (kind, value) {
        (Kind::Switch, Json::Bool(value)) => return one(value.to_string()),
        (Kind::Number, Json::Number(text)) | (Kind::Text | Kind::Texts, Json::Text(text)) => {
            return one(text.clone());
        }
        (Kind::Texts, Json::List(list)) => {
            return Some(strings(list, place, problems));
        }
        (Kind::Switch, _) => problems.wrong_kind(place, value, "true or false"),
        (Kind::Number, Json::Text(_)) => {
            problems.wrong_kind(place, value, "a number (without quotes)");
        }
        (Kind::Number, _) => problems.wrong_kind(place, value, "a number"),
        (Kind::Text, _) => problems.wrong_kind(place, value, "a string"),
        (Kind::Texts, _) => problems.wrong_kind(place, value, "a string or a list of strings"),
    }
    None
}

/// The strings of a list, with their places.
pub(super) fn strings(
    list: &[Json],
    place: &Place,
    problems: &mut Problems,
) -> Vec<(String, Place)> {
    let mut texts = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let place = place.at(index);
        match value {
            Json::Text(text) => texts.push((text.clone(), place)),
            Json::Number(text) => {
                problems.error(
                    &place,
                    &format!("it is a number, and has to be a string (\"{text}\")"),
                );
            }
            _ => problems.wrong_kind(&place, value, "a string"),
        }
    }
    texts
}

/// Paths start from the folder of the file.
fn located(reader: &Reader<'_>, key: &Key, text: String) -> String {
    let absolute = |path: &str| reader.absolute(path).to_string_lossy().into_owned();
    if key.is_path() && !text.is_empty() {
        return absolute(&text);
    }
    match text
        .strip_prefix("unix:")
        .filter(|_| key.name() == "listen")
    {
        Some(path) if !path.is_empty() && !path.starts_with('@') => {
            format!("unix:{}", absolute(path))
        }
        _ => text,
    }
}

/// Reads a value for nothing but its errors.
fn check(key: &Key, value: &str) -> Result<(), String> {
    let values = [value.to_owned()];
    if key.is_for_proxy() {
        key.set_proxy(&mut ServeOptions::default(), &values)
    } else {
        key.set_server(&mut ServerOptions::default(), &values)
    }
}
