//! The entry of one server, as host applications write it.

use std::ffi::OsString;

use super::Reader;
use super::json::Json;
use super::levels::{Levels, strings};
use super::problems::{Place, Problems};
use crate::cli::keys::Key;
use crate::entrance::Name;
use crate::options::ServerCommand;

/// Keys of an entry that are not options.
const OWN: [&str; 4] = ["command", "args", "default", "disabled"];

/// Where a server is that is not started but reached by HTTP.
const URLS: [&str; 3] = ["url", "serverUrl", "httpUrl"];

/// What host applications write beside these, and means nothing here: what they show, ask, allow and wait for.
const FOREIGN: [&str; 27] = [
    "alwaysAllow",
    "autoApprove",
    "autoStart",
    "description",
    "dev",
    "disabledTools",
    "disabled_tools",
    "enabledTools",
    "enabled_tools",
    "excludeTools",
    "gallery",
    "headers",
    "icon",
    "includeTools",
    "initTimeout",
    "metadata",
    "name",
    "oauth",
    "settings",
    "source",
    "startup_timeout_sec",
    "timeout",
    "tool_timeout_sec",
    "transport",
    "trust",
    "type",
    "version",
];

/// What one says.
pub(super) struct Entry {
    pub(super) name: Name,
    pub(super) place: Place,
    pub(super) command: ServerCommand,
    pub(super) is_default: bool,
    pub(super) levels: Levels,
    /// Why it can't be started.
    pub(super) fault: Option<String>,
}

impl Entry {
    /// Reads one. There is none to be served if it is disabled, or not one that is started.
    pub(super) fn read(
        reader: &Reader<'_>,
        keys: &[Key],
        name: &str,
        value: &Json,
        place: &Place,
        problems: &mut Problems,
    ) -> Option<Self> {
        let entries = problems.object(place, value);
        let find = |key: &str| entries.iter().find(|(other, _)| other == key);
        let has_url = URLS.iter().any(|key| find(key).is_some());
        if has_url && find("command").is_none() {
            problems.warn(
                place,
                "it is skipped: it is reached by its URL, and only servers that are started are served",
            );
            return None;
        }
        let valid = Name::new(name);
        if valid.is_none() {
            let words = "it is not the name of a server (1 to 64 of letters, digits and ._@:-)";
            problems.error(place, words);
        }
        let mut form = Form::default();
        for (key, value) in entries {
            let place = place.key(key);
            form.read(reader, keys, key, value, &place, problems);
        }
        if !matches!(value, Json::Object(_)) {
            return None;
        }
        let command = form.command(place, problems);
        if form.is_disabled {
            return None;
        }
        Some(Self {
            name: valid?,
            place: place.clone(),
            command,
            is_default: form.is_default,
            fault: form.levels.fault.take(),
            levels: form.levels,
        })
    }
}

/// An entry that is being read.
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a key that has nothing to do with the others"
)]
#[derive(Default)]
struct Form {
    program: Option<String>,
    /// Whether there is a command, right or wrong.
    has_command: bool,
    arguments: Vec<String>,
    is_default: bool,
    is_disabled: bool,
    is_demo: bool,
    levels: Levels,
}

impl Form {
    fn read(
        &mut self,
        reader: &Reader<'_>,
        keys: &[Key],
        key: &str,
        value: &Json,
        place: &Place,
        problems: &mut Problems,
    ) {
        match key {
            "command" => {
                self.has_command = true;
                match value {
                    Json::Text(text) if text.is_empty() => problems.error(place, "it is empty"),
                    Json::Text(text) => {
                        self.program = self.levels.expand(reader, text, place, problems);
                    }
                    Json::List(_) => problems.wrong_kind(
                        place,
                        value,
                        "a string (what follows the program stands in \"args\")",
                    ),
                    _ => problems.wrong_kind(place, value, "a string"),
                }
            }
            "args" => {
                let Json::List(list) = value else {
                    return problems.wrong_kind(place, value, "a list of strings");
                };
                for (text, place) in strings(list, place, problems) {
                    let text = self.levels.expand(reader, &text, &place, problems);
                    self.arguments.extend(text);
                }
            }
            "default" => self.is_default = switch(value, place, problems),
            "disabled" => self.is_disabled = switch(value, place, problems),
            "demo" => self.is_demo = switch(value, place, problems),
            _ if URLS.contains(&key) || FOREIGN.contains(&key) => problems.foreign(key),
            _ => self.read_option(reader, keys, key, value, place, problems),
        }
    }

    fn read_option(
        &mut self,
        reader: &Reader<'_>,
        keys: &[Key],
        key: &str,
        value: &Json,
        place: &Place,
        problems: &mut Problems,
    ) {
        let known = keys.iter().find(|other| other.name() == key);
        if known.is_some_and(|key| !key.is_for_servers()) {
            let words = "it is for the proxy as a whole (one level up, beside the servers)";
            return problems.error(place, words);
        }
        if !self.levels.read(reader, keys, key, value, place, problems) {
            let options = keys.iter().filter(|key| key.is_for_servers());
            let known = options.map(Key::name).chain(OWN);
            problems.unknown(place, key, known);
        }
    }

    /// What is run.
    fn command(&mut self, place: &Place, problems: &mut Problems) -> ServerCommand {
        match (self.has_command, self.is_demo) {
            (false, true) => return ServerCommand::Demo,
            (false, false) => problems.error(place, "it has no \"command\""),
            (true, true) => problems.error(
                &place.key("demo"),
                "it takes the place of a command (leave out one of the two)",
            ),
            (true, false) => {}
        }
        // A variable that there is not leaves a command that is not run.
        let program = self.program.take().unwrap_or_default();
        let words = std::iter::once(program).chain(self.arguments.drain(..));
        ServerCommand::Program(words.map(OsString::from).collect())
    }
}

fn switch(value: &Json, place: &Place, problems: &mut Problems) -> bool {
    if let Json::Bool(value) = value {
        return *value;
    }
    problems.wrong_kind(place, value, "true or false");
    false
}
