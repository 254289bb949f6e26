// A JavaScript peer, driven line by line: one JSON command a line on standard input, one JSON answer a line on standard output.
//
// {"do": "open", "as": NAME, ...}       a core: {key?, name?, seed?, compat?, encryptionKey?, plain?}; plain: a Hypercore of its own, else from the Corestore. Gives {key, publicKey, length}
// {"do": "connect", "port": P, "core"?} connects to a server; the whole store, or (plain) one core by Hypercore's own protocol stream
// {"do": "listen", "core"?}             the same for connections that come in. Gives {port}
// {"do": "append", "as", "blocks"}      hex blocks
// {"do": "put", "as", "entries", "batch"?, "sub"?, "valueEncoding"?}   [[key, value]] of the bee in a core; value null deletes
// {"do": "fill", "as", "from", "count"} entries made by a rule, in batches of 1000: key `k%07d`, value {"n": i, "name": "name i", "even": bool}
// {"do": "update", "as", "length"}      waits until the core has so many blocks. Gives {length, fork, treeHash}
// {"do": "get", "as", "index"} {"do": "has", ...} {"do": "download", "as", "start", "end"} {"do": "truncate", "as", "length"} {"do": "clear", "as", "start", "end"}
// {"do": "entries", "as", "range", "version"?} {"do": "bee-get", "as", "key", "version"?} {"do": "history", "as"} {"do": "diff", "as", "left", "right"}   byte strings as hex
// {"do": "info", "as"} {"do": "disconnect"} {"do": "close"}
//
// The DHT, on loopback only; addresses are "127.0.0.1:PORT":
// {"do": "testnet", "size", "bootstrap"?}    persistent nodes. Gives {bootstrap: [the first one's], nodes}
// {"do": "dht", "bootstrap"}                 a node for the following commands
// {"do": "announce" | "lookup" | "unannounce", "topic", "seed"?}   Gives {keys: those that announced the topic}
// {"do": "mutable-put", "seed", "value", "seq"} {"do": "mutable-get", "key", "seq"?} {"do": "immutable-put", "value"} {"do": "immutable-get", "hash"}
// {"do": "serve-echo", "seed"} {"do": "echo", "key", "text", "relayThrough"?}   a server by public key that sends back what it gets, and its client
// {"do": "relay", "seed"}                    a blind relay. Gives {key}
// {"do": "swarm", "bootstrap", "seed"?}      a Hyperswarm that replicates the whole store on each connection. Gives {key}
// {"do": "join", "as" | "topic", "server"?, "client"?} {"do": "leave", ...}   waits until announced and looked up once
// {"do": "connections"}                      Gives {keys}
// {"do": "first-read", "bootstrap", "key", "entry"}   an empty reader that finds a bee by its key. Gives {version, milliseconds}: until it knew a version, until it had the entry
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import readline from 'node:readline'
import Corestore from 'corestore'
import Hypercore from 'hypercore'
import Hyperbee from 'hyperbee'
import crypto from 'hypercore-crypto'

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'pgbee-peer-'))
const store = new Corestore(path.join(folder, 'store'))
const cores = new Map()
const bees = new Map()
const sockets = new Set()
const servers = []
const hex = (b) => (b === null || b === undefined ? null : Buffer.from(b).toString('hex'))
const entry = (e) => (e === null ? null : [e.seq, hex(e.key), hex(e.value)])
const bytes = (range = {}) => Object.fromEntries(Object.entries(range).map(([k, v]) => [k, typeof v === 'string' ? Buffer.from(v, 'hex') : v]))
const all = async (stream) => { const out = []; for await (const e of stream) out.push(e); return out }
const buffer = (text) => (text ? Buffer.from(text, 'hex') : undefined)

function bee (name) {
  if (!bees.has(name)) bees.set(name, new Hyperbee(cores.get(name), { keyEncoding: 'binary', valueEncoding: 'binary' }))
  return bees.get(name)
}

function carry (socket, initiator, name) {
  const stream = name ? cores.get(name).replicate(initiator) : store.replicate(initiator)
  sockets.add(socket)
  socket.setNoDelay(true)
  socket.on('error', () => {})
  socket.on('close', () => sockets.delete(socket))
  stream.on('error', (error) => process.stderr.write(`stream: ${error.message}\n`))
  socket.pipe(stream).pipe(socket)
}

