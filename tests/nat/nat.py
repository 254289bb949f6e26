#!/usr/bin/env python3
"""Two peers behind real NATs: the kernel's, in network namespaces that lead nowhere else.

    left ---- natA ---- internet ---- natB ---- right        left and right: 192.168.1.2 and 192.168.2.2
                           |                                 natA and natB:  5.1.1.1 and 5.1.2.1
                       DHT nodes                             nodes:          5.1.9.1 ... 5.1.9.8

The public addresses are ones that no list of reserved ranges has (peers ignore those), and none of them is reached: no namespace has a way out.

    nat.py run [--kinds open,consistent,random,lan] [--pairs open-random,...] [--nodes CMD] [--left CMD] [--right CMD] ...

starts for each pair of kinds the nodes' command in the internet, the left command behind the one NAT, and when that is ready the right command behind the other,
and prints who connected and how fast. In commands {bootstrap}, {key} and {relay} stand for what the earlier ones printed; {dir} is a fresh folder of that command;
{host} is its address, {hosts} the nodes' addresses. A command is ready, or done, when a line of its output matches its pattern; the first group, if any, is its
key (left) or what is shown (right). Without commands the JavaScript peers of peer.cjs are used.

kinds   open         no NAT
        consistent   masquerade: keeps ports, lets in only who was sent something
        random       masquerade --random-fully: another port for each destination
        lan          both behind one consistent NAT (only as a pair with itself)

    nat.py clean      removes what killed runs left behind; every run does so first

What must stay true: everything started is ended, every namespace removed, also after a failure; what a killed run could not remove, the next one removes, and
nothing of a run that is still there. Skipped, with the reason, unless root with ip and iptables.
"""

import argparse
import contextlib
import glob
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
KINDS = ["open", "consistent", "random"]
NODES = [f"5.1.9.{number}" for number in range(1, 9)]
JS = f"node {shlex.quote(os.path.join(HERE, 'peer.cjs'))}"
# A packet with fewer hops left than this does not cross the internet: real ones are longer than ours.
HOPS = 6


class Failed(Exception):
    """The harness itself does not work here."""


