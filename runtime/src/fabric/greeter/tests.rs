use std::sync::mpsc;

use super::*;
use crate::fabric::handshake::call;
use crate::fabric::purpose::Hello;

const PATIENCE: Duration = Duration::from_secs(20);

/// A port that takes in whoever has the secret, and gives what it is called for and the first message.
struct Port {
    address: String,
    secret: Secret,
    welcomed: mpsc::Receiver<(Purpose, Connection)>,
    _stop: Stopper,
}

fn port() -> Port {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let secret = Secret::draw().unwrap();
    let (greeter, stop) = Greeter::new(listener, "test").unwrap();
    let (welcome, welcomed) = mpsc::channel();
    let expected = secret.clone();
    std::thread::spawn(move || {
        greeter.run(
            |purpose| (*purpose == Purpose::Control).then(|| expected.clone()),
            |purpose, connection| welcome.send((purpose, connection)).unwrap(),
        );
    });
    Port { address, secret, welcomed, _stop: stop }
}

impl Port {
    fn join(&self) -> Connection {
        call(&self.address, "the port", (Purpose::Control, &self.secret), PATIENCE).unwrap()
    }
}

fn closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match stream.read(&mut [0; 256]) {
        Ok(0) => true,
        Ok(_) => closed(stream),
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[test]
fn a_member_is_taken_in_with_every_byte_after_its_proof() {
    let port = port();
    let mut member = port.join();
    member.send(&7_u64).unwrap();
    let (purpose, mut welcomed) = port.welcomed.recv_timeout(PATIENCE).unwrap();
    assert_eq!((purpose, welcomed.receive::<u64>().unwrap()), (Purpose::Control, 7));
    welcomed.send(&8_u64).unwrap();
    assert_eq!(member.receive::<u64>().unwrap(), 8);
}

#[test]
fn a_thousand_callers_that_say_nothing_or_say_it_slowly_keep_nobody_from_joining() {
    let port = port();
    let hello = Hello { purpose: Purpose::Control, challenge: [1; 32] }.to_bytes();
    let mut idle = Vec::new();
    for number in 0..1000 {
        // Out of descriptors: the first of them are not needed any more.
        let Ok(mut stream) = TcpStream::connect(&port.address) else {
            idle.truncate(0);
            continue;
        };
        // Some say nothing, some a part, some all but their proof.
        let _ = stream.write_all(&hello[..[0, 1, 63, 64][number % 4]]);
        idle.push(stream);
        if number % 100 == 99 {
            port.join();
            assert_eq!(port.welcomed.recv_timeout(PATIENCE).unwrap().0, Purpose::Control);
        }
    }
}

#[test]
fn whoever_proves_nothing_is_let_go_in_time_however_many_bytes_it_sends() {
    let port = port();
    let mut silent = TcpStream::connect(&port.address).unwrap();
    let mut dripping = TcpStream::connect(&port.address).unwrap();
    let hello = Hello { purpose: Purpose::Control, challenge: [1; 32] }.to_bytes();
    let drip = std::thread::spawn(move || {
        let started = Instant::now();
        // All but the last byte: it never says what it wants.
        let mut bytes = hello[..HELLO_BYTES - 1].iter().cycle();
        while dripping.write_all(&[*bytes.next().unwrap()]).is_ok() {
            assert!(started.elapsed() < PATIENCE, "a caller that drips is let go");
            std::thread::park_timeout(Duration::from_millis(200));
        }
    });
    assert!(closed(&mut silent));
    drip.join().unwrap();
}

#[test]
fn bytes_of_something_else_are_answered_with_nothing() {
    let port = port();
    for bytes in
        [&b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: something that probes ports\r\n\r\n"[..], &[0; 64], &[255; 64]]
    {
        let mut stream = TcpStream::connect(&port.address).unwrap();
        stream.write_all(bytes).unwrap();
        assert!(closed(&mut stream));
    }
    port.join();
}

#[test]
fn a_port_that_is_stopped_accepts_nobody() {
    let Port { address, _stop: stop, .. } = port();
    drop(stop);
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(&address).is_ok() {
        assert!(Instant::now() < deadline, "the listener must be closed");
    }
}

#[test]
fn only_a_system_without_descriptors_or_memory_makes_a_port_deaf() {
    for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
        assert!(is_exhausted(&errno.into()), "{errno}");
    }
    for errno in [Errno::PROTO, Errno::NETDOWN, Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::CONNABORTED, Errno::INTR]
    {
        assert!(!is_exhausted(&errno.into()), "{errno}");
    }
    assert!(!is_exhausted(&io::Error::other("something")));
}
