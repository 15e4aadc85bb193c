//! An upgrade for which there is no room: nothing has changed then, and the next one comes about once there is.

use std::fs::{File, Permissions};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command};

use mcp_tcp_proxy::upgrade::parcel;
use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::common::proxy::{as_another_user, can_run_as_another_user, in_shell};
use crate::common::{DEADLINE, Proxy, Scratch, eventually, servers};
use crate::refused::{REFUSED, assert_serves};
use crate::{generation, upgrade};

/// Sets how long files may become that a running process writes.
#[track_caller]
fn limit_files(proxy: &Proxy, limit: &str) {
    let pid = proxy.pid().to_string();
    let limit = format!("--fsize={limit}:");
    let status = Command::new("prlimit")
        .args(["--pid", &pid, &limit])
        .status();
    assert!(status.unwrap().success(), "{limit}");
}

#[test]
fn where_there_is_no_room_for_the_state_nothing_changes() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    assert_serves(&mut client);
    limit_files(&proxy, "100");
    proxy.signal(Signal::SIGUSR2);
    let line = proxy.wait_for_log(REFUSED);
    assert!(line.contains("no file for the state"), "{line}");
    assert_serves(&mut client);
    limit_files(&proxy, "unlimited");
    upgrade(&proxy);
    assert_serves(&mut client);
}

/// Descriptors that a user may have on their way, where that is few.
const FEW: usize = 256;

/// Where a process is to say that it has as many on their way as it may, and where it is told to let go of them.
const FOLDER: &str = "MCP_TCP_PROXY_FOLDER";

/// Has as many descriptors on their way as this user may.
#[test]
#[ignore = "the test below starts it as another user"]
fn all_that_may_be_on_their_way_are() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let file = File::open("/dev/null").unwrap();
    let many = [file.as_fd(); 200];
    let mut ends = Vec::new();
    let error = loop {
        match parcel::send([&file; 3], &many) {
            Ok(end) => ends.push(end),
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(Errno::ETOOMANYREFS as i32));
    std::fs::write(folder.join("full"), "").unwrap();
    eventually("the test to go on", 2 * DEADLINE, || {
        folder.join("go-on").exists()
    });
}

#[test]
#[ignore = "root alone can have another user run it; it takes two seconds"]
fn an_upgrade_waits_while_too_many_descriptors_are_on_their_way() {
    if !can_run_as_another_user() {
        return;
    }
    let scratch = Scratch::new();
    std::fs::set_permissions(scratch.path(), Permissions::from_mode(0o777)).unwrap();
    let limited = |command: &mut Command| {
        in_shell(&format!("ulimit -n {FEW}"), command);
        as_another_user(command, 100);
    };
    let proxy = Proxy::start_configured(&[], &servers::mirror(), limited);
    let mut client = proxy.connect();
    assert_serves(&mut client);
    let fill = |name: &str| {
        let mut other = Command::new(std::env::current_exe().unwrap());
        other.args([
            "--ignored",
            "--exact",
            "shortage::all_that_may_be_on_their_way_are",
        ]);
        limited(&mut other);
        let other = other.env(FOLDER, scratch.path()).spawn().unwrap();
        eventually(name, DEADLINE, || scratch.file("full").exists());
        other
    };
    let let_go = |mut other: Child| {
        scratch.write("go-on", "");
        assert!(other.wait().unwrap().success());
        scratch.remove("full");
        scratch.remove("go-on");
    };
    // It is over in time.
    let other = fill("the limit to be reached");
    proxy.signal(Signal::SIGUSR2);
    let line = proxy.wait_for_log("the upgrade has to wait");
    assert!(line.contains("descriptors can't be sent"), "{line}");
    assert_serves(&mut client);
    let_go(other);
    proxy.wait_for_log(crate::GOES_ON);
    assert_serves(&mut client);
    // And not.
    let other = fill("the limit to be reached again");
    proxy.signal(Signal::SIGUSR2);
    let line = proxy.wait_for_log(REFUSED);
    assert!(line.contains("descriptors can't be sent"), "{line}");
    let_go(other);
    assert_serves(&mut client);
    assert_eq!(generation(&proxy), 1);
}

/// Has a command run without `memfd_create(2)`: a filter of seccomp(2) says that there is no such call.
const WITHOUT_MEMFD: &str = r"
import ctypes, os, platform, struct, sys
number = {'x86_64': 319, 'aarch64': 279}[platform.machine()]
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050026), (0x06, 0, 0, 0x7fff0000)]
code = b''.join(struct.pack('HBBI', *step) for step in steps)
class Program(ctypes.Structure):
    _fields_ = [('len', ctypes.c_ushort), ('filter', ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
program = Program(len(steps), code)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program), 0, 0):
    sys.exit('no filter: %s' % os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[1], sys.argv[1:])
";

/// Whether this can be run; says so if not.
fn can_run(words: &[&str]) -> bool {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let can = output.is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("skipped: {} can't be run like that here", words[0]);
    }
    can
}

#[test]
#[ignore = "it needs python3 and a folder of its own in memory"]
fn without_files_in_memory_the_state_goes_through_one_on_a_disk_that_may_be_full() {
    let scratch = Scratch::new();
    let disk = scratch.file("disk");
    std::fs::create_dir(&disk).unwrap();
    // Nobody else sees what is mounted.
    let mount = format!(
        "mount -t tmpfs -o size=1m none {0} && cd {0} && exec \"$@\"",
        disk.display()
    );
    let wrapper = ["unshare", "--mount", "sh", "-c", &mount, "sh"];
    let wrapper = [&wrapper[..], &["python3", "-c", WITHOUT_MEMFD]].concat();
    if !can_run(&[&wrapper[..], &["true"]].concat()) {
        return;
    }
    let folder = format!("TMPDIR={}", disk.display());
    let wrapper = [&["env", &folder], &wrapper[..]].concat();
    let proxy = Proxy::start_under(&wrapper, &[], &servers::mirror());
    let mut client = proxy.connect();
    assert_serves(&mut client);
    upgrade(&proxy);
    assert_serves(&mut client);
    let filler = format!("/proc/{}/cwd/filler", proxy.pid());
    let full = std::fs::write(&filler, vec![0; 2 << 20]);
    assert_eq!(full.unwrap_err().kind(), ErrorKind::StorageFull);
    proxy.signal(Signal::SIGUSR2);
    let line = proxy.wait_for_log(REFUSED);
    assert!(line.contains("No space left on device"), "{line}");
    assert_serves(&mut client);
    std::fs::remove_file(&filler).unwrap();
    upgrade(&proxy);
    assert_serves(&mut client);
}
