// The web console in Chromium, in front of a real node.

import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createPublicKey, generateKeyPairSync, sign, verify } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import WebSocket from 'ws'

import { Command, contract, cosigned, Peer } from '../node/tracker.js'
import { Node } from './node.js'
import { browser, DESK, Page, PHONE, PICTURES } from './page.js'
import { create, Key, transfer } from './wallet.js'

/** A shop: a lamp, paid and passed on, and a coin in many hands. */
async function shop(node) {
  const [mint, alice, bob, carol] = [1, 2, 3, 4].map((number) => new Key(Buffer.alloc(32, number)))
  const lamp = await node.commit(create(alice, { kind: 'lamp', name: 'Reading lamp No. 7', watts: 9 }, { metadata: { shelf: 'A3' } }))
  const coin = await node.commit(create(mint, { kind: 'token', name: 'Demo coin' }, { amount: 1_000_000 }))
  const toAlice = await node.commit(transfer(mint, coin, 0, alice, 250_000))
  const toBob = await node.commit(transfer(mint, toAlice, 1, bob, 300_000))
  const paid = await node.commit(transfer(bob, toBob, 0, alice, 1_250, { note: 'for the lamp', order: 'A-1017' }))
  const passed = await node.commit(transfer(alice, lamp, 0, bob, 1))
  const sold = await node.commit(transfer(bob, passed, 0, carol, 1))
  return { mint, alice, bob, carol, lamp, coin, toAlice, toBob, paid, passed, sold }
}

