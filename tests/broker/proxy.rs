//! A TCP proxy before a Kafka node: it cuts connections, and swallows or delays replies.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What happens to replies: requests always get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// They vanish, and the connection is cut when this is over, since it has a hole.
    Swallow,
    /// Each piece comes later.
    Delay(Duration),
}

/// Forwards connections to a port of this machine.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    pub(crate) target: u16,
    shared: Arc<Shared>,
}

struct Shared {
    fault: Mutex<Fault>,
    closed: AtomicBool,
    /// Both ends of each connection.
    connections: Mutex<Vec<[TcpStream; 2]>>,
}

impl Shared {
    fn fault(&self) -> Fault {
        *self.fault.lock().expect("not poisoned")
    }

    fn connections(&self) -> MutexGuard<'_, Vec<[TcpStream; 2]>> {
        self.connections.lock().expect("not poisoned")
    }
}

impl Proxy {
    /// Listens on a port of its own.
    pub(crate) fn before(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            fault: Mutex::new(Fault::None),
            closed: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.closed.load(Ordering::Relaxed) {
                    return;
                }
                // A node that is down: its client sees the connection end.
                if let Ok(server) = TcpStream::connect(("127.0.0.1", target)) {
                    connect(&accepting, client, server);
                }
            }
        });
        Self { port, target, shared }
    }

    /// Changes what happens to replies. Connections that lost some are cut.
    pub(crate) fn set(&self, fault: Fault) {
        *self.shared.fault.lock().expect("not poisoned") = fault;
    }

    /// Cuts every connection.
    pub(crate) fn cut(&self) {
        for end in self.shared.connections().drain(..).flatten() {
            // It may be gone already.
            end.shutdown(Shutdown::Both).unwrap_or_default();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        self.set(Fault::None);
        self.cut();
    }
}

fn connect(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) {
    let copies = || -> std::io::Result<[TcpStream; 4]> {
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        Ok([client.try_clone()?, server.try_clone()?, client.try_clone()?, server.try_clone()?])
    };
    let Ok([client_copy, server_copy, client_kept, server_kept]) = copies() else {
        return;
    };
    let mut connections = shared.connections();
    // Those that are over.
    connections.retain(|[client, _]| client.peer_addr().is_ok());
    connections.push([client_kept, server_kept]);
    std::thread::spawn(move || forward(client, server, || Fault::None));
    let shared = shared.clone();
    std::thread::spawn(move || forward(server_copy, client_copy, || shared.fault()));
}

/// Until one end closes.
fn forward(mut from: TcpStream, mut to: TcpStream, fault: impl Fn() -> Fault) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        match fault() {
            Fault::None => {}
            Fault::Delay(time) => std::thread::sleep(time),
            Fault::Swallow => {
                while fault() == Fault::Swallow {
                    std::thread::sleep(Duration::from_millis(20));
                }
                break;
            }
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    for end in [from, to] {
        end.shutdown(Shutdown::Both).unwrap_or_default();
    }
}
