//! The entrance: what the world asks of connections, and strangers who do not have it. None of them may become a session,
//! hold more than its share, or keep out who speaks at once.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mcp_tcp_proxy::entrance::tokens::Tokens;
use mcp_tcp_proxy::entrance::{Balancers, Network, Rules};
use mcp_tcp_proxy::reactor::io::Readiness;
use mcp_tcp_proxy::util::client_address::ClientAddress;
use mcp_tcp_proxy::util::time::Time;

use crate::below::Below;
use crate::place::Place;
use crate::rng::Rng;
use crate::server::Kind;
use crate::stats::Fault;
use crate::text::{self, OwnError};
use crate::transport::{Duplex, End, Shared, Socket, shared};
use crate::world::World;

/// In the place of a slot.
pub const STRANGER: usize = usize::MAX;

/// The token of those who may come in, and of those who may until somebody changes his mind.
pub const ANN: &str = "mtp_of-ann-and-nobody-else";
pub const BEN: &str = "mtp_of-ben-for-a-while";

/// What each of them is told.
const CODES: [i32; 4] = [401, 403, 408, 429];

/// Places of one origin.
const OF_ONE_ORIGIN: usize = 64;

/// After its time a stranger may wait a second for a refusal, and then has another one to go.
const TIME_TO_GO: Duration = Duration::from_secs(2);

/// The clock may be late for each of these, and stand still between two looks.
const MAX_OVERDUE: u32 = 500;

/// What is asked of whoever comes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asks {
    pub token: bool,
    pub header: bool,
    pub timeout: Duration,
    /// Whether Ben's token is good.
    pub knows_ben: bool,
}

impl Asks {
    pub fn random(rng: &mut Rng) -> Self {
        let (token, header) = rng.pick(&[
            (false, false),
            (false, false),
            (true, false),
            (true, true),
            (false, true),
        ]);
        Self {
            token,
            header,
            timeout: Duration::from_millis(rng.pick(&[50, 3000, 10_000])),
            knows_ben: true,
        }
    }

    pub fn anything(self) -> bool {
        self.token || self.header
    }

    pub fn tokens(self) -> Option<Tokens> {
        let ben = if self.knows_ben {
            format!("ben {BEN}\n")
        } else {
            String::new()
        };
        let tokens = || Tokens::parse(&format!("ann {ANN}\n{ben}")).unwrap();
        self.token.then(tokens)
    }

    pub fn rules(self) -> Rules {
        let balancer = Network::parse("10.9.0.0/16").unwrap();
        Rules {
            balancers: Balancers {
                networks: if self.header {
                    vec![balancer]
                } else {
                    Vec::new()
                },
                unix: false,
            },
            tokens: self.tokens(),
            timeout: self.timeout,
            ..Rules::default()
        }
    }

    /// Where a connection comes from.
    pub fn peer(self, own: Ipv4Addr) -> ClientAddress {
        let ip = if self.header {
            Ipv4Addr::new(10, 9, 0, 1)
        } else {
            own
        };
        SocketAddr::from((ip, 1)).into()
    }

    /// What a balancer says first.
    pub fn header(self, own: Ipv4Addr) -> Vec<u8> {
        if self.header {
            format!("PROXY TCP4 {own} 10.9.0.1 1 80\r\n").into_bytes()
        } else {
            Vec::new()
        }
    }
}

/// A connection of somebody who does not know how to get in.
#[derive(Debug)]
pub struct Stranger {
    pub socket: Shared<Duplex>,
    pub own: Ipv4Addr,
    /// What it is going to say.
    says: Vec<u8>,
    said: usize,
    /// Whether it leaves when it has said all.
    leaves: bool,
    /// When it was accepted.
    pub entered: Option<Time>,
    /// Lines that it was told.
    told: usize,
    is_http: bool,
    /// How often it was seen after its time.
    overdue: u32,
    rng: Rng,
}

