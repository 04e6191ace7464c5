//! `daybook bus call`, `serve`, `subscribe` and `services`: a service on the command line.

use std::{process::Stdio, sync::Arc, time::Duration};

use daybook_client::bus::{
    Bus, BusError, BusKey, Call, Delivery, Incoming, Reply, ServiceError, Subscribe,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    sync::Semaphore,
};

use crate::{
    bus::read_key,
    cli::{Bus as Verb, BusCall, BusFlags, BusServe, BusServices, BusSubscribe},
    failure::{Exit, Failure},
    out::Out,
};

/// How long a command may take to answer one request: no call waits longer.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes of a command's answer at most.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

pub(crate) async fn run(args: Verb, out: Out) -> Result<(), Failure> {
    match args {
        Verb::Call(args) => call(&args, out).await,
        Verb::Serve(args) => serve(args, out).await,
        Verb::Subscribe(args) => subscribe(&args, out).await,
        Verb::Services(args) => services(&args, out).await,
        Verb::Service(_) => unreachable!("services are kept without a connection"),
    }
}

async fn connect(flags: &BusFlags) -> Result<Bus, Failure> {
    let key = read_key(&flags.key_file)?;
    let mut builder = Bus::builder(flags.broker.url.clone(), &flags.name, BusKey::new(&key));
    if let Some(path) = &flags.authorities.ca_file {
        builder = builder.ca_file(path);
    }
    Ok(builder.connect().await?)
}

async fn call(args: &BusCall, out: Out) -> Result<(), Failure> {
    let text = match args.data.as_str() {
        "-" => {
            std::io::read_to_string(std::io::stdin()).map_err(|e| Failure::system("data", &e))?
        }
        data => match data.strip_prefix('@') {
            Some(path) => std::fs::read_to_string(path).map_err(|e| Failure::system(path, &e))?,
            None => data.to_owned(),
        },
    };
    let data: Value =
        serde_json::from_str(&text).map_err(|e| Failure::usage(format!("data: {e}")))?;
    let call = Call {
        timeout: args.timeout,
        delivery: args.delivery.as_deref().map(|word| match word {
            "one" => Delivery::One,
            "all" => Delivery::All,
            _ => Delivery::Auto,
        }),
        reply: match args.reply.as_str() {
            "all" => Reply::All,
            "none" => Reply::None,
            _ => Reply::First,
        },
        retry: args.retry,
        request_id: args.request_id.clone(),
        ..Call::default()
    };
    let bus = connect(&args.bus).await?;
    let answer = bus.call(&args.request, &data, call).await?;
    out.line(&answer.to_string());
    Ok(())
}

async fn serve(args: BusServe, out: Out) -> Result<(), Failure> {
    let bus = connect(&args.bus).await?;
    let how = Subscribe {
        queue: args.queue.clone(),
        max_in_flight: Some(args.at_once),
        ..Subscribe::default()
    };
    let mut requests = bus.subscribe(&args.request, how).await?;
    let turns = Arc::new(Semaphore::new(args.at_once as usize));
    let command = Arc::new(args.command);
    let mut left = args.max.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(request) = requests.next().await else {
            return Err(BusError::Closed.into());
        };
        left -= 1;
        let Ok(turn) = turns.clone().acquire_owned().await else {
            break;
        };
        let command = command.clone();
        out.line(&request.body.to_string());
        tokio::spawn(async move {
            let _turn = turn;
            answer(&request, &command).await;
        });
    }
    // Those that were begun are finished, and the broker has read their answers.
    let _all = turns.acquire_many(args.at_once).await;
    Ok(bus.close().await?)
}

