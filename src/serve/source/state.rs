//! The configuration that is in force, as it is written down: what is in its file by now may be something else, or wrong.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Beginning, Bound};
use crate::cli::keys::Given;
use crate::config::{self, Configuration};
use crate::options::{ServeOptions, Served, ServerOptions};
use crate::process::{DescriptorLimit, Environment, RunAs};
use crate::serve::launcher::Launcher;
use crate::serve::services::Plan;
use crate::serve::stamps::Stamps;
use crate::serve::system::Linux;
use crate::transport::tls::server::{ServerFiles, ServerTexts, ServerTls};

/// What a service is called that is not in the configuration any more, where it is asked why it can't be started.
const NOT_SERVED: &str = "it is not served any more";

/// All of that.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::serve) struct SourceState {
    text: Option<String>,
    /// What TLS sessions are made with.
    tls: Option<ServerTexts>,
    stamps: Stamps,
    bound: Vec<Bound>,
    /// What starts the servers of each service, in their order.
    launchers: Vec<LauncherState>,
}

#[derive(Debug, Serialize, Deserialize)]
struct LauncherState {
    is_retired: bool,
    environment: Option<Environment>,
}

impl SourceState {
    pub(in crate::serve) fn of(system: &Linux) -> Self {
        let launchers = system.launchers.iter().map(|launcher| LauncherState {
            is_retired: launcher.is_retired,
            environment: launcher.environment_of_files().cloned(),
        });
        Self {
            text: system.source.text.clone(),
            tls: system.tls.as_ref().map(|tls| (*tls.texts).clone()),
            stamps: system.source.stamps.clone(),
            bound: system.source.bound.clone(),
            launchers: launchers.collect(),
        }
    }

    /// The configuration.
    ///
    /// # Errors
    /// It is not understood.
    pub(in crate::serve) fn configuration(
        &self,
        options: ServeOptions,
        given: &Given,
    ) -> Result<Configuration, String> {
        match (&options.config, &self.text) {
            (Some(path), Some(text)) => config::interpret(path, given, text.as_bytes())
                .map_err(|errors| format!("the configuration is not understood: {errors}")),
            (Some(_), None) => Err("the configuration is missing".to_owned()),
            (None, _) => Ok(Configuration::of_one(options)),
        }
    }

    /// What TLS sessions are made with from now on.
    ///
    /// # Errors
    /// It is not understood.
    pub(in crate::serve) fn tls(
        &self,
        options: &ServeOptions,
    ) -> Result<Option<ServerTls>, String> {
        let files = ServerFiles::of(options).zip(self.tls.clone());
        let tls = files.map(|(files, texts)| files.make(Arc::new(texts)));
        tls.transpose()
    }

    /// What starts the servers of these services. What keeps a server from being started now is found out again by each
    /// session that needs one.
    pub(in crate::serve) fn launchers(
        &self,
        plans: &[Plan],
        servers: &[Served],
        user: Option<&RunAs>,
        descriptors: DescriptorLimit,
    ) -> Vec<Launcher> {
        let all = plans.iter().zip(&self.launchers);
        let launchers = all.map(|(plan, state)| {
            let served = servers.iter().find(|served| served.name == plan.name);
            let served = served.cloned().unwrap_or_else(|| Served {
                name: plan.name.clone(),
                fault: Some(NOT_SERVED.to_owned()),
                ..Served::only(ServerOptions::default())
            });
            let launcher = Launcher::new(served, user, descriptors);
            let mut launcher = launcher.with_environment(state.environment.clone());
            launcher.is_retired = state.is_retired;
            if let Err(error) = launcher.find()
                && !state.is_retired
            {
                log::warn!("no server can be started for now: {error}");
            }
            launcher
        });
        launchers.collect()
    }

    /// What was known when this was in force.
    pub(in crate::serve) fn beginning(&self, beginning: Beginning) -> Beginning {
        Beginning {
            stamps: self.stamps.clone(),
            ..beginning
        }
    }

    /// What is listened on.
    pub(in crate::serve) fn bound(&self) -> Vec<Bound> {
        self.bound.clone()
    }
}
