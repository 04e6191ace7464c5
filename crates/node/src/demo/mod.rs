//! `daybook demo`: a small town that trades by itself. A node with its console, two robots that make
//! things, two providers that sell them energy, a shop that sells a file by the segment, a service on
//! the bus, three organisations that share a container's ledger, and a customer with some money.

mod books;
mod children;
mod council;
mod story;
mod town;
mod witness;

use std::{
    future::Future,
    io::{BufRead, Write},
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use children::end_with_parent;
use town::Town;

use crate::{
    cli::Demo,
    config::LogFormat,
    failure::{Exit, Failure},
    log,
    out::Out,
};

/// Bytes of an order that the made-up work reads at most.
const ORDER_BYTES_MAX: u64 = 64 << 10;
/// What a robot says while it works, and how long each part takes.
const WORK: [&str; 3] = ["parts fetched", "assembled", "packed"];
const WORK_PART: Duration = Duration::from_millis(250);

pub(crate) async fn run(args: &Demo, out: Out) -> Result<(), Failure> {
    if args.work {
        return work();
    }
    log::start(LogFormat::Auto, "error")?;
    let system = |e: std::io::Error| Failure::system("signals", &e);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
    let folder = tempfile::Builder::new()
        .prefix("daybook-demo-")
        .tempdir()
        .map_err(|e| Failure::system("a temporary directory", &e))?;
    let began = Instant::now();
    let mut town = Town::new(folder.path(), args.free_ports, out).await?;
    let played = tokio::select! {
        played = play(&mut town, args, began) => played,
        _ = interrupt.recv() => stopped(args),
        _ = terminate.recv() => stopped(args),
    };
    let ended = tokio::select! {
        ended = town.stop() => ended,
        _ = interrupt.recv() => Err(Failure::new(Exit::System, "stopped at once by a second Ctrl-C")),
    };
    if args.keep {
        let path = folder.keep();
        let place = path.display().to_string();
        let text = format!(
            "The data stay in {place}; to look at them: daybook start --data-dir {place}/node"
        );
        out.say(&json!({"event": "kept", "folder": place}), &text);
    }
    played.and(ended)
}

async fn play(town: &mut Town, args: &Demo, began: Instant) -> Result<(), Failure> {
    town.settle().await?;
    town.show(began.elapsed());
    if args.auto {
        story::play(town).await?;
        let books = books::reckon(town).await?;
        books.show(town.out, began.elapsed());
        return Ok(());
    }
    story::download(town).await?;
    story::agree(town).await?;
    town.say_what_to_try();
    town.run_on().await
}

/// A demo that a person ends is done; one that plays by itself has not said yet whether all adds up.
fn stopped(args: &Demo) -> Result<(), Failure> {
    match args.auto {
        false => Ok(()),
        true => Err(Failure::refused("stopped before the end of the story")),
    }
}

/// What a robot does for an order: nothing, in three parts that take their time.
fn work() -> Result<(), Failure> {
    use std::io::Read;
    let mut order = String::new();
    let mut input = std::io::BufReader::new(std::io::stdin().lock().take(ORDER_BYTES_MAX));
    input
        .read_line(&mut order)
        .map_err(|e| Failure::system("the order", &e))?;
    let order: serde_json::Value = serde_json::from_str(&order)
        .map_err(|e| Failure::usage(format!("the order is no JSON: {e}")))?;
    let mut say = std::io::stdout().lock();
    let mut told = |text: &str| {
        writeln!(say, "{text}")
            .and_then(|()| say.flush())
            .map_err(|e| Failure::system("standard output", &e))
    };
    for part in WORK {
        std::thread::sleep(WORK_PART);
        told(part)?;
    }
    told(&format!(
        "one {}, ready",
        order["product"].as_str().unwrap_or("piece")
    ))
}

/// The path of a file as an argument.
fn text_of(path: &Path) -> String {
    path.display().to_string()
}

/// Tries again until there is an answer, or the time is over.
async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> F,
) -> Result<T, Failure> {
    const PAUSE: Duration = Duration::from_millis(50);
    let deadline = tokio::time::Instant::now() + within;
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(Failure::new(
                Exit::Unknown,
                format!("{what}: not within {} s", within.as_secs()),
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
