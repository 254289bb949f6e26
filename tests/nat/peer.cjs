// The JavaScript side of nat.py: DHT nodes, a server and a client of hyperdht, found through NODE_PATH.
//
//   node peer.cjs nodes HOST...                        a network; the last host is a blind relay; prints `bootstrap HOST:PORT` and `relay KEY`
//   node peer.cjs serve HOST:PORT [RELAY]              a server that echoes; prints `listening KEY`
//   node peer.cjs connect HOST:PORT KEY [RELAY]        prints `connected ...` when an echo came back, or `failed ...`
const DHT = require('hyperdht')
const relay = require('blind-relay')

const PORT = 49737
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

const commands = { nodes, serve, connect }
if (!commands[command]) {
  console.error('nodes, serve or connect')
  process.exit(2)
}
Promise.resolve(commands[command](args)).catch((error) => {
  console.error(error)
  process.exit(1)
})
