//! Another user for the program: whoever starts as root, to listen on a low port or to read files of root's, gives that up
//! before anything is served.

use std::ffi::{CString, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use log::warn;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::prctl;
use nix::unistd::{
    AccessFlags, Gid, Group, Uid, User, chdir, faccessat, getegid, geteuid, getgid, getuid,
    initgroups, setgroups, setresgid, setresuid, setuid,
};

/// The number that stands for "as it is" (setresuid(2)).
const NO_ID: u32 = u32::MAX;

/// Who the program is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs {
    name: String,
    uid: Uid,
    gid: Gid,
    home: PathBuf,
    shell: PathBuf,
    /// Whether the system knows the name, and so its further groups.
    is_known: bool,
}

impl fmt::Display for RunAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (uid {}, gid {})", self.name, self.uid, self.gid)
    }
}

impl RunAs {
    /// Finds `NAME[:GROUP]`, each a name or a number. Errors say what is wrong with it.
    pub fn find(text: &str) -> Result<Self, String> {
        let (name, group) = match text.split_once(':') {
            Some((name, group)) => (name, Some(find_group(group)?)),
            None => (text, None),
        };
        let user = match find_user(name)? {
            Some(user) => Self {
                name: user.name,
                uid: user.uid,
                gid: group.unwrap_or(user.gid),
                home: user.dir,
                shell: user.shell,
                is_known: true,
            },
            None => Self::of_number(name, group)?,
        };
        if user.uid.is_root() {
            return Err(format!("{name} is root, whose rights are to be given up"));
        }
        Ok(user)
    }

    /// A user whom only the kernel knows.
    fn of_number(name: &str, group: Option<Gid>) -> Result<Self, String> {
        let uid = number(name).ok_or_else(|| format!("there is no user {name}"))?;
        let gid = group.ok_or_else(|| {
            format!("user {name} has no name here, so it needs a group, too ({name}:GROUP)")
        })?;
        Ok(Self {
            name: name.to_owned(),
            uid: uid.into(),
            gid,
            home: "/".into(),
            shell: "/bin/sh".into(),
            is_known: false,
        })
    }

    /// Who files are to belong to that this user is to have.
    pub fn owner(&self) -> (Uid, Gid) {
        (self.uid, self.gid)
    }

    /// What login(1) would set.
    pub fn variables(&self) -> [(&'static str, OsString); 4] {
        [
            ("HOME", self.home.clone().into()),
            ("USER", self.name.clone().into()),
            ("LOGNAME", self.name.clone().into()),
            ("SHELL", self.shell.clone().into()),
        ]
    }

    /// Gives up all rights that this user does not have, for good. Where it may not be, the program leaves for `/`, and
    /// this returns the directory that it was in.
    ///
    /// What is hidden of the program before is hidden after it.
    pub fn switch(&self) -> io::Result<Option<PathBuf>> {
        // A new user resets it.
        let was_dumpable = prctl::get_dumpable();
        if !self.is_current() {
            self.set_groups()?;
            setresgid(self.gid, self.gid, self.gid)?;
            setresuid(self.uid, self.uid, self.uid)?;
        }
        if setuid(Uid::from_raw(0)).is_ok() {
            return Err(io::Error::other(
                "the way back to root is still open (capabilities(7))",
            ));
        }
        if let Ok(was_dumpable) = was_dumpable {
            prctl::set_dumpable(was_dumpable)?;
        }
        leave_closed_directory()
    }

    fn is_current(&self) -> bool {
        [getuid(), geteuid()] == [self.uid; 2] && [getgid(), getegid()] == [self.gid; 2]
    }

    fn set_groups(&self) -> io::Result<()> {
        if self.is_known {
            return Ok(initgroups(&CString::new(self.name.as_str())?, self.gid)?);
        }
        Ok(setgroups(&[self.gid])?)
    }

    /// Warns of a file that was read for an option, and that this user, as whom the program runs now, can't read again.
    pub fn warn_if_unreadable(&self, option: &str, path: &Path) {
        if let Err(error) = may(path, AccessFlags::R_OK) {
            let (path, name) = (path.display(), &self.name);
            warn!(
                "{option}: {name} can't read {path} ({}), so it stays as it is until the next start",
                error.desc()
            );
        }
    }
}

fn may(path: &Path, access: AccessFlags) -> nix::Result<()> {
    faccessat(AT_FDCWD, path, access, AtFlags::AT_EACCESS)
}

fn leave_closed_directory() -> io::Result<Option<PathBuf>> {
    if may(Path::new("."), AccessFlags::X_OK).is_ok() {
        return Ok(None);
    }
    let left = std::env::current_dir().unwrap_or_else(|_| ".".into());
    chdir("/")?;
    Ok(Some(left))
}

/// `None` if it is a number that has no name.
fn find_user(name: &str) -> Result<Option<User>, String> {
    let unknown = |error: nix::Error| format!("user {name} can't be looked up: {}", error.desc());
    if let Some(user) = User::from_name(name).map_err(unknown)? {
        return Ok(Some(user));
    }
    match number(name) {
        Some(number) => User::from_uid(number.into()).map_err(unknown),
        None => Ok(None),
    }
}

fn find_group(name: &str) -> Result<Gid, String> {
    let found = Group::from_name(name)
        .map_err(|error| format!("group {name} can't be looked up: {}", error.desc()))?;
    let gid = found
        .map(|group| group.gid)
        .or_else(|| number(name).map(Gid::from_raw));
    gid.ok_or_else(|| format!("there is no group {name}"))
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number != NO_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found_and_root_is_refused() {
        let refused = |text: &str| RunAs::find(text).unwrap_err();
        assert!(refused("root").contains("is root") && refused("0:7").contains("is root"));
        assert!(refused("no-such-user").contains("no user no-such-user"));
        assert!(refused("4294967295:4294967295").contains("no group 4294967295"));
        assert!(refused("4294967295:7").contains("no user 4294967295"));
        assert!(refused("7:no-such-group").contains("no group no-such-group"));
        // Nobody has these.
        assert!(refused("3999999999").contains("needs a group"));
        let user = RunAs::find("3999999999:3999999998").unwrap();
        assert_eq!(
            user.owner(),
            (Uid::from_raw(3_999_999_999), Gid::from_raw(3_999_999_998))
        );
        assert_eq!(user.variables()[0], ("HOME", "/".into()));
        assert_eq!(
            user.to_string(),
            "3999999999 (uid 3999999999, gid 3999999998)"
        );
    }

    #[test]
    fn a_number_that_has_a_name_is_that_user() {
        let Ok(Some(nobody)) = User::from_name("nobody") else {
            return;
        };
        let by_name = RunAs::find("nobody").unwrap();
        assert_eq!(RunAs::find(&nobody.uid.to_string()).unwrap(), by_name);
        assert_eq!(by_name.variables()[1], ("USER", "nobody".into()));
        let with_group = RunAs::find("nobody:12345").unwrap();
        assert_eq!(with_group.owner(), (nobody.uid, Gid::from_raw(12345)));
    }
}
