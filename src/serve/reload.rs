//! Files that are read at the start, and again when somebody asks for that (SIGHUP): all of them, or none is put in force.

use std::path::PathBuf;
use std::time::Duration;

use log::{info, warn};

use super::system::System;
use super::{ClientSession, Due, Proxy, Stopping};
use crate::config;
use crate::entrance::tokens::{DEFAULT_SERVER, Tokens};
use crate::entrance::{Directory, Name};
use crate::options::ServeOptions;
use crate::scheduler::SessionKey;
use crate::secret_file;
use crate::session::Event;
use crate::transport::tls::server::{ServerFiles, ServerTls};
use crate::util::plural::Counted;

/// How often files are looked at whether they have changed (`--watch`).
const WATCH_INTERVAL: Duration = Duration::from_secs(10);

/// The files.
#[derive(Debug, Clone, Default)]
pub struct Files {
    token_file: Option<PathBuf>,
    tls: Option<ServerFiles>,
}

/// What is in them.
#[derive(Debug, Default)]
pub struct Contents {
    /// Who may come in.
    pub tokens: Option<Tokens>,
    /// What TLS sessions are made with.
    pub tls: Option<ServerTls>,
}

impl Files {
    /// Those that the user has named.
    pub fn of(options: &ServeOptions) -> Self {
        Self {
            token_file: options.token_file.clone(),
            tls: ServerFiles::of(options),
        }
    }

    /// Where they are.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let tls = self.tls.iter().flat_map(|tls| {
            let own = [&tls.certificate, &tls.key];
            let others = [&tls.client_authority, &tls.revocations];
            own.into_iter().chain(others.into_iter().flatten())
        });
        self.token_file.iter().chain(tls).cloned().collect()
    }

    /// Whether there is nothing to be read.
    pub fn are_none(&self) -> bool {
        self.token_file.is_none() && self.tls.is_none()
    }

    /// Says at once if there is nothing to hope for from SIGHUP, as for files that only root can read.
    pub(super) fn warn_if_unreadable(&self) {
        if let Err(error) = self.read() {
            warn!("{error}; SIGHUP will change nothing");
        }
    }

    /// Reads and checks all of them. The error says which is wrong, and nothing of what is in it.
    pub fn read(&self) -> Result<Contents, String> {
        let tokens = self.token_file.as_ref().map(|path| {
            let wrong = |error| format!("--token-file: {error}");
            let text = secret_file::read(path).map_err(wrong)?;
            Tokens::parse(&text).map_err(|error| wrong(format!("{}: {error}", path.display())))
        });
        Ok(Contents {
            tokens: tokens.transpose()?,
            tls: self.tls.as_ref().map(ServerFiles::load).transpose()?,
        })
    }
}

impl Contents {
    /// Says what is in them, as far as anybody may know.
    pub(super) fn log(&self, servers: &Directory) {
        if let Some(tokens) = &self.tokens {
            log_tokens(tokens, servers);
        }
    }
}

fn log_tokens(tokens: &Tokens, servers: &Directory) {
    info!("Tokens: {} (--token-file)", tokens.len());
    if tokens.is_empty() && tokens.are_asked_for() {
        warn!("--token-file: there is no token in it, so nobody can come in");
    }
    if tokens.in_clear_text() > 0 {
        warn!(
            "--token-file: {} in clear text; whoever reads the file has them (`mcp-tcp-proxy token NAME` prints lines \
             that hold none)",
            Counted(tokens.in_clear_text(), "token")
        );
    }
    let names: Vec<&str> = servers.names().collect();
    let others = tokens.other_servers(&names);
    if !others.is_empty() {
        let others: Vec<&str> = others.into_iter().map(Name::as_str).collect();
        let what = match names[..] {
            [only] => format!("the one that is served is `{only}`"),
            _ => format!("those that are served are {}", names.join(", ")),
        };
        warn!(
            "--token-file: it names servers that there are none of here: {}; {what}",
            others.join(", ")
        );
    }
}

/// Says at once if there is nothing to hope for from a reload.
pub(super) fn warn_if_unreadable(options: &ServeOptions) {
    if let Some(path) = &options.config
        && let Err(error) = config::read_file(path)
    {
        warn!("{error}; SIGHUP will change nothing");
    }
}

impl<S: System> Proxy<S> {
    /// Reads the files again. What is wrong with one leaves all as it was.
    pub(super) fn reload(&mut self, why: &str) {
        if self.stopping != Stopping::No {
            return info!("{why}: nothing is read again, as the program is being stopped");
        }
        self.tell_reloading();
        let done = self
            .reload_configuration(why)
            .unwrap_or_else(|| self.reload_files(why));
        match done {
            Ok(()) => {
                self.counts.reload = Some((true, self.system.unix_time()));
                self.tell_reloaded(None);
            }
            Err(error) => {
                warn!("{why}: nothing was changed: {error}");
                self.tell_reloaded(Some(&error));
                if let Some((is_good, _)) = &mut self.counts.reload {
                    *is_good = false;
                }
            }
        }
    }