describe('pages', () => {
  let node
  let story
  before(async () => {
    node = await Node.start('console')
    story = await shop(node)
  })
  after(() => node?.stop())

  test('the live page shows blocks and transactions as they commit', async () => {
    const page = await Page.open(node)
    await page.see('transfer')
    const counted = async () => Number((await page.text('#count')).replace(/\D/g, ''))
    const had = await counted()
    const stone = await node.commit(create(story.alice, { kind: 'stone' }))
    await page.tab.waitForFunction((id) => document.querySelector('.list .row:nth-child(2) [title="' + id + '"]'), {}, stone.id)
    assert.equal(await counted(), had + 1)
    const newest = (await node.data('node')).height
    assert.equal(Number((await page.text('#height')).replace(/\D/g, '')), newest)
    assert.equal((await page.texts('.list.blocks .row:nth-child(2) [role=cell]'))[1].replace(/\D/g, ''), String(newest))
    await page.tab.waitForSelector('.plot .curve')
    await page.click('.title .button')
    const before = await page.texts('.list:not(.blocks) .row')
    const second = await node.commit(create(story.alice, { kind: 'stone', number: 2 }))
    await page.tab.waitForFunction((wanted) => document.querySelector('#count').innerText.replace(/\D/g, '') === String(wanted), {}, had + 2)
    assert.deepEqual(await page.texts('.list:not(.blocks) .row'), before, 'a paused list stays')
    await page.click('.title .button')
    await page.tab.waitForSelector(`[title="${second.id}"]`)
    await page.close()
  })

  test('a transaction tells who signed, what moved, where it came from and where it went', async () => {
    const page = await Page.open(node, `#/transactions/${story.passed.id}`)
    await page.see('Signed by', 'came from', 'went on in', 'Raw JSON')
    const flow = await page.links('.flow .trace a')
    assert.deepEqual(flow, [`#/transactions/${story.lamp.id}`, `#/transactions/${story.sold.id}`])
    const owners = await page.links('.flow .owners a')
    assert.deepEqual(owners, [`#/keys/${story.alice.text}`, `#/keys/${story.bob.text}`])
    const shown = await page.text('.source pre')
    assert.deepEqual(JSON.parse(shown), JSON.parse(story.passed.text))
    const { event } = await node.data(`transactions/${story.passed.id}`)
    await page.see(event.position)
    await page.click('.flow .side:last-child .trace a')
    await page.tab.waitForFunction((id) => document.querySelector('.subject')?.innerText.includes(id), {}, story.sold.id)
    await page.see('unspent')
    await page.go(`#/transactions/${story.paid.id}`)
    await page.see('1\u202f250', '298\u202f750', 'for the lamp', 'A-1017')
    await page.close()
  })

  test('an id is copied whole', async () => {
    const page = await Page.open(node, `#/transactions/${story.paid.id}`)
    await page.see('Signed by')
    await browser.defaultBrowserContext().overridePermissions(node.url, ['clipboard-read', 'clipboard-write', 'clipboard-sanitized-write'])
    await page.tab.bringToFront()
    await page.click('.subject .copy')
    await page.tab.waitForSelector('.subject .copy.copied')
    assert.equal(await page.tab.evaluate(() => navigator.clipboard.readText()), story.paid.id)
    await page.close()
  })

  test('a key shows what it holds and received', async () => {
    const page = await Page.open(node, `#/keys/${story.alice.text}`)
    page.expected = /status of (400|404)/
    await page.see('251\u202f250', 'Received')
    const holdings = await page.links('.holdings a')
    assert.ok(holdings.includes(`#/assets/${story.coin.id}`))
    assert.ok(!holdings.includes(`#/assets/${story.lamp.id}`), 'the lamp was passed on')
    await page.go(`#/keys/${new Key().text}`)
    await page.see('No output ever named this key.')
    await page.go('#/keys/nonsense')
    await page.see('This is no public key.')
    await page.close()
  })

  test('an asset shows its data, its amount and its history', async () => {
    const page = await Page.open(node, `#/assets/${story.lamp.id}`)
    await page.see('Reading lamp No. 7', 'History')
    const history = await page.links('.list [role=cell]:nth-child(3) a')
    assert.deepEqual(history, [story.sold, story.passed, story.lamp].map(({ id }) => `#/transactions/${id}`))
    await page.go(`#/assets/${story.coin.id}`)
    await page.see('1\u202f000\u202f000')
    await page.go(`#/assets/${story.paid.id}`)
    await page.see('No asset has this id.')
    await page.close()
  })

  test('a block leads to its neighbours and its entries', async () => {
    const page = await Page.open(node, '#/blocks/2')
    page.expected = /status of 404/
    await page.see('Block 2', 'Proposer')
    await page.click('.steps a[rel=prev]')
    await page.see('Block 1', 'the first')
    await page.click('.steps a[rel=next]')
    await page.see('Block 2')
    await page.go('#/blocks/999999999')
    await page.see('There is no such block yet.')
    await page.close()
  })

  test('search finds ids, keys, heights, positions and words, and says when there is nothing', async () => {
    const page = await Page.open(node)
    const leads = async (text, hash) => {
      await page.search(text)
      await page.tab.waitForFunction((hash) => location.hash === hash, {}, hash)
    }
    await leads(story.paid.id, `#/transactions/${story.paid.id}`)
    await leads(` ${story.paid.id.toUpperCase()} `, `#/transactions/${story.paid.id}`)
    await leads(story.bob.text, `#/keys/${story.bob.text}`)
    await leads('1', '#/blocks/1')
    const { event } = await node.data(`transactions/${story.paid.id}`)
    await leads(event.position, `#/transactions/${story.paid.id}`)
    await page.search('reading lamp')
    await page.see('Asset whose data says', 'Reading lamp No. 7')
    await page.search('A-1017')
    await page.see('Transaction whose metadata says')
    await page.search('nothingofthekind')
    await page.see('Nothing was found.')
    await page.search('f'.repeat(64))
    await page.see('for ' + 'f'.repeat(64), 'Nothing was found.')
    await page.close()
  })

  test('the node page shows health, disk, keys and meters', async () => {
    const page = await Page.open(node, '#/node')
    await page.see('healthy', 'Log on disk', 'daybook_height')
    const { validators, genesis } = await node.data('node')
    await page.see(validators[0].key)
    await page.tab.waitForSelector(`[title="${genesis}"]`)
    await page.tab.type('input[type=search][placeholder=Filter]', 'flush')
    await page.gone('daybook_height')
    await page.see('daybook_flush_seconds')
    await page.close()
  })

  test('an unknown page and an unknown id say so', async () => {
    const page = await Page.open(node, '#/nowhere')
    await page.see('The console has no such page.')
    page.expected = /status of 404/
    await page.go(`#/transactions/${'0'.repeat(64)}`)
    await page.see('The node knows no transaction with this id')
    await page.go('#/transactions/%E0%A4%A')
    await page.see('The node knows no transaction with this id')
    await page.close()
  })

  test('everything is reached by the keyboard', async () => {
    const page = await Page.open(node)
    await page.see('transfer')
    await page.tab.keyboard.press('Tab')
    assert.equal(await page.tab.evaluate(() => document.activeElement.innerText), 'Skip to the content')
    const seen = []
    for (let step = 0; step < 12; step += 1) {
      await page.tab.keyboard.press('Tab')
      seen.push(await page.tab.evaluate(() => document.activeElement.innerText || document.activeElement.id || document.activeElement.className))
    }
    for (const name of ['Live', 'Transactions', 'Blocks', 'Node', 'search', 'theme']) assert.ok(seen.includes(name), `${name} among ${seen}`)
    await page.tab.evaluate(() => document.activeElement.blur())
    await page.tab.keyboard.press('/')
    assert.equal(await page.tab.evaluate(() => document.activeElement.id), 'search')
    await page.tab.keyboard.type('2')
    await page.tab.keyboard.press('Enter')
    await page.see('Block 2')
    // The heading takes the focus once it is drawn.
    await page.tab.waitForFunction(() => document.activeElement.tagName === 'H1')
    await page.close()
  })

  test('colours follow the system until one chooses', async () => {
    const page = await Page.open(node)
    await page.see('transfer')
    const paper = () => page.tab.evaluate(() => getComputedStyle(document.body.parentElement).backgroundColor)
    await page.tab.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'light' }])
    const light = await paper()
    await page.tab.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'dark' }])
    const dark = await paper()
    assert.notEqual(light, dark)
    await page.click('.theme')
    assert.equal(await paper(), light)
    await page.tab.reload()
    await page.see('transfer')
    assert.equal(await paper(), light, 'the choice is kept')
    await page.click('.theme')
    assert.equal(await paper(), dark)
    await page.click('.theme')
    await page.close()
  })
})