const commands = {
  async open ({ as, key, name, seed, compat, encryptionKey, plain }) {
    const options = {}
    if (encryptionKey) options.encryption = { key: buffer(encryptionKey) }
    if (compat) options.compat = true
    if (seed) options.keyPair = crypto.keyPair(buffer(seed))
    let core
    if (plain) core = new Hypercore(path.join(folder, as), buffer(key) ?? null, options)
    else core = store.get({ ...options, ...(key ? { key: buffer(key) } : {}), ...(name ? { name } : {}) })
    await core.ready()
    cores.set(as, core)
    return { key: hex(core.key), length: core.length, writable: core.writable }
  },
  async connect ({ port, core }) {
    const socket = net.connect(port, '127.0.0.1')
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    carry(socket, true, core)
    return {}
  },
  async listen ({ core }) {
    const server = net.createServer((socket) => carry(socket, false, core))
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
    servers.push(server)
    return { port: server.address().port }
  },
  async append ({ as, blocks }) {
    await cores.get(as).append(blocks.map(buffer))
    return { length: cores.get(as).length }
  },
  async put ({ as, entries, batch, sub, valueEncoding }) {
    let target = bee(as)
    const options = { keyEncoding: 'utf-8', valueEncoding: valueEncoding ?? 'utf-8' }
    // A sub keeps its prefix in its key encoding: one that is given with a batch or a put would replace both.
    for (const prefix of sub ? sub.split('/') : []) target = target.sub(prefix, options)
    const given = sub ? undefined : options
    const writer = batch ? target.batch(given) : target
    for (const [key, value] of entries) {
      if (value === null) await writer.del(key, batch ? undefined : given)
      else await writer.put(key, value, batch ? undefined : given)
    }
    if (batch) await writer.flush()
    return { length: cores.get(as).length }
  },
  async fill ({ as, from, count }) {
    for (let at = from; at < from + count; at += 1000) {
      const batch = bee(as).batch({ keyEncoding: 'utf-8', valueEncoding: 'json' })
      for (let i = at; i < Math.min(at + 1000, from + count); i++) {
        await batch.put('k' + String(i).padStart(7, '0'), { n: i, name: `name ${i}`, even: i % 2 === 0 })
      }
      await batch.flush()
    }
    return { length: cores.get(as).length }
  },
  async update ({ as, length }) {
    const core = cores.get(as)
    while (core.length < length) await new Promise((resolve) => setTimeout(resolve, 5))
    return commands.info({ as })
  },
  async get ({ as, index, timeout }) { return { block: hex(await cores.get(as).get(index, { timeout: timeout ?? 20000 })) } },
  async has ({ as, index }) { return { has: await cores.get(as).has(index) } },
  async download ({ as, start, end }) {
    const before = process.hrtime.bigint()
    await cores.get(as).download({ start, end }).done()
    return { seconds: Number(process.hrtime.bigint() - before) / 1e9 }
  },
  async truncate ({ as, length }) {
    await cores.get(as).truncate(length)
    return { length: cores.get(as).length, fork: cores.get(as).fork }
  },
  async clear ({ as, start, end }) { await cores.get(as).clear(start, end); return {} },
  async entries ({ as, range, version }) {
    const from = version ? bee(as).checkout(version) : bee(as)
    return { entries: (await all(from.createReadStream(bytes(range)))).map(entry) }
  },
  async 'bee-get' ({ as, key, version }) {
    const from = version ? bee(as).checkout(version) : bee(as)
    return { entry: entry(await from.get(buffer(key))) }
  },
  async history ({ as, live, limit }) { return { entries: (await all(bee(as).createHistoryStream({ limit: limit ?? -1 }))).map((e) => [e.type, ...entry(e)]) } },
  async diff ({ as, left, right }) {
    return { entries: (await all(bee(as).checkout(left).createDiffStream(right))).map((d) => [entry(d.left), entry(d.right)]) }
  },
  async info ({ as }) {
    const core = cores.get(as)
    return { length: core.length, fork: core.fork, contiguous: core.contiguousLength, treeHash: hex(await core.treeHash()), peers: core.peers.length }
  },
  async disconnect () { for (const socket of sockets) socket.destroy(); return {} },
  async close () { return {} }
}

let dht = null
let swarm = null
const nodes = []
const echoes = []
const keyPair = (seed) => crypto.keyPair(seed ? buffer(seed) : undefined)
const node = async (options) => {
  const { default: DHT } = await import('hyperdht')
  const made = new DHT({ host: '127.0.0.1', ...options })
  nodes.push(made)
  await made.fullyBootstrapped()
  return made
}
const topic = ({ as, topic }) => (as ? cores.get(as).discoveryKey : buffer(topic))