impl Stranger {
    fn new(asks: Asks, rng: &mut Rng) -> Self {
        let mut rng = rng.fork();
        let own = Ipv4Addr::new(10, 0, 0, rng.pick(&[1, 1, 1, 2, 3]));
        let socket = shared(Duplex::new(65_536, &mut rng));
        let known = format!(
            "{{\"type\":\"handshake\",\"token\":\"{ANN}\"}}\n{{\"id\":1,\"method\":\"m\"}}\n"
        );
        let mut says = if rng.percent(90) {
            asks.header(own)
        } else {
            Vec::new()
        };
        let text: Vec<u8> = match rng.below(10) {
            0 | 1 => Vec::new(),
            2 => b"{\"type\":\"hand".to_vec(),
            3 => b"{\"type\":\"handshake\",\"token\":\"mtp_of-somebody-else\"}\n".to_vec(),
            4 => b"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"initialize\"}\n".to_vec(),
            5 => b"POST / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            6 => b"\x16\x03\x01\x02\x00".to_vec(),
            7 => vec![b'x'; 9000],
            8 => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(),
            _ => b"\n\n nonsense\n".to_vec(),
        };
        let is_http = text.starts_with(b"POST");
        // Whoever needs no token is no stranger once there is a byte after the header.
        if asks.token {
            let has_line = text.ends_with(b"\n");
            says.extend(text);
            // What follows a refused first line would let it in.
            if has_line && rng.percent(50) {
                says.extend(known.repeat(rng.between(1, 20)).bytes());
            }
        }
        Self {
            socket,
            own,
            says,
            said: 0,
            leaves: rng.percent(30),
            entered: None,
            told: 0,
            is_http,
            overdue: 0,
            rng,
        }
    }

    fn act(&mut self) {
        let mut socket = self.socket.borrow_mut();
        let rest = &self.says[self.said..];
        if !rest.is_empty() {
            let most = if self.rng.percent(60) {
                rest.len()
            } else {
                self.rng.between(1, rest.len().min(20))
            };
            self.said += socket.input.write(&rest[..most]);
        } else if self.leaves {
            socket.input.end(End::Closed);
        }
        if self.rng.percent(2) {
            socket.reset();
        }
        socket.output.consume(usize::MAX);
    }

    /// Looks at what it was told.
    fn check_told(&mut self) {
        for line in std::mem::take(&mut self.socket.borrow_mut().output.begun) {
            self.told += 1;
            if self.is_http && !line.text.starts_with(b"{") {
                continue;
            }
            let text = text::show(&line.text);
            let error = OwnError::read(&line.text).unwrap_or_else(|| panic!("{text}"));
            assert!(CODES.contains(&error.code), "{text}");
            assert_eq!(self.told, 1, "a stranger is told more than once: {text}");
        }
    }
}

impl Below {
    fn comes(&mut self, comer: Comer) {
        self.backlog.push_back(comer);
        let event = (self.listener_token, Readiness::READABLE);
        self.events(Kind::Process).push(event);
    }

    /// A client connects.
    pub fn client_comes(&mut self, slot: usize) {
        self.comes(Comer::Client(slot));
    }

    /// It has what is asked for, and says it first: at once, or in its own time.
    pub fn introduce(&mut self, place: &mut Place) {
        let asks = self.asks;
        place.is_ben = asks.token && asks.knows_ben && self.rng.percent(30);
        let token = if place.is_ben { BEN } else { ANN };
        let header = asks.header(Ipv4Addr::LOCALHOST);
        let token = asks.token.then_some(token);
        let (client, journal) = (&mut place.client, &mut place.journal);
        client.introduce(&header, token, journal);
        if self.calm || self.rng.percent(60) {
            client.speak_at_once(&mut place.socket.borrow_mut());
            place.must_get_in = asks.token;
        }
    }

    /// A stranger connects.
    pub fn stranger_comes(&mut self) {
        let stranger = Stranger::new(self.asks, &mut self.rng);
        let key = self.strangers.insert(stranger);
        self.stats.fault(Fault::Stranger);
        self.comes(Comer::Stranger(key));
    }

