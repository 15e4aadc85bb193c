//! A whole session, driven over its public interface by a program of events: what its two sides send, take and leave
//! out, in any order that descriptors and a clock can bring about.
//!
//! The session checks itself in debug builds. Here it is held to what can be seen from outside: lines pass unaltered
//! and none reaches two servers, what the proxy adds is marked as its own, actions come in an order that can be
//! carried out, no server is started for nothing that is to be started on demand, no session that is used is ended as
//! idle, and once both sides are gone the session ends and holds nothing.

mod lines;
mod world;

use std::time::Duration;

use self::world::World;
use crate::program::Program;

/// Longer programs would only be slow.
const MAX_STEPS: usize = 400;

/// What clients say; `#` stands for a number.
const CLIENT: [&str; 14] = [
    r#"{"jsonrpc":"2.0","id":#,"method":"initialize","params":{}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
    r#"{"jsonrpc":"2.0","id":#,"method":"tools/call","params":{}}"#,
    r#"{"jsonrpc":"2.0","id":"s#","method":"tools/list"}"#,
    r#"{"jsonrpc":"2.0","id":#,"method":"server/discover"}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":#}}"#,
    r#"{"jsonrpc":"2.0","id":#,"result":{}}"#,
    r#"[{"id":#,"method":"a"},{"id":"b#","method":"b"},{"method":"c"}]"#,
    r#"[{"id":#,"result":1}]"#,
    r#"{"type":"heartbeat"}"#,
    r#"{"type":"handshake"}"#,
    r#"{"id":#.50,"method":"x","params":[NaN]}"#,
    "not json #",
    "",
];

/// What servers say.
const SERVER: [&str; 10] = [
    r#"{"jsonrpc":"2.0","id":#,"result":{"protocolVersion":"2025-06-18","capabilities":{}}}"#,
    r#"{"jsonrpc":"2.0","id":#,"result":{"protocolVersion":"2025-03-26","capabilities":{}}}"#,
    r#"{"jsonrpc":"2.0","id":"s#","result":{}}"#,
    r#"{"jsonrpc":"2.0","id":"mcp-tcp-proxy-replay-#","result":{"protocolVersion":"2025-06-18","capabilities":{}}}"#,
    r#"{"jsonrpc":"2.0","id":#,"error":{"code":1,"message":"x"}}"#,
    r#"{"jsonrpc":"2.0","id":#,"method":"ping"}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":#}}"#,
    r#"[{"id":#,"result":{}},{"id":"b#","error":{}}]"#,
    r#"{"type":"heartbeat_response","timestamp":1,"mcp_alive":true}"#,
    "log line #",
];

/// The input is settings and a program of events.
pub(crate) fn session(input: &[u8]) {
    let mut program = Program(input);
    let mut world = World::new(&mut program);
    for _ in 0..MAX_STEPS {
        if program.is_over() || world.is_over() {
            break;
        }
        step(&mut world, &mut program);
    }
    world.end();
}

fn step(world: &mut World, program: &mut Program<'_>) {
    match program.byte() % 20 {
        0..=2 => {
            let line = said(&CLIENT, program);
            world.client_sends(line.as_bytes());
        }
        3 => world.client_sends(program.bytes()),
        4 => world.client_takes(program.number(14) as usize),
        5 => world.server_takes(program.number(14) as usize),
        6..=8 => {
            let line = said(&SERVER, program);
            world.server_sends(line.as_bytes());
        }
        9 => world.server_sends(program.bytes()),
        10 => world.server_starts(!program.byte().is_multiple_of(4)),
        11 => world.server_exits(),
        12 => world.server_output_ends(program.flag()),
        13 => world.server_input_breaks(),
        14 => world.next_deadline(),
        15 => world.pass(Duration::from_millis(program.number(20))),
        16 => world.server_logs(program.bytes()),
        17 => {
            world.client_takes(usize::MAX);
            world.server_takes(usize::MAX);
        }
        // A server that is lost and followed by another at once is what sessions are for.
        18 => {
            world.server_exits();
            world.server_output_ends(false);
            world.next_deadline();
            world.server_starts(true);
        }
        _ => match program.byte() % 8 {
            0 => world.client_ends(),
            1 => world.client_hangs_up(),
            2 => world.client_goes(),
            3 => world.shut_down(),
            _ => {}
        },
    }
}

/// One of the lines, with a small number in it, some blanks behind it to make it longer, and mostly a line end.
fn said(lines: &[&str], program: &mut Program<'_>) -> String {
    let line = lines[usize::from(program.byte()) % lines.len()];
    let options = program.byte();
    let blanks = match options >> 5 {
        0..=4 => 0,
        more => 1 << (2 * more),
    };
    let line = line.replace('#', &(options % 8).to_string());
    let end = if options & 0b1_1000 == 0 { "" } else { "\n" };
    line + &" ".repeat(blanks) + end
}
