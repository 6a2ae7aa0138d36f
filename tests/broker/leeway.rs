//! Instances of the `leeway` binary, as a user starts them.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The binary with a clean environment.
pub(crate) fn leeway() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leeway"));
    command.env_clear().current_dir(std::env::temp_dir());
    command
}

/// Runs a command to its end.
pub(crate) fn output(command: &mut Command) -> Output {
    command.output().expect("leeway runs")
}

/// Runs a command that has to succeed, and gives its standard output.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A running `leeway run`, or another command that goes on until it is stopped. Killed when dropped.
pub(crate) struct Worker {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Worker {
    /// Starts a worker with these arguments, a state directory and any free port.
    pub(crate) fn start(bootstrap: &str, state_dir: &Path, arguments: &[&str]) -> Self {
        let mut command = leeway();
        command
            .arg("run")
            .args(["--bootstrap-servers", bootstrap, "--http-port", "0", "--state-dir"])
            .arg(state_dir)
            .args(arguments);
        Self::spawn(&mut command)
    }

    /// Starts a command.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("leeway starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (stderr, seen) = (child.stderr.take().expect("a pipe"), lines.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                seen.lock().expect("lines").push(line);
            }
        });
        Self { child, lines }
    }

    /// Of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.lines.lock().expect("lines").join("\n")
    }

    /// The partitions for which it publishes a lag: those that it processes. None before it has an address, or when it does not answer.
    pub(crate) fn partitions(&self) -> BTreeSet<i64> {
        self.partitions_where(|_| true)
    }

    /// Those of one topic.
    pub(crate) fn partitions_of(&self, topic: &str) -> BTreeSet<i64> {
        let label = format!("topic=\"{topic}\"");
        self.partitions_where(|line| line.contains(&label))
    }

    fn partitions_where(&self, is_wanted: impl Fn(&str) -> bool) -> BTreeSet<i64> {
        let lines = self.scrape("kafka_consumer_lag");
        lines
            .iter()
            .filter(|line| is_wanted(line))
            .filter_map(|line| line.split("partition=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect()
    }

    /// The values of a metric, as [`Self::partitions`].
    pub(crate) fn metric(&self, name: &str) -> Vec<f64> {
        self.scrape(name)
            .iter()
            .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
            .collect()
    }

    /// Lines of `/metrics`.
    fn scrape(&self, name: &str) -> Vec<String> {
        let log = self.log();
        let Some(address) = log.split("http=").nth(1).and_then(|rest| rest.split_whitespace().next()) else {
            return Vec::new();
        };
        let request = ureq::get(format!("http://{address}/metrics"))
            .config()
            .timeout_global(Some(Duration::from_secs(5)))
            .build();
        let answer = request.call().and_then(|mut answer| answer.body_mut().read_to_string());
        let text = answer.unwrap_or_default();
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
        text.lines().filter(of_name).map(str::to_owned).collect()
    }

    /// Its exit status if it has ended.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().expect("a status")
    }

    /// Changelog records that each restore read, by task.
    pub(crate) fn replayed(&self) -> Vec<(String, u64)> {
        let field = |line: &str, name: &str| Some(line.split(name).nth(1)?.split(' ').next()?.to_owned());
        self.log()
            .lines()
            .filter(|line| line.contains("restored store"))
            .filter_map(|line| Some((field(line, "task=")?, field(line, "records=")?.parse().ok()?)))
            .collect()
    }

    /// Waits until it has logged this text so many times.
    pub(crate) fn wait_for(&mut self, text: &str, times: usize, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while self.lines.lock().expect("lines").iter().filter(|line| line.contains(text)).count() < times {
            assert!(
                self.child.try_wait().expect("a status").is_none(),
                "ended before {text:?}:\n{}",
                self.log()
            );
            assert!(Instant::now() < deadline, "no {text:?} within {timeout:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Panics with its log if it has ended.
    pub(crate) fn expect_running(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a status") {
            panic!("the worker ended with {status}:\n{}", self.log());
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id() as i32), signal).expect("the process is there");
    }

    /// Waits for the end and gives the exit code.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Option<i32> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "still running:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it as an orchestrator does: SIGTERM, and it must end with 0.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait(Duration::from_secs(60)), Some(0), "{}", self.log());
    }

    /// Kills it where it stands.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// The same, and its log stays readable.
    pub(crate) fn end(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().expect("a status");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}