describe('lists', () => {
  let node
  const key = new Key(Buffer.alloc(32, 9))
  before(async () => {
    node = await Node.start('console-lists')
    await node.batch(Array.from({ length: 70 }, (_, number) => create(key, { number })))
  })
  after(() => node?.stop())

  /** Ids of the rows. */
  const rows = (page) => page.links('.list [role=cell] a[href^="#/transactions/"]')

  test('pages of a list stay right while the ledger grows', async () => {
    const wanted = []
    for (let before; ;) {
      const { entries, next } = await node.data(`entries?limit=100${before ? `&before=${before}` : ''}`)
      wanted.push(...entries.map(({ id }) => `#/transactions/${id}`))
      before = next
      if (!next) break
    }
    assert.ok(wanted.length >= 70)
    const page = await Page.open(node, '#/transactions')
    const read = []
    for (let more = true; more;) {
      await page.tab.waitForSelector('.pager')
      read.push(...(await rows(page)))
      // What commits meanwhile is newer, and is on no page that is still to come.
      await node.commit(create(key, { meanwhile: read.length }))
      const first = (await rows(page))[0]
      more = Boolean(await page.tab.$('.pager a[rel=next]'))
      if (more) {
        await page.click('.pager a[rel=next]')
        await page.tab.waitForFunction((first) => {
          const row = document.querySelector('.list [role=cell] a[href^="#/transactions/"]')
          return row && row.getAttribute('href') !== first
        }, {}, first)
      }
    }
    assert.deepEqual(read, wanted)
    await page.close()
  })

  test('a list says what is newer and shows it when asked', async () => {
    const page = await Page.open(node, '#/transactions')
    await page.tab.waitForSelector('.pager')
    const before = await rows(page)
    const fresh = await node.commit(create(key, { fresh: true }))
    await page.see('1 newer: show')
    assert.deepEqual(await rows(page), before, 'nothing moves under the reader')
    await page.click('.news button')
    await page.tab.waitForSelector(`.list [title="${fresh.id}"]`)
    await page.gone('newer: show')
    await page.close()
  })

  test('a large block is shown in pieces, and the live list says what it leaves out', async () => {
    const page = await Page.open(node)
    await page.see('create')
    // How a batch falls into blocks is the node's to choose: batches follow until a block is among the rows that is too large for them.
    let height
    let size
    for (let batch = 0; !height; batch += 1) {
      assert.ok(batch < 50, 'no batch of 60 made a block that the list cuts')
      const sizes = new Map()
      for (const result of await node.batch(Array.from({ length: 60 }, (_, number) => create(key, { large: number, batch })))) {
        sizes.set(result.height, (sizes.get(result.height) ?? 0) + 1)
      }
      await page.tab.waitForFunction((newest) => document.querySelector('#height').innerText.replace(/\D/g, '') === String(newest), {}, Math.max(...sizes.keys()))
      const cut = (await page.texts('.list .gap a')).map((text) => text.match(/^(\d+) more in block (\d+)$/)).find((match) => match && sizes.has(Number(match[2])))
      if (!cut) continue
      height = Number(cut[2])
      size = sizes.get(height)
      assert.equal(Number(cut[1]), size - 10)
    }
    await page.go(`#/blocks/${height}`)
    await page.tab.waitForFunction((title) => document.querySelector('main h1')?.innerText === title && document.querySelector('.list .row'), {}, `Block ${height}`)
    const read = new Set()
    for (let more = true; more;) {
      await page.tab.waitForSelector('.list .row')
      for (const row of await rows(page)) read.add(row)
      const from = await page.tab.evaluate(() => location.hash)
      more = Boolean(await page.tab.$('.pager a[rel=next]'))
      if (more) {
        const first = (await rows(page))[0]
        await page.click('.pager a[rel=next]')
        await page.tab.waitForFunction((from, first) => location.hash !== from
          && document.querySelector('.list [role=cell] a[href^="#/transactions/"]')?.getAttribute('href') !== first, {}, from, first)
      }
    }
    assert.equal(read.size, size)
    await page.close()
  })
})

