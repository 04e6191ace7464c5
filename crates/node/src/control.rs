//! The control socket: how other `daybook` commands on the same machine reach a running node.
//!
//! One request per connection, one JSON object per line, both ways. Only the owner of the data
//! directory can open it.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    os::unix::{
        fs::PermissionsExt,
        io::AsRawFd,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use daybook_pipeline::Node;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    backup::{self, Running},
    bus::Reloader,
    datadir::DataDir,
    failure::{Exit, Failure},
    member::House,
    node::Listening,
};

/// Bytes of one request line at most: a path and a verb.
const REQUEST_BYTES_MAX: u64 = 16 << 10;
/// How long a request may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest address of a Unix-domain socket that systems take, with some to spare.
const SOCKET_PATH_MAX: usize = 100;

/// A request to a running node.
#[derive(Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Copy the node's data into a new folder.
    Backup { to: PathBuf },
    /// Tell where it listens.
    Listening,
    /// Read the keys of the service bus anew.
    BusReload,
}

/// What a running node says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Reply {
    Progress { done: u64, total: u64 },
    Done { answer: serde_json::Value },
    Failed { exit: i32, message: String },
}

/// The listening end; removed when dropped.
pub(crate) struct Control {
    path: PathBuf,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    pub(crate) fn start(
        dir: &DataDir,
        node: Node,
        listening: &Listening,
        bus: Option<Reloader>,
        house: Option<Arc<House>>,
    ) -> Result<Control, Failure> {
        let path = dir.control_socket();
        let system = |error: io::Error| Failure::system(path.display(), &error);
        // The lock says that no other node runs here, so what lies there is a leftover.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(system(error)),
            _ => {}
        }
        let listener = with_short_path(&path, |path| UnixListener::bind(path)).map_err(system)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(system)?;
        let ended = Arc::new(AtomicBool::new(false));
        let answer = json!({
            "http": listening.http_url(listening.http),
            "streams": listening.streams_url(),
            "bus": listening.bus_url(),
            "pid": std::process::id(),
        });
        let thread = {
            let (dir, ended) = (dir.clone(), ended.clone());
            thread::Builder::new()
                .name("control".to_owned())
                .spawn(move || {
                    for stream in listener.incoming() {
                        if ended.load(Ordering::Acquire) {
                            return;
                        }
                        if let Ok(stream) = stream {
                            let running = Running {
                                bus: bus.as_ref(),
                                house: house.as_deref(),
                            };
                            serve(stream, &dir, &node, &answer, running);
                        }
                    }
                })
                .map_err(system)?
        };
        Ok(Control {
            path,
            ended,
            thread: Some(thread),
        })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // Wakes the thread from its wait for a connection. A backup that is under way is finished
        // first only if the process lives that long.
        let woken = with_short_path(&self.path, |path| UnixStream::connect(path)).is_ok();
        let _ = fs::remove_file(&self.path);
        if let (true, Some(thread)) = (woken, self.thread.take())
            && thread.is_finished()
        {
            let _ = thread.join();
        }
    }
}

/// Asks the node that runs on `dir`. `None` when none does.
pub(crate) fn ask(
    dir: &DataDir,
    request: &Request,
    mut progress: impl FnMut(u64, u64),
) -> Result<Option<serde_json::Value>, Failure> {
    let path = dir.control_socket();
    let system = |error: io::Error| Failure::system(path.display(), &error);
    let mut stream = match with_short_path(&path, |path| UnixStream::connect(path)) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(system(error)),
    };
    let request = serde_json::to_string(request).expect("requests are plain data");
    writeln!(stream, "{request}").map_err(system)?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(system)?;
        let reply: Reply = serde_json::from_str(&line)
            .map_err(|e| Failure::new(Exit::Unknown, format!("{}: {e}", path.display())))?;
        match reply {
            Reply::Progress { done, total } => progress(done, total),
            Reply::Done { answer } => return Ok(Some(answer)),
            Reply::Failed { exit, message } => {
                let exit = Exit::from_code(exit).unwrap_or(Exit::Refused);
                return Err(Failure::new(exit, message));
            }
        }
    }
    Err(Failure::new(
        Exit::Unknown,
        "the node ended before it answered",
    ))
}

fn serve(
    mut stream: UnixStream,
    dir: &DataDir,
    node: &Node,
    listening: &serde_json::Value,
    running: Running<'_>,
) {
    let _ = stream.set_read_timeout(Some(REQUEST_TIMEOUT));
    let _ = stream.set_write_timeout(Some(REQUEST_TIMEOUT));
    let mut line = String::new();
    let read = io::Read::take(&stream, REQUEST_BYTES_MAX);
    if BufReader::new(read).read_line(&mut line).is_err() {
        return;
    }
    let mut say = |reply: &Reply| {
        let text = serde_json::to_string(reply).expect("replies are plain data");
        // Whoever asked may have gone; what was asked for is finished all the same.
        let _ = writeln!(stream, "{text}");
    };
    let result = match serde_json::from_str(&line) {
        Ok(Request::Listening) => Ok(listening.clone()),
        Ok(Request::BusReload) => match running.bus {
            Some(bus) => bus.reload(),
            None => Ok(serde_json::json!({"closed": 0})),
        },
        Ok(Request::Backup { to }) => {
            tracing::info!(to = %to.display(), "backup begins");
            let mut told = 0;
            let result = backup::write(dir, node.store(), running, &to, &mut |done, total| {
                // A hundred steps are enough for a bar.
                let step = done.saturating_mul(100) / total.max(1);
                if step > told {
                    told = step;
                    say(&Reply::Progress { done, total });
                }
            });
            match &result {
                Ok(_) => tracing::info!(to = %to.display(), "backup done"),
                Err(failure) => tracing::warn!(to = %to.display(), %failure, "backup failed"),
            }
            result
        }
        Err(error) => Err(Failure::usage(format!("control request: {error}"))),
    };
    match result {
        Ok(answer) => say(&Reply::Done { answer }),
        Err(failure) => {
            say(&Reply::Failed {
                exit: failure.exit as i32,
                message: failure.message,
            });
        }
    }
}

/// Socket addresses are short; a deep data directory is reached through its descriptor.
fn with_short_path<T>(path: &Path, act: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= SOCKET_PATH_MAX {
        return act(path);
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = fs::File::open(dir)?;
    act(&PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name))
}
