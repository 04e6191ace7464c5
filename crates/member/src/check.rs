//! The executable check: a program of the member's own that says yes or no to a proposal.

use std::{path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

/// Bytes of a check's output that are read: the first line is the reason.
const OUTPUT_BYTES_MAX: u64 = 8 << 10;
/// Variables that a check gets from the member's own environment; none of them holds a secret.
const PASSED_ON: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// A program that decides. It reads the proposal as JSON from its standard input; exit code 0 is yes,
/// any other is no, and the first line of its standard output is the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// How long it may take. Who takes longer said neither yes nor no.
    pub within: Duration,
}

/// What a check said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Yes,
    No(String),
    /// It could not be asked, which is no answer: why.
    Nothing(String),
}

impl Check {
    /// Asks about a proposal.
    pub(crate) async fn ask(&self, proposal: &str) -> Said {
        let mut child = match Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(
                PASSED_ON
                    .iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A group of its own, so that what it started ends with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
        {
            Ok(child) => child,
            Err(error) => return Said::Nothing(format!("it could not be started: {error}")),
        };
        let group = child.id();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let writing = async {
            if let Some(mut stdin) = stdin {
                // A check need not read.
                let _ = stdin.write_all(proposal.as_bytes()).await;
                let _ = stdin.write_all(b"\n").await;
            }
        };
        let reading = async {
            let mut output = Vec::new();
            if let Some(stdout) = stdout {
                let mut first = stdout.take(OUTPUT_BYTES_MAX);
                let _ = first.read_to_end(&mut output).await;
                // A check that says much is not held up by a full pipe.
                let mut rest = first.into_inner();
                let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
            }
            output
        };
        let work = async {
            let ((), output, status) = tokio::join!(writing, reading, child.wait());
            (output, status)
        };
        let ended = tokio::time::timeout(self.within, work).await;
        let group = group
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw);
        if ended.is_err()
            && let Some(group) = group
        {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        match ended {
            Err(_) => Said::Nothing(format!(
                "it did not end within {} ms",
                self.within.as_millis()
            )),
            Ok((_, Err(error))) => Said::Nothing(error.to_string()),
            Ok((_, Ok(status))) if status.success() => Said::Yes,
            // Killed from outside, it decided nothing.
            Ok((_, Ok(status))) if status.code().is_none() => Said::Nothing(status.to_string()),
            Ok((output, Ok(_))) => {
                let output = String::from_utf8_lossy(&output);
                let reason = output.lines().next().unwrap_or("").trim();
                Said::No(reason.to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(script: &str, within_ms: u64) -> Said {
        let check = Check {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            within: Duration::from_millis(within_ms),
        };
        check.ask("{\"cargo\":\"lamps\"}").await
    }

    #[tokio::test]
    async fn a_check_reads_the_proposal_and_its_first_line_is_the_reason() {
        assert_eq!(ask("grep -q lamps", 60_000).await, Said::Yes);
        assert_eq!(ask("exit 0", 60_000).await, Said::Yes);
        let no = ask("echo ' no lamps here '; echo more; exit 3", 60_000).await;
        assert_eq!(no, Said::No("no lamps here".to_owned()));
        assert_eq!(ask("exit 1", 60_000).await, Said::No(String::new()));
    }

    #[tokio::test]
    async fn a_check_that_cannot_be_asked_says_neither_yes_nor_no() {
        assert!(matches!(
            ask("sleep 1000 & wait", 100).await,
            Said::Nothing(_)
        ));
        assert!(matches!(ask("kill -9 $$", 60_000).await, Said::Nothing(_)));
        let missing = Check {
            program: "/no/such/program".into(),
            arguments: Vec::new(),
            within: Duration::from_secs(60),
        };
        assert!(matches!(missing.ask("{}").await, Said::Nothing(_)));
    }

    #[tokio::test]
    async fn a_check_that_says_very_much_ends() {
        assert_eq!(ask("head -c 3000000 /dev/zero", 60_000).await, Said::Yes);
    }
}
