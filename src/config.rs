//! The configuration file: what is served, and how. JSON as host applications write it goes in, plain options come out.
//!
//! Everything that is wrong is found at once, and each error is a line with its place. What is likely to be a mistake, or
//! means nothing here, is a warning. A server that can't be started (a variable is missing) is no error of the file: it is
//! served all the same, and whoever asks for it is told.
//!
//! Which options there are, and whose they are, is in the table of options (`cli`). The most specific counts: what a server
//! says of itself, then the command line, then what the file says for all.

mod json;
mod levels;
mod problems;
mod read;
mod server;
#[cfg(test)]
mod tests;
mod variables;

use std::fmt;
use std::path::{Path, PathBuf};

use self::json::Json;
use self::levels::Levels;
use self::problems::{Place, Problems};
pub use self::read::{MAX_BYTES, read_file};
use self::server::Entry;
use crate::cli;
use crate::cli::keys::{Given, Key};
use crate::options::{ServeOptions, Served, ServerCommand, ServerOptions, Variable};
use crate::transport::address::Address;

/// What the servers may be called: by most host applications, by Visual Studio Code, by Zed.
const CONTAINERS: [&str; 3] = ["mcpServers", "servers", "context_servers"];

/// Keys beside them that mean nothing here: that of the schema, and what the user of a host is asked.
const FOREIGN: [&str; 2] = ["$schema", "inputs"];

/// What a file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Configuration {
    /// What concerns the proxy as a whole.
    pub options: ServeOptions,
    /// What is served: at least one.
    pub servers: Vec<Served>,
    /// What the user should know, a line each.
    pub warnings: Vec<String>,
    /// The file itself, if there is one.
    pub text: Option<String>,
}

impl Configuration {
    /// What the command line says of the one server that it names.
    pub fn of_one(options: ServeOptions) -> Self {
        Self {
            servers: vec![Served::only(options.server.clone())],
            options,
            warnings: Vec::new(),
            text: None,
        }
    }
}

/// What is wrong with a file, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors(pub Vec<String>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// What a configuration is read with.
pub struct Reader<'a> {
    /// Where the file is, whose folder relative paths start from.
    pub path: &'a Path,
    /// What the command line says.
    pub given: &'a Given,
    /// The value of a variable of the proxy's.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

/// Reads a file. Paths in it are relative to its folder.
///
/// # Errors
/// All that is wrong with it.
pub fn load(path: &Path, given: &Given) -> Result<Configuration, Errors> {
    let (bytes, is_open_to_others) = read_file(path).map_err(|error| Errors(vec![error]))?;
    let mut configuration = interpret(path, given, &bytes)?;
    let holds_values = |served: &Served| !served.options.env.is_empty();
    if is_open_to_others && configuration.servers.iter().any(holds_values) {
        let path = path.display();
        configuration.warnings.push(format!(
            "{path}: others can read or change it, and it sets variables (chmod 640 {path})"
        ));
    }
    Ok(configuration)
}

/// Reads what was in a file.
///
/// # Errors
/// All that is wrong with it.
pub fn interpret(path: &Path, given: &Given, bytes: &[u8]) -> Result<Configuration, Errors> {
    let variable = |name: &str| std::env::var(name).ok();
    let reader = Reader {
        path,
        given,
        variable: &variable,
    };
    reader.read(bytes)
}

