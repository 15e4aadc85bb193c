//! How the proxy is, for whoever asks over HTTP: a health check, Prometheus, a person with a browser.
//!
//! Bytes and facts go in, bytes come out. Nothing in here knows a file descriptor, a clock or a session. Nothing that can be
//! asked changes anything.
//!
//! - `request` reads the head of a request, `route` says what it asks for and whether this peer may have it.
//! - `response` makes heads, `exchange` is one connection from its first byte to its last.
//! - `facts` is what there is to say; `metrics`, `json` and `page` say it.
//!
//! # Who drives it
//!
//! Reads while [`Exchange::wants_input`](exchange::Exchange::wants_input) and hands on what it read; answers what was asked
//! with [`Exchange::respond`](exchange::Exchange::respond); writes [`Exchange::output`](exchange::Exchange::output), and
//! appends to it while there [is room](exchange::Exchange::has_room), until the response is whole; and closes the connection
//! when it [is over](exchange::Exchange::is_over).

pub mod exchange;
pub mod facts;
pub mod history;
pub mod human;
pub mod json;
pub mod metrics;
pub mod page;
pub mod request;
pub mod response;
pub mod route;
