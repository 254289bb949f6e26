// Replays blocks written by pgbee into a JavaScript hypercore and tells what hyperbee finds in them.
// usage: node read.mjs FILE     FILE: {"blocks": [hex], "versions": [n], "ranges": [{gte, lt, reverse, limit}], "diffs": [[left, right]], "prefix": hex}
// Prints {treeHash, length, entries: [[seq, key, value]] at the head, byVersion, ranges, history, diffs}, byte strings as hex.
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import Hypercore from 'hypercore'
import Hyperbee from 'hyperbee'

const input = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'))
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'pgbee-interop-'))
const hex = (b) => (b === null ? null : Buffer.from(b).toString('hex'))
const entry = (e) => (e === null ? null : [e.seq, hex(e.key), hex(e.value)])
const bytes = (range) => Object.fromEntries(Object.entries(range).map(([k, v]) => [k, typeof v === 'string' ? Buffer.from(v, 'hex') : v]))
const all = async (stream) => { const out = []; for await (const e of stream) out.push(e); return out }

try {
  const core = new Hypercore(folder)
  await core.ready()
  await core.append(input.blocks.map((b) => Buffer.from(b, 'hex')))
  const bee = new Hyperbee(core, { keyEncoding: 'binary', valueEncoding: 'binary' })
  await bee.ready()
  const out = { length: core.length, treeHash: hex(await core.treeHash()), header: (await bee.getHeader()).protocol }
  out.entries = (await all(bee.createReadStream())).map(entry)
  out.byVersion = []
  for (const version of input.versions) out.byVersion.push((await all(bee.checkout(version).createReadStream())).map(entry))
  out.ranges = []
  for (const range of input.ranges) out.ranges.push((await all(bee.createReadStream(bytes(range)))).map(entry))
  out.gets = []
  for (const key of input.gets) out.gets.push(entry(await bee.get(Buffer.from(key, 'hex'))))
  out.history = (await all(bee.createHistoryStream())).map((e) => [e.type, ...entry(e)])
  out.diffs = []
  for (const [left, right] of input.diffs) out.diffs.push((await all(bee.checkout(left).createDiffStream(right))).map((d) => [entry(d.left), entry(d.right)]))
  await core.close()
  process.stdout.write(JSON.stringify(out))
} finally {
  fs.rmSync(folder, { recursive: true, force: true })
}