/** A peer of the wallet tracker with a key of its own. */
function peer(node) {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  return Peer.connect(WebSocket, `${node.url.replace('http', 'ws')}/tracker`, {
    pem: publicKey.export({ type: 'spki', format: 'pem' }),
    sign: (text) => sign(null, Buffer.from(text), privateKey).toString('base64'),
    verify: (pem, text, signature) => {
      const key = createPublicKey(pem)
      const algorithm = key.asymmetricKeyType === 'ed25519' ? null : 'sha256'
      return verify(algorithm, Buffer.from(text), key, Buffer.from(signature, 'base64'))
    },
  })
}

/** Two peers with a channel open between them. */
async function channel(node, channelId) {
  const [payer, payee] = await Promise.all([peer(node), peer(node)])
  const spend = await payer.ask(Command.openSpend)
  const income = await payee.ask(Command.openIncome)
  const terms = { channelId, fromAddress: spend.address, toAddress: income.address, price: 500, power: 25, planned: 8 }
  const signed = (volume) => cosigned(payer.key, payee.key, contract(payer.key, payee.key, terms, volume))
  await payee.submit(Command.openTransfer, await signed())
  const settle = async (volume) => payee.submit(Command.closeTransfer, await signed(volume))
  const leave = () => [payer, payee].forEach((each) => each.close())
  return { spend, income, settle, leave }
}

