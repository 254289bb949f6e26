//! SIGKILL at random moments of concurrent inserts: what was acknowledged is there, nothing is half there.
//!
//! Each writer commits transactions of two rows, one in each of two tables, and notes a number once its COMMIT was answered. After a kill and a restart both tables hold the
//! same numbers (no transaction is half there), all noted ones among them, and the log verifies against its signature at the end.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgbee_tests::{Client, Server, binary};

const KILLS: usize = 100;
const WRITERS: usize = 4;

#[test]
fn killed_a_hundred_times_nothing_acknowledged_is_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let acknowledged: Arc<Mutex<Vec<i64>>> = Arc::default();
    let mut server = Server::open(&data, &[]).expect("it starts");
    server.client().query("CREATE TABLE a (n int8 PRIMARY KEY, t text); CREATE TABLE b (n int8 PRIMARY KEY, half int8); CREATE INDEX ON b (half)");
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let (mut next, mut commits_before) = (0i64, 0);
    for round in 0..KILLS {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let life = Duration::from_micros(5_000 + seed % 60_000);
        let (stop, port) = (Arc::new(AtomicBool::new(false)), server.port);
        let writers: Vec<_> = (0..WRITERS)
            .map(|w| {
                let (acknowledged, stop, first) = (acknowledged.clone(), stop.clone(), next + w as i64 * 1_000_000);
                std::thread::spawn(move || {
                    let Ok(mut client) = Client::connect(port, &[("user", "postgres"), ("database", "postgres")])
                    else {
                        return;
                    };
                    for n in first.. {
                        let sql = format!(
                            "BEGIN; INSERT INTO a VALUES ({n}, 'row {n}'); INSERT INTO b VALUES ({n}, {}); COMMIT",
                            n / 2
                        );
                        match client.try_query(&sql) {
                            Ok(Ok(_)) => acknowledged.lock().expect("unpoisoned").push(n),
                            Ok(Err(error)) => panic!("{}", error.message()),
                            Err(_) => return,
                        }
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                })
            })
            .collect();
        // On a busy machine its life begins late: mostly it is killed once something was committed in it.
        let (before, begun) = (acknowledged.lock().expect("unpoisoned").len(), Instant::now());
        while round % 4 != 0
            && acknowledged.lock().expect("unpoisoned").len() == before
            && begun.elapsed() < Duration::from_secs(20)
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(life);
        server.kill();
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().expect("a writer saw only what it may");
        }
        next += WRITERS as i64 * 1_000_000;
        server = Server::open(&data, &[]).unwrap_or_else(|e| panic!("round {round}: it did not start again: {e}"));
        let mut client = server.client();
        let torn = client
            .query("SELECT n FROM a FULL JOIN b USING (n) WHERE a.t IS NULL OR b.half IS NULL OR b.half <> n / 2");
        assert_eq!(torn.text(), "", "round {round}: half a transaction");
        let present: std::collections::HashSet<i64> =
            client.query("SELECT n FROM a").rows.iter().filter_map(|r| r[0].as_ref()?.parse().ok()).collect();
        let noted = acknowledged.lock().expect("unpoisoned");
        let lost: Vec<_> = noted.iter().filter(|n| !present.contains(n)).collect();
        assert!(lost.is_empty(), "round {round}: lost {lost:?}");
        assert_eq!(
            client.query("SELECT count(*) FROM b WHERE half >= 0").text(),
            present.len().to_string(),
            "round {round}: the index differs"
        );
        if round % 20 == 19 {
            assert!(noted.len() > commits_before, "round {round}: nothing was committed any more");
            commits_before = noted.len();
        }
    }
    assert!(server.stop().success());
    let verified = Command::new(binary()).args(["verify", "--data"]).arg(&data).output().expect("it runs");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}