Object.assign(commands, {
  async testnet ({ size, bootstrap }) {
    const found = []
    let known = bootstrap ?? []
    for (let i = 0; i < size; i++) {
      const made = await node({ ephemeral: false, firewalled: false, bootstrap: known })
      found.push(`127.0.0.1:${made.address().port}`)
      if (known.length === 0) known = [found[0]]
    }
    return { bootstrap: known, nodes: found }
  },
  async dht ({ bootstrap }) { dht = await node({ ephemeral: true, bootstrap }); return { nodes: dht.nodes.length } },
  async announce (command) { await dht.announce(topic(command), keyPair(command.seed)).finished(); return {} },
  async unannounce (command) { await dht.unannounce(topic(command), keyPair(command.seed)); return {} },
  async lookup (command) {
    const keys = new Set()
    for await (const reply of dht.lookup(topic(command))) for (const peer of reply.peers) keys.add(hex(peer.publicKey))
    return { keys: [...keys] }
  },
  async 'mutable-put' ({ seed, value, seq }) {
    const put = await dht.mutablePut(keyPair(seed), buffer(value), { seq })
    return { key: hex(put.publicKey), seq: put.seq, nodes: put.closestNodes.length }
  },
  async 'mutable-get' ({ key, seq }) {
    const got = await dht.mutableGet(buffer(key), { seq: seq ?? 0 })
    return got ? { value: hex(got.value), seq: got.seq } : { value: null }
  },
  async 'immutable-put' ({ value }) { return { hash: hex((await dht.immutablePut(buffer(value))).hash) } },
  async 'immutable-get' ({ hash }) { const got = await dht.immutableGet(buffer(hash)); return { value: got ? hex(got.value) : null } },
  async 'serve-echo' ({ seed }) {
    const pair = keyPair(seed)
    const server = dht.createServer((stream) => { stream.on('error', () => {}); stream.pipe(stream) })
    await server.listen(pair)
    echoes.push(server)
    return { key: hex(pair.publicKey) }
  },
  async echo ({ key, text, relayThrough }) {
    const stream = dht.connect(buffer(key), relayThrough ? { relayThrough: buffer(relayThrough) } : {})
    const told = new Promise((resolve, reject) => stream.once('data', resolve).once('error', reject))
    stream.write(Buffer.from(text))
    const answer = (await told).toString()
    const { remotePort } = stream.rawStream
    stream.end()
    return { text: answer, port: remotePort }
  },
  async relay ({ seed }) {
    const { Server } = await import('blind-relay').then((module) => module.default)
    const relay = new Server({ createStream: (options) => dht.createRawStream({ ...options, framed: true }) })
    const server = dht.createServer((socket) => { socket.on('error', () => {}); relay.accept(socket, { id: socket.remotePublicKey }).on('error', () => {}) })
    const pair = keyPair(seed)
    await server.listen(pair)
    echoes.push(server)
    return { key: hex(pair.publicKey) }
  },
  async swarm ({ bootstrap, seed }) {
    const { default: Hyperswarm } = await import('hyperswarm')
    swarm = new Hyperswarm({ dht: await node({ ephemeral: true, bootstrap }), keyPair: keyPair(seed) })
    swarm.on('connection', (connection) => { connection.on('error', () => {}); store.replicate(connection) })
    return { key: hex(swarm.keyPair.publicKey) }
  },
  async join (command) {
    const joined = swarm.join(topic(command), { server: command.server ?? true, client: command.client ?? true })
    await joined.flushed()
    return {}
  },
  async leave (command) { await swarm.leave(topic(command)); return {} },
  async 'first-read' ({ bootstrap, key, entry }) {
    const { default: Hyperswarm } = await import('hyperswarm')
    const { default: DHT } = await import('hyperdht')
    const began = process.hrtime.bigint()
    const since = () => Number(process.hrtime.bigint() - began) / 1e6
    const empty = new Corestore(path.join(folder, 'empty'))
    const core = empty.get({ key: buffer(key) })
    await core.ready()
    const found = core.findingPeers()
    const own = new DHT({ host: '127.0.0.1', ephemeral: true, bootstrap })
    const reader = new Hyperswarm({ dht: own })
    reader.on('connection', (connection) => { connection.on('error', () => {}); empty.replicate(connection) })
    reader.join(core.discoveryKey, { server: false, client: true })
    reader.flush().then(found, found)
    await core.update()
    const version = since()
    const read = await new Hyperbee(core, { keyEncoding: 'binary', valueEncoding: 'binary' }).get(buffer(entry))
    const milliseconds = since()
    await reader.destroy({ force: true })
    await empty.close()
    return { version, milliseconds, found: read !== null }
  },
  async connections () { return { keys: [...swarm.connections].map((connection) => hex(connection.remotePublicKey)) } }
})

process.on('exit', () => fs.rmSync(folder, { recursive: true, force: true }))
for await (const line of readline.createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  let answer
  try { answer = await commands[command.do](command) } catch (error) { answer = { error: String(error.stack ?? error) } }
  process.stdout.write(JSON.stringify(answer) + '\n')
  if (command.do === 'close') break
}
for (const socket of sockets) socket.destroy()
for (const server of servers) server.close()
if (swarm) await swarm.destroy({ force: true })
for (const made of nodes.reverse()) await made.destroy({ force: true })
process.exit(0)