describe('channels', () => {
  let node
  before(async () => {
    node = await Node.start('console-channels')
  })
  after(() => node?.stop())

  test('a channel is followed from its opening to its settlement', async () => {
    const page = await Page.open(node, '#/channels')
    await page.see('Open channels', 'tracker deposit')
    const id = 'download/17 <b>&amp;</b> \u202exyz'
    const { spend, income, settle, leave } = await channel(node, id)
    await page.see('newer: show')
    await page.click('.news button')
    await page.see('tracker open transfer', 'tracker open spend')
    await page.go(`#/channels/${encodeURIComponent(id)}`)
    await page.see('Transfer channel', 'open', '4\u202f000', 'Locked until', '\\u202exyz')
    assert.deepEqual(await page.links('.facts a'), [spend, income].map(({ address }) => `#/channels/${encodeURIComponent(address)}`))
    await page.assertFits('a channel')
    await page.go(`#/channels/${encodeURIComponent(spend.address)}`)
    await page.see('Spend address', '10\u202f000', 'Free to promise', '6\u202f000')
    await settle(100_000_000)
    await page.see('8\u202f500')
    await page.go(`#/channels/${encodeURIComponent(id)}`)
    await page.see('not open', 'Settled', '1\u202f500', 'peers')
    await page.click('.list [role=cell]:nth-child(3) a')
    await page.see('Records', '1\u202f500', 'committed')
    await page.search(income.address)
    await page.see('Income address', '1\u202f500')
    await page.search(id)
    await page.see('Transfer channel')
    leave()
    await page.close()
  })
})

describe('a node that goes away', () => {
  let node
  before(async () => {
    node = await Node.start('console-restart')
  })
  after(() => node?.stop())

  test('the page says so, and goes on from where it was without a gap', async () => {
    const key = new Key(Buffer.alloc(32, 5))
    await node.commit(create(key, { number: 0 }))
    const page = await Page.open(node)
    page.expected = /ERR_CONNECTION_REFUSED|WebSocket connection|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|ERR_SOCKET_NOT_CONNECTED|ERR_CONNECTION_CLOSED/
    await page.see('create')
    const counted = async () => Number((await page.text('#count')).replace(/\D/g, ''))
    await page.tab.waitForSelector('.connection.live')
    const had = await counted()
    for (let round = 1; round <= 3; round += 1) {
      await node.kill()
      await page.see('The connection to the node was lost')
      await page.tab.waitForSelector('.connection.lost')
      // The page keeps what it showed.
      assert.equal(await counted(), had + (round - 1) * 5)
      if (round === 1) await page.picture('live-lost')
      await node.start()
      // Committed before the page is back.
      const missed = []
      for (let number = 0; number < 5; number += 1) missed.push(await node.commit(create(key, { round, number })))
      await page.tab.waitForSelector('.connection.live')
      await page.gone('The connection to the node was lost')
      await page.tab.waitForFunction((wanted) => document.querySelector('#count').innerText.replace(/\D/g, '') === String(wanted), {}, had + round * 5)
      const shown = await page.links('.list:not(.blocks) [role=cell]:nth-child(3) a')
      assert.deepEqual(shown.slice(0, 5), missed.reverse().map(({ id }) => `#/transactions/${id}`))
    }
    await page.close()
  })

  test('a page that could not be read is read when the node is back', async () => {
    const key = new Key(Buffer.alloc(32, 6))
    const made = await node.commit(create(key, { kind: 'late' }))
    const page = await Page.open(node)
    page.expected = /ERR_|WebSocket connection/
    await page.see('create')
    await node.kill()
    await page.tab.waitForSelector('.connection.lost')
    await page.go(`#/transactions/${made.id}`)
    await page.see('The node cannot be reached.')
    await node.start()
    await page.see('Signed by', 'unspent')
    await page.close()
  })
})

