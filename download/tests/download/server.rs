//! A server of HTTP that answers as a test has it, also with half an answer.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Path and query; from a client that takes this server for a proxy, a whole URL.
    pub target: String,
    headers: Vec<(String, String)>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// First byte that is asked for.
    pub fn from(&self) -> usize {
        let range = self.header("range").and_then(|range| range.strip_prefix("bytes="));
        range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap())
    }
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Bytes of the body after which the connection ends.
    pub cut: Option<usize>,
    /// Bytes of the body after which nothing comes any more.
    pub stall: Option<usize>,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Of these bytes those that are asked for.
    pub fn of_range(asked: &Asked, bytes: &[u8]) -> Self {
        let from = asked.from();
        if asked.header("range").is_none() {
            return Self::new(200, bytes);
        }
        Self::new(206, &bytes[from..])
            .with("content-range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()))
    }
}

/// A server that runs as long as this process.
pub struct Server {
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<(Asked, usize)>>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (log, answer) = (Arc::<Mutex<Vec<(Asked, usize)>>>::default(), Arc::new(answer));
        let noted = Arc::clone(&log);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, answer) = (Arc::clone(&noted), Arc::clone(&answer));
                thread::spawn(move || serve(&stream.unwrap(), &log, answer.as_ref()));
            }
        });
        Self { address, log }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked for, with the bytes of the body that were sent.
    pub fn log(&self) -> Vec<(Asked, usize)> {
        self.log.lock().unwrap().clone()
    }

    /// Bytes that were sent of what has this in its path.
    pub fn sent(&self, part: &str) -> usize {
        let of_it = |(asked, _): &&(Asked, usize)| asked.method == "GET" && asked.target.contains(part);
        self.log().iter().filter(of_it).map(|(_, sent)| sent).sum()
    }

    /// How often something with this in its path was asked for.
    pub fn count(&self, part: &str) -> usize {
        self.log().iter().filter(|(asked, _)| asked.target.contains(part)).count()
    }
}

fn serve(stream: &TcpStream, log: &Mutex<Vec<(Asked, usize)>>, answer: &(impl Fn(&Asked) -> Answer + ?Sized)) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let mut words = first.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let headers = lines.take_while(|line| !line.is_empty());
    let headers =
        headers.filter_map(|line| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned())));
    let asked = Asked { method, target, headers: headers.collect() };
    let Answer { status, headers, body, cut, stall } = answer(&asked);
    let head: String = headers.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect();
    let length = if headers.iter().any(|(name, _)| name == "content-length") {
        String::new()
    } else {
        format!("content-length: {}\r\n", body.len())
    };
    let sent = if asked.method == "HEAD" { 0 } else { cut.or(stall).unwrap_or(body.len()) };
    // Noted before it is sent, so that whoever has received it finds it here.
    log.lock().unwrap().push((asked, sent));
    let mut stream = stream;
    let written = write!(stream, "HTTP/1.1 {status} x\r\nconnection: close\r\n{length}{head}\r\n");
    if written.and_then(|()| stream.write_all(&body[..sent])).is_ok() && stall.is_some() {
        // Until the other end is gone.
        let _ = BufReader::new(stream).read_line(&mut String::new());
    }
}
