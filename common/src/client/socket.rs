//! How this client's sockets are set, the same in both forms.
//!
//! Three ways of noticing a dead peer: unacknowledged bytes (TCP_USER_TIMEOUT), silence on an
//! idle connection (keepalive), and a broker that is alive but does not answer (the request
//! timeout, above the socket).

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// An idle connection is probed after this long: soon enough to notice a machine that vanished
/// before its user does.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);

/// Between two probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);

/// Probes without an answer before the connection is given up: one or two may be lost.
const KEEPALIVE_PROBES: u32 = 3;

/// Sets a connected socket.
pub(crate) fn configure(socket: &SockRef<'_>, silence_max: Duration) -> io::Result<()> {
    // Records are batched above the socket; Nagle would only hold the last one back.
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(silence_max))
}
