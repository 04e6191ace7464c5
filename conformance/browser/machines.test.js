// Machines in the console and on their own pages, in Chromium: real processes that are ordered at and paid.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, describe, test } from 'node:test'

import { Node } from './node.js'
import { browser, DESK, Page, PHONE, PICTURES } from './page.js'

/** A machine as a process. */
class Machine {
  static async start(node, name, settings) {
    const machine = new Machine()
    const env = { PATH: process.env.PATH, NAME: name, PORT: '0', LEDGER_URL: node.url, DATA_DIR: join(node.folder, name), CONFIRM_POLL_MS: '200', ...settings }
    machine.process = spawn(process.env.CONFORMANCE_BINARY, ['--json', 'machine'], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    machine.exited = once(machine.process, 'exit')
    machine.process.stderr.pipe(createWriteStream(join(node.folder, `${name}.log`)))
    const ended = machine.exited.then(([code]) => { throw new Error(`${name} ended with ${code}`) })
    ended.catch(() => {})
    const [line] = await Promise.race([once(createInterface({ input: machine.process.stdout }), 'line'), ended])
    machine.url = JSON.parse(line).http
    return machine
  }

  async stop() {
    this.process.kill('SIGTERM')
    await this.exited
  }

  /** What the page of somebody who only reads may ask. */
  async ask(path) {
    return (await fetch(this.url + path)).json()
  }
}

/** A node with a faucet, a provider, and a robot whose work waits until the file `go` is there. */
class Town {
  static async start(name) {
    const town = new Town()
    town.node = await Node.start(name, ['--dev', 'true'])
    const folder = town.node.folder
    // Work lasts until a test lets it end, so that no state is too short to be seen.
    town.gate = join(folder, 'go')
    const work = join(folder, 'work.sh')
    writeFileSync(work, `#!/bin/sh\ncat >/dev/null\nwhile [ ! -e ${town.gate} ]; do sleep 0.05; done\necho made\n`, { mode: 0o755 })
    town.wind = await Machine.start(town.node, 'EnergyWind', { IS_PROVIDER: 'true', VALUE: '5' })
    town.robot = await Machine.start(town.node, 'Robot1', { VALUE: '20', PRODUCTS: 'headphone:20,laptop:30', PROVIDER_URL: town.wind.url, WORK_CMD: work, LIMIT_PER_HOUR: '100' })
    // The node has heard of both.
    for (let known = []; known.length < 2;) known = (await (await fetch(`${town.node.url}/api/v1/machines`)).json()).machines
    return town
  }

  get allowed() {
    return [this.wind, this.robot].flatMap(({ url }) => [url, url.replace('http', 'ws')])
  }

  open(view = DESK) {
    return Page.open(this.node, '#/machines', view, this.allowed)
  }

  letWork() {
    writeFileSync(this.gate, '')
  }

