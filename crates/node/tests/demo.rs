//! The demo: it plays its story, adds everything up, and leaves nothing behind.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::BTreeSet,
    io::BufReader,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Stdio},
    time::{Duration, Instant},
};

use common::{binary, daybook, next};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long a process that lost its parent may take to be gone; the bound only turns a hang into a
/// failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that is not over yet.
const LOOK: Duration = Duration::from_millis(20);

/// A demo that runs on; killed when dropped.
struct Demo {
    child: Child,
    said: BufReader<ChildStdout>,
    town: Value,
}

impl Demo {
    fn start(flags: &[&str]) -> Demo {
        let mut child = binary()
            .args(["--json", "demo", "--free-ports"])
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut demo = Demo {
            child,
            said,
            town: Value::Null,
        };
        demo.town = demo.event("town");
        demo
    }

    /// Waits for an event of this name.
    #[track_caller]
    fn event(&mut self, name: &str) -> Value {
        next(&mut self.said, |said| said["event"] == name)
    }

    /// Every address that the town listens on, as host and port.
    fn addresses(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let machines = self.town["machines"].as_array().unwrap();
        let mut urls: Vec<String> = machines.iter().map(|each| text(&each["url"])).collect();
        urls.extend(["http", "streams", "bus", "shop"].map(|name| text(&self.town[name])));
        urls.iter()
            .map(|url| url.split_once("://").unwrap().1.to_owned())
            .collect()
    }

    fn folder(&self) -> PathBuf {
        self.town["folder"].as_str().unwrap().into()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until nobody listens on any of these.
fn silent(addresses: &[String]) {
    let deadline = Instant::now() + PATIENCE;
    for address in addresses {
        while TcpStream::connect(address).is_ok() {
            assert!(
                Instant::now() < deadline,
                "somebody still answers at {address}"
            );
            std::thread::sleep(LOOK);
        }
    }
}

#[test]
fn the_demo_plays_its_story_and_every_balance_adds_up() {
    let said = daybook(&["--json", "demo", "--auto", "--free-ports"])
        .ok()
        .json();
    let steps: Vec<&Value> = said.iter().filter(|line| line["event"] == "step").collect();
    let names: Vec<&str> = steps
        .iter()
        .map(|step| step["step"].as_str().unwrap())
        .collect();
    let product = ["ordered", "paid", "provider_paid", "delivered", "made"];
    let rest = [
        "channel_opened",
        "downloaded",
        "channel_settled",
        "payout",
        "payout_transfer",
        "proposed",
        "endorsed",
        "committed",
        "proposed",
        "endorsed",
        "committed",
        "answered",
    ];
    assert_eq!(names, [&product[..], &product[..], &rest[..]].concat());
    let committed: Vec<&&Value> = steps.iter().filter(|step| !step["id"].is_null()).collect();
    let ids: BTreeSet<&str> = committed
        .iter()
        .map(|step| step["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 14, "each step that commits has an id of its own");
    assert!(committed.iter().all(|step| step["position"].is_string()));
    let held = |who: &str| {
        let line = said
            .iter()
            .find(|line| line["event"] == "balance" && line["who"] == who);
        line.unwrap()["held"].as_u64().unwrap()
    };
    assert_eq!(
        [
            "customer",
            "Robot1",
            "EnergyWind",
            "Robot2",
            "EnergySolar",
            "shop's owner"
        ]
        .map(held),
        [10, 10, 5, 17, 8, 30]
    );
    let sums = said.last().unwrap();
    assert_eq!(
        (&sums["event"], &sums["ok"]),
        (&"sums".into(), &true.into())
    );
}

#[test]
fn ctrl_c_stops_every_program_of_the_demo_and_takes_its_data_away() {
    let mut demo = Demo::start(&[]);
    let (addresses, folder) = (demo.addresses(), demo.folder());
    assert!(
        addresses
            .iter()
            .all(|address| TcpStream::connect(address).is_ok())
    );
    demo.signal(Signal::INT);
    assert!(demo.child.wait().unwrap().success());
    silent(&addresses);
    assert!(!folder.exists());
}

#[test]
fn a_demo_that_is_killed_takes_its_programs_along() {
    let mut demo = Demo::start(&[]);
    let (addresses, folder) = (demo.addresses(), demo.folder());
    demo.signal(Signal::KILL);
    demo.child.wait().unwrap();
    silent(&addresses);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn kept_data_are_sound() {
    let mut demo = Demo::start(&["--keep"]);
    demo.signal(Signal::TERM);
    let kept = demo.event("kept");
    assert!(demo.child.wait().unwrap().success());
    let folder = kept["folder"].as_str().unwrap();
    let data = Path::new(folder).join("node").display().to_string();
    daybook(&["check", "--signatures", "--data-dir", &data]).ok();
    std::fs::remove_dir_all(folder).unwrap();
}
