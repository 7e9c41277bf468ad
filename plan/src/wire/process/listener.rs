//! Where a process listens that everybody is to reach, whatever families of addresses its machine has.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

/// Connections that wait to be accepted, as of the standard library.
const BACKLOG: i32 = 128;

/// Every address of the machine, of both families.
#[must_use]
pub fn everywhere(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}

/// Listens on an address; on [`everywhere`], with those of IPv4 alone on a machine that has no other.
///
/// # Errors
/// If the address is in use, or is none of the machine's.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    first(address, bind)
}

/// As [`TcpListener::bind`], and whatever the machine's setting `net.ipv6.bindv6only` is.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address == everywhere(address.port()) {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn first<T>(address: SocketAddr, bind: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let refused = match bind(address) {
        Ok(listener) => return Ok(listener),
        Err(refused) => refused,
    };
    // A port that is in use is in use: half of the addresses would be another process's.
    if address != everywhere(address.port()) || refused.kind() == io::ErrorKind::AddrInUse {
        return Err(refused);
    }
    bind((Ipv4Addr::UNSPECIFIED, address.port()).into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn who_listens_everywhere_is_reached_by_both_families() {
        let port = listen(everywhere(0)).unwrap();
        let number = port.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, number)).unwrap();
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, number)).unwrap();
        }
    }

    #[test]
    fn a_machine_without_the_one_family_listens_with_the_other() {
        let has_none = |kind: io::ErrorKind| {
            move |address: SocketAddr| {
                if address.is_ipv6() { Err(io::Error::from(kind)) } else { Ok(address) }
            }
        };
        for kind in [io::ErrorKind::Unsupported, io::ErrorKind::AddrNotAvailable, io::ErrorKind::Other] {
            assert_eq!(first(everywhere(1), has_none(kind)).unwrap(), "0.0.0.0:1".parse().unwrap());
        }
    }

    #[test]
    fn an_address_that_was_asked_for_is_not_replaced() {
        let held = listen(everywhere(0)).unwrap();
        let taken = held.local_addr().unwrap();
        assert_eq!(listen(taken).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let only_ipv4 = |address: SocketAddr| {
            if address.is_ipv6() { Err(io::Error::from(io::ErrorKind::AddrNotAvailable)) } else { Ok(address) }
        };
        assert!(first("[::1]:1".parse().unwrap(), only_ipv4).is_err());
    }
}
