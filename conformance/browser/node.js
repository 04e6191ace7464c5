// One real node that can be killed and started again where it was.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream, mkdirSync, mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import assert from 'node:assert/strict'

/** A node answers within seconds; the bound only turns a hang into a failure. */
const PATIENCE_MS = 60_000

export class Node {
  /** Starts a node with a fresh ledger; `prepare` may put things into its folder and answer further flags. */
  static async start(name, flags = [], prepare = async () => []) {
    const parent = process.env.CONFORMANCE_DATA ?? tmpdir()
    mkdirSync(parent, { recursive: true })
    const node = new Node()
    node.folder = mkdtempSync(join(parent, `${name}-`))
    node.flags = [...flags, ...(await prepare(node.folder))]
    node.listen = '127.0.0.1:0'
    await node.start()
    return node
  }

  /** Starts it, on the port that it had before if it had one. */
  async start() {
    // Settings of the machine that runs the tests must not reach the node.
    const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith('DAYBOOK_')))
    this.logPath = join(this.folder, 'node.log')
    this.process = spawn(
      process.env.CONFORMANCE_BINARY,
      ['start', '--data-dir', join(this.folder, 'data'), '--listen', this.listen, '--streams-listen', '127.0.0.1:0', '--bus-listen', '127.0.0.1:0', '--json', ...this.flags],
      { cwd: this.folder, stdio: ['ignore', 'pipe', 'pipe'], env },
    )
    const log = createWriteStream(this.logPath, { flags: 'a' })
    this.process.stderr.pipe(log)
    this.exited = once(this.process, 'exit')
    this.exited.catch(() => {})
    const lines = createInterface({ input: this.process.stdout })
    const ended = this.exited.then(([code]) => {
      throw new Error(`the node ended with ${code}:\n${readFileSync(this.logPath, 'utf8')}`)
    })
    ended.catch(() => {})
    const late = AbortSignal.timeout(PATIENCE_MS)
    const [line] = await Promise.race([once(lines, 'line', { signal: late }), ended])
    const { event, http } = JSON.parse(line)
    assert.equal(event, 'listening')
    this.url = http.replace(/\/$/, '')
    this.listen = new URL(this.url).host
  }

  /** Ends it as a power cut would. */
  async kill() {
    this.process.kill('SIGKILL')
    await this.exited
  }

  /** A node that is asked to stop must do so in order, and must not have panicked before. */
  async stop() {
    this.process.kill('SIGTERM')
    const [code] = await this.exited
    const log = readFileSync(this.logPath, 'utf8')
    assert.equal(code, 0, log)
    assert.ok(!log.includes('panicked at'), log)
  }

  /** Posts a signed transaction and waits until it is committed. */
  async commit(transaction, headers = {}) {
    const reply = await fetch(`${this.url}/api/v1/transactions?mode=commit`, { method: 'POST', body: transaction.text, headers })
    assert.equal(reply.status, 202, await reply.text())
    return transaction
  }

  /** Posts many at once; they may build on each other in this order. */
  async batch(transactions) {
    const body = transactions.map(({ text }) => text).join('\n')
    const reply = await fetch(`${this.url}/api/v1/transactions/batch?ack=durable`, { method: 'POST', body })
    const results = (await reply.text()).trim().split('\n').map((line) => JSON.parse(line))
    for (const result of results) assert.equal(result.status, 'committed', JSON.stringify(result))
    return results
  }

  async data(question) {
    const reply = await fetch(`${this.url}/console/data/${question}`)
    assert.equal(reply.status, 200, `${question}: ${reply.status}`)
    return reply.json()
  }
}
