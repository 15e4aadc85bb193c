//! Where the old server has to go first (`--swap-in-place`).

use super::*;

const OPTIONS: [&str; 1] = ["--swap-in-place"];

/// Servers of which there may be one at a time: another one ends at once.
const ALONE: &str = r#"mkdir "$dir/lock" 2>/dev/null || { echo 'there is one' >&2; exit 1; }
trap 'rmdir "$dir/lock"' EXIT"#;

#[test]
fn there_are_never_two_at_a_time() {
    let scratch = Scratch::new();
    scratch.write("on-start", ALONE);
    let proxy = legacy(&scratch, &OPTIONS);
    let mut client = opened(&proxy);
    let mut before = client.pid_of_server();
    for count in 1..=3 {
        swap(&proxy, count);
        let pid = client.pid_of_server();
        assert_ne!(pid, before);
        before = pid;
        assert_eq!(handshakes(&scratch, pid), 1);
    }
    assert!(client.aside.is_empty(), "{:?}", client.aside);
    assert_eq!(scratch.servers().len(), 4);
}

#[test]
fn one_session_goes_ahead_and_if_its_server_is_not_fit_the_others_stay() {
    let scratch = Scratch::new();
    let proxy = legacy(&scratch, &[&OPTIONS[..], &["--max-restarts", "0"]].concat());
    let mut clients: Vec<Client> = (0..4).map(|_| opened(&proxy)).collect();
    let pids: Vec<i32> = clients.iter_mut().map(Client::pid_of_server).collect();
    scratch.write("on-start", "exit 3");
    proxy.signal(Signal::SIGUSR1);
    proxy.wait_for_log(NOT_FIT);
    let unharmed = pids.iter().filter(|pid| proxy.servers().contains(pid));
    assert_eq!(unharmed.count(), 3);
}
