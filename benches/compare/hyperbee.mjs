// The JavaScript peer of the bee bench: hyperbee on hypercore, the same keys and values, the same questions.
// usage: node hyperbee.mjs ENTRIES    (run from tests/interop, where the packages are installed)
// Prints: batch_put entries/s, get_warm us, get_cold us, scan entries/s.
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { createRequire } from 'node:module'
const require = createRequire(process.cwd() + '/')
const Hypercore = require('hypercore')
const Hyperbee = require('hyperbee')

const entries = Number(process.argv[2] ?? 100000)
const batchSize = 10000
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'pgbee-bench-'))
const key = (i) => Buffer.from('k' + String(i).padStart(10, '0'))
const value = Buffer.alloc(100, 7)
// The same multiplicative walk as the Rust side: every key once, in no order.
const shuffled = (i) => Number((BigInt(i) * 7919n) % BigInt(entries))
const report = (name, figure, unit) => console.log(`${name} ${figure.toPrecision(4)} ${unit}`)
const seconds = (from) => Number(process.hrtime.bigint() - from) / 1e9

try {
  let core = new Hypercore(folder)
  let bee = new Hyperbee(core, { keyEncoding: 'binary', valueEncoding: 'binary' })
  await bee.ready()
  let from = process.hrtime.bigint()
  for (let i = 0; i < entries; i += batchSize) {
    const batch = bee.batch()
    for (let j = i; j < Math.min(entries, i + batchSize); j++) await batch.put(key(j), value)
    await batch.flush()
  }
  report('batch_put', entries / seconds(from), 'entries/s')
  await bee.close()

  core = new Hypercore(folder)
  bee = new Hyperbee(core, { keyEncoding: 'binary', valueEncoding: 'binary' })
  await bee.ready()
  const gets = Math.min(entries, 5000)
  from = process.hrtime.bigint()
  for (let i = 0; i < gets; i++) if ((await bee.get(key(shuffled(i)))) === null) throw new Error('lost')
  report('get_cold', (seconds(from) / gets) * 1e6, 'us')
  from = process.hrtime.bigint()
  for (let i = 0; i < gets; i++) if ((await bee.get(key(shuffled(i)))) === null) throw new Error('lost')
  report('get_warm', (seconds(from) / gets) * 1e6, 'us')
  from = process.hrtime.bigint()
  const wanted = Math.min(entries, 200000)
  let seen = 0
  for await (const e of bee.createReadStream({ limit: wanted })) { seen++; if (e.value.length !== 100) throw new Error('torn') }
  if (seen !== wanted) throw new Error('short')
  report('scan', seen / seconds(from), 'entries/s')
  await core.close()
} finally {
  fs.rmSync(folder, { recursive: true, force: true })
}
