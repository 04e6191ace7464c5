//! The `daybook` binary: a ledger node, and the tools to run and use one.

mod backup;
mod bench;
mod bus;
mod bus_client;
mod channel;
mod check;
mod cli;
mod config;
mod consortium;
mod control;
mod datadir;
mod demo;
#[cfg(test)]
mod documentation;
mod events;
mod failure;
mod faucet;
mod keyfile;
mod keys;
mod ledger_command;
mod log;
mod machine;
mod member;
mod member_card;
mod member_network;
mod node;
mod order;
mod out;
mod outputs;
mod passphrase;
mod remote;
mod settings;
mod start;
mod stream;
mod tracker;
mod tx;
mod user;

use std::{future::Future, process::ExitCode};

use clap::{CommandFactory, Parser};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    cli::{Cli, SettingFlags, Verb},
    config::Config,
    failure::{Exit, Failure},
    out::Out,
    settings::Settings,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before any thread, and before anything that could show it.
    let seed = machine::take_seed();
    demo::end_with_parent();
    let cli = Cli::parse();
    let out = Out { json: cli.json };
    match run(cli.command, seed, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if out.json {
                let error = json!({
                    "event": "error",
                    "exit": failure.exit as i32,
                    "message": failure.message,
                });
                eprintln!("{error}");
            } else {
                eprintln!("daybook: {failure}");
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(command: Verb, seed: Option<Zeroizing<String>>, out: Out) -> Result<(), Failure> {
    match command {
        Verb::Start(args) => {
            let config = Config::from_settings(&load(&args.settings)?)?;
            serve(start::run(&config, out))
        }
        Verb::Check(args) => {
            let config = Config::from_settings(&load(&args.settings)?)?;
            check::run(&args, &config, out)
        }
        Verb::Keys(args) => keys::run(&args, out),
        Verb::Tx(args) => ask(tx::run(&args, out)),
        Verb::Outputs(args) => ask(outputs::run(&args, out)),
        Verb::Stream(args) => ask(stream::run(&args, out)),
        Verb::Events(args) => ask(events::run(&args, out)),
        Verb::Channel(args) => serve(channel::run(&args, out)),
        Verb::Ledger(command) => ask(ledger_command::run(*command, out)),
        Verb::Bench(args) => serve(bench::run(&args, out)),
        Verb::Config(cli::Config::Show { settings }) => show(&load(&settings)?, out),
        Verb::Config(cli::Config::Template) => {
            out.line(settings::template().trim_end());
            Ok(())
        }
        Verb::Backup(args) => {
            let config = Config::from_settings(&load(&args.settings)?)?;
            backup::run(&args, &config, out)
        }
        Verb::Restore(args) => {
            let config = Config::from_settings(&load(&args.settings)?)?;
            backup::restore(&args, &config, out)
        }
        Verb::Member(command) => member::run(&command, out),
        Verb::User(command) => user::run(&command, out),
        Verb::Machine(args) => serve(machine::run(&args, seed, out)),
        Verb::Order(args) => ask(order::run(&args, out)),
        Verb::Demo(args) => serve(demo::run(&args, out)),
        Verb::Bus(cli::Bus::Service(service)) => {
            let config = Config::from_settings(&load(service.settings())?)?;
            bus::service(&service, &datadir::DataDir::new(&config.data_dir), out)
        }
        Verb::Bus(args) => ask(bus_client::run(args, out)),
        Verb::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "daybook", &mut script);
            out.line(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
    }
}

fn load(flags: &SettingFlags) -> Result<Settings, Failure> {
    // A variable that is not Unicode cannot be one of ours, unless it is by its name.
    let environment = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        Some((name, value.to_string_lossy().into_owned()))
    });
    Ok(Settings::load(
        &flags.given,
        environment,
        flags.config.as_deref(),
    )?)
}

fn show(settings: &Settings, out: Out) -> Result<(), Failure> {
    let width = settings
        .iter()
        .map(|(setting, _, _)| setting.name.len())
        .max()
        .unwrap_or(0);
    for (setting, value, origin) in settings.iter() {
        out.say(
            &json!({
                "setting": setting.name,
                "value": value.json(),
                "origin": origin.to_string(),
            }),
            &format!("{:width$}  {value}  # {origin}", setting.name),
        );
    }
    // What the node has made for itself is no setting, but is looked for in the same place.
    let dir = datadir::DataDir::new(settings.text("data_dir"));
    if let Some(made) = tracker::Made::read(&dir)? {
        let (facts, file) = made.facts(&dir);
        let file = file.display();
        for (name, value) in facts {
            let shown = json!(value);
            out.say(
                &json!({ "made": name, "value": shown, "origin": file.to_string() }),
                &format!("{name:width$}  {shown}  # {file}"),
            );
        }
    }
    Ok(())
}

/// Runs what serves sockets, on all cores.
fn serve(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("sockets")
        .build()
        .map_err(|e| Failure::new(Exit::System, format!("starting threads: {e}")))?;
    let result = runtime.block_on(work);
    // What still runs on blocking threads after a stop that took too long must not hold the exit up.
    runtime.shutdown_background();
    result
}

/// Runs a client, on one thread.
fn ask(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Exit::System, format!("starting: {e}")))?
        .block_on(work)
}
