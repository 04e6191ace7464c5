// WebCrypto and the WebSocket of a real browser, against a real node.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { after, before, test } from 'node:test'

import { Node } from '../node/daybook.js'
import { launch } from './chromium.js'

const source = (path) => readFileSync(new URL(path, import.meta.url), 'utf8')

const FILES = {
  '/': '<!doctype html><title>peers</title><script type="module" src="/peers.js"></script>',
  '/peers.js': source('peers.js'),
  '/tracker.js': source('../node/tracker.js'),
}

let node
let server
let browser
let page

before(async () => {
  node = await Node.start('tracker-browser')
  // A page on a port of its own: to the node it is one of another origin, as a peer's page is.
  server = createServer((request, response) => {
    const file = FILES[request.url]
    response.statusCode = file === undefined ? 404 : 200
    const type = request.url.endsWith('.js') ? 'text/javascript' : 'text/html'
    response.setHeader('content-type', `${type}; charset=utf-8`)
    response.end(file ?? '')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  browser = await launch()
  page = await browser.newPage()
  await page.goto(`http://127.0.0.1:${server.address().port}/`)
  await page.waitForFunction(() => window.run !== undefined)
})

after(async () => {
  await browser?.close()
  server?.closeAllConnections()
  server?.close()
  await node?.stop()
})

const address = () => node.api.replace('http', 'ws').replace('/api/v1/', '/')

test('a page of another origin shakes hands', async () => {
  const pem = await page.evaluate((at) => window.handshake(at), address())
  assert.match(pem, /^-----BEGIN PUBLIC KEY-----\n/)
})

for (const [payer, payee] of [['RSA', 'RSA'], ['RSA', 'ED25519'], ['ED25519', 'P256']]) {
  test(`${payer} pays ${payee} on a page`, async () => {
    const told = await page.evaluate((at, a, b) => window.run(at, a, b), address(), payer, payee)
    assert.equal(told, 'done')
  })
}