    pub fn stranger_socket(&mut self, key: usize) -> (Socket, Ipv4Addr) {
        let stranger = &mut self.strangers[key];
        stranger.entered = Some(self.now);
        let duplex = stranger.socket.clone();
        let slot = STRANGER;
        (Socket { duplex, slot }, stranger.own)
    }

    /// Any of them does something.
    pub fn stranger_acts(&mut self) {
        let keys: Vec<usize> = self.strangers.iter().map(|(key, _)| key).collect();
        if keys.is_empty() {
            return;
        }
        let key = self.rng.pick(&keys);
        self.strangers[key].act();
        if self.rng.percent(80) {
            self.notify_stranger(key);
        }
    }

    pub fn notify_strangers(&mut self) {
        let keys: Vec<usize> = self.strangers.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.notify_stranger(key);
        }
    }

    fn notify_stranger(&mut self, key: usize) {
        let socket = self.strangers[key].socket.clone();
        socket.borrow_mut().notify(self.events(Kind::Process));
    }

    /// Those whose connection was closed are gone.
    pub fn forget_strangers(&mut self) {
        self.strangers.retain(|_, stranger| {
            stranger.check_told();
            stranger.entered.is_none() || stranger.socket.borrow().reads
        });
    }

    /// Whoever spoke at once got in, whatever others did.
    pub fn check_turned_away(&self) {
        for (_, place) in &self.places {
            let is_gone = place.key.is_none() && !place.socket.borrow().reads;
            let has_a_claim = place.must_get_in && place.socket.borrow().output.broken.is_none();
            assert!(
                !is_gone || !has_a_claim || self.stopping,
                "client {} spoke at once, and did not get in",
                place.number
            );
        }
    }

    /// The token of Ben is good no longer, or good again.
    pub fn change_mind(&mut self) {
        self.asks.knows_ben = !self.asks.knows_ben;
        for (_, place) in &mut self.places {
            if place.is_ben && !self.asks.knows_ben {
                place.is_revoked |= place.key.is_some();
                place.must_get_in = false;
            }
        }
        self.signals.hangup = true;
        self.raise();
        self.stats.fault(Fault::Revoked);
    }
}

/// Who waits to be accepted.
#[derive(Debug, Clone, Copy)]
pub enum Comer {
    Client(usize),
    Stranger(usize),
}

impl World {
    /// The limits of the entrance hold.
    pub fn check_entrance(&self) {
        let below = self.below.borrow();
        assert!(self.proxy.visitors() <= below.limits.places);
        if below.asks.header {
            return;
        }
        for last in 1..4 {
            let own = Ipv4Addr::new(10, 0, 0, last);
            let strangers = below.strangers.iter().map(|(_, stranger)| stranger);
            let inside = strangers.filter(|stranger| stranger.own == own && stranger.is_inside());
            assert!(inside.count() <= OF_ONE_ORIGIN);
        }
    }

    /// When all has come to rest, everybody in the entrance is known, and nobody is in it for too long.
    pub fn check_entrance_rests(&self) {
        let below = &mut *self.below.borrow_mut();
        let places = below.places.iter().map(|(_, place)| place);
        let clients = places.filter(|place| {
            place.kind == Kind::Process
                && place.key.is_none()
                && place.socket.borrow().input.token.is_some()
        });
        let mut inside = clients.count();
        for (_, stranger) in &mut below.strangers {
            if !stranger.is_inside() {
                continue;
            }
            inside += 1;
            let since = stranger.entered.unwrap();
            let at = since + below.asks.timeout + TIME_TO_GO;
            stranger.overdue += u32::from(at < below.now);
            assert!(stranger.overdue <= MAX_OVERDUE, "a stranger stays for ever");
        }
        assert_eq!(self.proxy.visitors(), inside);
    }
}

impl Stranger {
    fn is_inside(&self) -> bool {
        self.socket.borrow().input.token.is_some()
    }
}