  async stop() {
    await this.robot?.stop()
    await this.wind?.stop()
    await this.node.stop()
  }
}

/** The card of a machine. */
const card = (name) => `.machine[aria-label="${name}"]`

/** Makes a wallet and gets tokens; answers the wallet's key. */
async function fund(page) {
  await page.click('#make-wallet')
  await page.click('#get-tokens')
  await page.tab.waitForFunction(() => document.querySelector('#wallet-balance')?.innerText === '50')
  return page.tab.$eval('.panel .aside [title]', (element) => element.title)
}

async function buy(page, name) {
  await page.tab.waitForSelector(`${card(name)} .order:not(:disabled)`)
  await page.click(`${card(name)} .order`)
}

describe('machines', () => {
  let town
  before(async () => { town = await Town.start('machines') })
  after(() => town?.stop())

  test('a person orders a product, sees every state, and follows the money from robot to provider', async () => {
    const page = await town.open()
    const wallet = await fund(page)
    await buy(page, 'Robot1')
    const plate = (status) => page.tab.waitForFunction((card, status) => document.querySelector(`${card} .plate`)?.innerText === status, {}, card('Robot1'), status)
    await plate('working')
    await page.picture('machines-working')
    town.letWork()
    await plate('waiting for order')
    // Statuses that were too short to be seen are told all the same, the newest first.
    const told = (await page.texts(`${card('Robot1')} .told span`)).reverse()
    assert.deepEqual(told.filter((status, at) => status !== told[at - 1]), ['waiting for tx', 'waiting for tx confirm', 'payout provider', 'working', 'waiting for order'])
    await page.tab.waitForFunction((card) => document.querySelector(`${card} .holds strong`)?.innerText === '5', {}, card('EnergyWind'))
    await page.tab.waitForFunction((card) => document.querySelector(`${card} .holds strong`)?.innerText === '15', {}, card('Robot1'))
    await page.tab.waitForFunction(() => document.querySelector('#wallet-balance').innerText === '30')

    await page.tab.waitForSelector('.money[data-stage=done] .hop.paid ~ .hop.paid')
    const [order] = await town.robot.ask('/orders')
    assert.equal(order.payments[0].payer, wallet)
    assert.deepEqual(await page.links('.money .hop a'), [order.payments[0].transaction_id, order.provider_order.transaction_id].map((id) => `#/transactions/${id}`))
    await page.assertFits('machines')
    // From the payment of the provider back to the customer, over the ledger's own pages.
    await page.click('.money .hop ~ .hop a')
    await page.see('Signed by', 'order_id', order.uuid)
    await page.click('.flow .trace a')
    await page.tab.waitForFunction((id) => location.hash === `#/transactions/${id}` && document.querySelector('.flow'), {}, order.payments[0].transaction_id)
    assert.ok((await page.links('.flow .owners a')).includes(`#/keys/${wallet}`))
    await page.close()
  })

  test('the wallet is there again after the page is loaded anew, and its key cannot be read', async () => {
    const page = await town.open()
    const key = await page.tab.waitForSelector('.panel .aside [title]').then((element) => element.evaluate((element) => element.title))
    const extractable = await page.tab.evaluate(() => new Promise((done) => {
      const opening = indexedDB.open('daybook-wallet', 1)
      opening.onsuccess = () => {
        const asked = opening.result.transaction('keys').objectStore('keys').get('own')
        asked.onsuccess = () => done(asked.result.privateKey.extractable)
      }
    }))
    assert.equal(extractable, false)
    await page.tab.reload()
    await page.tab.waitForFunction((key) => document.querySelector('.panel .aside [title]')?.title === key, {}, key)
    await page.close()
  })

  test('a machine that ends is shown as gone, and takes up its order when it is back', async () => {
    const page = await town.open()
    await page.tab.waitForFunction((card) => document.querySelector(`${card} .plate`)?.innerText === 'waiting for order', {}, card('Robot1'))
    // The wind is still: its door is shut, and nobody else stands there.
    await town.wind.stop()
    page.expected = /ERR_CONNECTION_REFUSED|WebSocket connection/
    await page.tab.waitForFunction((card) => document.querySelector(`${card} .plate`)?.innerText === 'not connected', {}, card('EnergyWind'))
    const port = new URL(town.wind.url).port
    town.wind = await Machine.start(town.node, 'EnergyWind', { IS_PROVIDER: 'true', VALUE: '5', PORT: port })
    await page.tab.waitForFunction((card) => document.querySelector(`${card} .plate`)?.innerText === 'waiting for order', {}, card('EnergyWind'))
    await page.close()
  })

  test('the node is killed and started again under the open page, and an order goes on', async () => {
    const page = await town.open()
    page.expected = /ERR_CONNECTION_REFUSED|WebSocket connection|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|status of 503/
    await page.tab.waitForFunction(() => document.querySelector('#wallet-balance')?.innerText === '30')
    await town.node.kill()
    await page.see('The connection to the node was lost')
    await town.node.start()
    await page.gone('The connection to the node was lost')
    // The machines have said again that they are there.
    for (let known = []; known.length < 2;) known = (await (await fetch(`${town.node.url}/api/v1/machines`)).json()).machines
    await buy(page, 'Robot1')
    await page.tab.waitForFunction(() => document.querySelectorAll('.money[data-stage=done]').length === 2)
    await page.tab.waitForFunction(() => document.querySelector('#wallet-balance').innerText === '10')
    await page.close()
  })

  test('without enough money nothing is paid, and the reason is told', async () => {
    const page = await town.open()
    await page.tab.waitForSelector(`${card('Robot1')} select`)
    await page.tab.select(`${card('Robot1')} select`, 'laptop')
    await buy(page, 'Robot1')
    await page.see('The wallet holds 10 of this token, and 30 are wanted.')
    await page.close()
  })

  test('the page may talk to the machines that it knew, and to nobody else', async () => {
    const page = await town.open()
    await page.see('EnergyWind')
    const policy = (await fetch(`${town.node.url}/console`)).headers.get('content-security-policy')
    for (const url of town.allowed) assert.ok(policy.includes(` ${url}`), `${url} in ${policy}`)
    page.expected = /violates|Refused to connect|Content Security Policy/
    const refused = await page.tab.evaluate((url) => fetch(url).then(() => 'asked', () => 'refused'), 'http://127.0.0.1:1/')
    assert.equal(refused, 'refused')
    await page.close()
  })

  test('a page of a stranger cannot announce a machine', async () => {
    const machine = JSON.stringify({ name: 'Cheap', role: 'robot', url: 'http://127.0.0.1:1' })
    for (const headers of [{ origin: 'http://evil.example' }, { 'sec-fetch-site': 'cross-site' }]) {
      const reply = await fetch(`${town.node.url}/api/v1/machines`, { method: 'POST', body: machine, headers })
      assert.equal(reply.status, 403)
    }
    const known = (await (await fetch(`${town.node.url}/api/v1/machines`)).json()).machines
    assert.ok(known.every(({ name }) => name !== 'Cheap'))
  })

  test('names that mean harm are shown as what they are', async () => {
    const page = await town.open()
    await page.see('EnergyWind')
    const name = '<img src=x onerror=alert(1)>\u202e'
    const reply = await fetch(`${town.node.url}/api/v1/machines`, { method: 'POST', body: JSON.stringify({ name, role: name, url: town.wind.url }) })
    assert.equal(reply.status, 200)
    await page.tab.reload()
    await page.see('<img src=x onerror=alert(1)>\\u202e')
    await page.close()
  })
})

describe('a machine’s own page', () => {
  let town
  before(async () => {
    town = await Town.start('machine-page')
    town.letWork()
  })
  after(() => town?.stop())

  for (const [name, view] of [['desk', DESK], ['phone', PHONE]]) {
    test(`it shows balance, status, activities and orders, and fits a ${name}`, async () => {
      const tab = await browser.newPage()
      const wrong = []
      tab.on('pageerror', (error) => wrong.push(error.message))
      tab.on('console', (message) => message.type() === 'error' && wrong.push(message.text()))
      await tab.setViewport(view)
      await tab.goto(town.robot.url)
      await tab.waitForFunction(() => document.querySelector('#status').innerText !== 'not connected')
      const reply = await fetch(`${town.robot.url}/orders?format=json`, { method: 'POST', body: '{"product":"laptop"}' })
      const order = await reply.json()
      await tab.waitForFunction((id) => document.querySelector('#orders .id')?.title === id, {}, order.uuid)
      await tab.waitForFunction(() => document.querySelector('#activities').innerText.includes('waiting for tx'))
      const [wide, room] = await tab.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth])
      assert.ok(wide <= room, `${wide} wide in ${room}`)
      if (PICTURES) {
        for (const scheme of ['light', 'dark']) {
          await tab.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }])
          await tab.screenshot({ path: join(PICTURES, `machine-${name}-${scheme}.png`) })
        }
      }
      await tab.close()
      assert.deepEqual(wrong, [])
    })
  }
})

