//! The sockets that a gateway accepts on: bound by itself, or handed to it by who started it.
//!
//! Handed over they come as systemd does it (`LISTEN_FDS`, `LISTEN_PID`, descriptors from 3 on). Their owner keeps them:
//! while one gateway goes and another comes, connections wait in the sockets' queues and none is refused.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::{Domain, SockRef, Socket, Type};

use crate::server::GatewayError;

/// Connections that may wait until they are accepted.
const BACKLOG: i32 = 4096;

/// Binds each address.
///
/// # Errors
/// When one is taken or not ours.
pub fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, GatewayError> {
    let listen =
        |address: &SocketAddr| bind_one(*address).map_err(|error| GatewayError::Bind { address: *address, error });
    addresses.iter().map(listen).collect()
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The sockets that were handed to this process; `None` when there are none. Only the first call finds them.
///
/// # Errors
/// When one of them is no TCP socket, or does not listen.
pub fn handed_over() -> Result<Option<Vec<TcpListener>>, GatewayError> {
    let mut given = ListenFd::from_env();
    let count = given.len();
    let take = |place| take(&mut given, place).map_err(|error| GatewayError::HandedOver { number: place + 1, error });
    let sockets = (0..count).map(take).collect::<Result<Vec<_>, _>>()?;
    Ok((count > 0).then_some(sockets))
}

fn take(given: &mut ListenFd, place: usize) -> io::Result<TcpListener> {
    let socket = given.take_tcp_listener(place)?.ok_or(io::ErrorKind::NotFound)?;
    if !SockRef::from(&socket).is_listener()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen"));
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
