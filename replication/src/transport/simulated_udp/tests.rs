//! Every kind of NAT, hosts that go and come, and what a network does to datagrams: the made-up network is held to its own description.

use super::*;

/// Sends what it is told, keeps what comes, and answers `ping` with `pong`.
#[derive(Default)]
struct Talker {
    out: Vec<Transmit>,
    changes: Vec<SocketChange>,
    heard: Vec<(Now, SocketId, SocketAddrV4, Vec<u8>)>,
    alarm: Option<Now>,
}

impl Machine for Talker {
    fn handle_datagram(&mut self, now: Now, socket: SocketId, from: SocketAddrV4, datagram: &[u8]) {
        self.heard.push((now, socket, from, datagram.to_vec()));
        if datagram == b"ping" {
            self.out.push(Transmit::new(socket, from, b"pong".to_vec()));
        }
    }
    fn poll_transmit(&mut self, _: Now) -> Option<Transmit> {
        self.out.pop()
    }
    fn poll_timeout(&mut self) -> Option<Now> {
        self.alarm
    }
    fn handle_timeout(&mut self, now: Now) {
        self.heard.push((now, SocketId::CLIENT, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), b"alarm".to_vec()));
        self.alarm = None;
    }
    fn poll_socket_change(&mut self, _: Now) -> Option<SocketChange> {
        self.changes.pop()
    }
}

type Net = SimulatedUdp<Talker>;

fn net() -> Net {
    SimulatedUdp::new(1, Conditions::default())
}
fn talker(net: &mut Net, realm: Realm) -> HostId {
    net.add_host(realm, |_, _| Talker::default())
}
fn say(net: &mut Net, from: HostId, socket: SocketId, to: SocketAddrV4, ttl: Option<u8>, what: &[u8]) {
    net.with(from, |talker, _| talker.out.push(Transmit { ttl, ..Transmit::new(socket, to, what.to_vec()) }));
    net.run_for(Duration::from_secs(1));
}
fn heard(net: &mut Net, host: HostId) -> Vec<(SocketAddrV4, Vec<u8>)> {
    net.with(host, |talker, _| std::mem::take(&mut talker.heard))
        .into_iter()
        .map(|(_, _, from, what)| (from, what))
        .collect()
}

/// What a NAT of this kind shows of one socket to two servers and a second port, and whether each of three strangers gets in after the inside spoke to `a` only.
fn probe(nat: Nat) -> (Vec<SocketAddrV4>, [bool; 3]) {
    let mut net = net();
    let (a, b) = (talker(&mut net, Realm::INTERNET), talker(&mut net, Realm::INTERNET));
    let lan = net.add_nat(Realm::INTERNET, nat);
    let inside = talker(&mut net, lan);
    let to_a = net.server_address(a);
    say(&mut net, inside, SocketId::SERVER, to_a, None, b"hello");
    let outside = heard(&mut net, a)[0].0;
    let mut lets_in = [false; 3];
    for (at, (host, socket)) in
        [(a, SocketId::SERVER), (a, SocketId::CLIENT), (b, SocketId::SERVER)].into_iter().enumerate()
    {
        say(&mut net, host, socket, outside, None, b"knock");
        lets_in[at] = !heard(&mut net, inside).is_empty();
    }
    let mut seen = vec![outside];
    let to_b = net.server_address(b);
    say(&mut net, inside, SocketId::SERVER, to_b, None, b"hello");
    seen.push(heard(&mut net, b)[0].0);
    (seen, lets_in)
}

#[test]
fn nats_of_every_kind() {
    for (nat, is_same_everywhere, lets_in) in [
        (Nat::FULL_CONE, true, [true, true, true]),
        (Nat::RESTRICTED, true, [true, true, false]),
        (Nat::PORT_RESTRICTED, true, [true, false, false]),
        (Nat::SYMMETRIC, false, [true, false, false]),
    ] {
        let (seen, let_in) = probe(nat);
        assert_eq!(seen[0] == seen[1], is_same_everywhere, "{nat:?}");
        assert_eq!(let_in, lets_in, "{nat:?}");
        assert_eq!(seen[0].port() == SERVER_PORT, nat.ports == Ports::Preserved, "{nat:?}");
    }
}

#[test]
fn mappings_end_and_low_ttl_packets_open_them() {
    let mut net = net();
    let server = talker(&mut net, Realm::INTERNET);
    let lan = net.add_nat(Realm::INTERNET, Nat { timeout: Duration::from_secs(30), ..Nat::PORT_RESTRICTED });
    let inside = talker(&mut net, lan);
    let to = net.server_address(server);
    say(&mut net, inside, SocketId::SERVER, to, Some(5), b"x");
    assert_eq!((heard(&mut net, server).len(), net.counts().expired), (0, 1));
    let outside = SocketAddrV4::new(net.nats[0].addresses[0], SERVER_PORT);
    say(&mut net, server, SocketId::SERVER, outside, None, b"first");
    assert_eq!(heard(&mut net, inside).len(), 1);
    net.run_for(Duration::from_secs(40));
    say(&mut net, server, SocketId::SERVER, outside, None, b"late");
    assert_eq!((heard(&mut net, inside).len(), net.counts().filtered), (0, 1));
}