/** The demo's town: a node with services, organisations that share a ledger, machines and a shop. */
class Demo {
  static async start() {
    const demo = new Demo()
    const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith('DAYBOOK_')))
    demo.process = spawn(process.env.CONFORMANCE_BINARY, ['--json', 'demo', '--free-ports'], { stdio: ['ignore', 'pipe', 'inherit'], env })
    demo.exited = once(demo.process, 'exit')
    let steps = 0
    for await (const line of createInterface({ input: demo.process.stdout })) {
      const said = JSON.parse(line)
      if (said.event === 'town') Object.assign(demo, { url: said.http, machines: said.machines })
      if (said.step === 'committed') steps += 1
      // The container's ledger has its second entry.
      if (steps === 2) return demo
    }
    throw new Error('the demo ended')
  }

  async stop() {
    this.process.kill('SIGINT')
    const [code] = await this.exited
    assert.equal(code, 0)
  }
}

const ready = (page) => page.tab.waitForFunction(() => !document.querySelector('main [aria-busy]') && document.querySelector('main h1'))

describe('bus and ledgers', () => {
  let demo
  before(async () => { demo = await Demo.start() })
  after(() => demo?.stop())

  test('the bus page shows who is online and what each answers to', async () => {
    const page = await Page.open(demo, '#/bus')
    await page.see('Services online', 'Calls per second', 'Dead letters', 'energy-market', 'energy.quote')
    assert.ok(Number(await page.text('#online')) >= 1)
    await page.close()
  })

  test('a container shows its entries, who agreed to each, and the place in the log', async () => {
    const page = await Page.open(demo, '#/ledgers')
    await page.see('CONT-1', 'Acme Shipping', 'Borealis Rail', 'Harbour Customs', 'settled')
    await page.click('.list.ledgers a')
    await page.see('Opened by', 'all 3 must agree', 'Agreed')
    await page.tab.waitForFunction(() => document.querySelectorAll('.record .many').length === 2)
    const agreed = await page.texts('.record .many')
    // The newest entry stands first; whoever proposed one has agreed by that.
    assert.ok(agreed[0].includes('Harbour Customs') && agreed[1].includes('Harbour Customs'), String(agreed))
    await page.click('.record .link')
    await page.see('waybill')
    await page.click('.record .id a')
    await page.see('consortium endorse', 'committed', 'CONT-1')
    await page.search('CONT-1')
    await page.see('Opened by', 'all 3 must agree')
    await page.close()
  })

  for (const [name, view] of [['a phone', PHONE], ['a desk', DESK]]) {
    test(`both fit ${name}`, async () => {
      const page = await Page.open(demo, '#/live', view)
      for (const place of ['#/bus', '#/ledgers', '#/ledgers/CONT-1', '#/transactions?kind=consortium']) {
        await page.go(place)
        await ready(page)
        await page.assertFits(`${place} on ${name}`)
      }
      await page.close()
    })
  }

  test('pictures', { skip: !PICTURES }, async () => {
    const allowed = demo.machines.flatMap(({ url }) => [url, url.replace('http', 'ws')])
    for (const [style, view, scheme] of [['light', DESK, 'light'], ['dark', DESK, 'dark'], ['phone', PHONE, 'light'], ['phone-dark', PHONE, 'dark']]) {
      const page = await Page.open(demo, '#/live', view, allowed)
      await page.tab.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }])
      for (const [name, place] of [['bus', '#/bus'], ['ledgers', '#/ledgers'], ['ledger', '#/ledgers/CONT-1']]) {
        await page.go(place)
        await ready(page)
        await page.picture(`${name}-${style}`)
      }
      await page.go('#/machines')
      await ready(page)
      if (style === 'light') {
        await fund(page)
        for (const robot of ['Robot1', 'Robot2']) {
          await buy(page, robot)
          await page.tab.waitForSelector(`${card(robot)} .done`)
        }
        await page.tab.waitForFunction(() => document.querySelectorAll('.money[data-stage=done] .hop.paid ~ .hop.paid').length === 2)
      }
      await page.tab.waitForFunction(() => document.querySelectorAll('.money').length === 2)
      await page.assertFits(`machines, ${style}`)
      await page.picture(`machines-${style}`, { fullPage: view === DESK })
      await page.close()
    }
  })
})

