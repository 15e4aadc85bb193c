use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::session::idle::IdleLimits;
use crate::session::report::Exit;
use crate::session::stderr::ServerLogging;
use crate::session::{Backend, Spawn};

const HOUR: Duration = Duration::from_hours(1);

impl From<SessionKey> for usize {
    fn from(key: SessionKey) -> Self {
        key.0
    }
}

/// Notes which sessions are run, with their places, and says of those in `busy` that they have more to do.
#[derive(Default)]
struct Notes {
    runs: Vec<(usize, char)>,
    busy: Vec<usize>,
}

impl Driver for Notes {
    type Place = char;

    fn run(
        &mut self,
        key: SessionKey,
        _: &mut Session,
        place: &mut char,
        scratch: &mut [u8],
        _: &mut Context<'_>,
    ) -> bool {
        assert_eq!(scratch.len(), SCRATCH_BYTES);
        self.runs.push((key.0, *place));
        self.busy.contains(&key.0)
    }
}

struct Loop {
    scheduler: Scheduler<char>,
    timers: Timers<usize>,
    notes: Notes,
}

impl Loop {
    fn new() -> Self {
        let settings = Settings {
            role: Backend::Process { max_restarts: 5 },
            heartbeat_interval: HOUR,
            restarts_upstream: true,
            max_message_bytes: 1_000_000,
            replays: true,
            replay_timeout: HOUR,
            stop_timeout: Duration::from_secs(30),
            spawn: Spawn::Eager,
            idle_limits: IdleLimits {
                exempts_heartbeats: false,
                first_message: Some(HOUR),
                idle: None,
                hibernate: None,
            },
            server_log: ServerLogging::Limited,
        };
        Self {
            scheduler: Scheduler::new(settings, BufferBudget::new(1_000_000)),
            timers: Timers::new(Time::from_nanos(1 << 40)),
            notes: Notes::default(),
        }
    }

    fn label() -> Label {
        Label::Session {
            number: 1,
            server: None,
            client: SocketAddr::from(([127, 0, 0, 1], 1)).into(),
            pid: None,
        }
    }

    fn open(&mut self, place: char) -> SessionKey {
        self.scheduler.open(Self::label(), place, &mut self.timers)
    }

    fn tell(&mut self, key: SessionKey, event: Event<'_>) -> bool {
        let told = self.scheduler.handle(key, event, &mut self.timers);
        told.is_some()
    }

    fn run(&mut self) -> Vec<(usize, char)> {
        self.scheduler.run_ready(&mut self.notes, &mut self.timers);
        std::mem::take(&mut self.notes.runs)
    }

    fn actions(&mut self) -> Vec<(usize, Action)> {
        let next = || self.scheduler.next_action();
        std::iter::from_fn(next)
            .map(|(key, action)| (key.0, action))
            .collect()
    }

    fn free(&mut self, key: SessionKey) -> Option<char> {
        let freed = self.scheduler.free_if_finished(key, &mut self.timers);
        freed.map(|(_, place)| place)
    }

    fn break_client(&mut self, key: SessionKey) {
        let error = Error::from(ErrorKind::ConnectionReset);
        self.tell(key, Event::ClientFailed(&error));
    }
}

#[test]
fn a_session_runs_once_for_any_number_of_reasons() {
    let mut all = Loop::new();
    let (a, b) = (all.open('a'), all.open('b'));
    all.scheduler.enqueue(b);
    assert!(all.scheduler.is_busy());
    assert_eq!(all.run(), [(a.0, 'a'), (b.0, 'b')]);
    assert_eq!(all.actions().len(), 2);
    assert!(!all.scheduler.is_busy());
    assert_eq!(all.run(), []);
    all.scheduler.enqueue(b);
    all.scheduler.note(b, |_| true);
    all.tell(b, Event::ClientHup);
    assert_eq!(all.run(), [(b.0, 'b')]);
}

#[test]
fn what_has_more_to_do_is_run_again_behind_the_others_and_not_in_the_same_iteration() {
    let mut all = Loop::new();
    let (a, b) = (all.open('a'), all.open('b'));
    all.notes.busy = vec![a.0];
    assert_eq!(all.run(), [(a.0, 'a'), (b.0, 'b')]);
    all.actions();
    assert!(all.scheduler.is_busy());
    all.scheduler.enqueue(b);
    assert_eq!(all.run(), [(a.0, 'a'), (b.0, 'b')]);
    all.notes.busy.clear();
    assert_eq!(all.run(), [(a.0, 'a')]);
    assert!(!all.scheduler.is_busy());
}

