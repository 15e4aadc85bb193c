//! What a server has not read yet is not lost because it would hibernate.

use serde_json::json;

use crate::common::processes::wait_until_dead;
use crate::common::{NoLine, Proxy, Scratch, servers, skip_on_reference};
use crate::{LONG, OPTIONS};

const NOTIFICATION: &str = "notifications/roots/list_changed";

#[test]
fn a_server_that_is_stuck_is_kept_until_it_has_read_what_it_was_sent() {
    skip_on_reference!("keeps servers");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&OPTIONS, &servers::legacy(&scratch));
    let mut client = proxy.connect();
    client.initialize();
    let released = scratch.file("released");
    let code = format!(
        "answer; until [ -e '{}' ]; do sleep 0.01; done",
        released.display()
    );
    let id = client.send_code(&code);
    let pid = client.answer_to(id)["result"]["pid"].as_i64().unwrap();
    let pid = i32::try_from(pid).unwrap();
    client.notify(NOTIFICATION, &json!({}));
    assert_eq!(client.try_recv(LONG), Err(NoLine::Deadline));
    let log = proxy.log();
    assert!(
        !log.iter().any(|line| line.contains("hibernates")),
        "{log:?}"
    );
    scratch.write("released", "");
    wait_until_dead(pid);
    let methods = scratch.methods(pid);
    assert_eq!(methods.last().map(String::as_str), Some(NOTIFICATION));
    proxy.wait_for_log("hibernates");
}
