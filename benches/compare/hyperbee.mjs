// The JavaScript peer of the bee bench: hyperbee on hypercore, the same keys and values, the same questions.
// usage: node hyperbee.mjs ENTRIES    (run from tests/interop, where the packages are installed)
// Prints medians of three rounds: batch_put entries/s, get_cold us, get_warm us, scan entries/s (cold: just opened, as there).
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { createRequire } from 'node:module'
const require = createRequire(process.cwd() + '/')
const Hypercore = require('hypercore')
const Hyperbee = require('hyperbee')

const entries = Number(process.argv[2] ?? 100000)
const batchSize = 10000
const root = fs.mkdtempSync(path.join(os.tmpdir(), 'pgbee-bench-'))
const key = (i) => Buffer.from('k' + String(i).padStart(10, '0'))
const value = Buffer.alloc(100, 7)
// The same multiplicative walk as the Rust side: every key once, in no order.
const shuffled = (i) => Number((BigInt(i) * 7919n) % BigInt(entries))
const rounds = 3
const figures = {}
const note = (name, figure) => (figures[name] ??= []).push(figure)
const median = (all) => all.sort((a, b) => a - b)[all.length >> 1]
const seconds = (from) => Number(process.hrtime.bigint() - from) / 1e9

const open = async (folder) => {
  const core = new Hypercore(folder)
  const bee = new Hyperbee(core, { keyEncoding: 'binary', valueEncoding: 'binary' })
  await bee.ready()
  return bee
}

const load = async (folder) => {
  const bee = await open(folder)
  const from = process.hrtime.bigint()
  for (let i = 0; i < entries; i += batchSize) {
    const batch = bee.batch()
    for (let j = i; j < Math.min(entries, i + batchSize); j++) await batch.put(key(j), value)
    await batch.flush()
  }
  note('batch_put', entries / seconds(from))
  await bee.close()
}

const gets = async (bee, name) => {
  const count = Math.min(entries, 5000)
  const from = process.hrtime.bigint()
  for (let i = 0; i < count; i++) if ((await bee.get(key(shuffled(i)))) === null) throw new Error('lost')
  note(name, (seconds(from) / count) * 1e6)
}

const scan = async (bee) => {
  const from = process.hrtime.bigint()
  const wanted = Math.min(entries, 200000)
  let seen = 0
  for await (const e of bee.createReadStream({ limit: wanted })) { seen++; if (e.value.length !== 100) throw new Error('torn') }
  if (seen !== wanted) throw new Error('short')
  note('scan', seen / seconds(from))
}

try {
  for (let round = 0; round < rounds; round++) {
    const folder = path.join(root, String(round))
    await load(folder)
    let bee = await open(folder)
    await gets(bee, 'get_cold')
    await gets(bee, 'get_warm')
    await bee.close()
    bee = await open(folder)
    await scan(bee)
    await bee.close()
    fs.rmSync(folder, { recursive: true, force: true })
  }
  for (const [name, all] of Object.entries(figures)) console.log(`${name} ${median(all).toPrecision(4)} ${name.startsWith('get') ? 'us' : 'entries/s'}`)
} finally {
  fs.rmSync(root, { recursive: true, force: true })
}
