//! Log lines that say what they are about.

/// Logs a line, with what it is about in its brackets.
macro_rules! about {
    ($level:ident, $label:expr, $($text:tt)+) => {
        log::$level!(target: $label.to_string().as_str(), $($text)+)
    };
}
pub(crate) use about;
