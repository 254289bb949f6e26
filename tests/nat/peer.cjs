// The JavaScript side of nat.py: DHT nodes, a server and a client of hyperdht, a writer and a reader of a hyperbee; the packages are found through NODE_PATH.
//
//   node peer.cjs nodes HOST...                        a network; the last host is a blind relay; prints `bootstrap HOST:PORT` and `relay KEY`
//   node peer.cjs serve HOST:PORT [RELAY]              a server that echoes; prints `listening KEY`
//   node peer.cjs connect HOST:PORT KEY [RELAY]        prints `connected ...` when an echo came back, or `failed ...`
//   node peer.cjs write HOST:PORT DIR [RELAY]          hyperswarm with a bee of 1,000 entries; prints `listening KEY`
//   node peer.cjs read HOST:PORT KEY DIR [RELAY]       prints `connected ...` when it has read all of a bee
const DHT = require('hyperdht')
const relay = require('blind-relay')

const PORT = 49737
const ENTRIES = 1000
const [command, ...args] = process.argv.slice(2)
const say = (text) => process.stdout.write(text + '\n')

async function nodes (hosts) {
  const [first, ...others] = hosts
  const bootstrap = [{ host: first, port: PORT }]
  const bootstrapper = DHT.bootstrapper(PORT, first, { host: first })
  await bootstrapper.fullyBootstrapped()
  const all = []
  for (const host of others) {
    const node = new DHT({ bootstrap, host, port: PORT, ephemeral: false, firewalled: false, anyPort: false })
    await node.fullyBootstrapped()
    all.push(node)
  }
  const node = all[all.length - 1]
  const server = new relay.Server({ createStream: (options) => node.createRawStream({ ...options, framed: true }) })
  const listener = node.createServer((connection) => {
    connection.on('error', () => {})
    server.accept(connection, { id: connection.remotePublicKey }).on('error', () => {})
  })
  await listener.listen(DHT.keyPair())
  say(`bootstrap ${first}:${PORT}`)
  say(`relay ${listener.publicKey.toString('hex')}`)
}

async function serve ([bootstrap, through]) {
  const node = new DHT({ bootstrap: [bootstrap] })
  const server = node.createServer({ relayThrough: through ? Buffer.from(through, 'hex') : null })
  server.on('connection', (connection) => {
    connection.on('error', () => {})
    connection.pipe(connection)
    say(`accepted from ${connection.rawStream.remoteHost}:${connection.rawStream.remotePort}`)
  })
  await server.listen(DHT.keyPair())
  say(`listening ${server.publicKey.toString('hex')}`)
}

function connect ([bootstrap, key, through]) {
  const node = new DHT({ bootstrap: [bootstrap] })
  const began = Date.now()
  const seconds = () => ((Date.now() - began) / 1000).toFixed(2)
  let kinds = ''
  const connection = node.connect(Buffer.from(key, 'hex'), {
    relayThrough: through ? Buffer.from(through, 'hex') : null,
    holepunch (remote, local) {
      kinds = ` we ${local} they ${remote}`
      return true
    }
  })
  connection.on('error', (error) => {
    say(`failed after ${seconds()} s: ${error.code || error.message}${kinds}`)
    process.exit(1)
  })
  connection.on('open', () => connection.write(Buffer.from('are you there?')))
  connection.on('data', () => {
    const { remoteHost, remotePort } = connection.rawStream
    say(`connected in ${seconds()} s to ${remoteHost}:${remotePort}${kinds}`)
  })
}

async function swarmOf (bootstrap, dir, through) {
  const Hyperswarm = require('hyperswarm')
  const Corestore = require('corestore')
  const store = new Corestore(dir)
  await store.ready()
  const swarm = new Hyperswarm({ bootstrap: [bootstrap], relayThrough: through ? Buffer.from(through, 'hex') : null })
  swarm.on('connection', (connection) => {
    connection.on('error', () => {})
    store.replicate(connection)
  })
  return { store, swarm }
}

async function write ([bootstrap, dir, through]) {
  const Hyperbee = require('hyperbee')
  const { store, swarm } = await swarmOf(bootstrap, dir, through)
  const core = store.get({ name: 'bee' })
  const batch = new Hyperbee(core, { keyEncoding: 'utf-8', valueEncoding: 'utf-8' }).batch()
  for (let i = 1; i <= ENTRIES; i++) await batch.put('k' + String(i).padStart(4, '0'), `value ${i}`)
  await batch.flush()
  await swarm.join(core.discoveryKey, { server: true, client: true }).flushed()
  say(`listening ${core.key.toString('hex')}`)
}

async function read ([bootstrap, key, dir, through]) {
  const Hyperbee = require('hyperbee')
  const began = Date.now()
  const seconds = () => ((Date.now() - began) / 1000).toFixed(2)
  const { store, swarm } = await swarmOf(bootstrap, dir, through)
  const core = store.get({ key: Buffer.from(key, 'hex') })
  await core.ready()
  swarm.join(core.discoveryKey, { server: false, client: true })
  // Asked again until somebody is there: without peers an update says that there is nothing new.
  while (core.length === 0) {
    await core.update()
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  let first = null
  let count = 0
  for await (const entry of new Hyperbee(core, { keyEncoding: 'binary', valueEncoding: 'binary' }).createReadStream()) {
    first = first ?? (entry.value && seconds())
    count++
  }
  if (count < ENTRIES) throw new Error(`only ${count} entries`)
  const [{ rawStream }] = swarm.connections
  say(`connected in ${first} s to ${rawStream.remoteHost}:${rawStream.remotePort}, all ${count} entries in ${seconds()} s`)
}

const commands = { nodes, serve, connect, write, read }
if (!commands[command]) {
  console.error('nodes, serve or connect')
  process.exit(2)
}
Promise.resolve(commands[command](args)).catch((error) => {
  console.error(error)
  process.exit(1)
})