#[test]
fn a_note_changes_the_place_and_has_the_session_run_if_it_says_so() {
    let mut all = Loop::new();
    let key = all.open('a');
    all.run();
    all.actions();
    all.scheduler.note(key, |place| {
        *place = 'b';
        false
    });
    assert!(!all.scheduler.is_busy());
    all.scheduler.note(key, |_| true);
    assert_eq!(all.run(), [(key.0, 'b')]);
    all.scheduler
        .note(SessionKey(77), |_| panic!("it is not there"));
    all.scheduler.enqueue(SessionKey(77));
    assert!(!all.tell(SessionKey(77), Event::ClientHup) && !all.scheduler.is_busy());
}

#[test]
fn actions_name_their_sessions_and_stay_in_order() {
    let mut all = Loop::new();
    let (a, b) = (all.open('a'), all.open('b'));
    assert!(all.scheduler.is_busy());
    all.break_client(a);
    let start = |key: SessionKey| (key.0, Action::StartUpstream);
    let close = (a.0, Action::CloseClient);
    assert_eq!(all.actions(), [start(a), start(b), close]);
}

#[test]
fn a_session_is_freed_when_it_is_finished_and_all_is_done_that_it_wants_done() {
    let mut all = Loop::new();
    let key = all.open('a');
    assert_eq!(all.actions(), [(key.0, Action::StartUpstream)]);
    all.tell(key, Event::UpstreamStarted { pid: Some(1) });
    assert_eq!(all.timers.len(), 1, "it waits for a first message");
    assert_eq!(all.free(key), None);
    all.tell(key, Event::UpstreamExited(Exit::Code(0)));
    all.break_client(key);
    let session = all.scheduler.session(key).unwrap();
    assert!(session.is_finished());
    assert_eq!(all.free(key), None, "its actions were not carried out");
    assert!(!all.actions().is_empty());
    assert_eq!(all.free(key), Some('a'));
    assert_eq!((all.free(key), all.scheduler.len()), (None, 0));
    assert!(all.timers.is_empty() && all.scheduler.is_empty());
    assert_eq!(all.scheduler.memory().used(), 0);
    assert_eq!(all.run(), [], "it was queued");
}

#[test]
fn a_key_that_is_used_again_is_that_of_the_new_session_alone() {
    let mut all = Loop::new();
    let old = all.open('a');
    all.break_client(old);
    all.actions();
    assert_eq!(all.free(old), Some('a'));
    assert_eq!(all.scheduler.next_key(), old);
    let new = all.open('b');
    assert_eq!((new, all.scheduler.place(new)), (old, Some(&'b')));
    assert_eq!(all.run(), [(new.0, 'b')], "the old one was queued, too");
    *all.scheduler.place_mut(new).unwrap() = 'c';
    let places = all.scheduler.iter().map(|(key, _, place)| (key, *place));
    assert_eq!(places.collect::<Vec<_>>(), [(new, 'c')]);
}

#[test]
fn a_session_has_the_deadline_that_it_last_wanted() {
    let mut all = Loop::new();
    let key = all.open('a');
    let begin = all.timers.now();
    assert_eq!(all.timers.next(), Some(begin + HOUR));
    all.timers.advance(begin + HOUR);
    assert_eq!(all.timers.pop(), Some(key.0));
    let unix_time = Duration::ZERO;
    all.tell(key, Event::Deadline { unix_time });
    let session = all.scheduler.session(key).unwrap();
    let wanted = session.next_deadline(all.scheduler.settings());
    assert!(wanted.is_some_and(|at| at < begin + 2 * HOUR), "{wanted:?}");
    assert_eq!(all.timers.len(), 1);
    assert!(all.timers.next() >= wanted);
}

#[test]
fn a_session_that_was_turned_away_says_so_and_asks_for_nothing() {
    let mut all = Loop::new();
    let limit = SessionLimit::All(7);
    let key = all
        .scheduler
        .refuse(Loop::label(), limit, 'a', &mut all.timers);
    let session = all.scheduler.session(key).unwrap();
    assert!(session.was_refused() && !session.to_client().is_empty());
    assert_eq!((all.actions(), all.run().len()), (vec![], 1));
}

/// A session of which neither side takes anything, and which has filled what it may.
fn stuck(all: &mut Loop) -> SessionKey {
    let key = all.open('a');
    all.tell(key, Event::UpstreamStarted { pid: Some(1) });
    let line = |method: char| {
        format!(
            "{{\"method\":\"{}\"}}\n",
            String::from(method).repeat(200_000)
        )
    };
    all.tell(key, Event::ClientBytes(line('c').as_bytes()));
    all.tell(key, Event::UpstreamBytes(line('s').as_bytes()));
    all.run();
    all.actions();
    key
}

