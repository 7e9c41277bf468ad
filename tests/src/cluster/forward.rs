//! A port of this machine's loopback interface that leads into a network namespace of the cluster. One thread enters the
//! namespace; sockets belong to the namespace in which they are made, so the listener stays outside.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::Path;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Ends with all its connections when it is dropped.
pub struct Forward {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Forward {
    /// Forwards to `to` in the network namespace that the file `namespace` stands for.
    ///
    /// # Errors
    /// If the namespace is gone or may not be entered.
    pub fn new(namespace: &Path, to: SocketAddr) -> Result<Self> {
        let namespace = File::open(namespace).with_context(|| format!("opening {}", namespace.display()))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let (entered, has_entered) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name(format!("forward to {to}")).spawn(move || {
            let runtime = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(std::io::Error::from)
                .and_then(|()| tokio::runtime::Builder::new_current_thread().enable_all().build());
            match runtime {
                Ok(runtime) => {
                    let _ = entered.send(Ok(()));
                    runtime.block_on(async {
                        tokio::select! {
                            () = serve(listener, to) => {}
                            _ = stopped => {}
                        }
                    });
                }
                Err(error) => drop(entered.send(Err(error))),
            }
        })?;
        has_entered.recv().context("the forwarding thread ended")?.context("entering the network namespace")?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where to connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://` and the address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, to: SocketAddr) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    while let Ok((mut outside, _)) = listener.accept().await {
        tokio::spawn(async move {
            // A target that refuses or goes away shows as a closed connection, as it would to a client in the cluster.
            if let Ok(mut inside) = TcpStream::connect(to).await {
                let _ = outside.set_nodelay(true);
                let _ = inside.set_nodelay(true);
                let _ = copy_bidirectional(&mut outside, &mut inside).await;
            }
        });
    }
}
