//! Driving the real binary.

#![allow(dead_code, clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use daybook_client::Client;
use serde_json::Value;

/// Tests that count blocks from the first, which a tracker's opening would shift.
const COUNTS_BLOCKS: [&str; 2] = ["cli", "client"];

/// The binary under test.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_daybook"));
    if COUNTS_BLOCKS.contains(&env!("CARGO_CRATE_NAME")) {
        command.env("DAYBOOK_TRACKER_ENABLED", "false");
    }
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DAYBOOK_") {
            command.env_remove(name);
        }
    }
    command
}

/// What a program says first, which is where it listens.
pub(crate) fn listening(child: &mut Child) -> Value {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    let mut log = child.stderr.take().unwrap();
    if line.is_empty() {
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        panic!("it does not start: {text}");
    }
    // Nothing reads the log of a program that runs on; its pipe must not fill up.
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::stderr()));
    let listening: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(listening["event"], "listening");
    listening
}

/// The next thing that a program says and that is wanted.
#[track_caller]
pub(crate) fn next(said: &mut impl BufRead, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "it ended before it said what is wanted");
        let value: Value = serde_json::from_str(&line).unwrap();
        if wanted(&value) {
            return value;
        }
    }
}

/// What a command answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the binary to its end.
pub(crate) fn daybook(args: &[&str]) -> Answer {
    daybook_with(args, &[])
}

/// Runs the binary to its end, with variables.
pub(crate) fn daybook_with(args: &[&str], environment: &[(&str, &str)]) -> Answer {
    let output = binary()
        .args(args)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    Answer {
        exit: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Answer {
    /// The answer, which has to be a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Answer {
        assert_eq!(self.exit, 0, "{self:?}");
        self
    }

    /// The JSON values that were answered, one per line.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The only JSON value that was answered.
    #[track_caller]
    pub(crate) fn one(&self) -> Value {
        let mut all = self.json();
        assert_eq!(all.len(), 1, "{self:?}");
        all.remove(0)
    }

    /// The last line of the log, which tells why a command failed.
    pub(crate) fn complaint(&self) -> &str {
        self.stderr.lines().last().unwrap_or_default()
    }

    /// Expects this exit code, and these words in the complaint.
    #[track_caller]
    pub(crate) fn fails(&self, exit: i32, words: &str) {
        assert_eq!(self.exit, exit, "{self:?}");
        assert!(self.complaint().contains(words), "{self:?}");
    }
}

/// Kills in a run of power cuts, unless it is said otherwise.
const ROUNDS_DEFAULT: u64 = 20;

/// Runs a test of power cuts: with the seed and the number of kills that `CRASH_SEED` and `CRASH_ROUNDS` name,
/// which it prints, so that a run that failed can be made again.
pub(crate) fn power_cuts<F: Future<Output = ()>>(run: impl FnOnce(u64, u64) -> F) {
    let number = |name: &str| {
        let text = std::env::var(name).ok();
        text.map(|text| text.parse::<u64>().unwrap())
    };
    let seed = number("CRASH_SEED").unwrap_or_else(rand::random);
    let rounds = number("CRASH_ROUNDS").unwrap_or(ROUNDS_DEFAULT);
    println!("CRASH_SEED={seed} CRASH_ROUNDS={rounds}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(run(seed, rounds));
}

/// Has a ledger checked from its first byte, all signatures included; gives the report, which finds nothing.
#[track_caller]
pub(crate) fn check(data_dir: &Path) -> Value {
    let dir = data_dir.display().to_string();
    let report = daybook(&["--json", "check", "--signatures", "--data-dir", &dir])
        .ok()
        .one();
    assert_eq!(report["ok"], true, "{report}");
    report
}

/// A running node; killed when dropped.
pub(crate) struct Node {
    child: Child,
    pub(crate) data_dir: PathBuf,
    /// What it said about where it listens.
    pub(crate) listening: Value,
}

impl Node {
    /// Starts a node on free ports and waits until it listens.
    #[track_caller]
    pub(crate) fn start(data_dir: &Path) -> Node {
        Node::start_with(data_dir, &[])
    }

    /// Starts a node with more flags, which may name other addresses.
    #[track_caller]
    pub(crate) fn start_with(data_dir: &Path, flags: &[&str]) -> Node {
        let mut command = binary();
        command
            .args(["--json", "start", "--data-dir"])
            .arg(data_dir)
            .args(["--log-level", "warn"]);
        for (flag, value) in [
            ("--listen", "127.0.0.1:0"),
            ("--streams-listen", "127.0.0.1:0"),
            ("--bus-listen", "127.0.0.1:0"),
        ] {
            if !flags.contains(&flag) {
                command.args([flag, value]);
            }
        }
        let mut child = command
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Node {
            listening: listening(&mut child),
            child,
            data_dir: data_dir.to_owned(),
        }
    }

    /// Its address, as flags want it.
    pub(crate) fn url(&self) -> &str {
        self.listening["http"].as_str().unwrap()
    }

    /// Its address without the scheme, to start another node on it.
    pub(crate) fn address(&self) -> &str {
        self.url().split_once("://").unwrap().1
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.url().parse().unwrap()).unwrap()
    }

    /// Asks it to stop and waits until it did.
    pub(crate) fn stop(mut self) -> ExitStatus {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Waits until it ends by itself.
    pub(crate) fn ended(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Kills it, as a power cut would, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body of a plain GET.
pub(crate) fn get(url: &str) -> Value {
    ask("GET", url)
}

/// The body of the answer to a POST that has none.
pub(crate) fn post(url: &str) -> Value {
    ask("POST", url)
}

fn ask(method: &str, url: &str) -> Value {
    let (address, path) = url.split_once("://").unwrap().1.split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "{method} /{path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// Every file below a folder, sorted.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path))
        } else {
            files.push(path)
        }
    }
    files.sort();
    files
}
