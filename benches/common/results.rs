//! The committed results of full runs. They change only if the command line asks for it, so that trying a benchmark
//! leaves the checkout clean.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::options::Options;

/// Writes these files, given by name and text, into `benches/results/`, or says that they were left as they are.
pub(crate) fn keep<'a>(
    options: Options,
    files: impl IntoIterator<Item = (&'a str, String)>,
) -> io::Result<()> {
    if options.write_results {
        return files
            .into_iter()
            .try_for_each(|(name, text)| write(name, &text));
    }
    if !options.quick {
        println!("benches/results/ is unchanged; --write-results replaces what is there");
    }
    Ok(())
}

fn write(name: &str, text: &str) -> io::Result<()> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("benches/results")
        .join(name);
    fs::write(&path, text)?;
    println!("written: benches/results/{name}");
    Ok(())
}
