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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::captured_log::captured;

    fn variable(name: &str, value: Value) -> Variable {
        let name = name.into();
        Variable { name, value }
    }

    /// What servers get, in part.
    fn names(environment: &Environment) -> Vec<String> {
        let all = format!("{environment:?}");
        let all = all.trim_matches(['[', ']']).split(", ");
        all.map(|name| name.trim_matches('"').to_owned()).collect()
    }

    #[test]
    fn variables_are_inherited_set_and_removed() {
        let mut options = ServerOptions {
            env: vec![
                variable("OF_MINE", Value::Given("1".into())),
                variable("PATH", Value::Removed),
            ],
            ..ServerOptions::default()
        };
        let names_of = |options: &ServerOptions| names(&environment(options, None).unwrap());
        let all = names_of(&options);
        assert!(all.iter().any(|name| name == "OF_MINE"));
        assert!(!all.iter().any(|name| name == "PATH"));
        options.env.push(variable("PATH", Value::Inherited));
        assert!(names_of(&options).iter().any(|name| name == "PATH"));
        options.env.truncate(1);
        options.clear_env = true;
        assert!(names_of(&options).iter().any(|name| name == "OF_MINE"));
    }

    #[test]
    fn a_variable_that_the_proxy_does_not_have_is_warned_of() {
        let mut options = ServerOptions {
            env: vec![variable("PATH", Value::Inherited)],
            ..ServerOptions::default()
        };
        let logged = |options: &ServerOptions| captured(|| drop(environment(options, None)));
        assert_eq!(logged(&options), [""; 0]);
        options
            .env
            .push(variable("NO_SUCH_VARIABLE", Value::Inherited));
        let lines = logged(&options);
        assert!(
            lines.len() == 1 && lines[0].contains("--env NO_SUCH_VARIABLE"),
            "{lines:?}"
        );
    }

    #[test]
    fn what_is_wrong_with_a_file_or_a_directory_is_said_with_its_option() {
        let options = ServerOptions {
            env_files: vec!["/no/such/file".into()],
            cwd: Some("/no/such/directory".into()),
            ..ServerOptions::default()
        };
        let error = environment(&options, None).unwrap_err().to_string();
        assert!(error.contains("/no/such/file (--env-file)"), "{error}");
        let error = surroundings(&options, Environment::default()).unwrap_err();
        assert!(error.to_string().contains("--cwd"), "{error}");
        let options = ServerOptions::default();
        let around = surroundings(&options, Environment::default()).unwrap();
        assert!(around.tells_clients && around.directory.is_none());
    }

    #[test]
    fn a_user_who_does_not_exist_is_nobody_to_become() {
        let mut options = ServeOptions::default();
        assert!(find_user(&options).unwrap().is_none());
        options.user = Some("no-such-user".to_owned());
        let error = find_user(&options).unwrap_err().to_string();
        assert!(error.starts_with("--user: "), "{error}");
    }
}