#[test]
fn whoever_waits_for_memory_is_woken_once_there_is_some() {
    let mut all = Loop::new();
    let hoarder = all.open('h');
    all.tell(hoarder, Event::UpstreamStarted { pid: Some(2) });
    let line = format!("{{\"method\":\"{}\"}}\n", "h".repeat(700_000));
    all.tell(hoarder, Event::UpstreamBytes(line.as_bytes()));
    assert!(!all.scheduler.memory().has_headroom());
    let key = stuck(&mut all);
    all.scheduler.enqueue(key);
    assert_eq!(all.run(), [(key.0, 'a')], "it waits once");
    all.scheduler.wake_for_memory();
    assert!(!all.scheduler.is_busy(), "there is none yet");
    all.tell(hoarder, Event::ClientWritten(line.len()));
    assert_eq!(all.run(), [(hoarder.0, 'h')]);
    assert!(all.scheduler.memory().has_headroom());
    all.scheduler.wake_for_memory();
    assert_eq!(all.run(), [(key.0, 'a')]);
    all.scheduler.wake_for_memory();
    assert!(!all.scheduler.is_busy(), "once");
}

/// Begins a line of this many bytes.
fn begin_line(all: &mut Loop, key: SessionKey, bytes: usize) {
    all.tell(key, Event::UpstreamStarted { pid: Some(1) });
    let part = format!("{{\"id\":1,\"method\":\"{}", "x".repeat(bytes));
    all.tell(key, Event::ClientBytes(part.as_bytes()));
}

fn weighs(all: &Loop, key: SessionKey) -> bool {
    let session = all.scheduler.session(key).unwrap();
    session.unfinished_weight(all.timers.now()).is_some()
}

#[test]
fn whoever_holds_most_and_has_moved_least_makes_room_for_the_newcomer() {
    let mut all = Loop::new();
    let [small, large, moving] = ['s', 'l', 'm'].map(|place| all.open(place));
    begin_line(&mut all, small, 100_000);
    begin_line(&mut all, large, 350_000);
    let later = all.timers.now() + Duration::from_secs(20);
    all.timers.advance(later);
    begin_line(&mut all, moving, 550_000);
    all.run();
    assert!(weighs(&all, small) && !weighs(&all, large) && weighs(&all, moving));
    assert!(!all.scheduler.memory().is_short());
    // Its line is refused once it ends.
    all.tell(large, Event::ClientBytes(b"\"}\n"));
    let session = all.scheduler.session(large).unwrap();
    let refusal = String::from_utf8(session.to_client().to_vec()).unwrap();
    assert!(
        refusal.contains("others needed the buffer memory"),
        "{refusal}"
    );
    assert!(refusal.contains("\"id\":1,"), "{refusal}");
}

#[test]
fn who_is_alone_with_a_long_line_may_have_what_is_left() {
    let mut all = Loop::new();
    let key = all.open('a');
    begin_line(&mut all, key, 900_000);
    all.run();
    assert!(all.scheduler.memory().is_short() && weighs(&all, key));
}

#[test]
fn a_session_that_was_freed_does_not_wait_for_memory() {
    let mut all = Loop::new();
    let key = stuck(&mut all);
    if all.scheduler.memory().has_headroom() {
        let line = format!("{{\"method\":\"{}\"}}\n", "h".repeat(700_000));
        let hoarder = all.open('h');
        all.tell(hoarder, Event::UpstreamStarted { pid: Some(2) });
        all.tell(hoarder, Event::UpstreamBytes(line.as_bytes()));
    }
    all.scheduler.enqueue(key);
    all.run();
    assert_eq!(all.scheduler.waiting_for_memory, [key]);
    all.tell(key, Event::UpstreamExited(Exit::Code(0)));
    all.break_client(key);
    all.actions();
    assert_eq!(all.free(key), Some('a'));
    assert_eq!(all.scheduler.waiting_for_memory, []);
}

#[test]
fn large_buffers_are_let_go_of() {
    let mut all = Loop::new();
    all.scheduler.shared.memory.lend_large();
    all.scheduler
        .shared
        .memory
        .give_back(Vec::with_capacity(1_000_000));
    all.scheduler.trim_memory();
    all.scheduler.trim_memory();
    let capacity = all.scheduler.shared.memory.lend_large().capacity();
    assert_eq!(
        (capacity, all.scheduler.scratch().len()),
        (0, SCRATCH_BYTES)
    );
}
