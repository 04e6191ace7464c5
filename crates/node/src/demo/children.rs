//! The demo's other programs: this very binary, each a process with a job of its own.

use std::{
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};

use crate::failure::{Exit, Failure};

/// Says to a program of ours that it is nothing without the one that started it.
const ENDS_WITH_PARENT: &str = "DEMO_ENDS_WITH_PARENT";
/// Variables that a program is started with; what else is set is meant for other programs.
const PASSED_ON: [&str; 5] = ["HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"];
/// How long a program may take to say that it is there: keys are derived meanwhile, on few cores.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How long one that was asked to stop may take.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// Events of a program that wait to be looked at; older ones are not missed.
const SAID_MAX: usize = 64;
/// Bytes of a complaint that are shown.
const COMPLAINT_BYTES_MAX: u64 = 4 << 10;

/// Starts programs, and ends those that run on.
pub(super) struct Children {
    program: PathBuf,
    /// Where each keeps its log.
    logs: PathBuf,
    /// Where programs are looked for: the demo's own folder first.
    path: std::ffi::OsString,
    running: Vec<Running>,
}

/// A program that runs on.
struct Running {
    name: String,
    child: Child,
}

/// What a program says, one JSON value per line.
pub(super) struct Said(mpsc::Receiver<Value>);

/// Asks the system to stop this process when the demo that started it is gone, even if it was killed.
pub(crate) fn end_with_parent() {
    if std::env::var_os(ENDS_WITH_PARENT).is_some()
        && let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
    {
        // It is stopped in order all the same, unless the demo is killed.
        eprintln!("daybook: this process may outlive the demo: {error}");
    }
}

impl Children {
    pub(super) fn new(folder: &Path) -> Result<Children, Failure> {
        let system = |e: std::io::Error| Failure::system("starting programs", &e);
        let program = std::env::current_exe().map_err(system)?;
        let (logs, bin) = (folder.join("logs"), folder.join("bin"));
        std::fs::create_dir(&logs).map_err(system)?;
        std::fs::create_dir(&bin).map_err(system)?;
        // Work commands are words with blanks between, which the path of a program may have too.
        std::os::unix::fs::symlink(&program, bin.join("daybook")).map_err(system)?;
        let rest = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&rest)))
            .unwrap_or(rest);
        Ok(Children {
            program,
            logs,
            path,
            running: Vec::new(),
        })
    }

    fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        let passed = PASSED_ON
            .iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?)));
        command
            .arg("--json")
            .args(args)
            .env_clear()
            .envs(passed)
            .env("PATH", &self.path)
            .env(ENDS_WITH_PARENT, "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for the demo, which stops them in order.
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// Starts a program that runs on, and waits until it says `event`.
    pub(super) async fn start<S: AsRef<OsStr>>(
        &mut self,
        name: &str,
        args: &[S],
        event: &str,
    ) -> Result<(Value, Said), Failure> {
        let path = self.logs.join(format!("{name}.log"));
        let log = File::create(&path).map_err(|e| Failure::system(path.display(), &e))?;
        let mut child = self
            .command(args)
            .stderr(log)
            .spawn()
            .map_err(|e| Failure::system(name, &e))?;
        let stdout = child.stdout.take().expect("its standard output is piped");
        self.running.push(Running {
            name: name.to_owned(),
            child,
        });
        let mut said = listen(stdout);
        match timeout(START_WITHIN, said.event(event)).await {
            Ok(Some(told)) => Ok((told, said)),
            Ok(None) => {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                Err(Failure::refused(format!(
                    "{name} does not start: {}",
                    complaint(&text)
                )))
            }
            Err(_) => Err(Failure::refused(format!("{name} does not start in time"))),
        }
    }

    /// Runs a program to its end; answers what it said.
    pub(super) async fn ask<S: AsRef<OsStr>>(
        &self,
        what: &str,
        args: &[S],
        within: Duration,
    ) -> Result<Vec<Value>, Failure> {
        let mut child = self
            .command(args)
            .spawn()
            .map_err(|e| Failure::system(what, &e))?;
        let mut said = listen(child.stdout.take().expect("its standard output is piped"));
        let mut stderr = child.stderr.take().expect("its standard error is piped");
        let running = async {
            let mut values = Vec::new();
            let mut text = String::new();
            let hear = async {
                while let Some(value) = said.0.recv().await {
                    values.push(value);
                }
            };
            let read = async {
                // A complaint that is no text is none that could be shown.
                let _ = (&mut stderr)
                    .take(COMPLAINT_BYTES_MAX)
                    .read_to_string(&mut text)
                    .await;
                // What is longer than a complaint is not waited for in a full pipe.
                let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
            };
            tokio::join!(hear, read);
            (child.wait().await, values, text)
        };
        match timeout(within, running).await {
            Ok((Ok(status), values, _)) if status.success() => Ok(values),
            Ok((Ok(status), _, text)) => Err(failed(what, status, &text)),
            Ok((Err(error), ..)) => Err(Failure::system(what, &error)),
            Err(_) => Err(Failure::new(
                Exit::Unknown,
                format!("{what}: no end within {} s", within.as_secs()),
            )),
        }
    }

    /// Waits until one that should run on has ended; answers its name.
    pub(super) async fn ended(&mut self) -> String {
        if self.running.is_empty() {
            return std::future::pending().await;
        }
        let waiting = self.running.iter_mut().map(|running| {
            let name = &running.name;
            let child = &mut running.child;
            Box::pin(async move {
                let _ = child.wait().await;
                name.clone()
            })
        });
        futures_util::future::select_all(waiting).await.0
    }

    /// Stops all in order, those that were started last first; what does not stop is killed.
    pub(super) async fn stop(mut self) {
        while let Some(Running { name, mut child }) = self.running.pop() {
            if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::TERM);
            }
            if timeout(STOP_WITHIN, child.wait()).await.is_err() {
                tracing::warn!(name, "a program did not stop and is killed");
                let _ = child.kill().await;
            }
        }
    }
}

impl Said {
    /// Waits for an event of this name; `None` when the program has ended.
    pub(super) async fn event(&mut self, name: &str) -> Option<Value> {
        loop {
            let value = self.0.recv().await?;
            if value["event"] == name {
                return Some(value);
            }
        }
    }
}

/// Hears what a program says, whether or not anybody looks at it: a full pipe would hold it up.
fn listen(stdout: tokio::process::ChildStdout) -> Said {
    let (tell, said) = mpsc::channel(SAID_MAX);
    tokio::spawn(async move {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Ok(value) = serde_json::from_str::<Value>(&line) {
                let _ = tell.try_send(value);
            }
        }
    });
    Said(said)
}

fn failed(what: &str, status: ExitStatus, text: &str) -> Failure {
    let exit = status
        .code()
        .and_then(Exit::from_code)
        .unwrap_or(Exit::Refused);
    Failure::new(exit, format!("{what}: {}", complaint(text)))
}

/// The last line of a log, which says why a program ended.
fn complaint(text: &str) -> String {
    let last = text.lines().next_back().unwrap_or("it says nothing");
    let value: Option<Value> = serde_json::from_str(last).ok();
    let message = value.as_ref().and_then(|value| value["message"].as_str());
    message.unwrap_or(last).to_owned()
}
