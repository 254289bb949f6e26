// Streams of the real udx-native, driven line by line: one JSON command a line on standard input, one JSON answer a line on standard output.
//
// {"do": "socket", "as": NAME}                  a socket on a free loopback port. Gives {port}
// {"do": "stream", "as": NAME, "id": N}         a stream under that number, not connected
// {"do": "connect", "as", "socket", "remoteId", "port"} {"do": "move", ... the same}   to a port of loopback; move answers when the other side was heard over it
// {"do": "write", "as", "count", "plain"?}      so many bytes made by the rule below (plain: zeros), as fast as the stream takes them; answers at once
// {"do": "flush", "as"}                         when all that was written is acked
// {"do": "end", "as"} {"do": "destroy", "as"} {"do": "keepalive", "as", "ms"}
// {"do": "received", "as", "count"?, "end"?, "close"?}   waits for so many bytes, the end, the close. Gives {count, wrong, ended, closed, reason, seconds}; wrong: the first
//                                               byte that breaks the rule; seconds: between the first byte and the last
// {"do": "plain", "as"}                         what is received is counted and not looked at
// {"do": "send", "as", "message"} {"do": "messages", "as", "count"}    datagrams beside the stream, as hex
// {"do": "relay", "from", "to"}                 what is for one stream goes on to the other's remote
// {"do": "stats", "as"} {"do": "close"}
//
// The rule: byte i of what a stream carries is i * 31 + (i >> 8) * 7 + (i >> 16) * 13, modulo 256.
import readline from 'node:readline'
import UDX from 'udx-native'

const udx = new UDX()
const sockets = new Map()
const streams = new Map()
const rule = (i) => (i * 31 + (i >> 8) * 7 + (i >> 16) * 13) & 255

class Carrier {
  constructor (id) {
    this.stream = udx.createStream(id)
    Object.assign(this, { id, written: 0, count: 0, wrong: null, isPlain: false, ended: false, closed: false, reason: null, messages: [], waiting: [], isFull: false })
    const news = () => { this.waiting = this.waiting.filter((look) => !look()) }
    this.stream.on('data', (data) => {
      this.first ??= process.hrtime.bigint()
      if (!this.isPlain && this.wrong === null) {
        const at = data.findIndex((byte, i) => byte !== rule(this.count + i))
        if (at >= 0) this.wrong = this.count + at
      }
      this.count += data.byteLength
      this.last = process.hrtime.bigint()
      news()
    })
    this.stream.on('drain', () => { this.isFull = false; news() })
    this.stream.on('end', () => { this.ended = true; news() })
    this.stream.on('error', (error) => { this.reason = error.code ?? error.message })
    this.stream.on('close', () => { this.closed = true; news() })
    this.stream.on('message', (message) => { this.messages.push(Buffer.from(message).toString('hex')); news() })
  }

  until (is) {
    return new Promise((resolve) => {
      const look = () => is() && (resolve(), true)
      if (!look()) this.waiting.push(look)
    })
  }

  async write (count, plain) {
    const end = this.written + count
    const zeros = Buffer.alloc(65536)
    while (this.written < end && !this.closed) {
      const size = Math.min(65536, end - this.written)
      const at = this.written
      const data = plain ? zeros.subarray(0, size) : Buffer.alloc(size).map((_, i) => rule(at + i))
      this.written += size
      this.isFull = !this.stream.write(data)
      await this.until(() => !this.isFull || this.closed)
    }
  }
}

const of = ({ as }) => streams.get(as)
const commands = {
  socket ({ as }) {
    const socket = udx.createSocket()
    socket.bind(0, '127.0.0.1')
    sockets.set(as, socket)
    return { port: socket.address().port }
  },
  stream ({ as, id }) { streams.set(as, new Carrier(id)) },
  connect (c) { of(c).stream.connect(sockets.get(c.socket), c.remoteId, c.port, '127.0.0.1') },
  async move (c) { await of(c).stream.changeRemote(sockets.get(c.socket), c.remoteId, c.port, '127.0.0.1') },
  write (c) { const carrier = of(c); carrier.writing = (carrier.writing ?? Promise.resolve()).then(() => carrier.write(c.count, c.plain)) },
  async flush (c) { await of(c).writing; await of(c).stream.flush() },
  async end (c) { await of(c).writing; of(c).stream.end() },
  destroy (c) { of(c).stream.destroy() },
  plain (c) { of(c).isPlain = true },
  keepalive (c) { of(c).stream.setKeepalive(c.ms) },
  async received (c) {
    const it = of(c)
    await it.until(() => it.closed || (it.count >= (c.count ?? 0) && (!c.end || it.ended) && !c.close))
    return { count: it.count, wrong: it.wrong, ended: it.ended, closed: it.closed, reason: it.reason, seconds: it.first ? Number(it.last - it.first) / 1e9 : 0 }
  },
  async send (c) { return { sent: await of(c).stream.send(Buffer.from(c.message, 'hex')) } },
  async messages (c) {
    const it = of(c)
    await it.until(() => it.closed || it.messages.length >= c.count)
    return { messages: it.messages }
  },
  relay ({ from, to }) { streams.get(from).stream.relayTo(streams.get(to).stream) },
  stats (c) {
    const { rtt, cwnd, mtu, inflight, retransmits, packetsReceived, packetsTransmitted, bytesReceived, bytesTransmitted } = of(c).stream
    return { rtt, cwnd, mtu, inflight, retransmits, packetsReceived, packetsTransmitted, bytesReceived, bytesTransmitted }
  },
  close () {}
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  let answer
  try { answer = await commands[command.do](command) } catch (error) { answer = { error: String(error.stack ?? error) } }
  // What is awaited holds up what comes after it: who needs two things at once starts two of these.
  process.stdout.write(JSON.stringify(answer ?? {}) + '\n')
  if (command.do === 'close') break
}
process.exit(0)
