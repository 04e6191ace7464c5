//! The program's own log, on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{config::LogFormat, failure::Failure};

/// Starts logging. What the log filter does not understand is refused.
pub(crate) fn start(format: LogFormat, level: &str) -> Result<(), Failure> {
    let filter = EnvFilter::builder()
        .parse(level)
        .map_err(|e| Failure::usage(format!("`log.level` `{level}`: {e}")))?
        // At level trace it writes whole messages, and with them the keys of services.
        .add_directive("tungstenite=off".parse().expect("this is a directive"));
    let terminal = io::stderr().is_terminal();
    let pretty = match format {
        LogFormat::Auto => terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let layers = tracing_subscriber::registry().with(filter);
    // A second start in one process (tests) keeps the first one's log.
    let _ = if pretty {
        let lines = fmt::layer().with_writer(io::stderr).with_ansi(terminal);
        layers.with(lines).try_init()
    } else {
        layers
            .with(
                fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_writer(io::stderr),
            )
            .try_init()
    };
    Ok(())
}
