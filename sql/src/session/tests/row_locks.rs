//! Sessions that want the same rows: who waits, who goes on, and with what. `row_locks.txt` was recorded from PostgreSQL 15.
//!
//! ```text
//! == what it is about
//! setup: statements           in a database of its own
//! a: statement                session `a` runs it
//!   output                    as psql -At shows it
//! b: statement
//!   (waits)                   it is not done before another session does something
//! b goes on                   and now it is
//!   output
//! ```

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::*;

/// How long a statement that should wait is watched waiting.
const WAITS: Duration = Duration::from_millis(60);
/// When one that should be done is given up.
const STUCK: Duration = Duration::from_secs(60);

struct Client {
    statements: Sender<String>,
    outputs: Receiver<String>,
}

impl Client {
    fn new(instance: &Arc<Instance>) -> Client {
        let (statements, todo) = channel::<String>();
        let (done, outputs) = channel();
        let instance = instance.clone();
        let body = move || {
            let mut session = connect(&instance);
            for sql in todo {
                let _ = done.send(show(&mut session, &sql));
            }
        };
        std::thread::Builder::new().stack_size(16 << 20).spawn(body).unwrap();
        Client { statements, outputs }
    }
    fn output(&self) -> Vec<String> {
        let output = self.outputs.recv_timeout(STUCK).expect("a statement that nobody holds up is done");
        output.lines().map(|l| format!("  {l}")).collect()
    }
}

/// Runs a scene as it is written and says what happened.
fn play(scene: &str) -> String {
    let instance = instance();
    let mut clients: BTreeMap<String, Client> = BTreeMap::new();
    let mut happened: Vec<String> = Vec::new();
    for (i, line) in scene.lines().enumerate() {
        if line.starts_with("  ") {
            continue;
        }
        happened.push(line.to_owned());
        if let Some(name) = line.strip_suffix(" goes on") {
            happened.extend(clients[name].output());
        } else if let Some((name, sql)) = line.split_once(": ").filter(|_| !line.starts_with("==")) {
            if name == "setup" {
                let shown = show(&mut connect(&instance), sql);
                assert!(!shown.contains("ERROR"), "{shown}");
                continue;
            }
            let client = clients.entry(name.to_owned()).or_insert_with(|| Client::new(&instance));
            client.statements.send(sql.to_owned()).unwrap();
            if scene.lines().nth(i + 1) != Some("  (waits)") {
                happened.extend(client.output());
                continue;
            }
            match client.outputs.recv_timeout(WAITS) {
                Ok(output) => happened.push(format!("  does not wait: {output}")),
                Err(RecvTimeoutError::Timeout) => happened.push("  (waits)".to_owned()),
                Err(RecvTimeoutError::Disconnected) => happened.push("  is gone".to_owned()),
            }
        }
    }
    happened.join("\n")
}

#[test]
fn rows_are_waited_for_as_in_postgresql() {
    let scenes: Vec<&str> = include_str!("row_locks.txt").trim_end().split("\n\n").collect();
    assert!(scenes.len() > 40);
    let mut wrong = Vec::new();
    for scene in scenes {
        let happened = play(scene);
        if happened != scene {
            wrong.push(format!("{scene}\n---- but ----\n{happened}"));
        }
    }
    assert!(wrong.is_empty(), "{} scenes went otherwise:\n\n{}", wrong.len(), wrong.join("\n\n"));
}