impl Reader<'_> {
    /// Reads the contents of a file.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(&self, bytes: &[u8]) -> Result<Configuration, Errors> {
        let shown = self.path.display();
        let tree = json::parse(bytes).map_err(|error| Errors(vec![format!("{shown}: {error}")]))?;
        let mut problems = Problems::new(self.path);
        let configuration = self.interpret(&tree, &mut problems);
        let warnings = problems.end()?;
        Ok(Configuration {
            warnings,
            text: str::from_utf8(bytes).ok().map(str::to_owned),
            ..configuration
        })
    }

    fn interpret(&self, tree: &Json, problems: &mut Problems) -> Configuration {
        let root = Place::root();
        let mut top = Levels::default();
        let mut entries = Vec::new();
        let mut containers = Vec::new();
        let keys = Key::all();
        for (key, value) in problems.object(&root, tree) {
            let place = root.key(key);
            if CONTAINERS.contains(&key.as_str()) {
                containers.push(place.clone());
                for (name, value) in problems.object(&place, value) {
                    let place = place.key(name);
                    entries.extend(Entry::read(self, &keys, name, value, &place, problems));
                }
            } else if FOREIGN.contains(&key.as_str()) {
                problems.foreign(key);
            } else if !top.read(self, &keys, key, value, &place, problems) {
                let known = keys.iter().map(Key::name).chain(CONTAINERS);
                problems.unknown(&place, key, known);
            }
        }
        match &containers[..] {
            [] if problems.has_errors() => {}
            [] => problems.error(&root, "it has no servers (\"mcpServers\": {…})"),
            [_] => {}
            [_, second, ..] => {
                problems.error(
                    second,
                    "the servers stand elsewhere already (one of the two)",
                );
            }
        }
        let options = self.proxy(&keys, &top, problems);
        let servers = self.servers(&keys, &top, entries, problems);
        if servers.is_empty() && !problems.has_errors() {
            problems.error(&root, "no server is left that is served here");
        }
        check_addresses(&options, &servers, problems);
        Configuration {
            options,
            servers: servers.into_iter().map(|(served, _)| served).collect(),
            warnings: Vec::new(),
            text: None,
        }
    }

    /// The options of the proxy.
    fn proxy(&self, keys: &[Key], top: &Levels, problems: &mut Problems) -> ServeOptions {
        let mut options = ServeOptions {
            config: Some(self.path.to_owned()),
            watch: self.given.has("--watch"),
            upgrade_from: self.given.value("--upgrade-from").map(PathBuf::from),
            ..ServeOptions::default()
        };
        for key in keys.iter().filter(|key| key.is_for_proxy()) {
            let given = key.given(self.given);
            if let Some(values) = given.as_ref().or(top.values(key)) {
                // All values were checked where they stand.
                let _ = key.set_proxy(&mut options, values);
            }
        }
        if let Err(error) = cli::check_proxy(&options) {
            problems.error(&Place::root(), &error.to_string());
        }
        options
    }

    fn servers(
        &self,
        keys: &[Key],
        top: &Levels,
        entries: Vec<Entry>,
        problems: &mut Problems,
    ) -> Vec<(Served, Place)> {
        let mut default: Option<String> = None;
        let mut servers = Vec::new();
        for entry in entries {
            let mut options = ServerOptions::default();
            for key in keys.iter().filter(|key| key.is_for_servers()) {
                let own = entry.levels.values(key);
                let given = key.given(self.given).filter(|_| !key.is_for_proxy());
                let for_all = top.values(key).filter(|_| !key.is_for_proxy());
                if let Some(values) = own.or(given.as_ref()).or(for_all) {
                    let _ = key.set_server(&mut options, values);
                }
            }
            options.env = self.variables(top, &entry.levels);
            options.command = self.located(entry.command, &options);
            if let Err(error) = cli::check_server(&options) {
                problems.error(&entry.place, &error.to_string());
            }
            if entry.is_default
                && let Some(other) = default.replace(entry.name.to_string())
            {
                let words = format!("{other} is the default already (one of the two)");
                problems.error(&entry.place.key("default"), &words);
            }
            let served = Served {
                name: Some(entry.name),
                is_default: entry.is_default,
                options,
                fault: entry.fault.or_else(|| top.fault.clone()),
            };
            servers.push((served, entry.place));
        }
        servers
    }

    /// The variables of a server: the last of a name counts.
    fn variables(&self, top: &Levels, own: &Levels) -> Vec<Variable> {
        let mut given = ServerOptions::default();
        for key in Key::all().iter().filter(|key| key.name() == levels::ENV) {
            if let Some(values) = key.given(self.given) {
                let _ = key.set_server(&mut given, &values);
            }
        }
        [&top.env, &given.env, &own.env]
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// A command that is a relative path is relative to the directory in which the server is started, or else to the folder
    /// of the file.
    fn located(&self, mut command: ServerCommand, options: &ServerOptions) -> ServerCommand {
        if let ServerCommand::Program(words) = &mut command
            && let Some(program) = words.first_mut()
            && options.cwd.is_none()
            && let Some(path) = program.to_str().filter(|path| path.contains('/'))
        {
            *program = self.absolute(path).into();
        }
        command
    }

    /// A path in the file, as one that counts wherever the program is.
    fn absolute(&self, path: &str) -> PathBuf {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let path = folder.join(path);
        std::path::absolute(&path).unwrap_or(path)
    }
}

/// No two servers can have the same address; and one that nobody reaches is likely to be a mistake.
fn check_addresses(options: &ServeOptions, servers: &[(Served, Place)], problems: &mut Problems) {
    let common = options.addresses();
    let mut taken: Vec<_> = common.iter().map(|address| (address, "listen")).collect();
    for (served, place) in servers {
        let name = served.name.as_ref().map_or("", |name| name.as_str());
        for address in &served.options.listen {
            if matches!(address, Address::Tcp { port: 0, .. }) {
                continue;
            }
            match taken.iter().find(|(other, _)| *other == address) {
                Some((_, whose)) => {
                    let words = format!("{address} is in use already ({whose})");
                    problems.error(&place.key("listen"), &words);
                }
                None => taken.push((address, name)),
            }
        }
    }
    let is_only = servers.len() == 1;
    if common.is_empty() && !is_only {
        for (served, place) in servers {
            if served.options.listen.is_empty() && !taken.is_empty() {
                problems.warn(
                    place,
                    "nobody can reach it: there is no \"listen\" for it, nor for all",
                );
            }
        }
    }
}