#[test]
fn hosts_of_one_lan_and_hairpins_and_chains() {
    for hairpin in [false, true] {
        let mut net = net();
        let server = talker(&mut net, Realm::INTERNET);
        let lan = net.add_nat(Realm::INTERNET, Nat { hairpin, ..Nat::FULL_CONE });
        let (a, b) = (talker(&mut net, lan), talker(&mut net, lan));
        let (to, to_b) = (net.server_address(server), net.server_address(b));
        say(&mut net, a, SocketId::SERVER, to_b, None, b"ping");
        assert_eq!(heard(&mut net, a), [(to_b, b"pong".to_vec())]);
        heard(&mut net, b);
        say(&mut net, b, SocketId::SERVER, to, None, b"hello");
        let outside = heard(&mut net, server)[0].0;
        say(&mut net, a, SocketId::SERVER, outside, None, b"around");
        assert_eq!(heard(&mut net, b).len(), usize::from(hairpin));

        let inner = net.add_nat(lan, Nat::SYMMETRIC);
        let deep = talker(&mut net, inner);
        say(&mut net, deep, SocketId::CLIENT, to, None, b"ping");
        assert_eq!(heard(&mut net, server)[0].0.ip(), outside.ip());
        assert_eq!(heard(&mut net, deep), [(to, b"pong".to_vec())]);
    }
}

#[test]
fn loss_duplicates_and_mtu() {
    let conditions =
        Conditions { losses_per_million: 100_000, duplicates_per_million: 100_000, mtu: 1280, ..Conditions::default() };
    let mut net: Net = SimulatedUdp::new(3, conditions);
    let (a, b) = (talker(&mut net, Realm::INTERNET), talker(&mut net, Realm::INTERNET));
    let to = net.server_address(b);
    net.with(a, |talker, _| {
        talker.out = (0..1000).map(|n: u32| Transmit::new(SocketId::CLIENT, to, n.to_le_bytes().to_vec())).collect();
        talker.out.push(Transmit { segment: Some(1253), ..Transmit::new(SocketId::CLIENT, to, vec![0; 2506]) });
        talker.out.push(Transmit { segment: Some(1252), ..Transmit::new(SocketId::CLIENT, to, vec![0; 2504]) });
    });
    net.run_for(Duration::from_secs(1));
    let came = heard(&mut net, b);
    let counts = net.counts();
    assert_eq!((counts.sent, counts.too_large), (1004, 2));
    assert!((60..140).contains(&counts.lost), "{counts:?}");
    assert!(came.len() as u64 > 1002 - counts.lost + 50);
    let order: Vec<_> = came.iter().map(|(_, what)| what.clone()).collect();
    assert!(!order.is_sorted(), "jitter reorders");
}

#[test]
fn hosts_go_and_come_and_networks_part() {
    let mut net = net();
    let (a, b) = (talker(&mut net, Realm::INTERNET), talker(&mut net, Realm::INTERNET));
    let to = net.server_address(b);
    net.take_down(b);
    say(&mut net, a, SocketId::CLIENT, to, None, b"ping");
    assert_eq!(net.counts().unreachable, 1);
    net.bring_up(b, |now, _| Talker { alarm: Some(now + Duration::from_secs(2)), ..Talker::default() });
    net.set_group(b, 1);
    say(&mut net, a, SocketId::CLIENT, to, None, b"ping");
    assert_eq!(net.counts().unreachable, 2);
    net.set_group(b, 0);
    say(&mut net, a, SocketId::CLIENT, to, None, b"ping");
    assert_eq!(heard(&mut net, a).len(), 1);
    assert_eq!(heard(&mut net, b).iter().filter(|(_, what)| what == b"alarm").count(), 1);
}

#[test]
fn sockets_open_and_close_and_a_seed_fixes_all() {
    let run = || {
        let mut net = net();
        let (a, b) = (talker(&mut net, Realm::INTERNET), talker(&mut net, Realm::INTERNET));
        let to = net.server_address(b);
        net.with(a, |talker, _| talker.changes.push(SocketChange::Open(SocketId(9))));
        say(&mut net, a, SocketId(9), to, None, b"ping");
        net.with(a, |talker, _| talker.changes.push(SocketChange::Close(SocketId(9))));
        say(&mut net, a, SocketId(9), to, None, b"ping");
        (net.with(a, |talker, _| talker.heard.clone()), net.counts())
    };
    let (heard, counts) = run();
    assert_eq!((heard.len(), heard[0].1, counts.sent), (1, SocketId(9), 2));
    assert_eq!(run(), (heard, counts));
}
