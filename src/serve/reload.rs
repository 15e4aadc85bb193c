//! Files that are read at the start, and again when somebody asks for that (SIGHUP): all of them, or none is put in force.

use std::path::PathBuf;

use log::{info, warn};

use super::system::System;
use super::{ClientSession, Proxy};
use crate::entrance::tokens::Tokens;
use crate::entrance::{Directory, Name};
use crate::options::ServeOptions;
use crate::scheduler::SessionKey;
use crate::secret_file;
use crate::session::Event;
use crate::transport::tls::server::{ServerFiles, ServerTls};
use crate::util::plural::Counted;

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

impl<S: System> Proxy<S> {
    /// Reads the files again. What is wrong with one leaves all as it was.
    pub(super) fn reload(&mut self) {
        self.tell_reloading();
        match self.system.read_files() {
            Ok(contents) => {
                info!("SIGHUP: the files were read again");
                contents.log(&self.directory());
                self.put_in_force(contents);
                self.counts.reload = Some((true, self.system.unix_time()));
                self.tell_reloaded(None);
            }
            Err(error) => {
                warn!("SIGHUP: nothing was changed: {error}");
                self.tell_reloaded(Some(&error));
                if let Some((is_good, _)) = &mut self.counts.reload {
                    *is_good = false;
                }
            }
        }
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
        let servers = self.directory();
        let is_good = |place: &ClientSession<S>| {
            let tokens = tokens.as_ref().zip(place.identity());
            let client = place.client();
            let server = servers.name(place.service());
            tokens.is_none_or(|(tokens, identity)| tokens.are_still_good_for(identity, server))
                && client.is_none_or(|client| self.system.would_take(client.source()))
        };
        let sessions = self.scheduler.iter();
        let revoked = sessions.filter(|(_, _, place)| !is_good(place));
        let revoked: Vec<SessionKey> = revoked.map(|(key, ..)| key).collect();
        if let Some(visitors) = &mut self.visitors
            && tokens.is_some()
        {
            visitors.entrance.rules_mut().tokens = tokens;
        }
        if !revoked.is_empty() {
            info!(
                "ending {} of which the identity is not good any more",
                Counted(revoked.len(), "session")
            );
        }
        for key in revoked {
            self.tell(key, Event::Revoked);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

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
}
