//! What servers find around them, from what the user wants: variables, a working directory, and a user whom the whole
//! program becomes.

use std::path::Path;

use log::{info, warn};

use super::setup::{SetupError, failed_to};
use crate::options::{ServeOptions, ServerOptions, Value, Variable};
use crate::process::{Environment, RunAs, Surroundings, WorkingDirectory, read_file};

/// Finds out whom the program is to become.
pub(super) fn find_user(options: &ServeOptions) -> Result<Option<RunAs>, SetupError> {
    let user = options.user.as_deref().map(RunAs::find);
    user.transpose().map_err(failed_to("--user"))
}

/// Becomes that user, after all that only root can do.
pub(super) fn become_user(user: &RunAs, options: &ServeOptions) -> Result<(), SetupError> {
    let left = user
        .switch()
        .map_err(failed_to(format!("--user: cannot become {user}")))?;
    info!("User: {user}");
    if let Some(left) = left.filter(|_| options.server.cwd.is_none()) {
        let left = left.display();
        warn!(
            "--user: the working directory {left} is closed to that user, so servers are started in / (--cwd)"
        );
    }
    Ok(())
}

/// The variables of servers. Files are read here.
pub(super) fn environment(
    options: &ServerOptions,
    user: Option<&RunAs>,
) -> Result<Environment, SetupError> {
    let mut environment = Environment::inherited(options.clear_env);
    for (name, value) in user.map(RunAs::variables).into_iter().flatten() {
        environment.set(name, value);
    }
    for path in &options.env_files {
        let named = failed_to(format!("cannot read {} (--env-file)", path.display()));
        for variable in read_file(path).map_err(named)? {
            apply(&mut environment, variable, "--env-file");
        }
    }
    for variable in &options.env {
        apply(&mut environment, variable.clone(), "--env");
    }
    Ok(environment)
}

fn apply(environment: &mut Environment, variable: Variable, option: &str) {
    let Variable { name, value } = variable;
    match value {
        Value::Given(value) => environment.set(name, value),
        Value::Removed => environment.remove(name),
        Value::Inherited if environment.let_through(&name) => {}
        Value::Inherited => {
            let name = name.display();
            warn!(
                "{option} {name}: the proxy has no such variable itself, so servers do not get it"
            );
        }
    }
}

/// What servers find around them, for whoever the program is now.
pub(super) fn surroundings(
    options: &ServerOptions,
    environment: Environment,
) -> Result<Surroundings, SetupError> {
    let directory = options
        .cwd
        .as_deref()
        .map(Path::new)
        .map(WorkingDirectory::new);
    Ok(Surroundings {
        environment,
        directory: directory.transpose().map_err(failed_to("--cwd"))?,
        tells_clients: options.tells_clients(),
    })
}
