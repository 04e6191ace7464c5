// A page of the console in Chromium, driven by tests.

import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { after, before } from 'node:test'

import { launch, PATIENCE_MS } from './chromium.js'

export const PHONE = { width: 360, height: 740, deviceScaleFactor: 2, isMobile: true, hasTouch: true }
export const DESK = { width: 1280, height: 860, deviceScaleFactor: 1 }

/** Where pictures of the pages go, if anywhere. */
export const PICTURES = folder(process.env.CONSOLE_SCREENSHOTS)

/** A folder whose files stand in for those in the program, for people who work on the pages. */
const SOURCES = folder(process.env.CONSOLE_SOURCES)

const TYPES = { html: 'text/html; charset=utf-8', js: 'text/javascript; charset=utf-8', css: 'text/css; charset=utf-8', svg: 'image/svg+xml' }

/** A folder as it is named from the root of the sources. */
function folder(name) {
  return name && resolve(fileURLToPath(new URL('../../', import.meta.url)), name)
}

/** Answers for the console's files from the folder, under the node's own policy. */
async function takeFrom(sources, page, node) {
  const policy = (await fetch(`${node.url}/console`)).headers.get('content-security-policy')
  await page.tab.setRequestInterception(true)
  page.tab.on('request', (request) => {
    const path = new URL(request.url()).pathname.replace(/^\/console\/?/, '') || 'index.html'
    const file = join(sources, path)
    if (!request.url().startsWith(`${node.url}/console`) || !existsSync(file)) return request.continue()
    return request.respond({ status: 200, body: readFileSync(file), contentType: TYPES[path.split('.').at(-1)], headers: { 'content-security-policy': policy } })
  })
}

export let browser
before(async () => {
  // Files that come from no address count as a public site's, which may not reach this machine.
  browser = await launch(SOURCES ? ['--disable-features=LocalNetworkAccessChecks'] : [])
})
after(() => browser?.close())

/** A page that notes everything that went wrong in it. */
export class Page {
  /** Opens a place of the console; `allowed` are addresses beside the node's that it may ask. */
  static async open(node, place = '#/live', view = DESK, allowed = []) {
    const page = new Page()
    page.allowed = allowed
    page.node = node
    page.wrong = []
    page.tab = await browser.newPage()
    page.tab.setDefaultTimeout(PATIENCE_MS)
    await page.tab.setViewport(view)
    page.tab.on('pageerror', (error) => page.wrong.push(`error: ${error.message}`))
    page.tab.on('dialog', (dialog) => {
      page.wrong.push(`dialog: ${dialog.message()}`)
      dialog.dismiss()
    })
    page.tab.on('console', (message) => {
      if (message.type() === 'error' && !page.expected?.test(message.text())) page.wrong.push(`console: ${message.text()}`)
    })
    page.tab.on('request', (request) => {
      if (![node.url, ...page.allowed].some((url) => request.url().startsWith(url))) page.wrong.push(`a request to ${request.url()}`)
    })
    if (SOURCES) await takeFrom(SOURCES, page, node)
    await page.tab.goto(`${node.url}/console${place}`)
    return page
  }

  /** Goes to a place; its page is there when this is done, and nothing of the one before. */
  async go(place) {
    await this.tab.evaluate((place) => { location.hash = place }, place)
    await this.tab.waitForFunction(() => document.querySelector('#content')?.dataset.place === location.hash)
  }

  /** Waits until the words are on the page. */
  async see(...words) {
    for (const word of words) {
      try {
        await this.tab.waitForFunction((word) => document.body.innerText.includes(word), {}, word)
      } catch (error) {
        throw new Error(`"${word}" is not in:\n${await this.text()}`, { cause: error })
      }
    }
  }

  async gone(word) {
    await this.tab.waitForFunction((word) => !document.body.innerText.includes(word), {}, word)
  }

  text(selector = 'body') {
    return this.tab.$eval(selector, (element) => element.innerText)
  }

  texts(selector) {
    return this.tab.$$eval(selector, (all) => all.map((element) => element.innerText.trim()))
  }

  /** Addresses of links. */
  links(selector) {
    return this.tab.$$eval(selector, (all) => all.map((element) => element.getAttribute('href')))
  }

  async click(selector) {
    await this.tab.waitForSelector(selector)
    await this.tab.$eval(selector, (element) => element.click())
  }

  async search(text) {
    await this.tab.waitForSelector('#search')
    await this.tab.$eval('#search', (element) => { element.value = ''; element.dispatchEvent(new Event('input', { bubbles: true })) })
    await this.tab.focus('#search')
    await this.tab.evaluate((text) => document.execCommand('insertText', false, text), text)
    await this.tab.keyboard.press('Enter')
  }

  /** Nothing sticks out to the side. */
  async assertFits(what) {
    const [wide, room, culprits] = await this.tab.evaluate(() => {
      const room = document.documentElement.clientWidth
      const far = [...document.querySelectorAll('main *')].filter((element) => {
        if (element.closest('pre, .offscreen, .head')) return false
        return element.getBoundingClientRect().right > room + 1
      })
      return [document.documentElement.scrollWidth, room, far.slice(0, 5).map((element) => `${element.tagName}.${element.className} ${element.innerText?.slice(0, 60)}`)]
    })
    assert.ok(wide <= room, `${what}: ${wide} wide in ${room}: ${culprits.join(' | ')}`)
    assert.deepEqual(culprits, [], what)
  }

  async picture(name, options = {}) {
    if (!PICTURES) return
    mkdirSync(PICTURES, { recursive: true })
    // Pointers and carets are not part of the page.
    await this.tab.mouse.move(0, 0)
    await this.tab.screenshot({ path: join(PICTURES, `${name}.png`), ...options })
  }

  async close() {
    await this.tab.close()
    assert.deepEqual(this.wrong, [])
  }
}
