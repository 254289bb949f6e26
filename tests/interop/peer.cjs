// The other side of replication/tests/javascript.rs: a writer that listens, or a reader that connects. Commands come in lines, answers go out as JSON.
const Hypercore = require('hypercore'), Corestore = require('corestore'), b4a = require('b4a')
const net = require('net'), os = require('os'), fs = require('fs'), path = require('path')
const mode = process.argv[2]
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rjs-'))
const say = (o) => console.log(JSON.stringify(o))
async function main () {
  if (mode === 'writer') {
    const store = new Corestore(dir)
    const core = store.get({ name: 'log' })
    await core.ready()
    const n = Number(process.argv[3])
    for (let i = 0; i < n; i += 500) await core.append(Array.from({ length: Math.min(500, n - i) }, (_, k) => b4a.from(`js block ${i + k} ${'y'.repeat((i + k) % 50)}`)))
    const server = net.createServer(s => { s.setNoDelay(true); s.on('error', () => {}); const st = store.replicate(false); st.on('error', e => say({ error: e.message })); st.pipe(s).pipe(st) })
    server.listen(0, '127.0.0.1', () => say({ port: server.address().port, key: b4a.toString(core.key, 'hex') }))
    process.stdin.on('data', async d => {
      for (const line of d.toString().trim().split('\n')) {
        const [c, a, b] = line.split(' ')
        if (c === 'append') { await core.append(Array.from({ length: Number(a) }, (_, k) => b4a.from(`${b} ${k}`))) }
        if (c === 'truncate') await core.truncate(Number(a))
        if (c === 'clear') await core.clear(Number(a), Number(b))
        if (c === 'quit') process.exit(0)
        say({ length: core.length, fork: core.fork, hash: b4a.toString(await core.treeHash(), 'hex'), peers: core.peers.length })
      }
    })
  } else {
    const [, , , port, key] = process.argv
    const store = new Corestore(dir)
    const core = store.get({ key: b4a.from(key, 'hex') })
    await core.ready()
    const s = net.connect(Number(port), '127.0.0.1'); s.setNoDelay(true)
    const st = store.replicate(true); st.on('error', e => say({ error: e.message })); s.pipe(st).pipe(s)
    core.on('append', () => say({ event: 'append', length: core.length, fork: core.fork }))
    core.on('truncate', () => say({ event: 'truncate', length: core.length, fork: core.fork }))
    core.on('verification-error', (e) => say({ event: 'verification-error', m: e.message }))
    say({ ready: true })
    process.stdin.on('data', async d => {
      for (const line of d.toString().trim().split('\n')) {
        const [c, a] = line.split(' ')
        if (c === 'get') { const b = await core.get(Number(a), { timeout: 5000 }).catch(e => null); say({ got: b && b.toString() }) }
        if (c === 'download') { const t = Date.now(); await core.download({ start: 0, end: core.length }).done(); say({ done: core.contiguousLength, length: core.length, fork: core.fork, ms: Date.now() - t, hash: b4a.toString(await core.treeHash(), 'hex') }) }
        if (c === 'seek') say({ seek: await core.seek(Number(a)) })
        if (c === 'update') say({ update: await core.update(), length: core.length, fork: core.fork })
        if (c === 'quit') process.exit(0)
      }
    })
  }
}
main().catch(e => { say({ error: e.stack }); process.exit(1) })
