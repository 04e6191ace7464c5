//! The work hook: a program or a web address that does the work of an order.

use std::{path::PathBuf, process::Stdio, time::Duration};

use http::Method;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::Command,
    sync::mpsc,
    time::Instant,
};

use crate::web::{Url, Web};

/// Bytes of a hook's result that are kept; of a line of progress that are told.
const RESULT_BYTES_MAX: usize = 4096;
/// Bytes of one line of a hook's output: more ends the hook.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Lines of progress that are told in one order: beyond it, the output goes on unheard.
const LINES_MAX: usize = 1_000;
/// Variables that a hook gets from the machine's own environment; none of them holds a secret.
const PASSED_ON: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// What does the work.
#[derive(Clone, Debug)]
pub enum Hook {
    /// A program; it reads the order from its standard input. Its lines are its progress, the last one
    /// is its result, and any exit but 0 is a failure.
    Program {
        /// The program.
        path: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
    },
    /// An address that the order is posted to. Any status of 200 to 299 is a success, and the body is
    /// the result.
    Http(Url),
}

impl Hook {
    /// Reads `WORK_CMD`: a web address, or a program and its arguments with blanks between.
    pub fn parse(text: &str) -> Option<Hook> {
        let text = text.trim();
        if text.starts_with("http://") || text.starts_with("https://") {
            return text.parse().ok().map(Hook::Http);
        }
        let mut words = text.split_whitespace();
        let path = words.next()?.into();
        Some(Hook::Program {
            path,
            arguments: words.map(str::to_owned).collect(),
        })
    }

    /// Does the work; progress goes into `lines`.
    ///
    /// # Errors
    /// Why it failed, in words.
    pub(crate) async fn run(
        &self,
        web: &Web,
        order: &Value,
        within: Duration,
        lines: mpsc::Sender<String>,
    ) -> Result<String, String> {
        match self {
            Hook::Http(url) => post(web, url, order, within).await,
            Hook::Program { path, arguments } => {
                let mut command = Command::new(path);
                command.args(arguments);
                start(command, order, within, lines).await
            }
        }
    }
}

async fn post(web: &Web, url: &Url, order: &Value, within: Duration) -> Result<String, String> {
    let order_id = order["order_id"].as_str().unwrap_or_default().to_owned();
    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", order_id.as_str()),
    ];
    let answer = web
        .send(Method::POST, url, &headers, order.to_string(), within)
        .await
        .map_err(|error| error.to_string())?;
    let text = shortened(&String::from_utf8_lossy(&answer.body));
    if answer.status.is_success() {
        Ok(text)
    } else {
        Err(format!("status {}: {text}", answer.status.as_u16()))
    }
}

