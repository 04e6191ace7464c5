// WebCrypto and the WebSocket of a real browser, against a real node.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'

import { Node } from '../node/daybook.js'
import { Browser, serve } from './browser.js'

const source = (path) => readFileSync(new URL(path, import.meta.url), 'utf8')

let node
let pages
let browser

before(async () => {
  node = await Node.start('tracker-browser')
  pages = await serve({
    '/': '<!doctype html><title>peers</title><script type="module" src="/page.js"></script>',
    '/page.js': source('page.js'),
    '/tracker.js': source('../node/tracker.js'),
  })
  browser = await Browser.start()
  await browser.open(pages.url)
})

after(async () => {
  await browser?.stop()
  pages?.stop()
  await node?.stop()
})

const address = () => JSON.stringify(node.api.replace('http', 'ws').replace('/api/v1/', '/'))

test('a page of another origin shakes hands', async () => {
  const { pem } = await browser.evaluate(`handshake(${address()})`)
  assert.match(pem, /^-----BEGIN PUBLIC KEY-----\n/)
})

for (const [payer, payee] of [['RSA', 'RSA'], ['RSA', 'ED25519'], ['ED25519', 'P256']]) {
  test(`${payer} pays ${payee} on a page`, async () => {
    assert.equal(await browser.evaluate(`run(${address()}, '${payer}', '${payee}')`), 'done')
  })
}