def sh(*words, ns=None, check=True):
    """Run a command, in a namespace if one is named."""
    words = (["ip", "netns", "exec", ns] if ns else []) + list(words)
    done = subprocess.run(words, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done


def missing():
    """Why this cannot run here, or None."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    for tool, package in (("ip", "iproute2"), ("iptables", "iptables"), ("sysctl", "procps")):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (package {package})"
    probe = f"pgbee-{own_name()}-probe"
    try:
        sh("ip", "netns", "add", probe)
        sh("iptables", "-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE", "--random-fully", ns=probe)
        sh("iptables", "-A", "FORWARD", "-m", "ttl", "--ttl-lt", str(HOPS), "-j", "DROP", ns=probe)
        sh("iptables", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP", ns=probe)
        sh("sysctl", "-qw", "net.ipv4.ip_forward=1", ns=probe)
        sh("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1", ns=probe)
        sh("ip", "link", "add", "lan", "type", "bridge", ns=probe)
        return None
    except Failed as failed:
        return f"this kernel or container refuses: {failed}"
    finally:
        sh("ip", "netns", "del", probe, check=False)


def remove(name):
    """End everything in a namespace, and remove it."""
    for pid in sh("ip", "netns", "pids", name, check=False).stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    sh("ip", "netns", "del", name, check=False)


def began_at(pid):
    """When a process began, in the kernel's ticks: with its id a name that no other process ever had. None: there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[19]
    except OSError:
        return None


def clean():
    """Remove namespaces and folders of runs that are no more."""
    for line in sh("ip", "netns", "list", check=False).stdout.splitlines():
        name = line.split()[0] if line.split() else ""
        owner = re.fullmatch(r"pgbee-(\d+)-(\d+)-\w+", name)
        if owner and began_at(owner.group(1)) != owner.group(2):
            remove(name)
    for folder in glob.glob(os.path.join(tempfile.gettempdir(), "pgbee-nat-*")):
        owner = re.fullmatch(r"pgbee-nat-(\d+)-(\d+)-\w+", os.path.basename(folder))
        if owner and began_at(owner.group(1)) != owner.group(2):
            shutil.rmtree(folder, ignore_errors=True)


def own_name():
    """What this run's things are called by."""
    return f"{os.getpid()}-{began_at(os.getpid())}"


class Net:
    """The namespaces of one pair."""

    def __init__(self, left, right, loss):
        self.tag = f"pgbee-{own_name()}"
        self.links = itertools.count()
        self.names = []
        try:
            self.internet = self.add("inet")
            sh("sysctl", "-qw", "net.ipv4.ip_forward=1", ns=self.internet)
            for host in NODES:
                sh("ip", "addr", "add", f"{host}/32", "dev", "lo", ns=self.internet)
            sh("iptables", "-A", "FORWARD", "-m", "ttl", "--ttl-lt", str(HOPS), "-j", "DROP", ns=self.internet)
            if loss > 0:
                words = ["-m", "statistic", "--mode", "random", "--probability", str(loss), "-j", "DROP"]
                for chain in ("FORWARD", "INPUT"):
                    sh("iptables", "-A", chain, "!", "-i", "lo", *words, ns=self.internet)
            if left == "lan":
                self.left, self.right = self.behind("A", 1, "consistent", 2)
            else:
                (self.left,) = self.behind("A", 1, left, 1)
                (self.right,) = self.behind("B", 2, right, 1)
        except BaseException:
            self.close()
            raise

    def add(self, name):
        """A namespace with its loopback up."""
        name = f"{self.tag}-{name}"
        self.names.append(name)
        sh("ip", "netns", "add", name)
        sh("ip", "link", "set", "lo", "up", ns=name)
        return name

    def link(self, a, b):
        """A cable between two namespaces; the interfaces at both ends."""
        number = next(self.links)
        ends = f"v{number}a", f"v{number}b"
        sh("ip", "link", "add", ends[0], "netns", a, "type", "veth", "peer", "name", ends[1], "netns", b)
        for ns, end in zip((a, b), ends):
            sh("ip", "link", "set", end, "up", ns=ns)
        return ends

    def attach(self, ns, number, outside):
        """Connect a namespace to the internet under an address; its interface."""
        inner, outer = self.link(ns, self.internet)
        sh("ip", "addr", "add", f"{outside}/24", "dev", inner, ns=ns)
        sh("ip", "addr", "add", f"5.1.{number}.254/24", "dev", outer, ns=self.internet)
        sh("ip", "route", "add", "default", "via", f"5.1.{number}.254", ns=ns)
        return inner

    def behind(self, name, number, kind, hosts):
        """Hosts in a network of this kind."""
        if kind == "open":
            host = self.add(f"host{name}")
            self.attach(host, number, f"5.1.{number}.1")
            return [host]
        nat = self.add(f"nat{name}")
        sh("sysctl", "-qw", "net.ipv4.ip_forward=1", ns=nat)
        outside = self.attach(nat, number, f"5.1.{number}.1")
        sh("ip", "link", "add", "lan", "type", "bridge", ns=nat)
        sh("ip", "addr", "add", f"192.168.{number}.1/24", "dev", "lan", ns=nat)
        sh("ip", "link", "set", "lan", "up", ns=nat)
        random = ["--random-fully"] if kind == "random" else []
        sh("iptables", "-t", "nat", "-A", "POSTROUTING", "-o", outside, "-j", "MASQUERADE", *random, ns=nat)
        # What nobody asked for is dropped without a word, as a home router does; and a dropped packet leaves no entry that later would take a port.
        sh("iptables", "-A", "INPUT", "-i", outside, "-j", "DROP", ns=nat)
        sh("iptables", "-A", "FORWARD", "-i", outside, "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP", ns=nat)
        inside = []
        for which in range(hosts):
            host = self.add(f"host{name}{which}")
            near, far = self.link(nat, host)
            sh("ip", "link", "set", near, "master", "lan", ns=nat)
            sh("ip", "addr", "add", f"192.168.{number}.{which + 2}/24", "dev", far, ns=host)
            sh("ip", "route", "add", "default", "via", f"192.168.{number}.1", ns=host)
            inside.append(host)
        return inside

    def close(self):
        """Remove everything."""
        for name in reversed(self.names):
            remove(name)
        self.names = []


class Process:
    """A command in a namespace, its output watched line by line."""

    def __init__(self, name, ns, command, log):
        self.name, self.lines, self.changed, self.log = name, [], threading.Condition(), log
        self.child = subprocess.Popen(["ip", "netns", "exec", ns, "sh", "-c", f"exec {command}"], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        """Collect lines until the end."""
        for line in self.child.stdout:
            if self.log:
                self.log.write(f"{time.monotonic():.3f} {self.name}: {line}")
                self.log.flush()
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.lines.append(None)
            self.changed.notify_all()

    def wait_for(self, pattern, seconds):
        """The first line that matches, or None: in time no such line came, or the command ended before."""
        pattern, seen, until = re.compile(pattern), 0, time.monotonic() + seconds
        with self.changed:
            while True:
                for line in self.lines[seen:]:
                    found = line is not None and pattern.search(line)
                    if found:
                        return found
                    if line is None:
                        return None
                seen, left = len(self.lines), until - time.monotonic()
                if left <= 0:
                    return None
                self.changed.wait(left)

    def end(self):
        """Ask it to end, then make it."""
        # The group outlives the process that it is named after, if that one started others.
        for ask in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, ask)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(3)
        self.reader.join(3)


def group(found, fallback=""):
    """The first group of a match, if it has one."""
    return found.group(1) if found.re.groups and found.group(1) else fallback


def run_pair(left, right, args, log):
    """One pair: (whether it connected, seconds from the right command's start, what it said)."""
    words = {"bootstrap": f"{NODES[0]}:49737", "hosts": " ".join(NODES), "relay": "", "key": "", "modules": args.modules}
    with contextlib.ExitStack() as ends:
        net = Net(left, right, args.loss)
        ends.callback(net.close)

        def start(name, ns, command, host):
            folder = tempfile.mkdtemp(prefix=f"pgbee-nat-{own_name()}-")
            ends.callback(shutil.rmtree, folder, ignore_errors=True)
            process = Process(name, ns, command.format(**words, dir=folder, host=host), log)
            ends.callback(process.end)
            return process

        nodes = start("nodes", net.internet, args.nodes, NODES[0])
        found = nodes.wait_for(args.nodes_ready, args.start_timeout)
        if not found:
            raise Failed(f"the nodes did not start: {nodes.lines[-5:]}")
        words["bootstrap"] = group(found, words["bootstrap"])
        if args.relay_ready:
            found = nodes.wait_for(args.relay_ready, args.start_timeout)
            if not found:
                raise Failed(f"there is no relay: {nodes.lines[-5:]}")
            words["relay"] = group(found)
        first = start("left", net.left, args.left, "192.168.1.2" if left != "open" else "5.1.1.1")
        found = first.wait_for(args.left_ready, args.start_timeout)
        if not found:
            raise Failed(f"the left side is not ready: {first.lines[-5:]}")
        words["key"] = group(found)
        began = time.monotonic()
        second = start("right", net.right, args.right, "192.168.2.2" if right != "open" else "5.1.2.1")
        found = second.wait_for(args.right_done, args.timeout)
        took = time.monotonic() - began
        said = [line for line in second.lines if line is not None]
        return bool(found), took, group(found) if found else (said[-1] if said else "nothing was said")


def pairs_of(args):
    """Which pairs of kinds to run."""
    if args.pairs:
        return [tuple(pair.split("-")) for pair in args.pairs.split(",")]
    kinds = args.kinds.split(",")
    pairs = list(itertools.product([kind for kind in kinds if kind != "lan"], repeat=2))
    return pairs + ([("lan", "lan")] if "lan" in kinds else [])


def run(args):
    """All pairs; the exit code."""
    reason = missing()
    if reason:
        print(f"skipped: {reason}")
        return 0 if not args.required else 1
    for left, right in pairs_of(args):
        if left not in KINDS + ["lan"] or right not in KINDS + ["lan"] or (left == "lan") != (right == "lan"):
            print(f"no such pair: {left}-{right}", file=sys.stderr)
            return 2
    clean()
    hopeless = set(filter(None, args.hopeless.split(",")))
    wrong = 0
    with contextlib.ExitStack() as ends:
        log = ends.enter_context(open(args.log, "a", encoding="utf-8")) if args.log else None
        print(f"{'left':<12}{'right':<12}{'connected':<11}{'seconds':>8}  said", flush=True)
        for left, right in pairs_of(args):
            for _ in range(args.repeat):
                connected, took, said = run_pair(left, right, args, log)
                is_wrong = connected == (f"{left}-{right}" in hopeless)
                wrong += is_wrong
                note = " (not as expected)" if is_wrong else ""
                print(f"{left:<12}{right:<12}{'yes' if connected else 'no':<11}{took:8.2f}  {said[:100]}{note}", flush=True)
    return 1 if wrong else 0


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description="Two peers behind real NATs in network namespaces")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="say whether this can run here")
    check.set_defaults(run=lambda _: (lambda reason: print(reason or "it can run here") or (1 if reason else 0))(missing()))
    cleaning = commands.add_parser("clean", help="remove what killed runs left behind")
    cleaning.set_defaults(run=lambda _: clean())
    each = commands.add_parser("run", help="run pairs of NATs")
    each.add_argument("--kinds", default=",".join(KINDS), help="all pairs of these; lan too")
    each.add_argument("--pairs", default="", help="only these: left-right,...")
    each.add_argument("--nodes", default=f"{JS} nodes {{hosts}}")
    each.add_argument("--left", default=f"{JS} serve {{bootstrap}} {{relay}}")
    each.add_argument("--right", default=f"{JS} connect {{bootstrap}} {{key}} {{relay}}")
    each.add_argument("--nodes-ready", default=r"^bootstrap (\S+)")
    each.add_argument("--relay-ready", default="", help=r"pattern of the nodes' line that names a relay, such as '^relay (\S+)'")
    each.add_argument("--left-ready", default=r"^listening (\S+)")
    each.add_argument("--right-done", default=r"^connected (.*)")
    each.add_argument("--hopeless", default="random-random", help="pairs that must not connect")
    each.add_argument("--modules", default=os.environ.get("NODE_PATH", ""), help="what {modules} stands for")
    each.add_argument("--timeout", type=float, default=60, help="seconds for a connection")
    each.add_argument("--start-timeout", type=float, default=30, help="seconds for nodes and left to be ready")
    each.add_argument("--loss", type=float, default=0, help="share of packets that the internet loses")
    each.add_argument("--repeat", type=int, default=1)
    each.add_argument("--log", default="", help="append all output to this file")
    each.add_argument("--required", action="store_true", help="a skip is a failure")
    each.set_defaults(run=run)
    args = parser.parse_args()
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda *_: sys.exit(143))
    try:
        sys.exit(args.run(args))
    except Failed as failed:
        print(f"failed: {failed}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
