//! A server process: started, asked, stopped, killed.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::Client;

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository").to_owned()
}

/// A running `pgbee serve`, `follow` or `dht`. Dropping it kills the process.
pub struct Server {
    child: Child,
    /// Port on 127.0.0.1; of `dht`, its UDP port.
    pub port: u16,
    /// Port for peers, if it listens for any.
    pub peer_port: Option<u16>,
    /// The key of a `pgbee dht --relay`.
    pub relay_key: Option<String>,
    /// Data directory.
    pub data: PathBuf,
    _directory: Option<tempfile::TempDir>,
}

/// Where cargo put the binary: beside a bench's executable, one folder above a test's.
pub fn binary() -> PathBuf {
    let own = std::env::current_exe().expect("a program has a path");
    let folder = own.parent().filter(|folder| !folder.ends_with("deps"));
    let binary = folder.or(own.parent().and_then(Path::parent)).expect("target/debug/deps").join("pgbee");
    assert!(
        binary.exists(),
        "{} is missing: run `cargo build --workspace` first, as `make test` does",
        binary.display()
    );
    binary
}

impl Server {
    /// On a fresh directory.
    pub fn start() -> Server {
        Server::start_with(&[])
    }
    /// On a fresh directory, with more options.
    pub fn start_with(options: &[&str]) -> Server {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        let mut server = Server::open(&data, options).unwrap_or_else(|e| panic!("the server did not start: {e}"));
        server._directory = Some(directory);
        server
    }
    /// On a directory that may hold data; the error is what the server printed.
    ///
    /// # Errors
    /// It did not start listening.
    pub fn open(data: &Path, options: &[&str]) -> Result<Server, String> {
        Server::run(&["serve"], data, options)
    }
    /// `pgbee follow KEY` on a fresh directory.
    pub fn follow(key: &str, options: &[&str]) -> Server {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        let mut server =
            Server::run(&["follow", key], &data, options).unwrap_or_else(|e| panic!("the follower did not start: {e}"));
        server._directory = Some(directory);
        server
    }
    /// `pgbee dht` on a free port of loopback: a node of a private network, which these nodes are already in.
    pub fn dht_node(network: &[&Server]) -> Server {
        Server::dht_node_with(network, &[])
    }
    /// The same, with more options.
    pub fn dht_node_with(network: &[&Server], options: &[&str]) -> Server {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        let nodes = swarm_of(network);
        let mut options = options.to_vec();
        if !nodes.is_empty() {
            options.extend(["--bootstrap", &nodes]);
        }
        let started = Server::run(&["dht"], &data, &options);
        let mut node = started.unwrap_or_else(|e| panic!("the node did not start: {e}"));
        node._directory = Some(directory);
        node
    }
    /// Any command of the program that ends up listening.
    ///
    /// # Errors
    /// It did not; what it printed.
    ///
    /// # Panics
    /// If it were to take part in the public network: no test does.
    pub fn run(command: &[&str], data: &Path, options: &[&str]) -> Result<Server, String> {
        let words = || command.iter().chain(options);
        assert!(!words().any(|word| word.contains("public")), "a test stays on this machine");
        let mut child = Command::new(binary())
            .args(command)
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(options)
            // Weaker than what a test says, stronger than what follow does when nothing is said.
            .env("PGBEE_SWARM", "off")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let stderr = child.stderr.take().expect("it was piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if std::env::var_os("PGBEE_TEST_LOG").is_some() {
                    eprintln!("{line}");
                }
                let _ = sender.send(line);
            }
        });
        let mut printed = String::new();
        let mut peer_port = None;
        let mut relay_key = None;
        loop {
            match lines.recv_timeout(Duration::from_secs(60)) {
                Ok(line) => {
                    // The line for clients is the last one.
                    if let Some((_, key)) = line.split_once(" --relay ") {
                        relay_key = Some(key.trim().to_owned());
                    } else if let Some(port) = port_behind(&line, "peers on 127.0.0.1:") {
                        peer_port = Some(port);
                    } else if let Some(port) = port_behind(&line, "listening on 127.0.0.1:") {
                        return Ok(Server {
                            child,
                            port,
                            peer_port,
                            relay_key,
                            data: data.to_owned(),
                            _directory: None,
                        });
                    }
                    printed.push_str(&line);
                    printed.push('\n');
                }
                Err(_) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(printed);
                }
            }
        }
    }
    /// A connection as the superuser to database postgres.
    pub fn client(&self) -> Client {
        Client::connect(self.port, &[("user", "postgres"), ("database", "postgres")]).expect("a connection")
    }
    /// Runs psql with these words; standard output, and standard error mixed in.
    pub fn psql(&self, words: &[&str]) -> String {
        let output = Command::new("psql")
            .args(["-X", "-h", "127.0.0.1", "-U", "postgres", "-p", &self.port.to_string()])
            .args(words)
            .env("PGDATABASE", "postgres")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .expect("psql is installed");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }
    /// SIGTERM, and wait for the end.
    pub fn stop(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status().expect("kill is there");
        assert!(told.success());
        self.child.wait().expect("it ends")
    }
    /// Stops it, and starts `pgbee serve` on the same directory.
    pub fn restart(mut self, options: &[&str]) -> Server {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status().expect("kill is there");
        assert!(told.success() && self.child.wait().expect("it ends").success());
        let mut again = Server::open(&self.data, options).unwrap_or_else(|e| panic!("the server did not start: {e}"));
        again._directory = self._directory.take();
        again
    }
    /// How it ended, if it does within this time.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = std::time::Instant::now() + limit;
        while std::time::Instant::now() < end {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
    /// Local addresses of the UDP sockets it has open.
    pub fn udp_sockets(&self) -> Vec<SocketAddr> {
        let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("it runs")
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()?.to_str().map(str::to_owned))
            .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
            .collect();
        let table =
            |name: &str| std::fs::read_to_string(format!("/proc/{}/net/{name}", self.pid())).unwrap_or_default();
        let mut found = Vec::new();
        for line in table("udp").lines().chain(table("udp6").lines()).skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields.get(9).is_some_and(|inode| sockets.iter().any(|own| own == inode)) {
                found.extend(fields.get(1).and_then(|address| kernel_address(address)));
            }
        }
        found
    }
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
    /// Is it still running?
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

/// What `--swarm` says for these nodes.
pub fn swarm_of(nodes: &[&Server]) -> String {
    nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect::<Vec<_>>().join(",")
}

/// `0100007F:1F90` is 127.0.0.1:8080: words of the machine's own byte order.
fn kernel_address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(host.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    if host.len() == 8 {
        return Some((Ipv4Addr::from(word(0)?), port).into());
    }
    let mut bytes = [0; 16];
    for (at, chunk) in bytes.chunks_mut(4).enumerate() {
        chunk.copy_from_slice(&word(at * 8)?);
    }
    Some((Ipv6Addr::from(bytes), port).into())
}

fn port_behind(line: &str, words: &str) -> Option<u16> {
    let (_, rest) = line.split_once(words)?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
