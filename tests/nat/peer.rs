//! Our side of `nat.py`, in the words of `peer.cjs`: either may stand in for the other on any side of a pair.
//!
//! ```text
//! peer nodes HOST...                   a network, the last host a blind relay; prints `bootstrap HOST:PORT` and `relay KEY`
//! peer serve HOST:PORT [RELAY]         announces itself and echoes; prints `listening KEY`
//! peer connect HOST:PORT KEY [RELAY]   prints `connected ...` when an echo came back
//! ```
//!
//! What must stay true: it ends when it is told to and never by itself, for the harness decides how long a pair may take; what is printed is what happened.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgbee_replication::dht::DhtOptions;
use pgbee_replication::dht::rpc::RpcOptions;
use pgbee_replication::driver::endpoint::{DhtNode, DhtNodeOptions};
use pgbee_replication::secret_stream::{Identity, Role, SecretStream};
use pgbee_replication::swarm::{self, Endpoint, EndpointEvent, EndpointOptions};
use pgbee_replication::transport::udp::{Udp, UdpOptions, UdxStream, local_addresses};
use pgbee_replication::{swarm::discovery, udx};
use pgbee_tests::hex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::Receiver;

const PORT: u16 = 49_737;
const TOPIC: [u8; 32] = [1; 32];

type Ours = Arc<Udp<Endpoint>>;

/// Bytes that nobody guesses, from where every Linux has them.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).expect("random bytes");
    bytes
}

fn key(text: &str) -> [u8; 32] {
    let digits = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    std::array::from_fn(|at| digits(2 * at).expect("a key of 64 hex digits"))
}

fn endpoint(bootstrap: &str, relay: Option<&String>) -> (Ours, Receiver<EndpointEvent>) {
    let bootstrap = vec![bootstrap.parse().expect("HOST:PORT")];
    let relay_through = relay.map(|text| key(text));
    let endpoint_of = |now, server: SocketAddrV4, _| {
        let rpc = RpcOptions { bootstrap, server_port: server.port(), ..RpcOptions::default() };
        let local_addresses = local_addresses(Ipv4Addr::UNSPECIFIED, server.port());
        let dht = DhtOptions { rpc, local_addresses, ..DhtOptions::default() };
        let identity = Identity::from_seed(random());
        let (swarm, udx) = (swarm::SwarmOptions::default(), udx::Config::default());
        Endpoint::new(now, EndpointOptions { dht, identity, swarm, udx, relay_through, is_relay: false }, random())
    };
    let options = UdpOptions { host: Ipv4Addr::UNSPECIFIED, port: PORT, is_port_exact: false };
    Udp::start(endpoint_of, options).expect("sockets")
}

async fn nodes(hosts: &[String]) -> Vec<DhtNode> {
    let address = |host: &String| SocketAddrV4::new(host.parse().expect("an address"), PORT);
    let first = address(&hosts[0]);
    let mut nodes = Vec::new();
    for host in hosts {
        let bootstrap = if nodes.is_empty() { Vec::new() } else { vec![first] };
        let is_relay = nodes.len() + 1 == hosts.len();
        let options = DhtNodeOptions { address: address(host), bootstrap, seed: random(), is_relay };
        nodes.push(DhtNode::start(options).expect("a node"));
        // One after the other, so that each hears of those before it.
        while nodes.len() > 1 && nodes.iter().any(|node| node.info().nodes < (nodes.len() - 1).min(2)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    println!("bootstrap {first}");
    let relay = nodes.last().expect("a host").public_key();
    println!("relay {}", hex(&relay));
    nodes
}

async fn serve(bootstrap: &str, relay: Option<&String>) {
    let (udp, mut events) = endpoint(bootstrap, relay);
    udp.with(|endpoint, now| endpoint.join(now, TOPIC, discovery::Role { client: false, server: true }));
    while !udp.with(|endpoint, _| endpoint.status().topics.iter().any(|topic| topic.is_announced)) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("listening {}", hex(&udp.with(|endpoint, _| endpoint.public_key())));
    while let Some(event) = events.recv().await {
        if let EndpointEvent::Connected { stream, session, is_initiator: false, remote, via, .. } = event {
            println!("accepted from {remote} ({via:?})");
            let secret = SecretStream::established(Role::Responder, &session, random());
            tokio::spawn(echo(udp.stream(stream), secret));
        } else if let EndpointEvent::Note(note) = event {
            println!("note: {}", note.text);
        }
    }
}

async fn echo(mut stream: UdxStream<Endpoint>, mut secret: SecretStream) {
    loop {
        let heard = hear(&mut stream, &mut secret).await;
        let Some(message) = heard else { return };
        secret.send(&message).expect("it fits");
        if say(&mut stream, &mut secret).await.is_none() {
            return;
        }
    }
}

/// The next message that is not empty; None at the end.
async fn hear(stream: &mut UdxStream<Endpoint>, secret: &mut SecretStream) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 4096];
    say(stream, secret).await?;
    loop {
        while let Some(message) = secret.poll_message() {
            if !message.is_empty() {
                return Some(message.to_vec());
            }
        }
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        secret.handle_bytes(&buffer[..read]).ok()?;
    }
}

async fn say(stream: &mut UdxStream<Endpoint>, secret: &mut SecretStream) -> Option<()> {
    let bytes = secret.take_output(usize::MAX);
    stream.write_all(&bytes).await.ok()?;
    stream.flush().await.ok()
}

async fn connect(bootstrap: &str, remote_key: [u8; 32], relay: Option<&String>) {
    let began = Instant::now();
    let (udp, mut events) = endpoint(bootstrap, relay);
    udp.with(|endpoint, now| endpoint.connect_peer(now, remote_key));
    let mut held = Vec::new();
    while let Some(event) = events.recv().await {
        if let EndpointEvent::Connected { stream: id, session, remote, via, is_initiator, .. } = event {
            let opened = began.elapsed();
            println!("open after {:.2} s: {remote} {via:?}", opened.as_secs_f64());
            let role = if is_initiator { Role::Initiator } else { Role::Responder };
            let mut secret = SecretStream::established(role, &session, random());
            let mut stream = udp.stream(id);
            secret.send(b"are you there?").expect("it fits");
            if let Some(answer) = hear(&mut stream, &mut secret).await {
                assert_eq!(answer, b"are you there?");
                println!("connected in {:.2} s to {remote} {via:?}", began.elapsed().as_secs_f64());
            }
            held.push((stream, secret));
        } else if let EndpointEvent::Note(note) = event {
            println!("note: {}", note.text);
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&String> = words.iter().collect();
    match (words.first().map(|word| word.as_str()), words.get(1..).unwrap_or_default()) {
        (Some("nodes"), hosts) if hosts.len() >= 2 => {
            let hosts: Vec<String> = hosts.iter().map(|host| (*host).clone()).collect();
            let _nodes = nodes(&hosts).await;
            std::future::pending::<()>().await;
        }
        (Some("serve"), [bootstrap, relay @ ..]) => serve(bootstrap, relay.first().copied()).await,
        (Some("connect"), [bootstrap, remote, relay @ ..]) => {
            connect(bootstrap, key(remote), relay.first().copied()).await;
        }
        _ => {
            eprintln!("nodes HOST HOST..., serve HOST:PORT [RELAY], connect HOST:PORT KEY [RELAY]");
            std::process::exit(2);
        }
    }
}
