//! An HTTP server on loopback that receives alerts: it answers as a test says, and can be killed and started again at its address.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a receiver does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// This status.
    Status(u16),
    /// 429, and when to come again, in seconds.
    TooMany(u64),
    /// Nothing, and the connection stays open.
    Hang,
    /// The connection is closed without an answer.
    Close,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) at: Instant,
    pub(crate) path: String,
    /// By name in small letters.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    pub(crate) answer: Answer,
}

impl Request {
    /// The key for deduplication.
    pub(crate) fn key(&self) -> &str {
        &self.headers["idempotency-key"]
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

#[derive(Default)]
struct State {
    /// What to do with the next requests; 200 when there is nothing left.
    answers: VecDeque<Answer>,
    requests: Vec<Request>,
    connections: Vec<TcpStream>,
}

/// The server.
pub(crate) struct Receiver {
    port: u16,
    state: Arc<Mutex<State>>,
    running: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Receiver {
    /// Starts one.
    pub(crate) fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .expect("loopback")
            .local_addr()
            .expect("an address")
            .port();
        let mut receiver = Self {
            port,
            state: Arc::default(),
            running: None,
        };
        receiver.restart();
        receiver
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// What to do with the next requests.
    pub(crate) fn answer(&self, answers: &[Answer]) {
        self.state().answers.extend(answers);
    }

    /// All requests that came, in order.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// Those that were answered with 200.
    pub(crate) fn accepted(&self) -> Vec<Request> {
        self.requests()
            .into_iter()
            .filter(|request| request.answer == Answer::Status(200))
            .collect()
    }

    /// Nobody listens any more, and open connections are cut.
    pub(crate) fn kill(&mut self) {
        let Some((stop, thread)) = self.running.take() else { return };
        stop.store(true, Ordering::Release);
        // Wakes the thread, which waits for a connection.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        thread.join().expect("the receiver ends");
        for connection in self.state().connections.drain(..) {
            drop(connection.shutdown(Shutdown::Both));
        }
    }

    /// Listens again at the same address.
    pub(crate) fn restart(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).expect("the address is free");
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, state) = (stop.clone(), self.state.clone());
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let state = state.clone();
                let kept = connection.try_clone().expect("a handle");
                state.lock().expect("not poisoned").connections.push(kept);
                std::thread::spawn(move || serve(connection, &state));
            }
        });
        self.running = Some((stop, thread));
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One request for each connection.
fn serve(mut connection: TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let answer = {
        let mut state = state.lock().expect("not poisoned");
        let answer = state.answers.pop_front().unwrap_or(Answer::Status(200));
        state.requests.push(Request {
            at: Instant::now(),
            path,
            headers,
            body,
            answer,
        });
        answer
    };
    let head = match answer {
        Answer::Status(status) => format!("HTTP/1.1 {status} Whatever\r\n"),
        Answer::TooMany(seconds) => format!("HTTP/1.1 429 Too Many Requests\r\nRetry-After: {seconds}\r\n"),
        Answer::Close => {
            drop(connection.shutdown(Shutdown::Both));
            return None;
        }
        Answer::Hang => {
            // Until the other side gives up.
            drop(connection.set_read_timeout(Some(Duration::from_secs(120))));
            drop(connection.read(&mut [0]));
            return None;
        }
    };
    write!(connection, "{head}Content-Length: 2\r\nConnection: close\r\n\r\nok").ok()
}
