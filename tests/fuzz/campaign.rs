//! Runs a target: over its corpus, then over a number of inputs made from it. One that fails is made small and kept.

use std::cell::Cell;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::Once;
use std::time::SystemTime;

use crate::mutator::{Random, mutate};
use crate::split_mix::SplitMix64;

/// Inputs per target, if nothing else is asked for.
const DEFAULT_COUNT: usize = 10_000;

/// So many attempts are made to make a failing input smaller.
const MAX_ATTEMPTS: usize = 2_000;

/// A function that is fuzzed, and its name, which is also that of its folder in the corpus.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&[u8]),
    /// Of the asked number of inputs, one in so many is tried.
    pub(crate) cost: usize,
}

impl Target {
    /// Tries the corpus and what is made of it.
    pub(crate) fn fuzz(self) {
        let corpus = self.corpus();
        assert!(!corpus.is_empty(), "{} has no corpus", self.name);
        for input in &corpus {
            self.try_input(input);
        }
        let count = variable("COUNT").unwrap_or(DEFAULT_COUNT as u64) as usize / self.cost;
        let seed = variable("SEED").unwrap_or_else(any_seed);
        eprintln!(
            "{}: {count} inputs, MCP_TCP_PROXY_FUZZ_SEED={seed}",
            self.name
        );
        let mut random = Random(SplitMix64(seed));
        for _ in 0..count {
            self.try_input(&mutate(&corpus, &mut random));
        }
    }

    /// The inputs in the corpus, in the order of their names.
    fn corpus(self) -> Vec<Vec<u8>> {
        let folder = [env!("CARGO_MANIFEST_DIR"), "tests/fuzz/corpus", self.name];
        let mut paths: Vec<PathBuf> = fs::read_dir(folder.iter().collect::<PathBuf>())
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort_unstable();
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    }

    fn try_input(self, input: &[u8]) {
        if !self.fails(input) {
            return;
        }
        let small = self.smaller(input.to_vec());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!(
            "{}-{:x}",
            self.name,
            std::process::id()
        ));
        fs::write(&path, &small).unwrap();
        panic!(
            "{} fails on {} bytes: {:?}\nto run it again:\n\
             MCP_TCP_PROXY_FUZZ_TARGET={} MCP_TCP_PROXY_FUZZ_INPUT={} cargo test --test fuzz one_input",
            self.name,
            small.len(),
            small.escape_ascii().to_string(),
            self.name,
            path.display()
        );
    }

    fn fails(self, input: &[u8]) -> bool {
        quiet(|| panic::catch_unwind(AssertUnwindSafe(|| (self.run)(input))).is_err())
    }

    /// Cuts out whatever is not needed for the failure, large pieces first.
    fn smaller(self, mut input: Vec<u8>) -> Vec<u8> {
        let mut attempts = 0;
        let mut piece = input.len();
        while piece > 0 {
            let mut at = 0;
            while at < input.len() && attempts < MAX_ATTEMPTS {
                attempts += 1;
                let end = (at + piece).min(input.len());
                let shorter = [&input[..at], &input[end..]].concat();
                if self.fails(&shorter) {
                    input = shorter;
                } else {
                    at = end;
                }
            }
            piece /= 2;
        }
        input
    }
}

/// A number from the environment.
fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(format!("MCP_TCP_PROXY_FUZZ_{name}")).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}: {text:?}")))
}

fn any_seed() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    time.map_or(0, |time| u64::from(time.subsec_nanos()))
}

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs without a word about panics, of which making an input small causes many. Running it again tells all.
fn quiet<T>(run: impl FnOnce() -> T) -> T {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_QUIET.get() {
                others(panic);
            }
        }));
    });
    IS_QUIET.set(true);
    let result = run();
    IS_QUIET.set(false);
    result
}
