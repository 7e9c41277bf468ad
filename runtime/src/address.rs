//! Addresses on the command line: `HOST:PORT`, where the host may be a name.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};

use plan::wire::process::everywhere;
use thiserror::Error;

use crate::quoted::Quoted;

/// Names of the machine itself that hold where no file of hosts knows them, as in an image without one.
const LOOPBACK_V6: [&str; 2] = ["ip6-localhost", "ip6-loopback"];

/// A text is no address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// It is not of the form.
    #[error("must be HOST:PORT, such as 127.0.0.1:8000, [::1]:8000, localhost:8000, or :8000 for every address")]
    Form,
    /// Its port is none.
    #[error("the port must be a whole number from {least} to 65535, not {port}")]
    Port {
        /// The least.
        least: u16,
        /// The port given.
        port: Quoted,
    },
    /// Its name is not known.
    #[error("the name {name} is not known here: {reason}")]
    Unknown {
        /// The name.
        name: Quoted,
        /// What the system says.
        reason: String,
    },
}

/// The address to listen on that a text names; port 0 is any free one, no host is every address of the machine. Of a name's
/// addresses the first of IPv4 is taken, if it has one: who connects to a name tries them all.
///
/// # Errors
/// If it is no address, or the name is not known.
pub fn listen(text: &str) -> Result<SocketAddr, AddressError> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = parts(text, 0)?;
    if host.is_empty() {
        return Ok(everywhere(port));
    }
    let found: Vec<SocketAddr> = match (host, port).to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(_) if host == "localhost" => vec![(Ipv4Addr::LOCALHOST, port).into()],
        Err(_) if LOOPBACK_V6.contains(&host) => vec![(Ipv6Addr::LOCALHOST, port).into()],
        Err(error) => return Err(AddressError::Unknown { name: host.into(), reason: error.to_string() }),
    };
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first()).copied();
    first.ok_or_else(|| AddressError::Unknown { name: host.into(), reason: "it has no address".to_owned() })
}

/// The address to connect to that a text names. Its name is looked up with each connection, so it need not be known yet.
///
/// # Errors
/// If it is no address.
pub fn connect(text: &str) -> Result<String, AddressError> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() > 0 => {}
        Ok(_) => return Err(AddressError::Port { least: 1, port: "0".into() }),
        Err(_) if parts(text, 1)?.0.is_empty() => return Err(AddressError::Form),
        Err(_) => {}
    }
    Ok(text.to_owned())
}

/// Host and port.
fn parts(text: &str, least: u16) -> Result<(&str, u16), AddressError> {
    let (host, port) = text.rsplit_once(':').ok_or(AddressError::Form)?;
    if host.contains(|letter: char| !(letter.is_alphanumeric() || "-._".contains(letter))) {
        return Err(AddressError::Form);
    }
    let number = port.parse().ok().filter(|&number| number >= least);
    number.map(|number| (host, number)).ok_or_else(|| AddressError::Port { least, port: port.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_addresses() {
        for (text, address) in [
            ("127.0.0.1:8000", "127.0.0.1:8000"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("[::1]:8000", "[::1]:8000"),
            ("[::]:0", "[::]:0"),
            (":8000", "[::]:8000"),
            ("localhost:8000", "127.0.0.1:8000"),
        ] {
            assert_eq!(listen(text).unwrap(), address.parse::<SocketAddr>().unwrap(), "{text}");
        }
        let of_v6 = listen("ip6-localhost:8000").unwrap();
        assert!(of_v6.ip().is_loopback() && of_v6.port() == 8000, "{of_v6}");
    }

    #[test]
    fn what_is_no_address_says_what_would_be_one() {
        for text in
            ["", "8000", "localhost", "::1:8000", "[::1]", "http://localhost:8000", "a b:1", "*:8000", "\u{1b}[m:1"]
        {
            assert_eq!(listen(text), Err(AddressError::Form), "{text}");
            assert_eq!(connect(text), Err(AddressError::Form), "{text}");
        }
        for port in ["", "65536", "-1", "http", "8000/x"] {
            let error = listen(&format!("localhost:{port}")).unwrap_err().to_string();
            assert_eq!(error, format!("the port must be a whole number from 0 to 65535, not {port}"));
        }
        let error = listen("no-such-name.invalid:1").unwrap_err().to_string();
        assert!(error.starts_with("the name no-such-name.invalid is not known here: "), "{error}");
    }

    #[test]
    fn a_name_to_connect_to_may_be_known_later() {
        for text in ["tiny-coordinator.default.svc:8002", "127.0.0.1:1", "[::1]:8002"] {
            assert_eq!(connect(text).as_deref(), Ok(text));
        }
        for text in [":8002", "coordinator"] {
            assert_eq!(connect(text), Err(AddressError::Form));
        }
        for text in ["127.0.0.1:0", "coordinator:0"] {
            assert_eq!(connect(text), Err(AddressError::Port { least: 1, port: "0".into() }), "{text}");
        }
    }
}