async fn start(
    mut command: Command,
    order: &Value,
    within: Duration,
    lines: mpsc::Sender<String>,
) -> Result<String, String> {
    let deadline = Instant::now() + within;
    command
        .env_clear()
        .envs(PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .env("ORDER_ID", order["order_id"].as_str().unwrap_or_default())
        .env("MACHINE_NAME", order["machine"].as_str().unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that what it started ends with it.
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .map_err(|error| format!("it could not be started: {error}"))?;
    let group = child.id();
    let mut stdin = child.stdin.take();
    let text = format!("{order}\n");
    let writing = tokio::spawn(async move {
        if let Some(stdin) = &mut stdin {
            // A hook need not read.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
    });
    let stderr = child.stderr.take();
    let complaining = tokio::spawn(async move {
        let mut last = Vec::new();
        if let Some(mut stderr) = stderr {
            let mut piece = [0; 1024];
            while let Ok(read @ 1..) = stderr.read(&mut piece).await {
                last.extend_from_slice(&piece[..read]);
                let over = last.len().saturating_sub(RESULT_BYTES_MAX);
                last.drain(..over);
            }
        }
        String::from_utf8_lossy(&last).trim().to_owned()
    });
    let work = async {
        let mut result = String::new();
        if let Some(stdout) = child.stdout.take() {
            let mut stdout = BufReader::new(stdout);
            let mut told = 0;
            loop {
                let mut line = Vec::new();
                let read = (&mut stdout)
                    .take(LINE_BYTES_MAX)
                    .read_until(b'\n', &mut line)
                    .await
                    .map_err(|error| format!("its output: {error}"))?;
                if read == 0 {
                    break;
                }
                if read as u64 == LINE_BYTES_MAX {
                    return Err(format!("a line of more than {LINE_BYTES_MAX} bytes"));
                }
                let line = shortened(String::from_utf8_lossy(&line).trim_end());
                if !line.is_empty() {
                    if told < LINES_MAX {
                        told += 1;
                        // Nobody listens any more when the machine stops.
                        let _ = lines.send(line.clone()).await;
                    }
                    result = line;
                }
            }
        }
        let status = child.wait().await.map_err(|error| error.to_string())?;
        Ok((result, status))
    };
    let ended = tokio::time::timeout_at(deadline, work).await;
    if !matches!(ended, Ok(Ok(_)))
        && let Some(group) = group
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    writing.abort();
    match ended {
        Err(_) => Err(format!("it did not end within {} ms", within.as_millis())),
        Ok(Err(reason)) => Err(reason),
        Ok(Ok((result, status))) if status.success() => Ok(result),
        Ok(Ok((_, status))) => {
            // What it complained about is there by now, unless something it started holds the pipe.
            let complaint = tokio::time::timeout(Duration::from_millis(200), complaining).await;
            let complaint = complaint.ok().and_then(Result::ok).unwrap_or_default();
            let reason = match complaint.lines().last() {
                Some(line) => format!("{status}: {line}"),
                None => status.to_string(),
            };
            Err(shortened(&reason))
        }
    }
}

fn shortened(text: &str) -> String {
    let mut end = text.len().min(RESULT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    async fn run(script: &str, within_ms: u64) -> (Result<String, String>, Vec<String>) {
        let hook = Hook::Program {
            path: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
        };
        let (lines, mut heard) = mpsc::channel(100);
        let web = Web::new(None).unwrap();
        let order = json!({"order_id": "o-1", "machine": "Robot1", "product": "lamp"});
        let within = Duration::from_millis(within_ms);
        let result = hook.run(&web, &order, within, lines).await;
        let mut told = Vec::new();
        while let Ok(line) = heard.try_recv() {
            told.push(line);
        }
        (result, told)
    }

    #[tokio::test]
    async fn a_hook_reads_the_order_and_tells_its_progress_and_result() {
        let (result, told) = run("echo half; grep -o lamp; echo $ORDER_ID", 60_000).await;
        assert_eq!(result.unwrap(), "o-1");
        assert_eq!(told, ["half", "lamp", "o-1"]);
        // A hook that does not read is a hook too.
        assert_eq!(run("exit 0", 60_000).await.0.unwrap(), "");
    }

    #[tokio::test]
    async fn a_hook_that_fails_says_why() {
        let (result, _) = run("echo out of paint >&2; exit 3", 60_000).await;
        let reason = result.unwrap_err();
        assert!(
            reason.contains('3') && reason.contains("out of paint"),
            "{reason}"
        );
        let hook = Hook::parse("/no/such/program at all").unwrap();
        let (lines, _) = mpsc::channel(1);
        let web = Web::new(None).unwrap();
        hook.run(&web, &json!({}), Duration::from_secs(5), lines)
            .await
            .unwrap_err();
    }

    #[tokio::test]
    async fn a_hook_that_hangs_is_ended_with_all_that_it_started() {
        let (result, told) = run("sleep 1000 & echo $!; wait", 300).await;
        assert!(result.unwrap_err().contains("300 ms"));
        let left = std::path::Path::new("/proc").join(&told[0]).join("stat");
        // Gone, or dead and not yet reaped, as soon as the kernel comes to it.
        let ended = async {
            while std::fs::read_to_string(&left).is_ok_and(|stat| !stat.contains(") Z")) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ended)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_hook_gets_nothing_of_the_environment_that_may_be_secret() {
        let (result, _) = run("env | cut -d= -f1 | sort | tr '\\n' ' '", 60_000).await;
        for name in result.unwrap().split_whitespace() {
            let known = ["ORDER_ID", "MACHINE_NAME", "PWD", "SHLVL", "_", "OLDPWD"];
            assert!(PASSED_ON.contains(&name) || known.contains(&name), "{name}");
        }
    }
}
