//! Backup and restore: a sound image of the ledger with a list of its files and their digests.
//!
//! ```text
//! backup/
//!   backup.json      what it is, and SHA-256 of every other file
//!   *.key            0600: every key of the node, of its blocks as of its tracker's tokens
//!   genesis.json
//!   daybook.toml     if there was one
//!   ledger/          as in a data directory
//!   bus/             keys and durable subscriptions of the service bus, if there are any
//!   members/         keys, users, documents and stores of the members that live here
//! ```

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest;
use daybook_store::{Store, disk::RealDisk};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    bus::{self, Reloader},
    check, cli,
    config::Config,
    control::{self, Request},
    datadir::DataDir,
    failure::{Exit, Failure},
    member::{self, House},
    out::Out,
    settings,
};

/// Version of the layout of a backup.
const FORMAT: u32 = 1;
/// The list of files.
const LIST: &str = "backup.json";
/// Bytes of the list at most: a line per file of the ledger.
const LIST_BYTES_MAX: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    format: u32,
    software: String,
    chain: String,
    height: u64,
    hash: String,
    transactions: u64,
    files: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    path: String,
    bytes: u64,
    sha256: String,
}

/// `daybook backup`.
pub(crate) fn run(args: &cli::Backup, config: &Config, out: Out) -> Result<(), Failure> {
    let dir = DataDir::new(&config.data_dir);
    dir.must_exist()?;
    // The node has a working directory of its own.
    let to = std::path::absolute(&args.to).map_err(|e| Failure::system(args.to.display(), &e))?;
    let mut progress = out.progress("backup");
    let asked = control::ask(&dir, &Request::Backup { to: to.clone() }, |done, total| {
        progress.set(done, total)
    })?;
    let (answer, by) = match asked {
        Some(answer) => (answer, "by the running node"),
        None => {
            let _lock = dir.lock()?;
            let genesis = dir.genesis()?;
            let options = daybook_store::Options::default();
            let (store, writer, _) =
                daybook_store::open(&dir.ledger(), Arc::new(RealDisk), &genesis, options)?;
            let answer = write(&dir, &store, Running::default(), &to, &mut |done, total| {
                progress.set(done, total)
            })?;
            writer.close()?;
            (answer, "no node was running")
        }
    };
    drop(progress);
    let text = format!(
        "backup of chain {} up to height {} in {} ({by}); it holds the node's private keys",
        answer["chain"].as_str().unwrap_or_default(),
        answer["height"],
        to.display(),
    );
    out.say(&answer, &text);
    Ok(())
}

/// Who has files of the data directory open, and copies them.
#[derive(Clone, Copy, Default)]
pub(crate) struct Running<'r> {
    pub(crate) bus: Option<&'r Reloader>,
    pub(crate) house: Option<&'r House>,
}

