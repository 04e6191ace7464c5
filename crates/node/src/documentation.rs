//! The pages held against the program: what they tell a reader to type is understood, and what the
//! program takes stands in them.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use clap::{Command, CommandFactory, Parser, error::ErrorKind};
use daybook_ledger::{SigningKey, consortium::Did, tracker::Address};

use crate::{cli::Cli, failure::Exit, machine, settings::TABLE};

/// Columns that help is wrapped at, where the terminal has more.
const HELP_COLUMNS: usize = 100;
/// What stands between one command of a line and the next.
const SEPARATORS: [&str; 4] = ["|", "&&", ";", "&"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// Every page for users, by its name.
fn pages() -> Vec<(String, String)> {
    let mut names = vec!["README.md".to_owned()];
    for folder in ["docs", "docs/protocols"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                names.push(format!("{folder}/{name}"));
            }
        }
    }
    names.sort();
    let read = |name: String| {
        let text = page(&name);
        (name, text)
    };
    names.into_iter().map(read).collect()
}

/// The lines of a page that a reader types into a shell, continued ones joined.
fn typed(page: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        match line.trim() {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => lines.push(line.to_owned()),
            _ => {}
        }
    }
    joined(lines)
}

/// The lines with examples in the help of a command and of all below it.
fn examples(command: &Command) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(help) = command.get_after_long_help() {
        let help = help.to_string();
        let lines = help.lines().filter(|line| line.starts_with("  "));
        found.extend(lines.map(str::to_owned));
    }
    for below in command.get_subcommands() {
        found.extend(examples(below));
    }
    found
}

fn joined(lines: Vec<String>) -> Vec<String> {
    let mut whole: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in lines {
        let (text, more) = match line.trim_end().strip_suffix('\\') {
            Some(text) => (text.to_owned(), true),
            None => (line, false),
        };
        match whole.last_mut().filter(|_| goes_on) {
            Some(last) => last.push_str(&text),
            None => whole.push(text),
        }
        goes_on = more;
    }
    whole
}

/// The words of a line as a shell reads them: quotes, and a comment at the end.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The commands of a line that call this program, without what the shell keeps for itself.
fn calls(line: &str) -> Vec<Vec<String>> {
    let words = words(line);
    let commands = words.split(|word| SEPARATORS.contains(&word.as_str()));
    commands
        .filter_map(|command| {
            let mut words = command
                .iter()
                .skip_while(|word| !word.starts_with('-') && word.contains('='));
            if words.next()? != "daybook" {
                return None;
            }
            let mut call = vec!["daybook".to_owned()];
            while let Some(word) = words.next() {
                match word.as_str() {
                    ">" | "<" | ">>" => {
                        words.next();
                    }
                    word => call.push(filled(word)),
                }
            }
            Some(call)
        })
        .collect()
}

/// A word with something in the place of the names that a reader replaces.
fn filled(word: &str) -> String {
    let key = SigningKey::from_seed([1; 32]).public_key();
    let (name, rest) = match word.split_once(':') {
        Some((name, rest)) => (name, format!(":{rest}")),
        None => (word, String::new()),
    };
    match name {
        "ID" | "ASSET_ID" => "ab".repeat(32) + &rest,
        "PUBLIC_KEY" | "BOB" | "CAROL" => key.to_string() + &rest,
        "DID" => Did::of(&key).to_string(),
        "ADDRESS" | "0x0c…" | "0x0d…" => Address::common("a key").as_str().to_owned(),
        "SHELL" => "bash".to_owned(),
        _ => word.to_owned(),
    }
}