describe('security', () => {
  let node
  before(async () => {
    node = await Node.start('console-security')
  })
  after(() => node?.stop())

  test('every answer carries a strict policy', async () => {
    for (const path of ['/console', '/console/main.js', '/console/style.css', '/console/data/node', '/console/nothing', '/console/data/nothing']) {
      const { headers } = await fetch(node.url + path)
      const policy = headers.get('content-security-policy')
      assert.match(policy, /default-src 'none'/, path)
      assert.match(policy, /frame-ancestors 'none'/, path)
      assert.doesNotMatch(policy, /unsafe|\*|data:|blob:/, path)
      assert.equal(headers.get('x-content-type-options'), 'nosniff', path)
      assert.equal(headers.get('access-control-allow-origin'), null, path)
      assert.equal(headers.get('referrer-policy'), 'no-referrer', path)
    }
    const first = await fetch(`${node.url}/console/main.js`)
    const again = await fetch(`${node.url}/console/main.js`, { headers: { 'if-none-match': first.headers.get('etag') } })
    assert.equal(again.status, 304)
  })

  test('the policy holds in the browser', async () => {
    const page = await Page.open(node)
    page.expected = /Content Security Policy|Trusted|require-trusted-types/i
    await page.see('Newest block')
    const ran = await page.tab.evaluate(async () => {
      const violations = []
      document.addEventListener('securitypolicyviolation', (event) => violations.push(event.effectiveDirective))
      const script = document.createElement('script')
      try { script.textContent = 'window.ran = "inline"' } catch { violations.push('trusted types') }
      document.body.append(script)
      const styled = document.createElement('p')
      styled.setAttribute('style', 'color: red')
      document.body.append(styled)
      try { document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="window.ran = 1">') } catch { violations.push('trusted types') }
      // Behind a timer, because what the debugger calls itself may do this.
      await new Promise((done) => setTimeout(() => {
        try { (0, eval)('window.ran = "eval"') } catch { violations.push('eval') }
        done()
      }))
      await fetch('http://127.0.0.1:9/').catch(() => violations.push('fetch elsewhere'))
      return { ran: window.ran, violations, red: getComputedStyle(styled).color === 'rgb(255, 0, 0)' }
    })
    assert.equal(ran.ran, undefined)
    assert.equal(ran.red, false)
    for (const what of ['eval', 'fetch elsewhere', 'trusted types']) assert.ok(ran.violations.includes(what), `${what} in ${ran.violations}`)
    page.wrong = page.wrong.filter((line) => !line.includes('127.0.0.1:9/'))
    await page.close()
  })

  test('no page breaks the policy by itself', async () => {
    const story = await shop(node)
    const page = await Page.open(node)
    for (const place of places(story)) {
      await page.go(place)
      await page.tab.waitForFunction(() => !document.querySelector('main [aria-busy]') && document.querySelector('main h1'))
    }
    await page.close()
  })

  test('another page may neither follow nor read nor frame the console', async () => {
    const evil = createServer((_, reply) => reply.setHeader('content-type', 'text/html').end('<!doctype html><title>evil</title><body></body>'))
    await new Promise((ready) => evil.listen(0, '127.0.0.1', ready))
    const tab = await browser.newPage()
    try {
      await tab.goto(`http://127.0.0.1:${evil.address().port}/`)
      const result = await tab.evaluate(async (url) => {
        const socket = await new Promise((done) => {
          const socket = new WebSocket(`${url.replace('http', 'ws')}/console/live`)
          socket.onopen = () => done('open')
          socket.onerror = () => done('refused')
        })
        const read = await fetch(`${url}/console/data/node`).then((reply) => reply.text(), () => 'refused')
        const script = await new Promise((done) => {
          const script = document.createElement('script')
          script.src = `${url}/console/main.js`
          script.onload = () => done('loaded')
          script.onerror = () => done('refused')
          document.body.append(script)
        })
        const frame = document.createElement('iframe')
        frame.src = `${url}/console`
        document.body.append(frame)
        await new Promise((done) => { frame.onload = done })
        let framed
        try { framed = frame.contentDocument?.title ?? 'refused' } catch { framed = 'refused' }
        return { socket, read, script, framed }
      }, node.url)
      assert.deepEqual(result, { socket: 'refused', read: 'refused', script: 'refused', framed: 'refused' })
      assert.ok(!tab.frames().some((frame) => frame.url().startsWith(node.url)), 'the frame stays empty')
    } finally {
      await tab.close()
      evil.close()
    }
  })

  test('names that mean harm are shown as what they are', async () => {
    const page = await Page.open(node)
    await page.see('live')
    const key = new Key(Buffer.alloc(32, 8))
    const names = [
      '<script>window.harmed = 1</script><img src=x onerror="window.harmed=2">',
      '"><svg onload=window.harmed=3>\u0000\u0007',
      '\u202egnp.lapyap\u2066 \u200b\u200bzero\u2029width \ufeff',
      '${7*7}{{7*7}}%3Cscript%3E&lt;b&gt;',
      'ا'.repeat(50) + 'Z\u0310\u0308'.repeat(30),
    ]
    for (const name of names) {
      const made = await node.commit(create(key, { name, [`key ${name.replaceAll('.', ' ').replaceAll('$', ' ').replaceAll('\u0000', ' ')}`]: [name, { name }] }, { metadata: { name } }))
      for (const place of [`#/transactions/${made.id}`, `#/assets/${made.id}`]) {
        await page.go(place)
        await page.tab.waitForFunction((id) => document.querySelector('.subject')?.innerText.includes(id) && document.querySelector('.values'), {}, made.id)
        const state = await page.tab.evaluate(() => ({
          harmed: window.harmed,
          alien: document.querySelectorAll('main script, main img, main svg[onload], main b').length,
          text: document.querySelector('main').innerText,
        }))
        assert.equal(state.harmed, undefined)
        assert.equal(state.alien, 0)
        assert.doesNotMatch(state.text, /[\u202e\u2066\u200b\u2029\ufeff\u0007]/)
        await page.assertFits(place)
      }
      const [plain] = name.split(/[\u0000\u0007\u202e\u2066\u200b]/).filter(Boolean)
      assert.ok((await page.text('main')).includes(plain.slice(0, 20)), plain)
      if (name.includes('\u202e')) await page.see('\\u202egnp.lapyap\\u2066')
    }
    await page.go('#/search?q=' + encodeURIComponent(names[0]))
    await page.see('Search')
    await page.go('#/channels/' + encodeURIComponent(names[0]))
    await page.see('never heard of it')
    await page.search(names[2])
    assert.equal(await page.tab.evaluate(() => window.harmed), undefined)
    page.wrong = page.wrong.filter((line) => !line.includes('404'))
    await page.close()
  })

  test('a text of a megabyte is shown from its beginning and does not freeze the page', async () => {
    const key = new Key(Buffer.alloc(32, 8))
    const made = await node.commit(create(key, { name: 'x'.repeat(500_000), [`n${'y'.repeat(1000)}`]: 'long name' }, { metadata: { name: '\u202e'.repeat(150_000) } }))
    const page = await Page.open(node, `#/transactions/${made.id}`, PHONE)
    await page.see('Only the beginning is shown.', 'characters')
    await page.assertFits('a long text')
    assert.ok((await page.text('main')).length < 60_000)
    const began = Date.now()
    await page.tab.$$eval('.source .button', (buttons) => buttons.at(-1).click())
    await page.gone('Only the beginning is shown.')
    assert.ok(Date.now() - began < 20_000)
    await page.go('#/live')
    await page.see('create')
    await page.search('x'.repeat(400))
    await page.see('Search')
    await page.close()
  })
})

describe('writing', () => {
  const secret = 'correct-horse-battery-staple'
  let node
  before(async () => {
    const folder = process.env.CONFORMANCE_DATA ?? '/tmp'
    mkdirSync(folder, { recursive: true })
    const file = join(folder, `console-token-${process.pid}`)
    writeFileSync(file, `${secret}\n`, { mode: 0o600 })
    node = await Node.start('console-writing', ['--token-file', file])
  })
  after(() => node?.stop())

  test('a signed transaction is sent with the token and no other way', async () => {
    const key = new Key(Buffer.alloc(32, 3))
    const lamp = create(key, { kind: 'lamp' })
    const page = await Page.open(node, '#/submit')
    page.expected = /status of (400|401)/
    await page.see('Write token')
    const write = async (text) => {
      await page.tab.$eval('textarea', (area, text) => {
        area.value = text
        area.dispatchEvent(new Event('input', { bubbles: true }))
      }, text)
      await page.click('button[type=submit]')
    }
    await write('no json')
    await page.see('This is no JSON.')
    await write('{"inputs":[]}')
    await page.see('only signed transactions can be sent')
    await write(lamp.text)
    await page.see('this is not it')
    await page.tab.type('input[type=password]', secret)
    await write(lamp.text)
    await page.see('Committed:')
    await write(lamp.text)
    await page.see('DuplicateTransaction')
    const kept = await page.tab.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, location.href]))
    assert.ok(!kept.includes(secret), 'the token is kept nowhere')
    await page.tab.reload()
    await page.see('Write token')
    assert.equal(await page.tab.$eval('input[type=password]', (input) => input.value), '')
    await page.close()
  })
})