/// Writes a backup of `store` into the new folder `to`: whole, or not there.
pub(crate) fn write(
    dir: &DataDir,
    store: &Store,
    running: Running<'_>,
    to: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<serde_json::Value, Failure> {
    if to.exists() {
        return Err(Failure::refused(format!("{} exists already", to.display())));
    }
    let unfinished = beside(to)?;
    let result = fill(dir, store, running, &unfinished, progress).and_then(|answer| {
        fs::rename(&unfinished, to).map_err(|e| Failure::system(to.display(), &e))?;
        sync_dir(parent(to))?;
        Ok(answer)
    });
    if result.is_err() {
        let _ = fs::remove_dir_all(&unfinished);
    }
    result
}

fn fill(
    dir: &DataDir,
    store: &Store,
    running: Running<'_>,
    into: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<serde_json::Value, Failure> {
    make_dir(into)?;
    let ledger = into.join("ledger");
    make_dir(&ledger)?;
    let tip = store.backup(&ledger, progress)?;
    let copy_of = DataDir::new(into);
    if dir.bus().exists() {
        make_dir(&copy_of.bus())?;
        bus::back_up(dir, &copy_of, running.bus)?;
        if dir.services_file().exists() {
            copy(&dir.services_file(), &copy_of.services_file(), 0o600)?;
        }
    }
    member::back_up(dir.path(), into, running.house)?;
    for from in dir.key_files()? {
        let name = from.file_name().expect("a file of a folder has a name");
        copy(&from, &into.join(name), 0o600)?;
    }
    for (file, mode) in [("genesis.json", 0o644), (settings::FILE_NAME, 0o600)] {
        let from = dir.path().join(file);
        if from.exists() {
            copy(&from, &into.join(file), mode)?;
        }
    }
    let mut files = Vec::new();
    each_file(into, into, &mut |path, relative| {
        let (bytes, sha256) = sha256(path)?;
        files.push(Entry {
            path: relative,
            bytes,
            sha256,
        });
        Ok(())
    })?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let list = List {
        format: FORMAT,
        software: concat!("daybook ", env!("CARGO_PKG_VERSION")).to_owned(),
        chain: store.genesis().chain.clone(),
        height: tip.height.0,
        hash: hex::encode(tip.hash.0),
        transactions: tip.transactions,
        files,
    };
    let text = serde_json::to_string_pretty(&list).expect("plain data") + "\n";
    crate::keyfile::write_new(&into.join(LIST), text.as_bytes(), 0o644)
        .map_err(|e| Failure::system(into.display(), &e))?;
    sync_tree(into)?;
    Ok(json!({
        "event": "backup",
        "chain": list.chain,
        "height": list.height,
        "hash": list.hash,
        "transactions": list.transactions,
        "files": list.files.len(),
        "bytes": list.files.iter().map(|file| file.bytes).sum::<u64>(),
    }))
}

/// `daybook restore`.
pub(crate) fn restore(args: &cli::Restore, config: &Config, out: Out) -> Result<(), Failure> {
    let to = &config.data_dir;
    if to
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_some())
    {
        return Err(Failure::refused(format!(
            "{} is not empty; a restore makes a new data directory",
            to.display()
        )));
    }
    let list = read_list(&args.from)?;
    let unfinished = beside(to)?;
    let result = (|| {
        make_dir(&unfinished)?;
        let mut progress = out.progress("restore");
        let total = list.files.iter().map(|file| file.bytes).sum();
        let mut done = 0;
        for entry in &list.files {
            let target = unfinished.join(&entry.path);
            make_dir(parent(&target))?;
            let mode = if entry.path == "genesis.json" {
                0o644
            } else {
                0o600
            };
            copy(&args.from.join(&entry.path), &target, mode)?;
            // What was written is what is compared, so a bad copy is found as well as a bad backup.
            let found = sha256(&target)?;
            if found != (entry.bytes, entry.sha256.clone()) {
                return Err(Failure::new(
                    Exit::Damaged,
                    format!(
                        "{} is not what was backed up",
                        args.from.join(&entry.path).display()
                    ),
                ));
            }
            done += entry.bytes;
            progress.set(done, total);
        }
        drop(progress);
        let dir = DataDir::new(&unfinished);
        dir.must_exist()?;
        let genesis = dir.genesis()?;
        // What follows from the log is not part of a backup; a rebuild makes it.
        let report = check::check(&dir, true, args.signatures, out)?;
        check::verdict(&report, &genesis)?;
        let (height, hash) = (report.tip.height.0, hex::encode(report.tip.hash.0));
        if (height, &hash) != (list.height, &list.hash) {
            return Err(Failure::new(
                Exit::Damaged,
                format!(
                    "the backup says height {} and hash {}, its ledger says {height} and {hash}",
                    list.height, list.hash
                ),
            ));
        }
        sync_tree(&unfinished)?;
        // An empty folder in its place is replaced by the renaming.
        fs::rename(&unfinished, to).map_err(|e| Failure::system(to.display(), &e))?;
        sync_dir(parent(to))
    })();
    if result.is_err() {
        let _ = fs::remove_dir_all(&unfinished);
    }
    result?;
    out.say(
        &json!({
            "event": "restore",
            "chain": list.chain,
            "height": list.height,
            "hash": list.hash,
            "transactions": list.transactions,
        }),
        &format!(
            "chain {} up to height {} restored into {}",
            list.chain,
            list.height,
            to.display()
        ),
    );
    Ok(())
}

fn read_list(from: &Path) -> Result<List, Failure> {
    let path = from.join(LIST);
    let about = fs::metadata(&path).map_err(|e| {
        Failure::refused(format!(
            "{} is not a backup: {}: {e}",
            from.display(),
            path.display()
        ))
    })?;
    let bad = |what: String| Failure::new(Exit::Damaged, format!("{}: {what}", path.display()));
    if about.len() > LIST_BYTES_MAX {
        return Err(bad("too long".to_owned()));
    }
    let text = fs::read_to_string(&path).map_err(|e| Failure::system(path.display(), &e))?;
    let list: List = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    if list.format != FORMAT {
        return Err(Failure::refused(format!(
            "{}: format {} was written by {}; this version reads format {FORMAT}",
            path.display(),
            list.format,
            list.software
        )));
    }
    let inside = |path: &str| {
        Path::new(path)
            .components()
            .all(|c| matches!(c, std::path::Component::Normal(_)))
            && !path.is_empty()
    };
    match list.files.iter().find(|entry| !inside(&entry.path)) {
        Some(entry) => Err(bad(format!("`{}` leads out of the backup", entry.path))),
        None => Ok(list),
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A folder beside `path` for what is not finished.
fn beside(path: &Path) -> Result<PathBuf, Failure> {
    let name = path
        .file_name()
        .ok_or_else(|| Failure::usage(format!("{} names no folder", path.display())))?;
    let name = format!(
        ".{}.{}.unfinished",
        name.to_string_lossy(),
        std::process::id()
    );
    Ok(parent(path).join(name))
}

pub(crate) fn make_dir(path: &Path) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| Failure::system(path.display(), &e))
}

/// Copies all files below a folder into another one, but for what has one of the names in `left_out`.
pub(crate) fn copy_tree(from: &Path, to: &Path, left_out: &[&str]) -> Result<(), Failure> {
    let system = |e: io::Error| Failure::system(from.display(), &e);
    for entry in fs::read_dir(from).map_err(system)? {
        let entry = entry.map_err(system)?;
        let name = entry.file_name();
        if left_out.iter().any(|left| name == *left) {
            continue;
        }
        let target = to.join(&name);
        if entry.file_type().map_err(system)?.is_dir() {
            make_dir(&target)?;
            copy_tree(&entry.path(), &target, left_out)?;
        } else {
            copy(&entry.path(), &target, 0o600)?;
        }
    }
    Ok(())
}

pub(crate) fn copy(from: &Path, to: &Path, mode: u32) -> Result<(), Failure> {
    let source = |e: io::Error| Failure::system(from.display(), &e);
    let target = |e: io::Error| Failure::system(to.display(), &e);
    let mut reader = File::open(from).map_err(source)?;
    let mut options = fs::OpenOptions::new();
    let mut writer = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(to)
        .map_err(target)?;
    io::copy(&mut reader, &mut writer).map_err(target)?;
    writer.sync_all().map_err(target)
}

fn sha256(path: &Path) -> Result<(u64, String), Failure> {
    let system = |e: io::Error| Failure::system(path.display(), &e);
    let mut file = File::open(path).map_err(system)?;
    let (mut hasher, mut total) = (digest::Context::new(&digest::SHA256), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(system)? {
            0 => return Ok((total, hex::encode(hasher.finish()))),
            read => {
                hasher.update(&buffer[..read]);
                total += read as u64;
            }
        }
    }
}

fn each_file(
    root: &Path,
    folder: &Path,
    each: &mut dyn FnMut(&Path, String) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let system = |e: io::Error| Failure::system(folder.display(), &e);
    for entry in fs::read_dir(folder).map_err(system)? {
        let path = entry.map_err(system)?.path();
        if path.is_dir() {
            each_file(root, &path, each)?;
        } else {
            let relative = path.strip_prefix(root).expect("found below the root");
            each(&path, relative.to_string_lossy().into_owned())?;
        }
    }
    Ok(())
}

fn sync_dir(path: &Path) -> Result<(), Failure> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| Failure::system(path.display(), &e))
}

fn sync_tree(folder: &Path) -> Result<(), Failure> {
    let system = |e: io::Error| Failure::system(folder.display(), &e);
    for entry in fs::read_dir(folder).map_err(system)? {
        let path = entry.map_err(system)?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(system)?;
        }
    }
    sync_dir(folder)
}
