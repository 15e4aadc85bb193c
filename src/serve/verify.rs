//! What can be said of a configuration without serving it.

use super::launcher::Launcher;
use super::reload::Files;
use crate::config::Configuration;
use crate::process::DescriptorLimit;

/// Checks whether all servers could be started, and all files be read. Nothing is started, and nothing is bound. Returns
/// what is wrong, a line each.
pub fn verify(configuration: &Configuration) -> Vec<String> {
    let mut errors = Vec::new();
    if let Err(error) = Files::of(&configuration.options).read() {
        errors.push(error);
    }
    let descriptors = match DescriptorLimit::raise() {
        Ok(descriptors) => descriptors,
        Err(error) => return vec![format!("cannot raise the limit of descriptors: {error}")],
    };
    for served in &configuration.servers {
        let mut launcher = Launcher::new(served.clone(), None, descriptors);
        if let Err(error) = launcher.find() {
            let name = served.name.as_ref().map_or("", |name| name.as_str());
            errors.push(format!("{name}: {error}"));
        }
    }
    errors
}
