//! A directory of a test's own, through which it looks into the servers and tells them what to do.
//!
//! The servers of [`servers::scripted`](super::servers::scripted) keep a record there of every line they are sent, each
//! server in a file of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{DEADLINE, eventually, eventually_some};

/// A directory that is removed when this is dropped.
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("scratch-{}-{number}", std::process::id()));
        // A test run that had the same process id may have left one of that name behind.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self { path }
    }

    pub(crate) fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file, in one step as far as readers can tell.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let unfinished = self.file(&format!("{name}.unfinished"));
        fs::write(&unfinished, text).unwrap();
        fs::rename(unfinished, self.file(name)).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.file(name)).unwrap();
    }

    /// Waits until there is a file of that name that ends in a newline, and returns what it says.
    #[track_caller]
    pub(crate) fn read(&self, name: &str) -> String {
        eventually_some(&format!("the file {name}"), DEADLINE, || {
            fs::read_to_string(self.file(name))
                .ok()
                .filter(|text| text.ends_with('\n'))
        })
    }

    /// The lines that the server of that process id has read so far.
    pub(crate) fn got(&self, server: i32) -> Vec<String> {
        let record = fs::read_to_string(self.file(&format!("got.{server}"))).unwrap_or_default();
        // A long line may be there only in part yet.
        let whole = record.split_inclusive('\n');
        let whole = whole.filter_map(|line| line.strip_suffix('\n'));
        whole.map(str::to_owned).collect()
    }

    /// Waits until the server of that process id has read that many lines, and returns them.
    #[track_caller]
    pub(crate) fn wait_for_lines(&self, server: i32, count: usize) -> Vec<String> {
        eventually(
            &format!("server {server} to have read {count} lines"),
            DEADLINE,
            || self.got(server).len() >= count,
        );
        self.got(server)
    }

    /// The `method` of each line that the server of that process id has read so far; of an answer, its id.
    pub(crate) fn methods(&self, server: i32) -> Vec<String> {
        let name = |line: &String| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            match line["method"].as_str() {
                Some(method) => method.to_owned(),
                None => format!("answer {}", line["id"]),
            }
        };
        self.got(server).iter().map(name).collect()
    }

    /// The process ids of all servers that ever ran, in the order of their starts.
    pub(crate) fn servers(&self) -> Vec<i32> {
        let starts = fs::read_to_string(self.file("starts")).unwrap_or_default();
        starts.lines().map(|pid| pid.parse().unwrap()).collect()
    }

    /// Waits until that many servers were ever started, and returns the process id of the last of these.
    #[track_caller]
    pub(crate) fn wait_for_server(&self, count: usize) -> i32 {
        eventually_some(&format!("server number {count}"), DEADLINE, || {
            self.servers().get(count - 1).copied()
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A server on its way out may be writing still; what is left then is in the target directory.
        let _ = fs::remove_dir_all(&self.path);
    }
}