#[test]
fn every_command_of_the_pages_and_of_the_help_is_understood() {
    let mut places: Vec<(String, Vec<String>)> = pages()
        .into_iter()
        .map(|(name, text)| (name, typed(&text)))
        .collect();
    places.push(("--help".to_owned(), joined(examples(&Cli::command()))));
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (place, lines) in places {
        for call in lines.iter().flat_map(|line| calls(line)) {
            count += 1;
            if let Err(error) = Cli::try_parse_from(&call)
                && !matches!(
                    error.kind(),
                    ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
                )
            {
                wrong.push(format!("{place}: {}\n{error}", call.join(" ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "only {count} examples were found");
}

#[test]
fn no_example_of_the_help_is_torn_by_a_line_break() {
    let lines = examples(&Cli::command());
    let long = lines
        .iter()
        .filter(|line| line.chars().count() > HELP_COLUMNS);
    let long: Vec<_> = long.collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn every_flag_that_a_page_names_is_one_of_ours() {
    fn flags(command: &Command, into: &mut BTreeSet<String>) {
        let long = command.get_arguments().filter_map(clap::Arg::get_long);
        into.extend(long.map(str::to_owned));
        for below in command.get_subcommands() {
            flags(below, into);
        }
    }
    let mut known = BTreeSet::from(["help".to_owned(), "version".to_owned()]);
    flags(&Cli::command(), &mut known);
    let mut wrong = Vec::new();
    for (name, text) in pages() {
        // What stands between backticks at an odd place of the split is code.
        for code in text.split('`').skip(1).step_by(2) {
            let Some(flag) = code.strip_prefix("--") else {
                continue;
            };
            let flag: String = flag
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
                .collect();
            if !flag.is_empty() && !known.contains(&flag) {
                wrong.push(format!("{name}: --{flag}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_page_of_the_command_line_names_every_command() {
    let page = page("docs/cli.md");
    let table: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        let named = |row: &&str| {
            let cell = row.split('|').nth(1).unwrap_or_default();
            let mut words = cell.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
            words.any(|word| word == name)
        };
        assert!(
            command.is_hide_set() || table.iter().any(named),
            "docs/cli.md says nothing of `daybook {name}`"
        );
    }
}

#[test]
fn the_exit_codes_are_those_of_the_page() {
    let page = page("docs/cli.md");
    let (_, section) = page.split_once("## Exit codes").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let listed: Vec<i32> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok())
        .collect();
    let known: Vec<i32> = (0..=255)
        .filter(|code| *code == 0 || Exit::from_code(*code).is_some())
        .collect();
    assert_eq!(listed, known);
}

#[test]
fn the_page_of_machines_lists_every_setting_as_it_is() {
    let table = machine::markdown();
    assert!(
        page("docs/protocols/machines.md").contains(&table),
        "docs/protocols/machines.md shall contain:\n{table}"
    );
}

#[test]
fn the_operations_page_lists_every_meter() {
    let page = page("docs/operations.md");
    let listed: BTreeSet<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| code.starts_with("daybook_"))
        .collect();
    let mut found = BTreeSet::new();
    let mut folders = vec![root().join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.extend(meters(&fs::read_to_string(path).unwrap()));
            }
        }
    }
    let groups: Vec<&str> = listed
        .iter()
        .filter_map(|code| code.strip_suffix('…'))
        .collect();
    let is_single = |meter: &&String| !groups.iter().any(|group| meter.starts_with(group));
    let missing: Vec<_> = found
        .iter()
        .filter(is_single)
        .filter(|meter| !listed.contains(meter.as_str()))
        .collect();
    assert!(missing.is_empty(), "the page lacks {missing:?}");
    let unknown: Vec<_> = listed
        .iter()
        .filter(|code| !code.ends_with('…') && !found.contains(**code))
        .collect();
    assert!(unknown.is_empty(), "there is no {unknown:?}");
}

/// The names of the meters that a source counts with.
fn meters(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for call in ["counter!(", "gauge!(", "histogram!("] {
        for (at, _) in source.match_indices(call) {
            let name = source[at + call.len()..].trim_start().strip_prefix('"');
            let name = name.and_then(|rest| rest.split('"').next());
            found.extend(
                name.filter(|name| name.starts_with("daybook_"))
                    .map(str::to_owned),
            );
        }
    }
    found
}

#[test]
fn every_limit_and_every_setting_of_the_tracker_stands_on_the_page_of_its_protocol() {
    let (assets, tracker) = (
        page("docs/protocols/asset-ledger.md"),
        page("docs/protocols/wallet-tracker.md"),
    );
    for setting in TABLE {
        let is_named = match setting.name.split_once('.') {
            Some(("limits", _)) => assets.contains(&format!("`{}`", setting.name)),
            Some(("tracker", own)) => {
                tracker.contains(&format!("`{own}`"))
                    || tracker.contains(&format!("`{}", setting.name))
            }
            _ => true,
        };
        assert!(is_named, "the page does not name {}", setting.name);
    }
}
