//! Free ports on 127.0.0.1.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use rand::RngExt;

use crate::{Result, StackError};

const LOWEST: u16 = 10_240;
/// Where Linux begins to hand out ports for outgoing connections unless told otherwise.
const USUAL_EPHEMERAL: u16 = 32_768;
const TRIES: usize = 128;

/// A port on 127.0.0.1 that nobody listens on at this moment.
///
/// It lies below the range that the kernel uses for outgoing connections: there, a client that keeps dialling a server
/// which is down can be given the server's own port, connect to itself and keep the server from coming back.
pub fn free_port() -> Result<u16> {
    let range = quiet_range();
    let mut rng = rand::rng();
    for _ in 0..TRIES {
        let port = rng.random_range(range.clone());
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    any_port()
}

fn quiet_range() -> Range<u16> {
    let first_ephemeral = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(USUAL_EPHEMERAL);
    if first_ephemeral > LOWEST + 1_000 { LOWEST..first_ephemeral } else { LOWEST..USUAL_EPHEMERAL }
}

fn any_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(StackError::NoPort)?;
    Ok(listener.local_addr().map_err(StackError::NoPort)?.port())
}
