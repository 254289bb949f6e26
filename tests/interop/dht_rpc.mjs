// Nodes of the real dht-rpc, driven line by line: one JSON command a line on standard input, one JSON answer a line on standard output.
//
// {"do": "node", "as": NAME, "bootstrap": [PORT], "ephemeral"}   a node on loopback, when its first walk is over. Gives {port, id}; it answers command 7 with the value
//                                        it was sent, and tells whether a token came along as a second byte string behind it
// {"do": "find", "as", "target"}         walks. Gives {ports} of the closest that answered
// {"do": "commit", "as", "target", "value"}   walks with command 7, then sends it to each of the closest with the token it gave. Gives {values} of the walk
// {"do": "ping", "as", "port"} {"do": "delayed", "as", "port", "ms"}  Gives {ms}: how long it took
// {"do": "known", "as"}                  Gives {ports} of its table
// {"do": "stop", "as"} {"do": "close"}
import readline from 'node:readline'
import DHT from 'dht-rpc'

const host = '127.0.0.1'
const nodes = new Map()
const hex = (bytes) => (bytes ? Buffer.from(bytes).toString('hex') : null)
const unhex = (text) => Buffer.from(text, 'hex')
const took = async (does) => { const begin = Date.now(); await does(); return { ms: Date.now() - begin } }

const commands = {
  async node ({ as, bootstrap, ephemeral }) {
    const node = new DHT({ bootstrap: bootstrap.map((port) => ({ host, port })), host, ephemeral, firewalled: ephemeral })
    node.on('request', (req) => {
      if (req.command === 7) req.reply(Buffer.concat([req.value, Buffer.from(req.token ? [1] : [0])]))
      else req.error(1)
    })
    await node.fullyBootstrapped()
    nodes.set(as, node)
    return { port: node.io.serverSocket.address().port, id: hex(node.id) }
  },
  async find ({ as, target }) {
    const query = nodes.get(as).findNode(unhex(target))
    await query.finished()
    return { ports: query.closestNodes.map((node) => node.port) }
  },
  async commit ({ as, target, value }) {
    const query = nodes.get(as).query({ target: unhex(target), command: 7, value: unhex(value) }, { commit: true })
    const values = []
    for await (const reply of query) values.push(hex(reply.value))
    return { values }
  },
  ping: ({ as, port }) => took(() => nodes.get(as).ping({ host, port })),
  delayed: ({ as, port, ms }) => took(() => nodes.get(as).delayedPing({ host, port }, ms)),
  known: ({ as }) => ({ ports: nodes.get(as).toArray().map((node) => node.port) }),
  async stop ({ as }) { await nodes.get(as).destroy() },
  close () {}
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  let answer
  try { answer = await commands[command.do](command) } catch (error) { answer = { error: String(error.stack ?? error) } }
  process.stdout.write(JSON.stringify(answer ?? {}) + '\n')
  if (command.do === 'close') break
}
process.exit(0)
