//! The values of `method` and `type` that mean something to a proxy.

use crate::protocol::json::Value;
use crate::protocol::json::text::Text;

/// No name of a method that means something is shorter when it is written with an escape: the shortest has no character
/// that can be escaped by less than `\u….`
const SHORTEST_ESCAPED_METHOD: usize = r"initializ\u0065".len();

/// Lines that the two ends of a connection exchange about the connection itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// `"type":"heartbeat"`
    Heartbeat,
    /// `"type":"handshake"`
    Handshake,
    /// `"type":"heartbeat_response"`
    HeartbeatResponse,
    /// `"type":"resumable"`
    Resumable,
    /// `"type":"resumed"`
    Resumed,
    /// `"type":"not_resumed"`
    NotResumed,
    /// `"type":"ack"`
    Ack,
    /// `"type":"bye"`
    Bye,
}

/// The methods that mean something to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `initialize`, with which a legacy session opens.
    Initialize,
    /// `notifications/initialized`, which ends a legacy handshake.
    Initialized,
    /// `server/discover`, with which a modern client finds out what it talks to.
    Discover,
    /// `notifications/cancelled`, which takes a request back.
    Cancelled,
    /// `subscriptions/listen`, which is answered only when the subscription ends.
    Listen,
    /// `resources/subscribe`, with which a legacy client asks for updates of a resource.
    Subscribe,
    /// `resources/unsubscribe`, which ends that.
    Unsubscribe,
    /// `logging/setLevel`, with which a legacy client says how much of the server's log it wants.
    SetLevel,
    /// `$/mcp/serverRestarted`, with which a proxy tells of a restart.
    ServerRestarted,
    /// Any other.
    Other,
}

impl Control {
    /// Reads the value of a `type`.
    pub(super) fn of(line: &[u8], value: Value) -> Option<Self> {
        value.string(line)?.with_name(|name| match name {
            b"heartbeat" => Some(Self::Heartbeat),
            b"handshake" => Some(Self::Handshake),
            b"heartbeat_response" => Some(Self::HeartbeatResponse),
            b"resumable" => Some(Self::Resumable),
            b"resumed" => Some(Self::Resumed),
            b"not_resumed" => Some(Self::NotResumed),
            b"ack" => Some(Self::Ack),
            b"bye" => Some(Self::Bye),
            _ => None,
        })
    }
}

impl Method {
    /// Whether a message with it means nothing to a proxy unless it is a request.
    pub(super) fn needs_id(self) -> bool {
        match self {
            Self::Other | Self::Listen | Self::Subscribe | Self::Unsubscribe | Self::SetLevel => {
                true
            }
            Self::Initialize
            | Self::Initialized
            | Self::Discover
            | Self::Cancelled
            | Self::ServerRestarted => false,
        }
    }

    /// Reads the value of a `method`; `None` if it is null.
    pub(super) fn of(line: &[u8], value: Value) -> Option<Self> {
        let Some([b'"', name @ .., b'"']) = line.get(value.range()) else {
            return (!value.is_null).then_some(Self::Other);
        };
        let named = Self::named(name);
        if named != Self::Other || name.len() < SHORTEST_ESCAPED_METHOD || !name.contains(&b'\\') {
            return Some(named);
        }
        Some(Text::escaped(name).with_name(Self::named))
    }

    fn named(name: &[u8]) -> Self {
        match name {
            b"initialize" => Self::Initialize,
            b"notifications/initialized" => Self::Initialized,
            b"server/discover" => Self::Discover,
            b"notifications/cancelled" => Self::Cancelled,
            b"subscriptions/listen" => Self::Listen,
            b"resources/subscribe" => Self::Subscribe,
            b"resources/unsubscribe" => Self::Unsubscribe,
            b"logging/setLevel" => Self::SetLevel,
            b"$/mcp/serverRestarted" => Self::ServerRestarted,
            _ => Self::Other,
        }
    }
}
