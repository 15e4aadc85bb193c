//! What sharing can't help: a server that serves one request after the other has each wait for those before it.

use std::time::{Duration, Instant};

use super::clients;
use super::common::service::Service;
use super::common::stats::median;
use super::{proxy, settle, stamping_server};

/// What the server takes for a request.
pub(crate) const SERVICE_TIME: Duration = Duration::from_millis(20);

/// Requests of others that the server has before.
const BEFORE: [usize; 5] = [0, 1, 3, 7, 15];

/// How long a request waits, by how many are before it.
pub(crate) struct Wait {
    pub(crate) before: usize,
    pub(crate) millis: f64,
}

pub(crate) fn measure(is_quick: bool) -> Vec<Wait> {
    let rounds = if is_quick { 3 } else { 15 };
    let command = stamping_server::command(SERVICE_TIME);
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let service = Service::start(&mut proxy("1", &words)).expect("a shared server starts");
    let most = BEFORE[BEFORE.len() - 1];
    let mut others = clients::open(service.address(), most + 1).expect("all are answered");
    let mut last = others.pop().expect("there is one more");
    let mut waits = BEFORE.map(|before| (before, Vec::new()));
    for _ in 0..rounds {
        for (before, times) in &mut waits {
            let others = &mut others[..*before];
            others
                .iter_mut()
                .try_for_each(|client| client.ask(1))
                .expect("the proxy reads");
            let began = Instant::now();
            last.ask(1)
                .and_then(|()| last.hear(1))
                .expect("it is answered");
            times.push(began.elapsed().as_secs_f64() * 1e3);
            others
                .iter_mut()
                .try_for_each(|client| client.hear(1))
                .expect("all are answered");
        }
    }
    drop((others, last, service));
    settle();
    let wait = |(before, times): (usize, Vec<f64>)| Wait {
        before,
        millis: median(&times),
    };
    waits.into_iter().map(wait).collect()
}