/** Runs the binary to its end: how it ended, and what it said. */
async function command(args, input = '') {
  const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith('DAYBOOK_')))
  const child = spawn(process.env.CONFORMANCE_BINARY, ['--json', ...args], { env })
  const said = { out: '', err: '' }
  child.stdout.on('data', (text) => { said.out += text })
  child.stderr.on('data', (text) => { said.err += text })
  child.stdin.end(input)
  const [code] = await once(child, 'close')
  return { code, ...said }
}

/** An organisation's identity in a folder: its DID, its key and its card. */
async function organisation(folder, label) {
  const made = await command(['member', 'init', '--data-dir', folder, '--label', label])
  assert.equal(made.code, 0, made.err)
  const [did] = readdirSync(join(folder, 'members'))
  const own = join(folder, 'members', did)
  return { did, own, key: join(own, 'member.key'), card: join(own, 'card.json') }
}

describe('a person of a member', () => {
  const password = 'a long password'
  let node, acme, harbour
  before(async () => {
    node = await Node.start('console-desk', [], async (folder) => {
      harbour = await organisation(join(folder, 'data'), 'Harbour Customs')
      acme = await organisation(join(folder, 'acme'), 'Acme Shipping')
      // Its sound proposals are left to people.
      writeFileSync(join(harbour.own, 'member.json'), JSON.stringify({ ask: true }))
      const added = await command(['user', 'add', '--data-dir', join(folder, 'data'), '--admin', 'clerk', '--password-file', '-'], password)
      assert.equal(added.code, 0, added.err)
      return ['--consortium-members', [acme.card, harbour.card].join(','), '--consortium-documents', 'any']
    })
  })
  after(() => node?.stop())

  const propose = (verb, name, entry, more = []) => command(['ledger', verb, name, '--key', acme.key, ...more, '--entry', JSON.stringify(entry), '--deadline-seconds', '300', '--url', node.url])

  const enter = async (page) => {
    await page.click('#desk')
    await page.tab.type('input[name=name]', 'clerk')
    await page.tab.type('input[name=password]', password)
    await page.click('.submit button')
  }

  test('agrees to a proposal, and with that it is committed', async () => {
    const page = await Page.open(node, '#/ledgers')
    await enter(page)
    await page.see('Nothing waits.')
    const created = propose('create', 'CONT-9', { no: 'WB-118' }, ['--participant', harbour.did])
    await page.see('Acme Shipping', 'CONT-9', 'WB-118', 'Left to a person')
    await page.assertFits('a proposal')
    await page.picture('desk-light')
    await page.click('.question .agree')
    const ended = await created
    assert.equal(ended.code, 0, ended.err)
    await page.see('is endorsed.', 'Nothing waits.')
    await page.go('#/ledgers/CONT-9')
    await page.see('Acme Shipping', 'Harbour Customs', 'all 2 must agree')
    await page.close()
  })

  test('refuses a proposal, and its proposer reads why', async () => {
    const page = await Page.open(node, '#/ledgers')
    await enter(page)
    const appended = propose('append', 'CONT-9', { no: 'WB-119' })
    await page.see('WB-119')
    await page.tab.type('.question input', 'the seal is broken')
    await page.click('.question .refuse')
    const ended = await appended
    assert.equal(ended.code, 1)
    assert.ok((ended.out + ended.err).includes('the seal is broken'), ended.out + ended.err)
    await page.see('is refused.')
    await page.close()
  })

  test('logs in with the right password only, and the page keeps it nowhere', async () => {
    const page = await Page.open(node, '#/ledgers')
    page.expected = /status of 401/
    await page.click('#desk')
    await page.tab.type('input[name=name]', 'clerk')
    await page.tab.type('input[name=password]', 'another password')
    await page.click('.submit button')
    await page.tab.waitForSelector('.problem')
    await page.tab.$$eval('.submit input', (inputs) => inputs.forEach((input) => { input.value = '' }))
    await page.tab.type('input[name=name]', 'clerk')
    await page.tab.type('input[name=password]', password)
    await page.click('.submit button')
    await page.see('Nothing waits.')
    const kept = await page.tab.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, location.href]))
    assert.ok(!kept.includes(password))
    await page.close()
  })
})