async fn answer(request: &Incoming, command: &[String]) {
    let Some((program, arguments)) = command.split_first() else {
        return request.answer(request.data()).await;
    };
    match tokio::time::timeout(COMMAND_TIMEOUT, ask(program, arguments, request)).await {
        Ok(Ok(data)) => request.answer(&data).await,
        Ok(Err(message)) => {
            let error = ServiceError::new("command_failed", 500, &message);
            request.refuse(&error).await;
        }
        Err(_) => {
            let error = ServiceError::new("timeout", 504, "the command took too long");
            request.refuse(&error).await;
        }
    }
}

/// Runs a command with the request's data as its input; its output is the answer.
async fn ask(program: &str, arguments: &[String], request: &Incoming) -> Result<Value, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .env(
            "DAYBOOK_BUS_REQUEST",
            request.body["name"].as_str().unwrap_or_default(),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("{program}: {e}"))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let input = request.data().to_string();
    let write = async {
        if let Some(mut stdin) = stdin {
            // A command that does not read its input is none the worse for it.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let read = async {
        if let Some(stdout) = stdout {
            let _ = stdout
                .take(ANSWER_BYTES_MAX + 1)
                .read_to_end(&mut said)
                .await;
        }
    };
    let listen = async {
        if let Some(stderr) = stderr {
            let _ = stderr
                .take(ANSWER_BYTES_MAX)
                .read_to_end(&mut complained)
                .await;
        }
    };
    tokio::join!(write, read, listen);
    let status = child.wait().await.map_err(|e| format!("{program}: {e}"))?;
    if !status.success() {
        let why = String::from_utf8_lossy(&complained);
        let why: String = why.trim().chars().take(1_000).collect();
        return Err(if why.is_empty() {
            status.to_string()
        } else {
            why
        });
    }
    if said.len() as u64 > ANSWER_BYTES_MAX {
        return Err("the answer is too long".to_owned());
    }
    serde_json::from_slice(&said).map_err(|e| format!("{program} did not answer with JSON: {e}"))
}

async fn subscribe(args: &BusSubscribe, out: Out) -> Result<(), Failure> {
    let bus = connect(&args.bus).await?;
    let how = Subscribe {
        queue: args.queue.clone(),
        durable: args.durable,
        from: args.from.clone(),
        kinds: args.kind.clone(),
        keys: args.key.clone(),
        ..Subscribe::default()
    };
    let mut messages = bus.subscribe(&args.request, how).await?;
    let mut left = args.max.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(message) = messages.next().await else {
            return Err(BusError::Closed.into());
        };
        left -= 1;
        let line = match message.body["name"].as_str() == Some(&*message.name) {
            true => message.body.to_string(),
            false => serde_json::json!({"event": message.name, "body": message.body}).to_string(),
        };
        out.line(&line);
        if args.durable {
            message.acknowledge().await;
        }
    }
    // The broker has read the last acknowledgement then.
    Ok(bus.close().await?)
}

async fn services(args: &BusServices, out: Out) -> Result<(), Failure> {
    let client = crate::remote::builder(&args.broker.url, &args.trust)?.build()?;
    let answer: Value = daybook_client::bus::services(&client).await?;
    let Some(all) = answer["result"].as_object() else {
        return Err(Failure::new(
            Exit::Unknown,
            "the answer is not a list of services",
        ));
    };
    for service in all.values() {
        let names: Vec<&str> = service["subscribed_events"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        out.say(
            service,
            &format!(
                "{}  {}",
                service["id"].as_str().unwrap_or_default(),
                names.join(" ")
            ),
        );
    }
    Ok(())
}

impl From<BusError> for Failure {
    fn from(error: BusError) -> Failure {
        let exit = match &error {
            BusError::Answered(error) => match error.code.as_str() {
                "timeout" | "no_responders" | "overloaded" | "rate_limited" => Exit::Unreachable,
                _ => Exit::Refused,
            },
            BusError::Refused(_) => Exit::Refused,
            BusError::Connection(_) | BusError::Closed => Exit::Unreachable,
            _ => Exit::Refused,
        };
        Failure::new(exit, error.to_string())
    }
}
