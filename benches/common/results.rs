//! Where the results of full runs are kept.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Writes a file into `benches/results/`, and says so.
pub(crate) fn write(name: &str, text: &str) -> io::Result<()> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("benches/results")
        .join(name);
    fs::write(&path, text)?;
    println!("written: benches/results/{name}");
    Ok(())
}
