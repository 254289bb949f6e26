//! A JavaScript peer in a process of its own: `interop/peer.mjs` or another script there, one JSON command a line. Dropping it ends the process.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::repository;

/// Bytes as these peers are told them, and tell them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Installs the pinned npm packages if they are missing or of another version than the lock file says.
pub fn install_packages() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let folder = repository().join("tests/interop");
        let lock = std::fs::read(folder.join("package-lock.json")).expect("the lock file");
        // Beside the packages lies the lock file they were installed by.
        let installed = folder.join("node_modules/.installed-by");
        if std::fs::read(&installed).is_ok_and(|by| by == lock) {
            return;
        }
        let output = Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .current_dir(&folder)
            .output()
            .expect("npm is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::write(installed, lock).expect("written");
    });
}

/// The process and its pipes.
pub struct JavaScript {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl JavaScript {
    /// A peer with an empty store.
    pub fn start() -> JavaScript {
        JavaScript::run("peer.mjs")
    }

    /// Another script of `interop/` that is driven line by line.
    pub fn run(script: &str) -> JavaScript {
        install_packages();
        let mut child = Command::new("node")
            .arg(script)
            .current_dir(repository().join("tests/interop"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is installed");
        let input = child.stdin.take().expect("it was piped");
        let output = BufReader::new(child.stdout.take().expect("it was piped"));
        JavaScript { child, input, output }
    }

    /// Does one thing; `more` are the fields of the command besides `do`.
    ///
    /// # Panics
    /// If it fails.
    pub fn ask(&mut self, what: &str, more: Value) -> Value {
        let answer = self.try_ask(what, more);
        assert!(answer.get("error").is_none(), "{what}: {}", answer["error"]);
        answer
    }

    /// As [`ask`](JavaScript::ask), with the error in the answer's field `error`.
    pub fn try_ask(&mut self, what: &str, mut more: Value) -> Value {
        more["do"] = json!(what);
        writeln!(self.input, "{more}").expect("it listens");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it answers");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{what}: {line:?}: {e}"))
    }

    /// Its port, on which the whole store, or one core of its own, is replicated.
    pub fn listen(&mut self, core: Option<&str>) -> u16 {
        let answer = self.ask("listen", core.map_or(json!({}), |core| json!({"core": core})));
        answer["port"].as_u64().and_then(|port| port.try_into().ok()).expect("a port")
    }
}

impl Drop for JavaScript {
    fn drop(&mut self) {
        let _ = writeln!(self.input, "{}", json!({"do": "close"}));
        let _ = self.input.flush();
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
