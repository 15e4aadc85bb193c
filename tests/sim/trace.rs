//! The last things that happened, kept only when a failed run is run again to be looked at.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// What is shown of a run that fails, unless `MCP_TCP_PROXY_SIM_TAIL` says otherwise.
const TAIL: u64 = 60;

thread_local! {
    static TAIL_LENGTH: Cell<usize> = const { Cell::new(0) };
    static TRACE: RefCell<Option<VecDeque<String>>> = const { RefCell::new(None) };
}

/// From now on events are kept.
pub fn start() {
    TAIL_LENGTH.set(crate::seeds::setting("TAIL", TAIL) as usize);
    TRACE.set(Some(VecDeque::new()));
}

/// Notes an event. What it says is only put together if it is kept.
pub fn note(event: impl FnOnce() -> String) {
    TRACE.with_borrow_mut(|trace| {
        if let Some(events) = trace {
            if events.len() == TAIL_LENGTH.get() {
                events.pop_front();
            }
            events.push_back(event());
        }
    });
}

/// Ends the trace, and returns its tail.
pub fn take() -> Vec<String> {
    TRACE.take().into_iter().flatten().collect()
}