/** A place of each page. */
function places(story) {
  return [
    '#/live', '#/transactions', '#/transactions?kind=tracker', '#/blocks', '#/blocks/3', '#/channels', '#/submit', '#/node', '#/search', '#/search?q=lamp',
    ...(story.channel ? ['#/channels/download-17', '#/channels/download-16', `#/channels/${encodeURIComponent(story.channel.spend.address)}`] : []),
    `#/transactions/${story.passed.id}`, `#/transactions/${story.paid.id}`, `#/assets/${story.coin.id}`, `#/keys/${story.alice.text}`,
  ]
}

describe('narrow screens', () => {
  let node
  let story
  before(async () => {
    node = await Node.start('console-narrow')
    story = await shop(node)
    story.channel = await channel(node, 'download-17')
    await (await channel(node, 'download-16')).settle(60_000_000)
    story.channel.leave()
  })
  after(() => node?.stop())

  for (const [name, view] of [['a small phone', { ...PHONE, width: 320 }], ['a phone', PHONE], ['a tablet', { ...DESK, width: 768 }], ['a desk', DESK]]) {
    test(`every page fits ${name}`, async () => {
      const page = await Page.open(node, '#/live', view)
      for (const place of places(story)) {
        await page.go(place)
        await page.tab.waitForFunction(() => !document.querySelector('main [aria-busy]') && document.querySelector('main h1'))
        await page.assertFits(`${place} on ${name}`)
      }
      await page.close()
    })
  }

  test('pictures of each page', { skip: !PICTURES }, async () => {
    const { mint, alice, bob, carol } = story
    for (const [style, view, scheme] of [['light', DESK, 'light'], ['dark', DESK, 'dark'], ['phone', PHONE, 'light'], ['phone-dark', PHONE, 'dark']]) {
      const page = await Page.open(node, '#/live', view)
      await page.tab.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }])
      await page.see('Newest block')
      // Something to plot: payments of a coin, each out of the change of the one before.
      let last = await node.commit(create(mint, { kind: 'token', name: `Coin of ${style}` }, { amount: 1_000_000 }))
      for (let number = 0, index = 0; number < 60; number += 1) {
        const paid = Array.from({ length: 1 + ((number * 7) % 13) }, (_, each) => {
          last = transfer(mint, last, index, [alice, bob, carol][each % 3], 5 + ((number * 37 + each * 11) % 400))
          index = 1
          return last
        })
        if (number % 9 === 4) paid.push(create(alice, { kind: 'lamp', style, number }))
        await node.batch(paid)
        await new Promise((done) => setTimeout(done, 150))
      }
      await page.picture(`live-${style}`)
      for (const [name, place] of [
        ['transaction', `#/transactions/${story.paid.id}`], ['transactions', '#/transactions'], ['blocks', '#/blocks'], ['block', '#/blocks/3'],
        ['asset', `#/assets/${story.lamp.id}`], ['key', `#/keys/${story.alice.text}`], ['channels', '#/channels'], ['channel', '#/channels/download-17'], ['node', '#/node'],
        ['search', '#/search?q=lamp'], ['submit', '#/submit'],
      ]) {
        await page.go(place)
        await page.tab.waitForFunction(() => !document.querySelector('main [aria-busy]') && document.querySelector('main h1'))
        await page.picture(`${name}-${style}`)
      }
      await page.close()
    }
  })
})
