//! The targets as the tests have them, for the binaries that run one each.

#[path = "../json.rs"]
mod json;
#[path = "../program.rs"]
mod program;
#[path = "../targets/mod.rs"]
mod targets;

/// Runs the target of this name.
macro_rules! export {
    ($($name:ident)*) => {$(
        /// A target.
        pub fn $name(input: &[u8]) {
            targets::$name(input);
        }
    )*};
}

export!(configuration entrance envelope http id outbox session splitter wheel);