    fn reload_files(&mut self, why: &str) -> Result<(), String> {
        let contents = self.system.read_files()?;
        info!("{why}: the files were read again");
        contents.log(&self.directory());
        self.put_in_force(contents);
        Ok(())
    }

    /// From now on, the files are looked at now and then.
    pub(super) fn watch_files(&mut self) {
        let at = Some(self.now() + WATCH_INTERVAL);
        let timers = &mut self.reactor.timers;
        self.file_watch.set(at, Due::Files, timers);
    }

    /// The time has come to look at the files.
    pub(super) fn look_at_files(&mut self) {
        self.file_watch.fired();
        if self.stopping != Stopping::No {
            return;
        }
        if self.system.have_files_changed() {
            self.reload("--watch");
        }
        self.watch_files();
    }

    /// What clients can ask for.
    fn directory(&self) -> Directory {
        let visitors = self.visitors.as_ref();
        visitors.map_or_else(Directory::only, |visitors| {
            visitors.entrance.rules().servers.clone()
        })
    }

    /// What was read counts from now on, and sessions that could not come in any more end.
    fn put_in_force(&mut self, contents: Contents) {
        let tokens = contents.tokens;
        if let Some(visitors) = &mut self.visitors
            && tokens.is_some()
        {
            visitors.entrance.rules_mut().tokens.clone_from(&tokens);
        }
        self.end_revoked(tokens.as_ref());
    }

    /// Ends the sessions of which the identity is not good any more.
    pub(super) fn end_revoked(&mut self, tokens: Option<&Tokens>) {
        let is_good = |place: &ClientSession<S>| {
            let tokens = tokens.zip(place.identity());
            let client = place.client();
            let name = self.services.get(place.service()).name.as_deref();
            let server = name.map_or(DEFAULT_SERVER, Name::as_str);
            tokens.is_none_or(|(tokens, identity)| tokens.are_still_good_for(identity, server))
                && client.is_none_or(|client| self.system.would_take(client.source()))
        };
        let sessions = self.scheduler.iter();
        let revoked = sessions.filter(|(_, _, place)| !is_good(place));
        let revoked: Vec<SessionKey> = revoked.map(|(key, ..)| key).collect();
        if !revoked.is_empty() {
            info!(
                "ending {} of which the identity is not good any more",
                Counted(revoked.len(), "session")
            );
        }
        for key in revoked {
            self.tell(key, Event::Revoked);
            self.stop_detached(key, "its token or certificate was taken away");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::util::captured_log::captured;

    #[test]
    fn a_bad_file_is_an_error_that_names_it_and_quotes_nothing() {
        let name = format!("mcp-tcp-proxy-tokens-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let files = Files {
            token_file: Some(path.clone()),
            tls: None,
        };
        assert!(Files::default().are_none() && !files.are_none());
        let write = |text: &str, mode| {
            let _ = fs::remove_file(&path);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        };
        write("ann a-long-enough-secret\n", 0o640);
        assert_eq!(files.read().unwrap().tokens.unwrap().len(), 1);
        write("ann a-long-enough-secret\n", 0o644);
        assert!(files.read().unwrap_err().contains("chmod 640"));
        write("ann a-long-enough-secret of the wrong form\n", 0o600);
        let error = files.read().unwrap_err();
        let shown = path.display().to_string();
        assert!(error.contains(&shown) && error.contains("line 1") && !error.contains("secret"));
        fs::remove_file(&path).unwrap();
        assert!(
            files
                .read()
                .unwrap_err()
                .contains("--token-file: cannot read")
        );
        assert!(Files::default().read().unwrap().tokens.is_none());
    }

    #[test]
    fn a_file_that_lets_nobody_in_or_shows_its_tokens_is_warned_of() {
        let name = |name: &str| Name::new(name);
        let servers = Directory::new(vec![name("files"), name("weather")], None);
        let warnings = |text: &str| {
            let tokens = Some(Tokens::parse(text).unwrap());
            let contents = Contents { tokens, tls: None };
            let lines = captured(|| contents.log(&servers));
            let warnings = lines.into_iter().filter(|line| line.starts_with("WARN"));
            warnings.collect::<Vec<_>>()
        };
        let [nobody] = &warnings("")[..] else {
            panic!("nobody can come in");
        };
        assert!(nobody.contains("nobody can come in"), "{nobody}");
        assert_eq!(warnings("laptop certificate files\n"), [""; 0]);
        let digest = "0".repeat(64);
        assert_eq!(warnings(&format!("ann sha256:{digest}\n")), [""; 0]);
        let [clear, others] = &warnings("ann a-long-enough-secret files,music\n")[..] else {
            panic!("there are two things to be said");
        };
        assert!(clear.contains("1 token in clear text"), "{clear}");
        assert!(
            others.contains("music; those that are served are files, weather"),
            "{others}"
        );
        assert_eq!(captured(|| Contents::default().log(&servers)), [""; 0]);
    }
}
