// A headless Chromium, driven over its DevTools protocol.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as after } from 'node:timers/promises'

// `ws` is installed for the suites beside this one.
const require = createRequire(new URL('../node/', import.meta.url))
const WebSocket = require('ws')

// Chromium starts within seconds; the bounds only turn a hang into a failure.
const START_MS_MAX = 60_000
const ANSWER_MS_MAX = 120_000

function within(ms, promise, what) {
  const timer = new AbortController()
  const late = after(ms, undefined, { signal: timer.signal }).then(() => {
    throw new Error(`${what} took more than ${ms} ms`)
  })
  late.catch(() => {})
  return Promise.race([promise, late]).finally(() => timer.abort())
}

/** A page of modules on a port of its own: scripts of a page must come from somewhere. */
export async function serve(files) {
  const server = createServer((request, response) => {
    const file = files[request.url]
    response.statusCode = file === undefined ? 404 : 200
    const type = request.url.endsWith('.js') ? 'text/javascript' : 'text/html'
    response.setHeader('content-type', `${type}; charset=utf-8`)
    response.end(file ?? '')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { url: `http://127.0.0.1:${server.address().port}`, stop: () => server.close() }
}

export class Browser {
  #count = 0
  #waiting = new Map()

  static async start() {
    const browser = new Browser()
    browser.folder = mkdtempSync(join(tmpdir(), 'chromium-'))
    // The sandbox wants rights that containers do not have; the only page is our own.
    browser.process = spawn(process.env.CONFORMANCE_CHROMIUM ?? 'chromium', [
      '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
      '--remote-debugging-port=0', `--user-data-dir=${browser.folder}`, 'about:blank',
    ], { stdio: ['ignore', 'ignore', 'pipe'] })
    browser.exited = once(browser.process, 'exit')
    browser.exited.catch(() => {})
    const said = []
    const address = new Promise((resolve, reject) => {
      createInterface({ input: browser.process.stderr }).on('line', (line) => {
        said.push(line)
        const found = /^DevTools listening on (ws:.*)$/.exec(line)
        if (found) resolve(found[1])
      })
      browser.exited.then(() => reject(new Error(`Chromium ended:\n${said.join('\n')}`)), reject)
    })
    const socket = new WebSocket(await within(START_MS_MAX, address, 'the start of Chromium'))
    await once(socket, 'open')
    browser.socket = socket
    socket.on('message', (data) => browser.#take(JSON.parse(data)))
    return browser
  }

  #take(message) {
    const waiting = this.#waiting.get(message.id)
    if (!waiting) return
    this.#waiting.delete(message.id)
    if (message.error) waiting.reject(new Error(message.error.message))
    else waiting.resolve(message.result)
  }

  #ask(method, params = {}, sessionId = undefined) {
    const id = (this.#count += 1)
    const answered = new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
    })
    this.socket.send(JSON.stringify({ id, method, params, sessionId }))
    return within(ANSWER_MS_MAX, answered, method)
  }

  /** Opens a page and waits until it is there. */
  async open(url) {
    const { targetId } = await this.#ask('Target.createTarget', { url })
    const { sessionId } = await this.#ask('Target.attachToTarget', { targetId, flatten: true })
    this.session = sessionId
    await this.evaluate(`new Promise((resolve) => {
      if (document.readyState === 'complete') resolve()
      else addEventListener('load', resolve)
    })`)
  }

  /** Runs an expression on the page; answers what its promise gives. */
  async evaluate(expression) {
    const answer = await this.#ask('Runtime.evaluate', {
      expression, awaitPromise: true, returnByValue: true,
    }, this.session)
    if (answer.exceptionDetails) {
      const { exception, text } = answer.exceptionDetails
      throw new Error(exception?.description ?? text)
    }
    return answer.result.value
  }

  async stop() {
    this.socket?.close()
    this.process.kill('SIGKILL')
    await this.exited
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 })
  }
}
