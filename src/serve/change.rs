//! What is to be put in force by a reload: all of it was read, checked and bound, and the loop was not told yet.

use std::time::Duration;

use log::LevelFilter;

use super::accept::ListenerKey;
use super::reload::Contents;
use super::status::About;
use super::{Limits, Plan};
use crate::entrance::{Name, Rules};
use crate::util::service_key::ServiceKey;

/// The next configuration.
pub struct Change<L> {
    /// What is in the files that it names.
    pub(super) contents: Contents,
    /// What is asked of connections, but for the names of the servers.
    pub(super) rules: Rules,
    pub(super) limits: Limits,
    pub(super) buffer_bytes: usize,
    pub(super) log_level: LevelFilter,
    pub(super) drain_delay: Duration,
    /// What those are told who ask how things are.
    pub(super) about: About,
    /// What is served, in the order of the configuration.
    pub(super) services: Vec<Wanted>,
    pub(super) doors: Vec<WantedDoor<L>>,
}

/// One that is to be served.
pub(super) struct Wanted {
    pub(super) plan: Plan,
    /// Whether it is for whoever asks for none.
    pub(super) is_default: bool,
    /// Whether its servers are started in the same way as those of the same name up to now.
    pub(super) starts_alike: bool,
}

/// Where clients are to come in.
pub(super) struct WantedDoor<L> {
    pub(super) socket: WantedSocket<L>,
    /// Which server alone is served there, by its place in [`Change::services`].
    pub(super) of: Option<usize>,
}

/// A listening socket.
pub(super) enum WantedSocket<L> {
    /// One that there is.
    Kept(ListenerKey),
    /// One that was bound for this.
    New(L),
}

/// Where everything has got to.
pub struct Placed {
    /// The key of each of [`Change::services`].
    pub(super) services: Vec<ServiceKey>,
    /// Keys of those that sessions use which began before it was changed how the server is shared.
    pub(super) older: Vec<(ServiceKey, Name)>,
    /// The key of each of [`Change::doors`].
    pub(super) listeners: Vec<ListenerKey>,
}
